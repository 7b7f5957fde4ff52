"""A store for studies that nobody needs to keep: simulations, thousands a minute.

It answers a study's loop as `Store` does (`tests/track/test_memory_store.py` holds both to one suite), with dicts
instead of a database: no file, no thread, no transaction. It keeps reports but no curves, and one process has it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thalweg.budget import Cost, Ledger, SpendKind
from thalweg.errors import ConfigError, StoreError, nearest
from thalweg.space import Hyperparameters
from thalweg.track.records import CheckpointRecord, Request, RunTimes, StudyRecord
from thalweg.trainer import Estimate
from thalweg.tree import ENDED, Ask, Report, Run, Status, Tree


@dataclass
class _Study:
    """What is known of one study."""

    record: StudyRecord
    runs: dict[str, Run] = field(default_factory=dict)
    spent: dict[str, Mapping[SpendKind, Cost]] = field(default_factory=dict)
    tests: dict[str, tuple[int, Mapping[str, Estimate]]] = field(default_factory=dict)
    wall_seconds: float = 0.0
    num_forks: int = 0
    paused: bool = False
    in_session: bool = False


@dataclass
class _Times:
    created: float
    started: float | None = None
    ended: float | None = None


class MemoryStore:
    """Studies in memory. Methods as `Store` has them."""

    def __init__(self) -> None:
        self._studies: dict[str, _Study] = {}
        self._of_run: dict[str, _Study] = {}
        self._times: dict[str, _Times] = {}
        self._checkpoints: dict[str, dict[int, CheckpointRecord]] = {}
        self._forks: set[tuple[str, int]] = set()
        self._last_logged: dict[str, int] = {}
        self._requests: dict[int, tuple[str, Request]] = {}
        self._num_requests = 0

    # Studies

    def create_study(self, name: str, config: Mapping[str, Any]) -> StudyRecord:
        if name in self._studies:
            raise StoreError(f"there is a study {name!r} already; go on with it, or choose another name")
        record = StudyRecord(name=name, config=config, created=time.time(), wall_seconds=0.0)
        self._studies[name] = _Study(record)
        return record

    def studies(self) -> list[StudyRecord]:
        return [self.study(name) for name in self._studies]

    def study(self, name: str) -> StudyRecord:
        study = self._find_study(name)
        return dataclasses.replace(study.record, wall_seconds=study.wall_seconds)

    def is_paused(self, study: str) -> bool:
        return self._find_study(study).paused

    def set_paused(self, study: str, paused: bool) -> None:
        self._find_study(study).paused = paused

    def open_session(self, study: str) -> MemorySession:
        found = self._find_study(study)
        if found.in_session:
            raise StoreError(f"study {study!r} is being run by another loop in this process")
        return MemorySession(found)

    # Runs

    def create_run(
        self,
        study: str,
        *,
        hyperparameters: Hyperparameters,
        horizon: int,
        until: int,
        seed: int,
        origin: str,
        parent: str | None = None,
        fork_position: int = 0,
    ) -> Run:
        found = self._find_study(study)
        if parent is None and fork_position:
            raise ConfigError(f"fork_position = {fork_position} needs a parent: a root begins at 0")
        if parent is not None and self._find(parent) is not found:
            raise StoreError(f"run {parent!r} belongs to another study than {study!r}: a fork stays in its study")
        run = Run(
            id=f"{study}-{len(found.runs)}",
            number=len(found.runs),
            hyperparameters=dict(hyperparameters),
            horizon=horizon,
            until=until,
            seed=seed,
            origin=origin,
            parent=parent,
            fork_position=fork_position,
            position=fork_position,
        )
        found.runs[run.id] = run
        self._of_run[run.id] = found
        self._times[run.id] = _Times(time.time())
        self._checkpoints[run.id] = {}
        if parent is not None:
            found.num_forks += 1
            self._forks.add((parent, fork_position))
        return run

    def update_run(
        self,
        run_id: str,
        *,
        status: Status | None = None,
        until: int | None = None,
        position: int | None = None,
        error: str | None = None,
    ) -> Run:
        study = self._find(run_id)
        changes = {"status": status, "until": until, "position": position, "error": error}
        run = _replaced(study.runs[run_id], {name: value for name, value in changes.items() if value is not None})
        if status is not None:
            # A run that is taken up again has not ended.
            self._times[run_id].ended = time.time() if status in ENDED else None
        study.runs[run_id] = run
        return run

    def read_run(self, run_id: str) -> Run:
        return self._find(run_id).runs[run_id]

    def read_tree(self, study: str) -> Tree:
        return Tree(dict(self._find_study(study).runs))

    def run_times(self, run_id: str) -> RunTimes:
        self._find(run_id)
        times = self._times[run_id]
        # Whoever had a run is gone: one process has this store, and it is asking.
        return RunTimes(created=times.created, started=times.started, ended=times.ended, heartbeat=None, live=False)

    def read_ledger(self, study: str) -> Ledger:
        found = self._find_study(study)
        # What a run has spent is replaced as a whole, never changed, so that this copy stays as it is.
        return Ledger(dict(found.spent), len(found.runs), found.wall_seconds, found.num_forks)

    # Requests

    def add_request(self, study: str, ask: Ask, author: str | None = None) -> int:
        self._find_study(study)
        self._num_requests += 1
        self._requests[self._num_requests] = study, Request(id=self._num_requests, ask=ask, author=author)
        return self._num_requests

    def pending_requests(self, study: str) -> list[Request]:
        self._find_study(study)
        return [request for name, request in self._requests.values() if name == study]

    def answer_request(self, request_id: int, outcome: str) -> None:
        if self._requests.pop(request_id, None) is None:
            raise StoreError(f"there is no request {request_id} that waits for an answer; see pending_requests")

    # Reports, checkpoints and held-back results

    def writer(self, run_id: str) -> MemoryWriter:
        self._find(run_id)
        times = self._times[run_id]
        times.started = times.started or time.time()
        return MemoryWriter(self, run_id)

    def cut(self, run_id: str, position: int) -> None:
        study = self._find(run_id)
        run = study.runs[run_id]
        if position < run.fork_position:
            raise ConfigError(
                f"run {run_id} cannot be rewound to {position:,}: it begins at {run.fork_position:,}, as a fork."
                " Fork its parent at the earlier position instead"
            )
        kept = tuple(report for report in run.reports if report.position <= position)
        study.runs[run_id] = _replaced(run, {"reports": kept})

    def last_position(self, run_id: str) -> int:
        run = self.read_run(run_id)
        return self._last_logged.get(run_id, run.fork_position)

    def checkpoints(self, run_id: str) -> list[CheckpointRecord]:
        self._find(run_id)
        records = self._checkpoints[run_id]
        return [records[position] for position in sorted(records)]

    def drop_checkpoint(self, run_id: str, position: int) -> bool:
        self._find(run_id)
        if (run_id, position) in self._forks:
            return False
        if self._checkpoints[run_id].pop(position, None) is None:
            at = ", ".join(str(record.position) for record in self.checkpoints(run_id)) or "none"
            raise StoreError(f"run {run_id!r} has no checkpoint at position {position}. It has: {at}")
        return True

    def record_test(self, run_id: str, position: int, metrics: Mapping[str, Estimate]) -> None:
        self._find(run_id).tests[run_id] = position, dict(metrics)

    def read_tests(self, study: str) -> Mapping[str, tuple[int, Mapping[str, Estimate]]]:
        return dict(self._find_study(study).tests)

    # For the writer

    def _log(self, run_id: str, position: int) -> None:
        self._last_logged[run_id] = max(self._last_logged.get(run_id, position), position)

    def _report(self, run_id: str, position: int, metrics: Mapping[str, float]) -> None:
        study = self._find(run_id)
        run = study.runs[run_id]
        others = [report for report in run.reports if report.position != position]
        reports = sorted([*others, Report(position, dict(metrics))], key=lambda report: report.position)
        study.runs[run_id] = _replaced(run, {"reports": tuple(reports), "position": position})
        self._log(run_id, position)

    def _spend(self, run_id: str, kind: SpendKind, cost: Cost) -> None:
        spent = self._find(run_id).spent
        before = spent.get(run_id, {})
        spent[run_id] = {**before, kind: before[kind] + cost if kind in before else cost}

    def _checkpoint(self, run_id: str, record: CheckpointRecord) -> None:
        study = self._find(run_id)
        self._checkpoints[run_id][record.position] = record
        study.runs[run_id] = _replaced(study.runs[run_id], {"position": record.position})

    def _finish(self, run_id: str, status: Status, position: int, error: str | None) -> None:
        study = self._find(run_id)
        changes = {"status": status, "position": position, "error": error}
        study.runs[run_id] = _replaced(study.runs[run_id], changes)
        self._times[run_id].ended = time.time() if status in ENDED else None

    def _find_study(self, name: str) -> _Study:
        if name not in self._studies:
            raise StoreError(f"unknown study {name!r}. {nearest(name, self._studies)}")
        return self._studies[name]

    def _find(self, run_id: str) -> _Study:
        if run_id not in self._of_run:
            known = nearest(run_id, self._of_run) if self._of_run else "The store holds none"
            raise StoreError(f"unknown run {run_id!r}. {known}")
        return self._of_run[run_id]


class MemoryWriter:
    """Records a run into a `MemoryStore`, at once. Methods as `RunWriter` has them; points of curves are not kept."""

    def __init__(self, store: MemoryStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id

    def log(self, position: int, metrics: Mapping[str, float]) -> None:
        self._store._log(self._run_id, position)

    def report(self, position: int, metrics: Mapping[str, float]) -> None:
        self._store._report(self._run_id, position, metrics)

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        self._store._spend(self._run_id, kind, cost)

    def checkpoint(self, position: int, folder: str, digest: str, num_bytes: int) -> None:
        record = CheckpointRecord(
            position=position, folder=folder, digest=digest, num_bytes=num_bytes, created=time.time()
        )
        self._store._checkpoint(self._run_id, record)

    def finish(self, status: Status, position: int, error: str | None = None) -> None:
        self._store._finish(self._run_id, status, position, error)

    def close(self) -> None:
        """Nothing to do: all is recorded."""


class MemorySession:
    """A study's loop while it runs; see `Session`."""

    def __init__(self, study: _Study) -> None:
        self._study = study
        study.in_session = True

    def add_wall_seconds(self, seconds: float) -> None:
        self._study.wall_seconds += seconds

    def close(self) -> None:
        self._study.in_session = False


def _replaced(run: Run, changes: Mapping[str, Any]) -> Run:
    """As `dataclasses.replace`, several times as fast."""
    return Run(**{**vars(run), **changes})
