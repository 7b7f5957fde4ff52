"""One run's writer: what a worker records while it trains.

Calls only append to memory. A thread commits what has gathered about every 100 ms and beats the run's heart: into the
journal, or, where much has gathered, with the journal into chunks. Reports, checkpoints, `flush` and `finish` commit
before they return.
"""

from __future__ import annotations

import itertools
import logging
import operator
import queue
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from time import time_ns
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Row, bindparam, update

from thalweg.budget import Cost, SpendKind
from thalweg.errors import ConfigError, StoreError
from thalweg.track import compaction, runs, terminate
from thalweg.track.database import Database
from thalweg.track.json_text import encode
from thalweg.track.liveness import BEAT_SECONDS, this_process
from thalweg.track.records import CheckpointRecord
from thalweg.track.schema import run
from thalweg.track.series import CHUNK_POINTS, journal_layout
from thalweg.tree import Status

COMMIT_SECONDS = 0.1
"""How often the thread commits: the most that a killed process loses."""

_ROW_CALLS = 16_384
"""The most calls in one journal row."""

_log = logging.getLogger("thalweg")

_beat = update(run).where(run.c.key == bindparam("at")).values(heartbeat=bindparam("now"))

_Call = tuple[tuple[str, ...], bytes]
"""Names, and what `journal_layout` packs: position, time and values."""


class RunWriter:
    """Records a run's points, reports, checkpoints and spending. Threads may share it; use it as a context manager.

    A store that is locked or full for a while never stops training: points wait in memory and are tried again. Only a
    call that promises a commit raises StoreError, and its data is tried again by the next.
    """

    def __init__(self, database: Database, run_id: str, *, strict: bool = False) -> None:
        self.run_id = run_id
        self._database = database
        self._strict = strict
        self._calls: deque[_Call] = deque()
        self._spent: deque[tuple[SpendKind, Cost]] = deque()
        # Taken by a commit that has not succeeded yet; guarded by `_committing`.
        self._unsaved: list[_Call] = []
        self._unsaved_spent: dict[SpendKind, Cost] = {}
        self._committing = threading.Lock()
        self._committer: int | None = None
        self._packers: dict[tuple[str, ...], Callable[..., bytes]] = {}
        self._orders: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()
        self._closed = False
        self._failing = False
        with database.write() as connection:
            row = runs.find_run(connection, run_id, lock=True)
            started = {} if row.started is not None else {"started": time.time()}
            values = runs.occupied_by(this_process()) | started
            connection.execute(update(run).where(run.c.key == row.key).values(values))
            self._num_waiting = compaction.num_journal_calls(connection, row.key)
        self._last_beat = time.monotonic()
        self._thread = threading.Thread(target=self._work, name=f"thalweg-writer-{run_id}", daemon=True)
        self._thread.start()
        terminate.watch(self)

    def log(self, position: int, metrics: Mapping[str, float]) -> None:
        """Record a point of each metric. The last write at a position wins; positions may come in any order.

        Raises:
            ConfigError: a position, name or value that cannot be recorded.
            StoreError: the writer is closed; or, for a strict writer, the store cannot be written.
        """
        # A training loop may call this for every step of a small model: each check here is one that it needs.
        names = tuple(metrics)
        pack = self._packers.get(names) or self._new_packer(names)
        try:
            packed = pack(position, time_ns(), *metrics.values())
            if position < 0:
                raise ValueError
        except (struct.error, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise _refusal(position, metrics) from error
        # Appending to a deque is atomic: no lock, so that a signal may come at any point.
        self._calls.append((names, packed))
        if self._strict:
            self._commit()

    def report(self, position: int, metrics: Mapping[str, float]) -> None:
        """Record an evaluation, which runs are compared by, and its metrics as points named `validation/...`.

        Raises:
            ConfigError: as `log`; nothing is recorded then.
            StoreError: the store cannot be written. The points are tried again; the report must be made again.
        """
        _check_names(metrics)
        values = {name: _as_float(name, value) for name, value in metrics.items()}
        self.log(position, {f"validation/{name}": value for name, value in values.items()})
        place, now = operator.index(position), time.time()

        def add(connection: Connection, row: Row[Any]) -> None:
            runs.add_report(connection, row.key, place, values, now)
            connection.execute(update(run).where(run.c.key == row.key).values(position=place))

        self._commit(add)

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        """Enter work into the ledger, beside what was entered before. It is committed with the points.

        Raises:
            ConfigError: an unknown kind, or an amount that is negative or not finite.
        """
        runs.check_spend(kind, cost)
        if self._closed:
            raise StoreError(f"the writer of run {self.run_id!r} is closed; open another one to enter spending")
        self._spent.append((kind, cost))

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
        values = runs.changed(status=status, position=position) | {"error": None}
        if error is not None:
            values["error"] = encode(error, "error")

        def end(connection: Connection, row: Row[Any]) -> None:
            connection.execute(update(run).where(run.c.key == row.key).values(values))

        self._commit(end, compact=True)
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
        self._packers = {}
        self._orders.put(None)
        self._thread.join()
        terminate.unwatch(self)
        if not (self._calls or self._spent or self._unsaved or self._unsaved_spent):
            return
        try:
            self._commit()
        except StoreError as error:
            lost = len(self._unsaved)
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

    def _new_packer(self, names: tuple[str, ...]) -> Callable[..., bytes]:
        # A closed writer knows no packers, so that it comes here.
        if self._closed:
            raise StoreError(f"the writer of run {self.run_id!r} is closed; open another one to log more")
        _check_names(names)
        self._packers[names] = journal_layout(len(names)).pack
        return self._packers[names]

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
            if self._calls or self._spent or self._unsaved or self._unsaved_spent or beat_due:
                self._try_commit()

    def _try_commit(self) -> None:
        # Whatever happens in this thread, training goes on; a call that must commit will raise what is wrong.
        try:
            self._commit()
            self._failing = False
        except Exception as error:
            if not self._failing:
                _log.warning("run %s: points are kept in memory and tried again: %s", self.run_id, error)
            self._failing = True

    def _commit(self, extra: Callable[[Connection, Row[Any]], None] | None = None, *, compact: bool = False) -> None:
        with self._committing:
            self._committer = threading.get_ident()
            try:
                self._take()
                compact = compact or self._num_waiting + len(self._unsaved) >= CHUNK_POINTS
                try:
                    self._write(extra, compact=compact)
                except Exception:
                    # Whatever keeps points from becoming chunks, such as a damaged one, they are safe in the journal.
                    if not compact:
                        raise
                    self._write(extra, compact=False)
                    compact = False
                emptied = compact and self._num_waiting > 0
                self._num_waiting = 0 if compact else self._num_waiting + len(self._unsaved)
                self._unsaved, self._unsaved_spent = [], {}
                if emptied:
                    self._give_back_space()
            finally:
                self._committer = None
        terminate.deliver_deferred()

    def _write(self, extra: Callable[[Connection, Row[Any]], None] | None, *, compact: bool) -> None:
        """All that is unsaved in one transaction: into the journal, or with the journal into chunks."""
        rows = _journal_rows(self._unsaved)
        with self._database.write(strict=self._strict) as connection:
            row = runs.find_run(connection, self.run_id, lock=True)
            if time.monotonic() - self._last_beat >= BEAT_SECONDS:
                connection.execute(_beat, {"at": row.key, "now": time.time()})
                self._last_beat = time.monotonic()
            if compact:
                compaction.compact(connection, row.key, row.generation, rows)
            else:
                compaction.add_journal(connection, row.key, rows)
            runs.add_spend(connection, row, self._unsaved_spent)
            if extra is not None:
                extra(connection, row)

    def _give_back_space(self) -> None:
        try:
            self._database.give_back_space()
        except Exception as error:
            # The points are written; a file that stays large costs nothing else.
            _log.warning("run %s: the store's file was not made smaller: %s", self.run_id, error)

    def _take(self) -> None:
        # As many as there are now: a fast caller must not keep the loop going.
        self._unsaved += [self._calls.popleft() for _ in range(len(self._calls))]
        for _ in range(len(self._spent)):
            kind, cost = self._spent.popleft()
            self._unsaved_spent[kind] = self._unsaved_spent.get(kind, Cost()) + cost


def _journal_rows(calls: list[_Call]) -> list[tuple[str, int, bytes]]:
    """Calls as journal rows, few of them, such that each metric's calls stay in their order."""
    rows: list[tuple[tuple[str, ...], list[bytes]]] = []
    holder: dict[str, int] = {}  # metric -> the row that has its last call
    for names, group in itertools.groupby(calls, operator.itemgetter(0)):
        # They join an older row only where nothing that came since then holds one of their metrics.
        places = {holder.get(name, -1) for name in names}
        place = places.pop() if len(places) == 1 else -1
        packed = [call for _, call in group]
        if place < 0 or rows[place][0] != names or len(rows[place][1]) + len(packed) > _ROW_CALLS:
            place = len(rows)
            rows += [(names, []) for _ in range(0, len(packed), _ROW_CALLS)]
            for i in range(0, len(packed), _ROW_CALLS):
                rows[place + i // _ROW_CALLS][1].extend(packed[i : i + _ROW_CALLS])
            holder.update(dict.fromkeys(names, len(rows) - 1))
        else:
            rows[place][1].extend(packed)
    return [(encode(list(names), "names"), len(packed), b"".join(packed)) for names, packed in rows]


def _check_names(names: Iterable[object]) -> None:
    for name in names:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigError(f"metric name {name!r} must be a printable string, such as 'train/loss'")


def _as_float(metric: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ConfigError(f"{metric} = {value!r} is not one number") from error


def _refusal(position: object, metrics: Mapping[str, object]) -> ConfigError:
    """What is wrong with a call that could not be packed."""
    for name, value in metrics.items():
        try:
            _as_float(name, value)
        except ConfigError as error:
            return error
    return ConfigError(f"position = {position!r} must be a whole number from 0 to 2**63 - 1")
