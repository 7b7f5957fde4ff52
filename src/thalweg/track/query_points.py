"""Which runs and metrics a query or an export takes, and their points, one curve at a time."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import ConfigError, nearest
from thalweg.track.calls import SYSTEM
from thalweg.track.lineage import MAX_POSITION
from thalweg.track.records import RunRow, StudyRecord
from thalweg.track.series import Floats, Ints
from thalweg.track.store import Store

DEFAULT_STORE = ".thalweg/store.db"
WITHOUT_SYSTEM = ("*",)
EVERYTHING = ("*", "system/*")


@dataclass(frozen=True)
class ChosenRun:
    """A run, with what is needed to read its positions."""

    row: RunRow
    project: str
    unit: str
    decimals: int
    """Of its positions: a step is position / 10**decimals."""


@dataclass(frozen=True)
class Curve:
    """The points of one metric of one run, by rising position."""

    run: str
    metric: str
    decimals: int
    positions: Ints
    """In fixed point with `decimals`; for `system/...` milliseconds, in fixed point too."""
    values: Floats
    times_ms: Ints
    """Wall time of each point, in milliseconds since 1970."""
    owners: NDArray[np.int32]
    """For each point, the index in `lineage` of the run that logged it."""
    lineage: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.positions)


class MetricPatterns:
    """Names of metrics, or patterns as the shell has them (`*`, `?`, `[ab]`).

    A name is itself, whatever characters it has. `system/...` is matched only by a pattern that begins like that: these
    metrics have times where the others have steps.
    """

    def __init__(self, patterns: str | Sequence[str] | None, default: Sequence[str] = WITHOUT_SYSTEM) -> None:
        self._asked = patterns is not None
        self.patterns = [patterns] if isinstance(patterns, str) else list(default if patterns is None else patterns)
        self._matched: dict[str, bool] = {}
        self._used: set[str] = set()

    def pick(self, names: Iterable[str]) -> list[str]:
        """Those of the names that match, in their order."""
        return [name for name in names if self._match(name)]

    def check_used(self) -> None:
        """Refuse what nothing has matched so far.

        Raises:
            ConfigError: with the nearest of the names that were seen.
        """
        for pattern in self.patterns if self._asked else ():
            if pattern not in self._used:
                known = nearest(pattern, self._matched) if self._matched else "These runs have no metrics"
                raise ConfigError(f"no run here has a metric that matches {pattern!r}. {known}")

    def _match(self, name: str) -> bool:
        if name not in self._matched:
            system = name.startswith(SYSTEM)
            fitting = [
                pattern
                for pattern in self.patterns
                if name == pattern or (fnmatchcase(name, pattern) and pattern.startswith(SYSTEM) == system)
            ]
            self._used |= set(fitting)
            self._matched[name] = bool(fitting)
        return self._matched[name]


def opened(store: str | Path | Store | None) -> AbstractContextManager[Store]:
    """A store to read: one that is open already stays so.

    Args:
        store: None is $THALWEG_STORE, or .thalweg/store.db.
    Raises:
        ConfigError: there is none.
    """
    if isinstance(store, Store):
        return nullcontext(store)
    location = str(store if store is not None else os.environ.get("THALWEG_STORE") or DEFAULT_STORE)
    if "://" not in location and not Path(location).expanduser().exists():
        raise ConfigError(
            f"store = {location!r} does not exist: 'thalweg.init' and 'thalweg tune' make one, or name another"
        )
    return Store.open(location, read_only=True)


def choose_runs(store: Store, project: str | None, ids: str | Sequence[str] | None = None) -> list[ChosenRun]:
    """The runs of a project or study, or of all of them.

    Args:
        ids: those that are wanted, in this order; None is all, by project and number.
    Raises:
        ConfigError: an id that is not there.
        StoreError: no such project.
    """
    records = store.studies() if project is None else [store.study(project)]
    found = {run.row.id: run for record in records for run in _runs_of(store, record)}
    if ids is None:
        return list(found.values())
    wanted = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
    for run_id in wanted:
        if run_id not in found:
            where = "the store" if project is None else f"project {project!r}"
            # A store may hold thousands: name the few that look most like it.
            close = difflib.get_close_matches(run_id, found, n=5, cutoff=0.0)
            known = nearest(run_id, close) if close else "It has none"
            raise ConfigError(f"{where} has no run {run_id!r}. {known}")
    return [found[run_id] for run_id in wanted]


def _runs_of(store: Store, record: StudyRecord) -> list[ChosenRun]:
    return [
        ChosenRun(row=row, project=record.name, unit=record.unit, decimals=record.decimals)
        for row in store.run_rows(record.name)
    ]


def read_curves(store: Store, run: ChosenRun, patterns: MetricPatterns, *, inherited: bool = True) -> Iterator[Curve]:
    """A run's curves, one at a time, by name of the metric. A metric without points has none."""
    for metric in patterns.pick(store.metrics(run.row.id, inherited=inherited)):
        series = store.series(run.row.id, metric, inherited=inherited)
        if not len(series):
            continue
        decimals, positions = run.decimals, series.positions
        if metric.startswith(SYSTEM):
            decimals, positions = _milliseconds(positions, decimals)
        yield Curve(
            run=run.row.id,
            metric=metric,
            decimals=decimals,
            positions=positions,
            values=series.values,
            times_ms=np.rint(series.times * 1000.0).astype(np.int64),
            owners=series.owners,
            lineage=series.runs,
        )


def _milliseconds(positions: Ints, decimals: int) -> tuple[int, Ints]:
    """Whole milliseconds in fixed point, with the project's decimals where there is room for them."""
    if int(positions.max()) > MAX_POSITION // 10**decimals:
        return 0, positions
    return decimals, positions * 10**decimals


class Labels:
    """Names by number, in the order in which they came."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, name: str) -> int:
        """The name's number; a new one gets the next."""
        return self._places.setdefault(name, len(self._places))

    @property
    def names(self) -> list[str]:
        return list(self._places)


@dataclass(frozen=True)
class PointBatch:
    """Points of many curves, one after the other. Runs and metrics are numbers of `Labels`."""

    runs: NDArray[np.int32]
    metrics: NDArray[np.int32]
    owners: NDArray[np.int32]
    decimals: int
    positions: Ints
    values: Floats
    times_ms: Ints

    def __len__(self) -> int:
        return len(self.positions)


def in_batches(
    curves: Iterable[Curve], run_labels: Labels, metric_labels: Labels, num_points: int
) -> Iterator[PointBatch]:
    """Gather short curves into batches of at least so many points, and cut long ones.

    A batch has one number of decimals.
    """
    waiting: list[PointBatch] = []
    num_waiting = 0
    for curve in curves:
        if waiting and waiting[0].decimals != curve.decimals:
            yield _joined(waiting)
            waiting, num_waiting = [], 0
        whole = _labelled(curve, run_labels, metric_labels)
        for start in range(0, len(whole), num_points):
            part = whole if len(whole) <= num_points else _part(whole, slice(start, start + num_points))
            waiting.append(part)
            num_waiting += len(part)
            if num_waiting >= num_points:
                yield _joined(waiting)
                waiting, num_waiting = [], 0
    if waiting:
        yield _joined(waiting)


def _labelled(curve: Curve, run_labels: Labels, metric_labels: Labels) -> PointBatch:
    owners = np.array([run_labels.place(run) for run in curve.lineage], np.int32)
    return PointBatch(
        runs=np.full(len(curve), run_labels.place(curve.run), np.int32),
        metrics=np.full(len(curve), metric_labels.place(curve.metric), np.int32),
        owners=owners[curve.owners],
        decimals=curve.decimals,
        positions=curve.positions,
        values=curve.values,
        times_ms=curve.times_ms,
    )


def _part(batch: PointBatch, which: slice) -> PointBatch:
    return PointBatch(
        batch.runs[which],
        batch.metrics[which],
        batch.owners[which],
        batch.decimals,
        batch.positions[which],
        batch.values[which],
        batch.times_ms[which],
    )


def _joined(parts: Sequence[PointBatch]) -> PointBatch:
    if len(parts) == 1:
        return parts[0]
    return PointBatch(
        np.concatenate([part.runs for part in parts]),
        np.concatenate([part.metrics for part in parts]),
        np.concatenate([part.owners for part in parts]),
        parts[0].decimals,
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.times_ms for part in parts]),
    )
