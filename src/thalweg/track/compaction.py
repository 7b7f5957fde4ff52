"""Points on their way into the database: the journal, its compaction into chunks, and cuts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from thalweg.track.schema import chunk, cut, journal, report, run
from thalweg.track.series import CHUNK_POINTS, Chunk, join, pack, settle, unpack, unpack_journal

PACKED: Sequence[Any] = (
    chunk.c.num_points,
    chunk.c.first_position,
    chunk.c.last_position,
    chunk.c.summary,
    chunk.c.positions,
    chunk.c.times,
    chunk.c.point_values,
)
"""The columns of a `series.Chunk`, in its order."""


def add_journal(connection: Connection, run_key: int, rows: Sequence[tuple[str, int, bytes]]) -> None:
    """Append (names as JSON, number of calls, blob of `pack_journal`) rows, in the order they were written."""
    if rows:
        entries = [{"run_key": run_key, "names": names, "num_calls": num, "points": blob} for names, num, blob in rows]
        connection.execute(insert(journal), entries)


def num_journal_calls(connection: Connection, run_key: int) -> int:
    """Log calls that wait in a run's journal."""
    query = select(func.coalesce(func.sum(journal.c.num_calls), 0)).where(journal.c.run_key == run_key)
    return int(connection.execute(query).scalar_one())


def compact(
    connection: Connection, run_key: int, generation: int, written_now: Sequence[tuple[str, int, bytes]] = ()
) -> None:
    """Move a run's journal into chunks. The caller holds the run's lock; readers see all of it or nothing.

    Args:
        written_now: rows as for `add_journal`, which go into the chunks without having been in the journal.
    """
    query = select(journal.c.key, journal.c.names, journal.c.num_calls, journal.c.points)
    rows = connection.execute(query.where(journal.c.run_key == run_key).order_by(journal.c.key)).all()
    if not rows and not written_now:
        return
    tails = _open_tails(connection, run_key, generation)
    entries = []
    for metric, written in unpack_journal([*(tuple(row[1:]) for row in rows), *written_now]).items():
        older = [unpack(tails[metric])] if metric in tails else []
        place = {"run_key": run_key, "metric": metric, "generation": generation}
        entries += [as_row(packed) | place for packed in pack(settle(join([*older, written])))]
    written_metrics = {entry["metric"] for entry in entries}
    for metric in tails.keys() & written_metrics:
        newest = select(func.max(chunk.c.key)).where(chunk.c.run_key == run_key, chunk.c.metric == metric)
        connection.execute(delete(chunk).where(chunk.c.key == newest.scalar_subquery()))
    if entries:
        connection.execute(insert(chunk), entries)
    if rows:
        connection.execute(delete(journal).where(journal.c.run_key == run_key, journal.c.key <= rows[-1].key))


def last_position(connection: Connection, run_key: int) -> int | None:
    """The highest position that a run has written a point at, hidden ones included. Its journal must be empty."""
    query = select(func.max(chunk.c.last_position)).where(chunk.c.run_key == run_key)
    found: int | None = connection.execute(query).scalar_one()
    return found


def _open_tails(connection: Connection, run_key: int, generation: int) -> dict[str, Chunk]:
    """The newest chunk of each metric, where it has room left; an older one may be overlapped by newer ones."""
    newest = select(func.max(chunk.c.key)).where(chunk.c.run_key == run_key).group_by(chunk.c.metric)
    query = select(chunk.c.metric, *PACKED).where(
        chunk.c.key.in_(newest), chunk.c.generation == generation, chunk.c.num_points < CHUNK_POINTS
    )
    return {row[0]: Chunk(*row[1:]) for row in connection.execute(query)}


def as_row(packed: Chunk) -> dict[str, Any]:
    """A chunk's own columns."""
    return {
        "num_points": packed.num_points,
        "first_position": packed.first_position,
        "last_position": packed.last_position,
        "summary": packed.summary,
        "positions": packed.positions,
        "times": packed.times,
        "point_values": packed.values,
    }


def add_cut(connection: Connection, run_key: int, generation: int, position: int) -> None:
    """Hide what a run has written past a position so far. The caller holds the run's lock."""
    # The journal belongs to the present generation, which ends here.
    compact(connection, run_key, generation)
    entry = {"run_key": run_key, "generation": generation, "position": position, "created": time.time()}
    connection.execute(insert(cut).values(entry))
    connection.execute(update(run).where(run.c.key == run_key).values(generation=generation + 1))
    hidden = report.c.run_key == run_key, report.c.position > position
    connection.execute(update(report).where(*hidden).values(hidden=True))
