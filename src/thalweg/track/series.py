"""Points of a curve: packed into chunks, unpacked, put in order, and reduced for drawing.

A chunk holds up to 4,096 points of one metric by rising position. Floats and integers are byte-shuffled (all first
bytes, then all second bytes, ...), which puts bytes that resemble each other side by side, and compressed with zstd.
Beside the points, a chunk keeps a summary of every 64 of them, so that a long curve is drawn without unpacking it.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from thalweg.errors import StoreError

CHUNK_POINTS = 4096
"""Points in a full chunk."""

BLOCK_POINTS = 64
"""Points that one entry of a summary stands for."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK = np.dtype(
    [("first", "<i8"), ("last", "<i8"), ("min", "<f8"), ("max", "<f8"), ("num_points", "<u2"), ("num_nonfinite", "<u2")]
)
"""A block's first and last position, the extremes of its finite values (NaN where it has none), and its counts."""

Blocks = NDArray[np.void]

_STRIDE = b"\x00"
_DELTAS = b"\x01"
_LEVEL = 1
_local = threading.local()


@dataclass(frozen=True)
class Points:
    """Points of one metric: one array entry each."""

    positions: Ints
    times: Ints
    """Wall time of the call that logged the point, in milliseconds since 1970."""
    values: Floats

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, which: Any) -> Points:
        """Those at the given indices, mask or slice."""
        return Points(self.positions[which], self.times[which], self.values[which])


@dataclass(frozen=True)
class Series:
    """The curve of one metric over a run's lineage, by rising position, one point per position."""

    positions: Ints
    values: Floats
    times: Floats
    """Wall time of each point, in seconds since 1970, to the millisecond."""
    owners: NDArray[np.int32]
    """For each point, the index in `runs` of the run that logged it."""
    runs: tuple[str, ...]
    """The lineage, the root first and the run itself last; only itself where nothing is inherited."""
    fork_positions: tuple[int, ...]
    """Where each run of the lineage begins; 0 for a root."""

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class Reduced:
    """A curve in buckets of neighbouring points, with exact extremes: one array entry per bucket."""

    first_position: Ints
    last_position: Ints
    min: Floats
    """The least finite value in the bucket; NaN where there is none."""
    max: Floats
    num_nonfinite: Ints
    """Points in the bucket that are NaN or infinite."""
    num_points: Ints

    def __len__(self) -> int:
        return len(self.min)


@dataclass(frozen=True)
class Chunk:
    """Packed points, as a row of the store holds them."""

    num_points: int
    first_position: int
    last_position: int
    summary: bytes
    positions: bytes
    times: bytes
    values: bytes


def pack(points: Points) -> list[Chunk]:
    """Cut points in strictly rising order into chunks."""
    parts = [points.take(slice(i, i + CHUNK_POINTS)) for i in range(0, len(points), CHUNK_POINTS)]
    summary = summarise(points.positions, points.values)
    per_chunk = CHUNK_POINTS // BLOCK_POINTS
    return [
        Chunk(
            num_points=len(part),
            first_position=int(part.positions[0]),
            last_position=int(part.positions[-1]),
            summary=summary[i * per_chunk : (i + 1) * per_chunk].tobytes(),
            positions=_pack_integers(part.positions),
            times=_pack_integers(part.times),
            values=_compress(part.values.astype("<f8", copy=False)),
        )
        for i, part in enumerate(parts)
    ]


def unpack(chunk: Chunk) -> Points:
    """A chunk's points.

    Raises:
        StoreError: the chunk is damaged.
    """
    num = chunk.num_points
    positions, times = unpack_integers(chunk.positions, num), unpack_integers(chunk.times, num)
    return Points(positions, times, unpack_floats(chunk.values, num))


def unpack_floats(blob: bytes, num: int) -> Floats:
    """The values of a chunk of `num` points, bit for bit as they were packed."""
    return _decompress(blob, num).view("<f8")


def unpack_integers(blob: bytes, num: int) -> Ints:
    """The positions or times of a chunk of `num` points."""
    if blob[:1] == _STRIDE and len(blob) == 17:
        first, stride = (int(x) for x in np.frombuffer(blob, "<i8", offset=1))
        return first + stride * np.arange(num, dtype=np.int64)
    if blob[:1] != _DELTAS:
        raise StoreError(f"a chunk of {num} points is damaged: its positions cannot be read")
    return np.cumsum(_decompress(blob[1:], num).view("<i8"), dtype=np.int64)


def summarise(positions: Ints, values: Floats) -> Blocks:
    """A `BLOCK` for every 64 points, the last one for those that are left."""
    starts = np.arange(0, len(values), BLOCK_POINTS)
    ends = np.append(starts[1:], len(values))
    blocks: Blocks = np.zeros(len(starts), BLOCK)
    finite = np.isfinite(values)
    known = np.where(finite, values, np.nan)
    blocks["first"], blocks["last"] = positions[starts], positions[ends - 1]
    blocks["min"], blocks["max"] = np.fmin.reduceat(known, starts), np.fmax.reduceat(known, starts)
    blocks["num_points"] = ends - starts
    blocks["num_nonfinite"] = np.add.reduceat(~finite, starts, dtype=np.int64)
    return blocks


def reduce_blocks(blocks: Blocks, num_buckets: int) -> Reduced:
    """Gather blocks, in order, into at most so many buckets of nearly equal numbers of points."""
    counts = blocks["num_points"].astype(np.int64)
    ends = np.cumsum(counts)
    # A block belongs to the bucket in which its middle lies.
    middles = ends - (counts + 1) // 2
    buckets = middles * num_buckets // max(int(ends[-1]) if len(ends) else 0, 1)
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    if not len(starts):
        none, empty = np.zeros(0, np.int64), np.zeros(0)
        return Reduced(none, none, empty, empty, none, none)
    return Reduced(
        first_position=blocks["first"][starts].astype(np.int64),
        last_position=blocks["last"][np.append(starts[1:], len(blocks)) - 1].astype(np.int64),
        min=np.fmin.reduceat(blocks["min"], starts),
        max=np.fmax.reduceat(blocks["max"], starts),
        num_nonfinite=np.add.reduceat(blocks["num_nonfinite"], starts, dtype=np.int64),
        num_points=np.add.reduceat(counts, starts),
    )


def single_blocks(positions: Ints, values: Floats) -> Blocks:
    """Each point as a block of its own."""
    blocks: Blocks = np.zeros(len(values), BLOCK)
    finite = np.isfinite(values)
    blocks["first"] = blocks["last"] = positions
    blocks["min"] = blocks["max"] = np.where(finite, values, np.nan)
    blocks["num_points"], blocks["num_nonfinite"] = 1, ~finite
    return blocks


def settle_order(positions: Ints) -> NDArray[np.int64] | None:
    """The indices that sort positions and keep the last point of each; None where they already are like that."""
    if len(positions) < 2 or bool((positions[1:] > positions[:-1]).all()):
        return None
    order = np.argsort(positions, kind="stable")
    ordered = positions[order]
    kept: NDArray[np.int64] = order[np.append(ordered[1:] != ordered[:-1], True)]
    return kept


def settle(points: Points) -> Points:
    """Points in the order they were written -> by rising position, the last write of each."""
    order = settle_order(points.positions)
    return points if order is None else points.take(order)


def join(parts: Sequence[Points]) -> Points:
    """One after the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Points(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Points(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def journal_layout(num_metrics: int) -> struct.Struct:
    """How a log call is packed: position, nanoseconds since 1970, and each value. A journal row holds such calls."""
    return struct.Struct(f"<qq{num_metrics}d")


def unpack_journal(rows: Iterable[tuple[str, int, bytes]], only: str | None = None) -> dict[str, Points]:
    """The points in journal rows (names, number of calls, blob), by metric, in the order they were written.

    Args:
        only: the one metric that is wanted, or None for all of them.
    Raises:
        StoreError: a row is damaged.
    """
    grouped: dict[str, list[tuple[int, int, bytes]]] = {}
    for index, (names_text, num_calls, blob) in enumerate(rows):
        grouped.setdefault(names_text, []).append((index, num_calls, blob))
    columns: dict[str, list[tuple[Points, Ints]]] = {}
    for names_text, entries in grouped.items():
        names: list[str] = json.loads(names_text)
        wanted = [i for i, name in enumerate(names) if only is None or name == only]
        if not wanted:
            continue
        parts = [_journal_arrays(num, len(names), blob) for _, num, blob in entries]
        positions, times = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        values = np.concatenate([part[2] for part in parts])
        order = np.repeat([index for index, _, _ in entries], [num for _, num, _ in entries])
        for i in wanted:
            points = Points(positions, times, np.ascontiguousarray(values[:, i]))
            columns.setdefault(names[i], []).append((points, order))
    return {name: _in_order(parts) for name, parts in columns.items()}


def _in_order(parts: list[tuple[Points, Ints]]) -> Points:
    if len(parts) == 1:
        return parts[0][0]
    # Rows with different sets of names hold this metric: put the calls back in the order of their rows.
    order = np.argsort(np.concatenate([order for _, order in parts]), kind="stable")
    return join([points for points, _ in parts]).take(order)


def _journal_arrays(num: int, num_names: int, blob: bytes) -> tuple[Ints, Ints, Floats]:
    if len(blob) != 8 * num * (2 + num_names):
        raise StoreError(f"a journal row of {num} calls is damaged: it has {len(blob)} bytes")
    integers = np.frombuffer(blob, "<i8").reshape(num, 2 + num_names)
    return integers[:, 0], integers[:, 1] // 1_000_000, integers[:, 2:].view("<f8")


def _pack_integers(numbers: Ints) -> bytes:
    deltas = np.diff(numbers, prepend=np.int64(0))
    if len(numbers) < 2 or bool((deltas[1:] == deltas[1]).all()):
        stride = deltas[1] if len(numbers) > 1 else 0
        return _STRIDE + np.array([numbers[0], stride], "<i8").tobytes()
    return _DELTAS + _compress(deltas.astype("<i8", copy=False))


def _compress(numbers: NDArray[Any]) -> bytes:
    # One compressor per thread: they are not safe to share, and costly to make.
    compressor = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    shuffled = np.ascontiguousarray(numbers).view(np.uint8).reshape(-1, 8).T
    return bytes(compressor.compress(shuffled.tobytes()))


def _decompress(blob: bytes, num: int) -> NDArray[np.uint8]:
    decompressor = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    try:
        # A damaged header must not make us allocate what it says.
        if zstandard.frame_content_size(blob) != 8 * num:
            raise StoreError(f"a chunk of {num} points is damaged: its length is wrong")
        plain = decompressor.decompress(blob)
    except zstandard.ZstdError as error:
        raise StoreError(f"a chunk of {num} points is damaged: {error}") from error
    shuffled = np.frombuffer(plain, np.uint8).reshape(8, num)
    return np.ascontiguousarray(shuffled.T).reshape(-1)
