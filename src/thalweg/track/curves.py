"""Reading curves: journal and chunks of a whole lineage as one, in full or in buckets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, bindparam, func, select

from thalweg.track.compaction import PACKED
from thalweg.track.lineage import MAX_POSITION, Link, lineage, read_lineage
from thalweg.track.schema import chunk, journal
from thalweg.track.series import (
    BLOCK,
    BLOCK_POINTS,
    Blocks,
    Chunk,
    Ints,
    Points,
    Reduced,
    Series,
    join,
    reduce_blocks,
    settle_order,
    single_blocks,
    unpack,
    unpack_journal,
)

_BLOCKS_PER_BUCKET = 4
"""Summaries are used where a bucket gathers at least so many blocks, so that buckets stay nearly equal."""

_MOST_MIXED = 200
"""With more chunks than this to unpack, all are."""

Links = dict[int, Link]


def _of_lineage(query: Select[Any], table: Any, *, inherited: bool) -> Select[Any]:
    """Rows of the run `run_key`, or of its lineage: those that give way before those that win."""
    if not inherited:
        return query.where(table.c.run_key == bindparam("run_key")).order_by(table.c.key)
    query = query.join_from(lineage, table, table.c.run_key == lineage.c.key)
    return query.order_by(lineage.c.depth.desc(), table.c.key)


def _chunks(*columns: Any, inherited: bool) -> Select[Any]:
    query = _of_lineage(
        select(chunk.c.run_key, chunk.c.generation, chunk.c.key, *columns), chunk, inherited=inherited
    ).where(
        chunk.c.metric == bindparam("metric"),
        chunk.c.last_position >= bindparam("first"),
        chunk.c.first_position <= bindparam("last"),
    )
    return query.where(chunk.c.first_position <= lineage.c.fork_limit) if inherited else query


_waiting = select(journal.c.run_key, journal.c.names, journal.c.num_calls, journal.c.points)
_extents = select(chunk.c.run_key, chunk.c.generation, chunk.c.metric, func.min(chunk.c.first_position))

# Built once: putting a statement together takes longer than running it.
_FULL = {flag: _chunks(*PACKED, inherited=flag) for flag in (False, True)}
_SUMMARIES = {flag: _chunks(*PACKED[:4], inherited=flag) for flag in (False, True)}
_JOURNALS = {flag: _of_lineage(_waiting, journal, inherited=flag) for flag in (False, True)}
_EXTENTS = {
    flag: _of_lineage(_extents, chunk, inherited=flag)
    .order_by(None)
    .group_by(chunk.c.run_key, chunk.c.generation, chunk.c.metric)
    for flag in (False, True)
}
_BY_KEY = select(chunk.c.key, *PACKED).where(chunk.c.key.in_(bindparam("keys", expanding=True)))


def read_metrics(connection: Connection, run_key: int, *, inherited: bool) -> list[str]:
    """The names of the metrics that have a visible point, sorted."""
    links = _links(connection, run_key, inherited=inherited)
    found = set()
    for key, generation, metric, first in connection.execute(_EXTENTS[inherited], {"run_key": run_key}):
        if first <= links[key].visible_until(generation):
            found.add(metric)
    for _, points in _journals(connection, run_key, None, links, inherited=inherited):
        found |= {name for name, visible in points.items() if len(visible)}
    return sorted(found)


@dataclass(frozen=True)
class Wanted:
    """Which points of a run are read."""

    run_key: int
    metric: str
    inherited: bool = True
    first: int = 0
    last: int = MAX_POSITION
    """Both positions included."""

    @property
    def values(self) -> dict[str, Any]:
        """What the queries ask for."""
        return {"run_key": self.run_key, "metric": self.metric, "first": self.first, "last": self.last}


def read_series(connection: Connection, wanted: Wanted) -> Series:
    """One metric's curve over a run's lineage, or of the run alone."""
    links = _links(connection, wanted.run_key, inherited=wanted.inherited)
    rows = connection.execute(_FULL[wanted.inherited], wanted.values)
    parts = [(row[0], _within(unpack(Chunk(*row[3:])), links[row[0]].visible_until(row[1]), wanted)) for row in rows]
    parts += _waiting_points(connection, wanted, links)
    points, owners = _merge(parts, links)
    return Series(
        positions=points.positions,
        values=points.values,
        times=points.times / 1000.0,
        owners=owners,
        runs=tuple(link.run_id for link in links.values()),
        fork_positions=tuple(link.fork_position for link in links.values()),
    )


def read_reduced(connection: Connection, wanted: Wanted, num_buckets: int) -> Reduced:
    """One metric's curve in at most so many buckets."""
    links = _links(connection, wanted.run_key, inherited=wanted.inherited)
    rows = connection.execute(_SUMMARIES[wanted.inherited], wanted.values).all()
    blocks = None
    if sum([num_points for _, _, _, num_points, *_ in rows]) >= num_buckets * BLOCK_POINTS * _BLOCKS_PER_BUCKET:
        waiting = _waiting_points(connection, wanted, links)
        blocks = _summary_blocks(connection, rows, links, waiting, wanted)
    if blocks is None:
        series = read_series(connection, wanted)
        blocks = single_blocks(series.positions, series.values)
    return reduce_blocks(blocks, num_buckets)


def _links(connection: Connection, run_key: int, *, inherited: bool) -> Links:
    links = read_lineage(connection, run_key)
    return {link.key: link for link in (links if inherited else links[-1:])}


def _summary_blocks(
    connection: Connection,
    rows: Sequence[Row[Any]],
    links: Links,
    waiting: Sequence[tuple[int, Points]],
    wanted: Wanted,
) -> Blocks | None:
    """Blocks of the whole curve, from summaries wherever a chunk is alone in its stretch; None where few are."""
    run_keys, generations, keys, _, firsts, lasts, summaries = (list(column) for column in zip(*rows, strict=True))
    written_in = list(zip(run_keys, generations, strict=True))
    bounds = {(key, generation): links[key].visible_until(generation) for key, generation in set(written_in)}
    until = np.minimum(np.array([bounds[place] for place in written_in], np.int64), wanted.last)
    first, last = np.array(firsts, np.int64), np.array(lasts, np.int64)
    seen = first <= until
    late = np.array([(p.positions.min(), p.positions.max()) for _, p in waiting if len(p)], np.int64).reshape(-1, 2)
    alone = _alone(np.append(first[seen], late[:, 0]), np.append(np.minimum(last, until)[seen], late[:, 1]))
    # A clipped chunk's summary tells of points that are hidden.
    clear = np.zeros(len(rows), bool)
    clear[seen] = alone[: int(seen.sum())] & ((last <= until) & (first >= wanted.first))[seen]
    mixed = np.flatnonzero(seen & ~clear).tolist()
    if len(mixed) > _MOST_MIXED:
        return None
    blocks: Blocks = np.frombuffer(b"".join([summaries[i] for i in np.flatnonzero(clear)]), BLOCK)
    if mixed or waiting:
        chunks = connection.execute(_BY_KEY, {"keys": [keys[i] for i in mixed]})
        packed = {key: Chunk(*columns) for key, *columns in chunks}
        parts = [(run_keys[i], _within(unpack(packed[keys[i]]), int(until[i]), wanted)) for i in mixed]
        points, _ = _merge([*parts, *waiting], links)
        blocks = np.concatenate([blocks, single_blocks(points.positions, points.values)])
    starts = blocks["first"]
    return blocks if bool((starts[1:] > starts[:-1]).all()) else blocks[np.argsort(starts, kind="stable")]


def _alone(first: Ints, last: Ints) -> NDArray[np.bool_]:
    """Which of the stretches from first to last overlap no other one."""
    order = np.argsort(first, kind="stable")
    ordered_first, ordered_last = first[order], last[order]
    alone = np.ones(len(first), bool)
    alone[order[1:]] = ordered_first[1:] > np.maximum.accumulate(ordered_last)[:-1]
    alone[order[:-1]] &= ordered_last[:-1] < ordered_first[1:]
    return alone


def _waiting_points(connection: Connection, wanted: Wanted, links: Links) -> list[tuple[int, Points]]:
    """What the journals of a lineage hold of a metric, as (run key, points)."""
    found = _journals(connection, wanted.run_key, wanted.metric, links, inherited=wanted.inherited)
    parts = [(key, points[wanted.metric]) for key, points in found if wanted.metric in points]
    return [(key, _within(points, MAX_POSITION, wanted)) for key, points in parts]


def _journals(
    connection: Connection, run_key: int, metric: str | None, links: Links, *, inherited: bool
) -> list[tuple[int, dict[str, Points]]]:
    """Per run with a journal: its visible points, by metric, in the order they were written."""
    rows: dict[int, list[tuple[str, int, bytes]]] = {}
    for key, names, num_calls, blob in connection.execute(_JOURNALS[inherited], {"run_key": run_key}):
        rows.setdefault(key, []).append((names, num_calls, blob))
    found = []
    for key, entries in rows.items():
        until = links[key].visible_until(links[key].generation)
        written = unpack_journal(entries, metric)
        found.append((key, {name: _clip(points, until) for name, points in written.items()}))
    return found


def _merge(parts: list[tuple[int, Points]], links: Links) -> tuple[Points, NDArray[np.int32]]:
    """One curve of parts (run key, points), chunks before journals, and each point's run as a place in the lineage."""
    places = {key: place for place, key in enumerate(links)}
    # A run wins over what it inherits. The sort is stable: within a run, what was written last stays last.
    ordered = sorted(parts, key=lambda part: places[part[0]])
    points = join([part for _, part in ordered])
    sizes = np.array([len(part) for _, part in ordered], np.int64)
    owners = np.repeat(np.array([places[key] for key, _ in ordered], np.int32), sizes)
    order = settle_order(points.positions)
    return (points, owners) if order is None else (points.take(order), owners[order])


def _clip(points: Points, until: int) -> Points:
    if not len(points) or int(points.positions.max()) <= until:
        return points
    return points.take(points.positions <= until)


def _within(points: Points, until: int, wanted: Wanted) -> Points:
    """Those up to a position, and in the stretch that is wanted."""
    points = _clip(points, min(until, wanted.last))
    if not wanted.first or not len(points) or int(points.positions.min()) >= wanted.first:
        return points
    return points.take(points.positions >= wanted.first)
