"""What a study's loop needs of a store: kept by `Store`, in a database, and by `MemoryStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from thalweg.budget import Cost, Ledger, SpendKind
from thalweg.space import Hyperparameters
from thalweg.track.records import CheckpointRecord, Request, RunTimes, StudyRecord
from thalweg.trainer import Estimate
from thalweg.tree import Ask, Run, Status, Tree


class StudySession(Protocol):
    """A study's loop while it runs."""

    def add_wall_seconds(self, seconds: float) -> None:
        """Add to the time for which the study's loop was running."""
        ...

    def close(self) -> None:
        """Let another loop run the study. Closing twice does nothing."""
        ...


class StudyWriter(Protocol):
    """What records a run while it is trained; see `RunWriter`."""

    def log(self, position: int, metrics: Mapping[str, float]) -> None: ...

    def report(self, position: int, metrics: Mapping[str, float]) -> None: ...

    def spend(self, kind: SpendKind, cost: Cost) -> None: ...

    def checkpoint(self, position: int, folder: str, digest: str, num_bytes: int) -> None: ...

    def finish(self, status: Status, position: int, error: str | None = None) -> None: ...

    def close(self) -> None: ...


class StudyStore(Protocol):
    """Studies and their trees. What each method does and raises is said in `Store`."""

    def create_study(self, name: str, config: Mapping[str, Any]) -> StudyRecord: ...

    def studies(self) -> list[StudyRecord]: ...

    def study(self, name: str) -> StudyRecord: ...

    def is_paused(self, study: str) -> bool: ...

    def set_paused(self, study: str, paused: bool) -> None: ...

    def open_session(self, study: str) -> StudySession: ...

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
    ) -> Run: ...

    def update_run(
        self,
        run_id: str,
        *,
        status: Status | None = None,
        until: int | None = None,
        position: int | None = None,
        error: str | None = None,
    ) -> Run: ...

    def read_run(self, run_id: str) -> Run: ...

    def read_tree(self, study: str) -> Tree: ...

    def run_times(self, run_id: str) -> RunTimes: ...

    def read_ledger(self, study: str) -> Ledger: ...

    def add_request(self, study: str, ask: Ask, author: str | None = None) -> int: ...

    def pending_requests(self, study: str) -> Sequence[Request]: ...

    def answer_request(self, request_id: int, outcome: str) -> None: ...

    def writer(self, run_id: str) -> StudyWriter: ...

    def cut(self, run_id: str, position: int) -> None: ...

    def last_position(self, run_id: str) -> int: ...

    def checkpoints(self, run_id: str) -> list[CheckpointRecord]: ...

    def drop_checkpoint(self, run_id: str, position: int) -> bool: ...

    def record_test(self, run_id: str, position: int, metrics: Mapping[str, Estimate]) -> None: ...

    def read_tests(self, study: str) -> Mapping[str, tuple[int, Mapping[str, Estimate]]]: ...
