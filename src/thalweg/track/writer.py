"""One run's writer: what a worker, or a training script of a person's own, records while it trains.

Calls only append to memory. A thread commits what has gathered about every 100 ms and beats the run's heart: into the
journal, or, where much has gathered, with the journal into chunks. Reports, checkpoints, `flush` and `finish` commit
before they return.
"""

from __future__ import annotations

import logging
import operator
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Row, update

from thalweg.budget import Cost, SpendKind
from thalweg.errors import StoreError
from thalweg.track import compaction, runs, terminate
from thalweg.track.batches import beat, close_writer, open_writer, write_batches
from thalweg.track.calls import Batch, CallBuffer, as_float, check_names
from thalweg.track.database import Database
from thalweg.track.json_text import encode
from thalweg.track.liveness import BEAT_SECONDS, this_process
from thalweg.track.records import CheckpointRecord
from thalweg.track.schema import run
from thalweg.track.series import CHUNK_POINTS
from thalweg.track.spool import Spool, spool_folders
from thalweg.tree import Status

COMMIT_SECONDS = 0.08
"""How often the thread commits. With the time that a commit takes, a killed process loses the last 0.1 s at most."""

RETRY_SECONDS = 1.0
"""How often a writer with a spool tries a store again that did not take its points."""

_log = logging.getLogger("thalweg")


class RunWriter:
    """Records a run's points, reports, checkpoints and spending. Threads may share it; use it as a context manager.

    Several writers, in several processes, may record one run. A store that is locked or full for a while never stops
    training: points wait in memory, or in a spool, and are tried again. Only a call that promises a commit raises
    StoreError, and its data is tried again by the next; with a spool, its promise is kept there.
    """

    def __init__(
        self, database: Database, run_id: str, *, strict: bool = False, spool: bool = False, uid: str | None = None
    ) -> None:
        self.run_id = run_id
        self.uid = uid or uuid.uuid4().hex
        self._database = database
        self._strict = strict
        self._buffer = CallBuffer()
        # Taken by a commit that has not succeeded yet, in neither store nor spool; guarded by `_committing`.
        self._waiting: list[Batch] = []
        self._committing = threading.Lock()
        self._committer: int | None = None
        self._orders: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()
        self._closed = False
        # The store knows already that this writer is closed.
        self._left = False
        self._failing = False
        self._retry_at = 0.0
        # A run that is tracked from a person's code has a spool; a study's loop knows better what to do.
        header = {"store": database.place, "run": run_id}
        self._spool = Spool(spool_folders(database.place), self.uid, header) if spool else None
        with database.write() as connection:
            row = runs.find_run(connection, run_id, lock=True)
            started = {} if row.started is not None else {"started": time.time()}
            values = runs.occupied_by(this_process()) | started
            connection.execute(update(run).where(run.c.key == row.key).values(values))
            open_writer(connection, row.key, self.uid, this_process())
            self._num_journal_calls = compaction.num_journal_calls(connection, row.key)
        self._last_beat = time.monotonic()
        self._thread = threading.Thread(target=self._work, name=f"thalweg-writer-{run_id}", daemon=True)
        self._thread.start()
        terminate.watch(self)

    def log(self, position: int, metrics: Mapping[str, float]) -> None:
        """Record a point of each metric. The last write at a position wins; positions may come in any order.

        Raises:
            ConfigError: a position, name or value that cannot be recorded.
            StoreError: the writer is closed; or, for a strict writer without a spool, the store cannot be written.
        """
        self._buffer.log(position, metrics)
        if self._strict:
            self._commit()

    @property
    def log_call(self) -> Callable[[int, Mapping[str, float]], None]:
        """`log`, on the shortest way: for who calls it a million times."""
        return self.log if self._strict else self._buffer.log

    def report(self, position: int, metrics: Mapping[str, float]) -> None:
        """Record an evaluation, which runs are compared by, and its metrics as points named `validation/...`.

        Raises:
            ConfigError: as `log`; nothing is recorded then.
            StoreError: the store cannot be written. The points are tried again; the report must be made again.
        """
        check_names(metrics)
        values = {name: as_float(name, value) for name, value in metrics.items()}
        self.log(position, {f"validation/{name}": value for name, value in values.items()})
        place, now = operator.index(position), time.time()

        def add(connection: Connection, row: Row[Any]) -> None:
            runs.add_report(connection, row.key, place, values, now)
            connection.execute(update(run).where(run.c.key == row.key).values(position=place, updated=now))

        self._commit(add)

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        """Enter work into the ledger, beside what was entered before. It is committed with the points.

        Raises:
            ConfigError: an unknown kind, or an amount that is negative or not finite.
        """
        runs.check_spend(kind, cost)
        self._buffer.spend(kind, cost)

    def checkpoint(self, position: int, folder: str, digest: str, num_bytes: int) -> None:
        """Record a checkpoint, with all that was logged before it. One at the same position is replaced.

        Raises:
            StoreError: the store cannot be written.
        """
        place = runs.as_position("position", position)
        record = CheckpointRecord(
            position=place, folder=str(folder), digest=digest, num_bytes=num_bytes, created=time.time()
        )

        def add(connection: Connection, row: Row[Any]) -> None:
            runs.add_checkpoint(connection, row.key, record)
            connection.execute(update(run).where(run.c.key == row.key).values(position=place))

        self._commit(add)

    def finish(self, status: Status, position: int, error: str | None = None) -> None:
        """Commit everything with what became of the run, compact its journal, and close the writer.

        Raises:
            StoreError: the store cannot be written; the writer stays open.
        """
        values = runs.changed(status=status, position=position) | {"error": None, "updated": time.time()}
        if error is not None:
            values["error"] = encode(error, "error")

        def end(connection: Connection, row: Row[Any]) -> None:
            connection.execute(update(run).where(run.c.key == row.key).values(values))
            close_writer(connection, self.uid)

        self._commit(end, compact=True)
        self._left = True
        self.close()

    def leave(self, status: Status, error: str | None = None) -> None:
        """Commit everything with this process's word on how the run ended, and close the writer.

        A word that all is well counts once nobody else writes the run any more.

        Raises:
            StoreError: there is no spool and the store cannot be written; the writer stays open.
        """
        self._commit(compact=True, end={"status": status, "error": error, "ended": time.time()})
        self._left = True
        self.close()

    def flush(self) -> None:
        """Commit all that was logged.

        Raises:
            StoreError: the store cannot be written; what was logged is kept and tried again.
        """
        self._commit()

    def close(self) -> None:
        """Commit all that was logged and stop the thread. Closing twice does nothing.

        Raises:
            StoreError: the store cannot be written, and what it says was not written is lost with the writer.
        """
        if self._closed:
            return
        self._closed = True
        self._buffer.close(
            lambda: StoreError(f"the writer of run {self.run_id!r} is closed; open another one to log more")
        )
        self._orders.put(None)
        self._thread.join()
        terminate.unwatch(self)
        if self._left and not (self._buffer or self._waiting):
            return
        try:
            self._commit(lambda connection, _: close_writer(connection, self.uid), last=True)
        except StoreError as error:
            lost = sum(batch.num_calls for batch in self._waiting)
            if self._waiting:
                raise StoreError(f"{lost} calls of run {self.run_id!r} were not written: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def commit_from_signal(self, seconds: float) -> bool:
        """Let the thread commit, and wait for it. Takes no lock that the interrupted code may hold."""
        if self._committer == threading.get_ident():
            return False
        done = threading.Event()
        self._orders.put(done)
        done.wait(seconds)
        return True

    def _work(self) -> None:
        while True:
            try:
                done = self._orders.get(timeout=COMMIT_SECONDS)
            except queue.Empty:
                pass
            else:
                if done is None:
                    return
                self._try_commit()
                done.set()
                continue
            beat_due = time.monotonic() - self._last_beat >= BEAT_SECONDS
            if self._buffer or self._waiting or self._num_spooled or beat_due:
                self._try_commit()

    @property
    def _num_spooled(self) -> int:
        return 0 if self._spool is None else self._spool.num_batches

    def _try_commit(self) -> None:
        # Whatever happens in this thread, training goes on; a call that must commit will raise what is wrong.
        try:
            self._commit()
        except Exception as error:
            self._warn(error, "kept in memory and tried again")

    def _warn(self, error: Exception, what: str) -> None:
        if not self._failing:
            _log.warning("run %s: points are %s: %s", self.run_id, what, error)
        self._failing = True

    def _commit(
        self,
        extra: Callable[[Connection, Row[Any]], None] | None = None,
        *,
        compact: bool = False,
        end: Mapping[str, Any] | None = None,
        last: bool = False,
    ) -> None:
        with self._committing:
            self._committer = threading.get_ident()
            try:
                if (batch := self._buffer.take(end)) is not None:
                    self._waiting.append(batch)
                if self._spool is not None and not (extra or end) and time.monotonic() < self._retry_at:
                    self._keep_in_spool(self._spool)
                    return
                try:
                    self._write_all(extra, compact=compact)
                except StoreError as error:
                    if self._spool is None:
                        raise
                    self._retry_at = time.monotonic() + RETRY_SECONDS
                    self._keep_in_spool(self._spool, error)
                    if self._waiting and (extra or end or last):
                        raise
            finally:
                self._committer = None
        terminate.deliver_deferred()

    def _keep_in_spool(self, spool: Spool, error: StoreError | None = None) -> None:
        """Move what waits into the spool; what it cannot take goes on waiting."""
        try:
            while self._waiting:
                spool.append(self._waiting[0])
                del self._waiting[0]
        except OSError as full:
            self._warn(full, f"kept in memory, as neither the store nor a spool takes them ({error})")
            return
        if error is not None:
            self._warn(error, f"kept in {spool.path} and merged later")

    def _write_all(self, extra: Callable[[Connection, Row[Any]], None] | None, *, compact: bool) -> None:
        batches = [*(self._spool.batches() if self._spool is not None else []), *self._waiting]
        num_calls = sum(batch.num_calls for batch in batches)
        compact = compact or self._num_journal_calls + num_calls >= CHUNK_POINTS
        prepared = self._prepare(batches) if compact else None
        try:
            self._write(batches, extra, prepared)
        except Exception:
            # Whatever keeps points from becoming chunks, such as a damaged one, they are safe in the journal.
            if prepared is None:
                raise
            self._write(batches, extra, None)
            prepared = None
        emptied = prepared is not None and self._num_journal_calls > 0
        self._num_journal_calls = 0 if prepared is not None else self._num_journal_calls + num_calls
        self._waiting = []
        if self._spool is not None:
            self._spool.clear()
        if self._failing:
            _log.info("run %s: the store takes points again; none was lost", self.run_id)
        self._failing = False
        if emptied:
            self._give_back_space()

    def _prepare(self, batches: list[Batch]) -> compaction.Prepared | None:
        """The journal and the batches as chunks, made before the lock is taken, so that others do not wait for it."""
        rows = [row for batch in batches for row in batch.rows]
        try:
            with self._database.read() as connection:
                return compaction.prepare(connection, runs.find_run(connection, self.run_id).key, rows)
        except Exception:
            return None

    def _write(
        self,
        batches: list[Batch],
        extra: Callable[[Connection, Row[Any]], None] | None,
        prepared: compaction.Prepared | None,
    ) -> None:
        """All that is unsaved in one transaction: into the journal, or with the journal into chunks."""
        tracked = self._spool is not None
        with self._database.write(strict=self._strict) as connection:
            row = runs.find_run(connection, self.run_id, lock=True)
            if time.monotonic() - self._last_beat >= BEAT_SECONDS:
                beat(connection, row, self.uid)
                self._last_beat = time.monotonic()
            write_batches(connection, row, self.uid, batches, prepared=prepared, tracked=tracked)
            if extra is not None:
                extra(connection, row)

    def _give_back_space(self) -> None:
        try:
            self._database.give_back_space()
        except Exception as error:
            # The points are written; a file that stays large costs nothing else.
            _log.warning("run %s: the store's file was not made smaller: %s", self.run_id, error)
