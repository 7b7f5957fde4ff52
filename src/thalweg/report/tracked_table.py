"""Tracked runs as a table, and one of them in full, for a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from thalweg.report.wording import duration, hyperparameters_text, plain, score
from thalweg.track.positions import to_step
from thalweg.track.records import RunDetails, RunRow, StudyRecord

_MOST_METRICS = 2


def tracked_table(project: StudyRecord, rows: Sequence[RunRow]) -> RenderableType:
    """All runs of a project in order of creation, with the last values of the metrics that most of them have."""
    if not rows:
        return Text(f"{plain(project.name)}: no runs yet")
    counts: dict[str, int] = {}
    for row in rows:
        for name in row.latest:
            counts[name] = counts.get(name, 0) + 1
    # Losses and scores before the rest; then what more runs have.
    chosen = sorted(counts, key=lambda name: ("loss" not in name and "acc" not in name, -counts[name], name))
    metrics = chosen[:_MOST_METRICS]
    table = Table(title=Text(plain(project.name)), title_justify="left", box=None, pad_edge=False)
    for heading in ("run", "name", "status", project.unit, *metrics, "hyperparameters", "from"):
        right = heading == project.unit or heading in metrics
        whole = heading in ("run", "status", project.unit)
        # A number that is cut short says something else.
        values = [
            score(heading, row.latest[heading][1]) for row in rows if heading in metrics and heading in row.latest
        ]
        table.add_column(
            Text(plain(heading)),
            justify="right" if right else "left",
            no_wrap=whole,
            min_width=max(map(len, values), default=None),
            overflow="fold",
        )
    # What all runs have in common tells none from another.
    varied = {name for row in rows for name, value in row.hyperparameters.items() if _differs(rows, name, value)}
    for row in rows:
        cells = [row.id, row.name or "", row.status, _step(row.position, project)]
        cells += [score(name, row.latest[name][1]) if name in row.latest else "" for name in metrics]
        shown = {name: value for name, value in row.hyperparameters.items() if name in varied or len(rows) == 1}
        cells += [hyperparameters_text(shown), _origin(row, project)]
        table.add_row(*(Text(plain(cell)) for cell in cells))
    return table


def tracked_details(project: StudyRecord, found: RunDetails, metrics: Sequence[str]) -> RenderableType:
    """All about one tracked run."""
    row = found.row
    table = Table(title=Text(plain(row.id)), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    began = row.created if row.started is None else row.started
    code = found.facts.get("code") or {}
    lines = [
        ("name", row.name or ""),
        ("uid", row.uid),
        ("status", row.status),
        ("hyperparameters", hyperparameters_text(row.hyperparameters)),
        (project.unit, _step(row.position, project)),
        ("time", "" if row.ended is None else duration(row.ended - began)),
        ("from", _origin(row, project)),
        ("lineage", " > ".join(found.lineage)),
        ("forks of it", ", ".join(found.children) or "none"),
        ("tags", ", ".join(row.tags)),
        ("code", str(code.get("commit", "")) + (" and changes" if code.get("diff") else "")),
        *((f"last {name}", _last(row, name, project)) for name in metrics if name in row.latest),
        *(("note", f"{note.text} ({note.author})" if note.author else note.text) for note in found.notes),
        *(("file", f"{file.name} at {_step(file.position, project)}: {file.path}") for file in found.files),
    ]
    for label, text in lines:
        if text:
            table.add_row(Text(plain(label)), Text(plain(text)))
    return Group(table, Text(plain(row.error))) if row.error else table


def tracked_dict(project: StudyRecord, row: RunRow) -> dict[str, Any]:
    """A run for `--json`: steps instead of positions."""
    entry: Mapping[str, Any] = dataclasses.asdict(row)
    steps = {
        "step": to_step(row.position, project.decimals),
        "fork_step": to_step(row.fork_position, project.decimals),
        "latest": {name: [to_step(at, project.decimals), value] for name, (at, value) in row.latest.items()},
    }
    return {k: v for k, v in entry.items() if k not in ("position", "fork_position", "horizon")} | steps


def _differs(rows: Sequence[RunRow], name: str, value: object) -> bool:
    return any(row.hyperparameters.get(name) != value for row in rows)


def _step(position: int, project: StudyRecord) -> str:
    return f"{to_step(position, project.decimals):,}"


def _last(row: RunRow, name: str, project: StudyRecord) -> str:
    position, value = row.latest[name]
    return f"{score(name, value)} at {_step(position, project)}"


def _origin(row: RunRow, project: StudyRecord) -> str:
    if row.waiting_parent is not None:
        return f"{row.waiting_parent} at {_step(row.fork_position, project)} (not here yet)"
    return f"{row.parent} at {_step(row.fork_position, project)}" if row.parent else ""
