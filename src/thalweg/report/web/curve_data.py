"""A curve on its way to the browser: exact points, or buckets with exact extremes, as float64 columns after a header.

uint32       length of the header, blanks included
header       JSON, padded with blanks so that the numbers begin at a multiple of 8
float64[num] one column after the other, in the header's order; all of it little endian
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.report.web.answers import encode
from thalweg.report.web.steps import first_position, last_position, scale_of, step_of
from thalweg.track.lineage import MAX_POSITION
from thalweg.track.series import Floats, Reduced, Series, reduce_blocks, single_blocks

if TYPE_CHECKING:
    from thalweg.track.store import Store

POINTS_PER_BUCKET = 2
"""A range with at most so many points per bucket that was asked for is sent point by point."""

_MILLISECONDS = 1000


@dataclass(frozen=True, kw_only=True)
class CurveQuery:
    """Which curve, and how much of it."""

    run: str
    metric: str
    num_buckets: int
    first: str | None
    """The first x that is wanted, as it was written; None is the beginning."""
    last: str | None
    by_time: bool
    """x is seconds since 1970; else steps."""
    inherited: bool


@dataclass(frozen=True)
class _Part:
    """What is sent of a curve, and what is said about the whole."""

    kind: str
    columns: Mapping[str, Floats]
    total: int
    first_x: float | None
    last_x: float | None
    lineage: Sequence[tuple[str, int]]


def curve_bytes(store: Store, query: CurveQuery, scale: int) -> bytes:
    """The answer to a query.

    Args:
        scale: what the project's steps are multiplied by to give positions.
    Raises:
        StoreError: there is no such run.
        ConfigError: an end of the range is not a number.
    """
    part = _part_by_time(store, query) if query.by_time else _part_by_step(store, query, scale_of(query.metric, scale))
    low, high = _extremes(part)
    header = {
        "run": query.run,
        "metric": query.metric,
        "kind": part.kind,
        "num": len(next(iter(part.columns.values()))),
        "columns": list(part.columns),
        "total": part.total,
        "first_x": part.first_x,
        "last_x": part.last_x,
        "lineage": [{"run": run, "from_step": step_of(position, scale)} for run, position in part.lineage],
        "updated": time.time(),
        "finite_min": low,
        "finite_max": high,
    }
    return packed(header, list(part.columns.values()))


def packed(header: Mapping[str, Any], columns: Sequence[Floats]) -> bytes:
    """A header and columns, one after the other.

    >>> blob = packed({"num": 1}, [np.array([2.5])])
    >>> blob[:4], blob[4:-8], len(blob) % 8
    (b'\\x0c\\x00\\x00\\x00', b'{"num":1}   ', 0)
    """
    text = encode(dict(header))
    text += b" " * (-(4 + len(text)) % 8)
    return b"".join([struct.pack("<I", len(text)), text, *(column.astype("<f8").tobytes() for column in columns)])


def _part_by_step(store: Store, query: CurveQuery, scale: int) -> _Part:
    first, last = first_position(query.first, scale), last_position(query.last, scale)
    whole = _Whole(store, query)
    reduced = whole.reduced(query.num_buckets, first, last)
    if query.first is None and query.last is None:
        total, first_at, last_at = _extent(reduced)
    else:
        total, first_at, last_at = _extent(whole.reduced(1, 0, MAX_POSITION))
    num = int(reduced.num_points.sum())
    ends = [None if at is None else step_of(at, scale) for at in (first_at, last_at)]
    if num <= POINTS_PER_BUCKET * query.num_buckets:
        series = whole.series(first, last)
        columns = _points(series.positions / scale, series)
        return _Part("points", columns, total, ends[0], ends[1], _lineage(series))
    columns = _buckets(reduced, scale)
    return _Part("buckets", columns, total, ends[0], ends[1], _lineage(whole.series(0, 0)))


@dataclass(frozen=True)
class _Whole:
    """One metric's curve in the store, of which any stretch may be read."""

    store: Store
    query: CurveQuery

    def series(self, first: int, last: int) -> Series:
        query = self.query
        return self.store.series(query.run, query.metric, inherited=query.inherited, first=first, last=last)

    def reduced(self, num_buckets: int, first: int, last: int) -> Reduced:
        query = self.query
        return self.store.reduced(
            query.run, query.metric, num_buckets=num_buckets, inherited=query.inherited, first=first, last=last
        )


def _part_by_time(store: Store, query: CurveQuery) -> _Part:
    """By wall time, of which the store has no summaries: the whole curve is read, and put into the order of time."""
    series = store.series(query.run, query.metric, inherited=query.inherited)
    order = np.argsort(series.times, kind="stable")
    times = np.rint(series.times[order] * _MILLISECONDS).astype(np.int64)
    begin, end = (times[0] / _MILLISECONDS, times[-1] / _MILLISECONDS) if len(times) else (None, None)
    first, last = first_position(query.first, _MILLISECONDS), last_position(query.last, _MILLISECONDS)
    start, stop = int(np.searchsorted(times, first, "left")), int(np.searchsorted(times, last, "right"))
    order, times = order[start:stop], times[start:stop]
    if len(times) <= POINTS_PER_BUCKET * query.num_buckets:
        columns = {
            "x": times / _MILLISECONDS,
            "value": series.values[order],
            "owner": series.owners[order].astype(np.float64),
        }
        return _Part("points", columns, len(series), begin, end, _lineage(series))
    reduced = reduce_blocks(single_blocks(times, series.values[order]), query.num_buckets)
    return _Part("buckets", _buckets(reduced, _MILLISECONDS), len(series), begin, end, _lineage(series))


def _points(x: Floats, series: Series) -> dict[str, Floats]:
    return {"x": x, "value": series.values, "owner": series.owners.astype(np.float64)}


def _buckets(reduced: Reduced, scale: int) -> dict[str, Floats]:
    return {
        "x_first": reduced.first_position / scale,
        "x_last": reduced.last_position / scale,
        "min": reduced.min,
        "max": reduced.max,
        "num_nonfinite": reduced.num_nonfinite.astype(np.float64),
    }


def _extent(reduced: Reduced) -> tuple[int, int | None, int | None]:
    """The number of points, and the first and last position."""
    if not len(reduced):
        return 0, None, None
    return int(reduced.num_points.sum()), int(reduced.first_position[0]), int(reduced.last_position[-1])


def _lineage(series: Series) -> list[tuple[str, int]]:
    return list(zip(series.runs, series.fork_positions, strict=True))


def _extremes(part: _Part) -> tuple[float | None, float | None]:
    """The least and the greatest finite value among what is sent."""
    lows, highs = (part.columns.get(name, part.columns.get("value")) for name in ("min", "max"))
    assert lows is not None
    assert highs is not None
    with_values = np.isfinite(lows), np.isfinite(highs)
    low = float(lows[with_values[0]].min()) if with_values[0].any() else math.nan
    high = float(highs[with_values[1]].max()) if with_values[1].any() else math.nan
    return (None if math.isnan(low) else low), (None if math.isnan(high) else high)
