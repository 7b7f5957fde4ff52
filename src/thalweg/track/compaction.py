"""Points on their way into the database: the journal, its compaction into chunks, and cuts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from thalweg.track.calls import JournalRow
from thalweg.track.schema import chunk, cut, journal, report, run
from thalweg.track.series import CHUNK_POINTS, Chunk, join, pack, settle, unpack, unpack_journal

_counters = select(run.c.generation, run.c.num_compactions)

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


def add_journal(connection: Connection, run_key: int, rows: Sequence[JournalRow]) -> None:
    """Append (names as JSON, number of calls, blob of `pack_journal`) rows, in the order they were written."""
    if rows:
        entries = [{"run_key": run_key, "names": names, "num_calls": num, "points": blob} for names, num, blob in rows]
        connection.execute(insert(journal), entries)


def num_journal_calls(connection: Connection, run_key: int) -> int:
    """Log calls that wait in a run's journal."""
    query = select(func.coalesce(func.sum(journal.c.num_calls), 0)).where(journal.c.run_key == run_key)
    return int(connection.execute(query).scalar_one())


@dataclass(frozen=True)
class Prepared:
    """Chunks that stand for a run's journal, and what they were made from."""

    chunks: tuple[dict[str, Any], ...]
    """Rows to insert."""
    metrics: frozenset[str]
    """Metrics whose newest chunk is among those that are replaced."""
    last_journal_key: int | None
    num_compactions: int
    generation: int


def prepare(connection: Connection, run_key: int, written_now: Sequence[JournalRow] = ()) -> Prepared:
    """Pack a run's journal, without a lock: packing takes longer than all the rest.

    Args:
        written_now: rows as for `add_journal`, which go into the chunks without having been in the journal.
    """
    generation, num_compactions = connection.execute(_counters.where(run.c.key == run_key)).one()
    query = select(journal.c.key, journal.c.names, journal.c.num_calls, journal.c.points)
    rows = connection.execute(query.where(journal.c.run_key == run_key).order_by(journal.c.key)).all()
    last = rows[-1].key if rows else None
    if not rows and not written_now:
        return Prepared((), frozenset(), last, num_compactions, generation)
    tails = _open_tails(connection, run_key, generation)
    entries: list[dict[str, Any]] = []
    written_metrics = set()
    for metric, written in unpack_journal([*(tuple(row[1:]) for row in rows), *written_now]).items():
        older = [unpack(tails[metric])] if metric in tails else []
        place = {"run_key": run_key, "metric": metric, "generation": generation}
        entries += [as_row(packed) | place for packed in pack(settle(join([*older, written])))]
        written_metrics.add(metric)
    return Prepared(tuple(entries), frozenset(tails.keys() & written_metrics), last, num_compactions, generation)


def apply(connection: Connection, run_key: int, prepared: Prepared) -> bool:
    """Put prepared chunks in the place of the journal. The caller holds the run's lock; readers see all or nothing.

    Returns:
        False where the run was written since, and nothing was done.
    """
    now = connection.execute(_counters.where(run.c.key == run_key)).one()
    last = connection.execute(select(func.max(journal.c.key)).where(journal.c.run_key == run_key)).scalar_one()
    made_from = (prepared.generation, prepared.num_compactions, prepared.last_journal_key)
    if (*now, last) != made_from:
        return False
    for metric in prepared.metrics:
        newest = select(func.max(chunk.c.key)).where(chunk.c.run_key == run_key, chunk.c.metric == metric)
        connection.execute(delete(chunk).where(chunk.c.key == newest.scalar_subquery()))
    if prepared.chunks:
        connection.execute(insert(chunk), list(prepared.chunks))
    if last is not None:
        connection.execute(delete(journal).where(journal.c.run_key == run_key, journal.c.key <= last))
    counted = update(run).where(run.c.key == run_key).values(num_compactions=run.c.num_compactions + 1)
    connection.execute(counted)
    return True


def compact(connection: Connection, run_key: int, written_now: Sequence[JournalRow] = ()) -> None:
    """Move a run's journal into chunks at once. The caller holds the run's lock."""
    done = apply(connection, run_key, prepare(connection, run_key, written_now))
    assert done, "the run was changed by somebody who did not hold its lock"


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
    compact(connection, run_key)
    entry = {"run_key": run_key, "generation": generation, "position": position, "created": time.time()}
    connection.execute(insert(cut).values(entry))
    connection.execute(update(run).where(run.c.key == run_key).values(generation=generation + 1))
    hidden = report.c.run_key == run_key, report.c.position > position
    connection.execute(update(report).where(*hidden).values(hidden=True))
