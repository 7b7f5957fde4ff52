"""What takes long to add up over thousands of runs, and need not be new to the moment.

A page that listens asks for its project again at every change, ten times a second where something is trained. What was
added up is used again for a while that grows with the time it took: nearly at once in a small project, and after
seconds in one of 10,000 runs. A run's last change is announced again later (`watch.QUIET_SECONDS`), so no page keeps an
old sum.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from thalweg.budget import SPEND_KINDS, Cost, Ledger, SpendKind
from thalweg.tree import Metric

if TYPE_CHECKING:
    from thalweg.track.records import RunRow
    from thalweg.track.store import Store

_Sum = TypeVar("_Sum")

KEPT_FACTOR = 10
"""A sum is used again for so many times the time that it took: a tenth of the time at most goes into it."""


@dataclass(frozen=True, kw_only=True)
class RunsSummary:
    """All runs of a project at a glance."""

    num_runs: int
    statuses: Mapping[str, int]
    hyperparameters: tuple[str, ...]
    """Names, in the order in which they came up."""
    metrics: tuple[str, ...]
    updated: float | None
    """When something was last written into one of them, in seconds since 1970."""
    best: tuple[str, float] | None
    """The finished run whose last score is best, and the score."""


@dataclass(frozen=True, kw_only=True)
class Spending:
    """A ledger, added up."""

    ledger: Ledger
    kinds: Mapping[SpendKind, Cost]
    total: Cost
    device_seconds: Mapping[str, float]
    """Per run that has spent anything."""


def score_of(row: RunRow, metric: Metric | None) -> float | None:
    """The study's metric at a run's last report."""
    last = None if metric is None else row.latest.get(f"validation/{metric.name}")
    return None if last is None else last[1]


@dataclass
class Summaries:
    """Of one store's projects. Threads may share it."""

    store: Store
    _made: dict[tuple[str, str], tuple[Any, float]] = field(default_factory=dict)
    """Kind of sum and project -> the sum, and until when it is used."""
    _locks: dict[tuple[str, str], threading.Lock] = field(default_factory=dict)

    def rows(self, name: str) -> list[RunRow]:
        """All runs of a project, as they are now: read once for all who ask while they are read.

        Raises:
            StoreError: there is none of this name.
        """
        asked = time.monotonic()
        key = ("rows", name)
        with self._locks.setdefault(key, threading.Lock()):
            found = self._made.get(key)
            if found is None or found[1] < asked:
                rows = self.store.run_rows(name)
                found = self._made[key] = (rows, time.monotonic())
            value: list[RunRow] = found[0]
            return value

    def runs(self, name: str, metric: Metric | None) -> RunsSummary:
        """The runs of a project.

        Raises:
            StoreError: there is none of this name.
        """
        return self._recent("runs", name, lambda: summarise_runs(self.rows(name), metric))

    def spending(self, name: str) -> Spending:
        """What a project has spent."""
        return self._recent("spending", name, lambda: add_up(self.store.read_ledger(name)))

    def _recent(self, kind: str, name: str, make: Callable[[], _Sum]) -> _Sum:
        key = (kind, name)
        # Whoever asks meanwhile waits for the one sum instead of making another.
        with self._locks.setdefault(key, threading.Lock()):
            found = self._made.get(key)
            started = time.monotonic()
            if found is None or started >= found[1]:
                made = make()
                ended = time.monotonic()
                found = self._made[key] = (made, ended + KEPT_FACTOR * (ended - started))
            value: _Sum = found[0]
            return value


def summarise_runs(rows: list[RunRow], metric: Metric | None) -> RunsSummary:
    """All runs at a glance."""
    finished = [
        (row.id, score) for row in rows if row.status == "finished" and (score := score_of(row, metric)) is not None
    ]
    best = None if metric is None else min(finished, key=lambda entry: metric.loss(entry[1]), default=None)
    return RunsSummary(
        num_runs=len(rows),
        statuses=dict(Counter(row.status for row in rows)),
        hyperparameters=tuple(dict.fromkeys(name for row in rows for name in row.hyperparameters)),
        metrics=tuple(sorted({name for row in rows for name in row.latest})),
        updated=max((row.created if row.updated is None else row.updated for row in rows), default=None),
        best=best,
    )


def add_up(ledger: Ledger) -> Spending:
    """A ledger's sums, in one go through it."""
    kinds = {kind: [cost for run in ledger.spent.values() if (cost := run.get(kind))] for kind in SPEND_KINDS}
    sums = {kind: _sum(costs) for kind, costs in kinds.items()}
    seconds = {run: sum([cost.device_seconds for cost in spent.values()]) for run, spent in ledger.spent.items()}
    return Spending(ledger=ledger, kinds=sums, total=_sum(list(sums.values())), device_seconds=seconds)


def _sum(costs: list[Cost]) -> Cost:
    # Not by adding costs to each other, which makes a new one each time.
    return Cost(
        samples=sum([cost.samples for cost in costs]),
        tokens=sum([cost.tokens for cost in costs]),
        flops=sum([cost.flops for cost in costs]),
        seconds=sum([cost.seconds for cost in costs]),
        device_seconds=sum([cost.device_seconds for cost in costs]),
    )
