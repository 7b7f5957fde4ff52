"""Writing what a reader yields into a store, such that the same again changes nothing."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import ConfigError
from thalweg.track.calls import SYSTEM
from thalweg.track.positions import nearest_position, to_position
from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.track.transfer.incoming import (
    IncomingRun,
    IncomingSeries,
    IncomingText,
    Ints,
    Outline,
    Record,
    Skipped,
)
from thalweg.tree import ENDED

_MAX = np.iinfo(np.int64).max


@dataclass
class ProjectSummary:
    """What an import did to a project's runs: their ids."""

    new: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """What an import did."""

    projects: dict[str, ProjectSummary] = field(default_factory=dict)
    num_points: int = 0
    """Points that are new in the store."""
    num_replaced: int = 0
    """Points of the source that a later one of the same metric and step replaces."""
    num_files: int = 0
    """Files that are new in the store."""
    waiting: list[str] = field(default_factory=list)
    """Runs whose parent is not in the store."""
    skipped: list[Skipped] = field(default_factory=list)


def valid_project(name: str) -> str:
    """A project's name in the store: what may not be in one becomes `-`.

    >>> valid_project("org/näme: v1.0"), valid_project("???")
    ('org-näme- v1.0', 'imported')
    """
    return re.sub(r"^\W+", "", re.sub(r"[^\w .-]+", "-", name)).strip(" -") or "imported"


def bring_in(
    store: Store,
    records: Iterable[Record],
    *,
    project: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Write what a reader yields into a store. The same again changes nothing; what has grown is added.

    Args:
        project: the project that all runs go into; by default each goes into that of its source's name.
        progress: told of the runs that are done and of how many there are.
    Raises:
        ConfigError: `project` is the name of a study.
        StoreError: the store cannot be written.
    """
    summary = Summary()
    incoming = _Incoming(store, project, summary)
    num_runs = done = 0
    for record in records:
        if isinstance(record, Outline):
            num_runs = record.num_runs
        elif isinstance(record, Skipped):
            summary.skipped.append(record)
        elif isinstance(record, IncomingSeries):
            incoming.add_series(record)
        elif isinstance(record, IncomingText):
            incoming.add_text(record)
        else:
            if incoming.close_run():
                done += 1
            if progress is not None:
                progress(done, max(num_runs, done))
            incoming.open_run(record)
    done += incoming.close_run()
    if progress is not None:
        progress(done, max(num_runs, done))
    for name in summary.projects:
        summary.waiting += [row.id for row in store.run_rows(name) if row.waiting_parent is not None]
    return summary


class _Incoming:
    """The run that is being written."""

    def __init__(self, store: Store, project: str | None, summary: Summary) -> None:
        self._store = store
        self._project = project
        self._summary = summary
        self._decimals: dict[str, int] = {}  # project -> its decimals
        self._name = ""
        """The project of the run."""
        self._run: IncomingRun | None = None
        self._id: str | None = None
        """None where the run could not be entered: its series are passed over, and the reason is said."""
        self._created = self._changed = False

    def open_run(self, run: IncomingRun) -> None:
        self._run, self._id, self._changed = run, None, False
        self._name = self._enter_project(run)
        decimals = self._decimals[self._name]
        try:
            self._id, self._created = self._store.track_run(self._name, _new_run(run, decimals))
            if not self._created:
                self._changed |= _bring_up_to_date(self._store, self._id, run)
            self._changed |= _add_notes(self._store, self._id, run)
            num_files = _add_files(self._store, self._id, run, decimals)
        except (ConfigError, UnicodeError) as error:
            self._id = None
            self._summary.skipped.append(Skipped(place=f"run {run.name or run.uid} ({run.uid})", reason=str(error)))
            return
        self._summary.num_files += num_files
        self._changed |= num_files > 0

    def add_series(self, series: IncomingSeries) -> None:
        if self._id is None or self._run is None:
            return
        decimals = self._decimals[self._name]
        place = f"run {self._run.name or self._run.uid}, metric {series.metric!r}"
        try:
            positions, kept = _positions(series, self._run, decimals)
            positions, times, values = positions[kept], series.times_ms[kept], series.values[kept]
            last = _last_of_each(positions)
            added = self._store.import_points(self._id, series.metric, positions[last], times[last], values[last])
        except (ConfigError, UnicodeError) as error:
            self._summary.skipped.append(Skipped(place=place, reason=str(error)))
            return
        if not kept.all():
            reason = f"{int((~kept).sum()):,} points whose steps do not fit a project with {decimals} decimals"
            self._summary.skipped.append(Skipped(place=place, reason=reason))
        self._summary.num_replaced += len(positions) - len(last)
        self._summary.num_points += added
        self._changed |= added > 0

    def add_text(self, text: IncomingText) -> None:
        if self._id is None:
            return
        num = _add_text(self._store, self._id, text, self._decimals[self._name])
        self._summary.num_files += num
        self._changed |= num > 0

    def close_run(self) -> int:
        """Enter the run into the summary. Returns how many runs that is: 1, or 0 where there is none."""
        run, self._run = self._run, None
        if run is None:
            return 0
        if self._id is not None:
            found = self._summary.projects[self._name]
            outcome = found.new if self._created else found.updated if self._changed else found.unchanged
            outcome.append(self._id)
        return 1

    def _enter_project(self, run: IncomingRun) -> str:
        name = self._project if self._project is not None else valid_project(run.project)
        if name not in self._decimals:
            record = self._store.create_project(name)
            if record.kind != "project":
                raise ConfigError(f"{name!r} is a study in this store; name a project with --project")
            self._decimals[name] = record.decimals
            self._summary.projects[name] = ProjectSummary()
        return name


def _new_run(run: IncomingRun, decimals: int) -> NewRun:
    return NewRun(
        uid=run.uid,
        name=run.name,
        hyperparameters=run.hyperparameters,
        parent=run.parent,
        fork_position=to_position(run.fork_step, decimals),
        tags=_unique(run.tags),
        facts=run.facts,
        status=run.status,
        created=run.created,
        started=run.started,
        ended=run.ended,
        error=run.error,
    )


def _bring_up_to_date(store: Store, run_id: str, run: IncomingRun) -> bool:
    """Add what the source has got since; what a person changed in the store stays. Returns whether anything changed."""
    row = store.run_details(run_id).row
    changed = False
    added = {name: value for name, value in run.hyperparameters.items() if name not in row.hyperparameters}
    if added:
        store.set_hyperparameters(run_id, added)
        changed = True
    tags = _unique((*row.tags, *run.tags))
    if len(tags) != len(row.tags):
        store.set_tags(run_id, tags)
        changed = True
    if run.name is not None and row.name is None:
        store.rename(run_id, run.name)
        changed = True
    if run.status in ENDED and row.status not in ENDED:
        store.update_run(run_id, status=run.status, error=run.error, ended=run.ended)
        changed = True
    return changed


def _add_notes(store: Store, run_id: str, run: IncomingRun) -> bool:
    if not run.notes:
        return False
    there = {note.text for note in store.run_details(run_id).notes}
    new = [note for note in run.notes if note.text.strip() and note.text not in there]
    for note in new:
        store.add_note(run_id, note.text, note.author)
    return bool(new)


def _add_files(store: Store, run_id: str, run: IncomingRun, decimals: int) -> int:
    if not run.files:
        return 0
    there = {(file.name, str(file.path), file.position) for file in store.files(run_id, inherited=False)}
    num = 0
    for file in run.files:
        position = nearest_position(file.step, decimals)
        if (file.name, str(file.path.absolute()), position) not in there:
            store.save_file(run_id, file.path, name=file.name, position=position, copy=False)
            num += 1
    return num


def _add_text(store: Store, run_id: str, text: IncomingText, decimals: int) -> int:
    name = f"{text.name}.txt"
    data = text.text.encode("utf-8", "backslashreplace")
    digest = hashlib.sha256(data).hexdigest()
    if any(file.name == name and file.digest == digest for file in store.files(run_id, inherited=False)):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes(data)
        store.save_file(run_id, path, name=name, position=nearest_position(text.step, decimals))
    return 1


def _positions(series: IncomingSeries, run: IncomingRun, decimals: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Where the points are in the store, int64[n], and which of them have a place there, bool[n]."""
    if series.metric.startswith(SYSTEM):
        # The machine's metrics are told by time.
        begin = series.times_ms.min() if run.started is None else min(int(run.started * 1000), series.times_ms.min())
        return series.times_ms - begin, np.ones(len(series.steps), np.bool_)
    steps = series.steps
    if decimals >= series.decimals:
        factor = 10 ** (decimals - series.decimals)
        kept = steps <= _MAX // factor
        return np.where(kept, steps, 0) * factor, kept
    divisor = 10 ** (series.decimals - decimals)
    return steps // divisor, steps % divisor == 0


def _last_of_each(positions: Ints) -> Ints:
    """Where each position comes for the last time, by rising position.

    >>> _last_of_each(np.array([3, 1, 3, 2])).tolist()
    [1, 3, 2]
    """
    _, first_from_behind = np.unique(positions[::-1], return_index=True)
    return np.asarray(len(positions) - 1 - first_from_behind, np.int64)


def _unique(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for tag in tags if tag.strip()))
