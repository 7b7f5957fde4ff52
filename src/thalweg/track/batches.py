"""Batches of a writer into the database, each of them once."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, bindparam, insert, select, update

from thalweg.track import compaction, runs
from thalweg.track.calls import SYSTEM, Batch, JournalRow
from thalweg.track.json_text import decode, encode
from thalweg.track.liveness import Process, is_live
from thalweg.track.schema import run, writer

Latest = dict[str, tuple[int, float]]
"""Metric -> (position, value) of the point that was written last."""

# A writer carries these out ten times a second: making a statement takes longer than running it.
_written = select(writer.c.key, writer.c.last_batch).where(writer.c.uid == bindparam("uid"))
_mark = update(writer).where(writer.c.key == bindparam("at")).values(last_batch=bindparam("number"))
_beat_writer = update(writer).where(writer.c.key == bindparam("at")).values(heartbeat=bindparam("now"))
_beat_run = update(run).where(run.c.key == bindparam("at")).values(heartbeat=bindparam("now"))


def open_writer(connection: Connection, run_key: int, uid: str, process: Process) -> None:
    """Enter a process as one that writes a run."""
    now = time.time()
    entry = {"uid": uid, "run_key": run_key, "opened": now, "heartbeat": now, "last_batch": 0}
    entry |= {"host": process.host, "pid": process.pid, "pid_started": process.started}
    connection.execute(insert(writer).values(entry))


def close_writer(connection: Connection, uid: str) -> None:
    """It writes no more."""
    connection.execute(update(writer).where(writer.c.uid == uid).values(closed=time.time()))


def write_batches(
    connection: Connection,
    row: Row[Any],
    uid: str,
    batches: Sequence[Batch],
    *,
    prepared: compaction.Prepared | None = None,
    tracked: bool = False,
) -> None:
    """Write those of a writer's batches that are not written yet. The caller holds the run's lock.

    Args:
        row: the run's.
        uid: the writer's.
        prepared: chunks of the journal and all of these batches, to take the journal's place if nobody has written the
            run since they were made.
        tracked: the run stands at the last position that was logged. (A loop's run stands where it was evaluated.)
    """
    key, last = connection.execute(_written, {"uid": uid}).one()
    new = [batch for batch in batches if batch.number > last]
    rows = [entry for batch in new for entry in batch.rows]
    whole = prepared is not None and len(new) == len(batches)
    if not (whole and prepared is not None and compaction.apply(connection, row.key, prepared)):
        compaction.add_journal(connection, row.key, rows)
    for batch in new:
        if batch.spent:
            runs.add_spend(connection, row, batch.spent)
    if not new:
        return
    connection.execute(_mark, {"at": key, "number": new[-1].number})
    values: dict[str, Any] = {"updated": time.time()}
    if latest := latest_points(rows):
        before = {} if row.latest is None else decode(row.latest)
        values["latest"] = encode({**before, **latest}, "latest")
        if tracked:
            values["position"] = max(row.position, highest_position(rows))
    connection.execute(update(run).where(run.c.key == row.key).values(values))
    for batch in new:
        if batch.end is not None:
            _end(connection, row.key, key, batch.end)


def beat(connection: Connection, row: Row[Any], uid: str) -> None:
    """Say that a writer, and so its run, is alive."""
    key, _ = connection.execute(_written, {"uid": uid}).one()
    now = time.time()
    connection.execute(_beat_writer, {"at": key, "now": now})
    connection.execute(_beat_run, {"at": row.key, "now": now})


def latest_points(rows: Iterable[JournalRow]) -> Latest:
    """The last point of each metric in journal rows, those of the machine left out."""
    latest: Latest = {}
    for names_text, num_calls, blob in rows:
        names: list[str] = decode(names_text)
        size = len(blob) // num_calls
        position, _, *values = struct.unpack(f"<qq{len(names)}d", blob[-size:])
        latest |= {name: (position, value) for name, value in zip(names, values, strict=True)}
    return {name: point for name, point in latest.items() if not name.startswith(SYSTEM)}


def highest_position(rows: Iterable[JournalRow]) -> int:
    """The highest position in journal rows, those of the machine left out; 0 where there is none."""
    highest = 0
    for names_text, num_calls, blob in rows:
        if not all(name.startswith(SYSTEM) for name in decode(names_text)):
            highest = max(highest, int(np.frombuffer(blob, "<i8").reshape(num_calls, -1)[:, 0].max()))
    return highest


def live_writers(connection: Connection, run_key: int) -> list[int]:
    """The keys of the writers whose processes are there."""
    open_ones = select(writer).where(writer.c.run_key == run_key, writer.c.closed.is_(None))
    return [
        row.key
        for row in connection.execute(open_ones)
        if is_live(Process(row.host, row.pid, row.pid_started), row.heartbeat)
    ]


def _end(connection: Connection, run_key: int, writer_key: int, end: Mapping[str, Any]) -> None:
    """Let a process's word on how the run ended count; while others write it, only a word that it went wrong does."""
    connection.execute(update(writer).where(writer.c.key == writer_key).values(closed=end["ended"]))
    others = [key for key in live_writers(connection, run_key) if key != writer_key]
    if others and end["status"] == "finished":
        return
    error = None if end.get("error") is None else encode(end["error"], "error")
    values = {"status": end["status"], "ended": end["ended"], "error": error}
    connection.execute(update(run).where(run.c.key == run_key).values(values))
