"""Runs as the page sees them: a line of the table, and one in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from thalweg.errors import StoreError
from thalweg.report.web.answers import is_unknown
from thalweg.report.web.project_data import cost_data, metric_of
from thalweg.report.web.snippet import fork_snippet
from thalweg.report.web.steps import step_of
from thalweg.report.web.summaries import score_of

if TYPE_CHECKING:
    from thalweg.report.web.summaries import Summaries
    from thalweg.track.records import RunDetails, RunRow, SavedFile
    from thalweg.track.store import Store
    from thalweg.tree import Metric

_FEW = 20
"""Up to so many runs are read one by one; beyond it, reading all of a project's at once is faster."""


def run_entries(
    store: Store, name: str, summaries: Summaries, wanted: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The lines of a project's table, by order of creation: one by one, so that thousands are not held at once.

    Args:
        wanted: the ids of those that are asked for, of which those are left out that are not there; None is all.
    Raises:
        StoreError: there is no such project.
    """
    record = store.study(name)
    metric = metric_of(record.config)
    rows = summaries.rows(name) if wanted is None else _rows(store, name, wanted)
    seconds = summaries.spending(name).device_seconds
    return (_entry(row, record.scale, metric, seconds) for row in rows)


def run_data(store: Store, run_id: str, summaries: Summaries) -> dict[str, Any]:
    """All about one run.

    Raises:
        StoreError: there is no such run.
    """
    details = store.run_details(run_id)
    record = store.study(details.study)
    scale = record.scale
    spending = summaries.spending(details.study)
    spent = spending.ledger.spent.get(run_id, {})
    checkpoints = store.checkpoints(run_id)
    lineage = lineage_of(store, run_id)
    return {
        **_entry(details.row, scale, metric_of(record.config), spending.device_seconds),
        "uid": details.row.uid,
        "project": details.study,
        "facts": dict(details.facts),
        "notes": [{"text": note.text, "author": note.author, "created": note.created} for note in details.notes],
        "lineage": [{"run": run, "from_step": step_of(position, scale)} for run, position in lineage],
        "children": _children(store, details.study, details.children, scale),
        "metrics": store.metrics(run_id),
        "files": [file_entry(run_id, file, scale) for file in details.files],
        "checkpoints": [
            {"step": step_of(point.position, scale), "num_bytes": point.num_bytes, "created": point.created}
            for point in checkpoints
        ],
        "cost": {kind: cost_data(cost) for kind, cost in spent.items()},
        "error": details.row.error,
        "snippet": fork_snippet(record, details.row, store.location, [point.position for point in checkpoints]),
    }


def lineage_of(store: Store, run_id: str) -> list[tuple[str, int]]:
    """A run's ancestors, the root first, and itself: each with the position at which it begins."""
    # A range without points: all that is read is the lineage, in one query however long it is.
    nothing = store.series(run_id, "", first=0, last=0)
    return list(zip(nothing.runs, nothing.fork_positions, strict=True))


def file_entry(run_id: str, file: SavedFile, scale: int) -> dict[str, Any]:
    """A saved file; its address where its content is kept beside the store."""
    is_here = file.copied and file.path.is_file()
    address = f"/api/runs/{quote(file.run, safe='')}/files/{quote(file.name)}?position={file.position}"
    return {
        "name": file.name,
        "step": step_of(file.position, scale),
        "num_bytes": file.num_bytes,
        "digest": file.digest,
        "created": file.created,
        "run": file.run,
        "inherited": file.run != run_id,
        "url": address if is_here else None,
    }


def _rows(store: Store, name: str, wanted: Sequence[str]) -> list[RunRow]:
    if len(wanted) > _FEW:
        chosen = set(wanted)
        return [row for row in store.run_rows(name) if row.id in chosen]
    return [found.row for run_id in wanted if (found := _details(store, run_id)) is not None and found.study == name]


def _details(store: Store, run_id: str) -> RunDetails | None:
    """A run; None where it is gone: another may have deleted it since the page was loaded."""
    try:
        return store.run_details(run_id)
    except StoreError as error:
        if is_unknown(error):
            return None
        raise


def _children(store: Store, study: str, ids: Sequence[str], scale: int) -> list[dict[str, Any]]:
    return [
        {"id": row.id, "fork_step": step_of(row.fork_position, scale), "name": row.name, "status": row.status}
        for row in _rows(store, study, ids)
    ]


def _entry(row: RunRow, scale: int, metric: Metric | None, seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "id": row.id,
        "number": row.number,
        "name": row.name,
        "status": row.status,
        "parent": row.parent,
        "waiting_parent": row.waiting_parent,
        "fork_step": step_of(row.fork_position, scale),
        "step": step_of(row.position, scale),
        "horizon": step_of(row.horizon, scale),
        "origin": row.origin,
        "tags": row.tags,
        "hyperparameters": row.hyperparameters,
        "latest": _latest(row.latest, scale),
        "score": score_of(row, metric),
        "cost_seconds": seconds.get(row.id),
        "created": row.created,
        "started": row.started,
        "ended": row.ended,
        "updated": row.updated,
        "num_notes": row.num_notes,
    }


def _latest(latest: Mapping[str, tuple[int, float]], scale: int) -> dict[str, tuple[int | float, float]]:
    # Without a call per metric: a table of 10,000 runs has many.
    return {name: (at / scale if at % scale else at // scale, value) for name, (at, value) in latest.items()}
