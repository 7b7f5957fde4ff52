"""The store: studies, trees of runs, their curves and what they cost, in an SQLite file or a PostgreSQL database."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection

from thalweg.budget import Ledger
from thalweg.errors import ConfigError, StoreError
from thalweg.space import Hyperparameters
from thalweg.track import (
    compaction,
    copying,
    curves,
    integrity,
    runs,
    sqlite_engine,
    studies,
)
from thalweg.track.calls import SYSTEM
from thalweg.track.database import Database, open_database
from thalweg.track.lineage import MAX_POSITION
from thalweg.track.records import (
    CheckpointRecord,
    Request,
    RequestRecord,
    RunTimes,
    SessionRecord,
    StudyRecord,
)
from thalweg.track.series import Reduced, Series
from thalweg.track.session import Session
from thalweg.track.tracked_store import TrackedRuns
from thalweg.track.writer import RunWriter
from thalweg.trainer import Estimate
from thalweg.tree import Ask, Run, Status, Tree


class Store(TrackedRuns):
    """One project's store. Threads may share it; another process opens its own.

    Each method is one transaction. All raise StoreError where the store is locked, read-only, full or damaged, and for
    a study or run that does not exist, with the nearest names.
    """

    def __init__(self, database: Database, location: str) -> None:
        self.location = location
        """What `Store.open` was given: where another process opens the same store."""
        self._database = database
        self._writers: weakref.WeakSet[RunWriter] = weakref.WeakSet()

    @classmethod
    def open(cls, location: str | Path, *, read_only: bool = False, wait_seconds: float | None = None) -> Self:
        """Open a store; create it, or bring one of an older version up to date, unless it is for reading only.

        Args:
            location: a file's path, whose folders are made, or an SQLAlchemy URL such as postgresql://user@host/database.
            wait_seconds: how long a transaction waits for another process's; by default half a minute.
        Raises:
            StoreError: something else is there, a newer thalweg wrote it, or it cannot be opened.
            ConfigError: a URL that cannot work.
        """
        return cls(open_database(location, read_only=read_only, wait_seconds=wait_seconds), str(location))

    def close(self) -> None:
        """Close the writers that this store has opened, and the connections."""
        try:
            for writer in list(self._writers):
                writer.close()
        finally:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Studies

    def create_study(self, name: str, config: Mapping[str, Any]) -> StudyRecord:
        """Enter a study. Its config is kept as JSON.

        Raises:
            StoreError: there is one of this name.
            ConfigError: a name that cannot be part of a file's name, or a config that is not JSON.
        """
        with self._database.write() as connection:
            return studies.create_study(connection, name, config)

    def studies(self) -> list[StudyRecord]:
        """All of them, by order of creation."""
        with self._database.read() as connection:
            return studies.read_studies(connection)

    def study(self, name: str) -> StudyRecord:
        """One of them."""
        with self._database.read() as connection:
            return studies.read_study(connection, name)

    def update_study(self, name: str, config: Mapping[str, Any]) -> StudyRecord:
        """Replace its config: a larger budget, say."""
        with self._database.write() as connection:
            studies.update_study(connection, name, config)
            return studies.read_study(connection, name)

    def create_project(self, name: str, *, unit: str = "steps", decimals: int = 6) -> StudyRecord:
        """A project, made where there is none of this name: runs that are tracked from a person's own code.

        Args:
            decimals: of its steps. With six, steps go to nine million million.
        Raises:
            StoreError: a study has this name.
            ConfigError: a name that cannot be part of a file's name.
        """
        with self._database.write() as connection:
            return studies.get_or_create_project(connection, name, unit, decimals)

    def is_paused(self, study: str) -> bool:
        """Whether somebody paused the study: its loop trains nothing until it is unpaused."""
        with self._database.read() as connection:
            return bool(studies.find_study(connection, study).paused)

    def set_paused(self, study: str, paused: bool) -> None:
        """Pause a study's loop, or let it go on; the loop itself does this when it is asked to."""
        with self._database.write() as connection:
            studies.set_paused(connection, study, paused)

    def open_session(self, study: str) -> Session:
        """Claim a study for this process's loop, until the session is closed or the process is gone.

        Raises:
            StoreError: a live process has it; the message says which.
        """
        return Session(self._database, study)

    def live_session(self, study: str) -> SessionRecord | None:
        """The process that runs the study's loop now, or None."""
        with self._database.read() as connection:
            return studies.read_live_session(connection, study)

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
        """Enter a run as `pending`, under the study's next number. A fork begins at `fork_position` of its parent.

        Raises:
            ConfigError: a number that is negative or too large, or a fork position without a parent.
            StoreError: the parent belongs to another study.
        """
        fields = {
            "hyperparameters": hyperparameters,
            "horizon": horizon,
            "until": until,
            "seed": seed,
            "origin": origin,
            "parent": parent,
            "fork_position": fork_position,
        }
        with self._database.write() as connection:
            return runs.create_run(connection, study, fields)

    def update_run(
        self,
        run_id: str,
        *,
        status: Status | None = None,
        until: int | None = None,
        position: int | None = None,
        error: str | None = None,
        ended: float | None = None,
    ) -> Run:
        """Change what is not None. A run that ends ended now, unless `ended` (seconds since 1970) says when."""
        values = runs.changed(status=status, until=until, position=position, error=error)
        if ended is not None:
            values["ended"] = ended
        with self._database.write() as connection:
            return runs.update_run(connection, run_id, values)

    def read_run(self, run_id: str) -> Run:
        """A run with its own reports."""
        with self._database.read() as connection:
            return runs.read_run(connection, run_id)

    def read_tree(self, study: str) -> Tree:
        """All runs of a study."""
        with self._database.read() as connection:
            return runs.read_tree(connection, study)

    def run_study(self, run_id: str) -> str:
        """The name of the study that a run belongs to."""
        with self._database.read() as connection:
            return runs.read_study_name(connection, run_id)

    def run_times(self, run_id: str) -> RunTimes:
        """When things happened to a run, and whether a process has it now."""
        with self._database.read() as connection:
            return runs.read_times(connection, run_id)

    def delete_run(self, run_id: str, *, materialise: bool = False) -> None:
        """Delete a run with its curves and records. What it has spent stays in the ledger; its number is not reused.

        Args:
            materialise: copy into its children what they inherit from it, instead of refusing.
        Raises:
            StoreError: it has children, or is being trained.
        """
        with self._database.write() as connection:
            if materialise:
                runs.refuse_live(connection, run_id)
                copying.give_children_their_past(connection, run_id)
            runs.delete_run(connection, run_id)
        shutil.rmtree(self.files_folder / run_id, ignore_errors=True)

    def read_ledger(self, study: str) -> Ledger:
        """What a study has spent, deleted runs included."""
        with self._database.read() as connection:
            return runs.read_ledger(connection, study)

    # Requests

    def add_request(self, study: str, ask: Ask, author: str | None = None) -> int:
        """Ask the study's loop, or a tracked run's script, which another process may run. Returns the request's id."""
        with self._database.write() as connection:
            return studies.add_request(connection, study, ask, author)

    def requests(self, study: str, *, limit: int = 100) -> list[RequestRecord]:
        """What was asked for, by whom, and what became of it; the newest first."""
        with self._database.read() as connection:
            return studies.read_requests(connection, study, limit)

    def pending_requests(self, study: str) -> list[Request]:
        """Those that wait for an answer, by order of arrival."""
        with self._database.read() as connection:
            return studies.read_pending(connection, study)

    def answer_request(self, request_id: int, outcome: str) -> None:
        """Say what became of a request; it waits no longer.

        Raises:
            StoreError: no such request waits.
        """
        with self._database.write() as connection:
            studies.answer_request(connection, request_id, outcome)

    # Curves

    def writer(self, run_id: str, *, strict: bool = False, spool: bool = False) -> RunWriter:
        """What records a run while it is trained. Several may be open at once, in several processes.

        Args:
            strict: commit at each call, such that it survives a loss of power, instead of every 100 ms.
            spool: keep in a file what the store cannot take.
        """
        opened = RunWriter(self._database, run_id, strict=strict, spool=spool)
        self._writers.add(opened)
        return opened

    def metrics(self, run_id: str, *, inherited: bool = True) -> list[str]:
        """The names of a run's metrics, sorted; those that it only inherits included, unless told otherwise."""
        with self._database.read() as connection:
            key = self._key(connection, run_id)
            names = curves.read_metrics(connection, key, inherited=inherited)
            if not any(name.startswith(SYSTEM) for name in names):
                return names
            own = set(curves.read_metrics(connection, key, inherited=False))
            return [name for name in names if not name.startswith(SYSTEM) or name in own]

    def series(
        self, run_id: str, metric: str, *, inherited: bool = True, first: int = 0, last: int = MAX_POSITION
    ) -> Series:
        """A metric's curve over the run's lineage. Empty where there is no such metric.

        A run inherits its parent's points up to and including the fork, as they were for it: a rewind of the parent
        that is made later is not the child's past. Points that a writer has not committed yet are not seen.

        Args:
            inherited: whether the ancestors' points belong to it; those of the machine (`system/...`) never do.
            first, last: the positions between which points are wanted, both included.
        """
        with self._database.read() as connection:
            return curves.read_series(connection, self._wanted(connection, run_id, metric, inherited, (first, last)))

    def reduced(
        self,
        run_id: str,
        metric: str,
        *,
        num_buckets: int = 2000,
        inherited: bool = True,
        first: int = 0,
        last: int = MAX_POSITION,
    ) -> Reduced:
        """A metric's curve in at most so many buckets of neighbouring points, with the exact extremes of each."""
        if num_buckets < 1:
            raise ConfigError(f"num_buckets = {num_buckets} must be at least 1")
        with self._database.read() as connection:
            wanted = self._wanted(connection, run_id, metric, inherited, (first, last))
            return curves.read_reduced(connection, wanted, num_buckets)

    def cut(self, run_id: str, position: int) -> None:
        """Hide the points and reports past a position that the run has written so far: it is rewound to there.

        Nothing is deleted, and what is written from now on is seen at any position.

        Raises:
            ConfigError: the run begins past the position.
        """
        place = runs.as_position("position", position)
        for writer in [writer for writer in self._writers if writer.run_id == run_id]:
            writer.flush()
        with self._database.write() as connection:
            row = runs.find_run(connection, run_id, lock=True)
            if place < row.fork_position:
                raise ConfigError(
                    f"run {run_id} cannot be rewound to {place:,}: it begins at {row.fork_position:,}, as a fork."
                    " Fork its parent at the earlier position instead"
                )
            compaction.add_cut(connection, row.key, row.generation, place)
            copying.forget_hidden(connection, row.key)

    def compact(self, run_id: str) -> None:
        """Move a run's journal into chunks; writers do so by themselves."""
        with self._database.write() as connection:
            row = runs.find_run(connection, run_id, lock=True)
            compaction.compact(connection, row.key)

    def last_position(self, run_id: str) -> int:
        """The highest position that a run has logged at, hidden by a cut or not; where it begins, if at none."""
        with self._database.write() as connection:
            row = runs.find_run(connection, run_id, lock=True)
            compaction.compact(connection, row.key)
            last = compaction.last_position(connection, row.key)
            return row.fork_position if last is None else last

    # Checkpoints and held-back results

    def checkpoints(self, run_id: str) -> list[CheckpointRecord]:
        """The run's own, by rising position."""
        with self._database.read() as connection:
            return runs.read_checkpoints(connection, self._key(connection, run_id))

    def drop_checkpoint(self, run_id: str, position: int) -> bool:
        """Remove a checkpoint's record, unless a fork begins there; its folder is the caller's.

        Returns:
            Whether it was removed.
        Raises:
            StoreError: there is none at this position.
        """
        with self._database.write() as connection:
            key = self._key(connection, run_id)
            if runs.has_fork(connection, key, position):
                return False
            if not runs.drop_checkpoint(connection, key, position):
                at = ", ".join(str(record.position) for record in runs.read_checkpoints(connection, key)) or "none"
                raise StoreError(f"run {run_id!r} has no checkpoint at position {position}. It has: {at}")
            return True

    def record_test(self, run_id: str, position: int, metrics: Mapping[str, Estimate]) -> None:
        """Keep a result on data that the search never sees, which no strategy reads. The last one of a run stays."""
        with self._database.write() as connection:
            runs.record_test(connection, self._key(connection, run_id), position, metrics)

    def read_tests(self, study: str) -> dict[str, tuple[int, dict[str, Estimate]]]:
        """Run id -> (position, estimates), for the runs that have some."""
        with self._database.read() as connection:
            return runs.read_tests(connection, study)

    def copy(self, target: str | Path) -> None:
        """Write all that the store holds now into a new file, while others go on writing.

        Raises:
            StoreError: there is a file already, it cannot be written, or the store is a database server's.
        """
        self._database.copy(Path(target))

    def check_integrity(self) -> list[str]:
        """All that is wrong with the store, a sentence each; empty where nothing is."""
        with self._database.read() as connection:
            of_file = sqlite_engine.check_file(connection) if self._database.is_sqlite else []
            return [*of_file, *integrity.find_problems(connection)]

    @staticmethod
    def _key(connection: Connection, run_id: str) -> int:
        return int(runs.find_run(connection, run_id).key)

    def _wanted(
        self, connection: Connection, run_id: str, metric: str, inherited: bool, stretch: tuple[int, int]
    ) -> curves.Wanted:
        inherited = inherited and not metric.startswith(SYSTEM)
        return curves.Wanted(self._key(connection, run_id), metric, inherited, *stretch)
