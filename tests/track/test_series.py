from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from thalweg.errors import StoreError
from thalweg.track.series import (
    BLOCK,
    CHUNK_POINTS,
    Chunk,
    Points,
    journal_layout,
    pack,
    reduce_blocks,
    settle,
    single_blocks,
    summarise,
    unpack,
    unpack_journal,
)

int64s = st.integers(-(2**63), 2**63 - 1)


def points(positions: list[int], values: list[float] | None = None) -> Points:
    held = np.array(positions, np.int64)
    return Points(held, held * 10, np.arange(len(positions), dtype=np.float64) if values is None else np.array(values))


@given(
    positions=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=50, unique=True).map(sorted),
    data=st.data(),
)
def test_a_chunk_unpacks_bit_for_bit(positions: list[int], data: st.DataObject) -> None:
    size = len(positions)
    values = data.draw(npst.arrays(np.uint64, size)).view(np.float64)
    times = np.array(data.draw(st.lists(int64s, min_size=size, max_size=size)), np.int64)
    (chunk,) = pack(Points(np.array(positions, np.int64), times, values))
    kept = unpack(chunk)
    assert kept.positions.tolist() == positions
    assert kept.times.tolist() == times.tolist()
    assert kept.values.tobytes() == values.tobytes()


@pytest.mark.parametrize("size", [1, 2, CHUNK_POINTS - 1, CHUNK_POINTS, CHUNK_POINTS + 1, 3 * CHUNK_POINTS + 65])
def test_long_series_are_cut_into_chunks(size: int) -> None:
    given_points = points([3 * i for i in range(size)])
    chunks = pack(given_points)
    assert [chunk.num_points for chunk in chunks[:-1]] == [CHUNK_POINTS] * (len(chunks) - 1)
    assert sum(chunk.num_points for chunk in chunks) == size
    assert np.concatenate([unpack(chunk).values for chunk in chunks]).tolist() == list(range(size))
    assert [chunk.first_position for chunk in chunks] == [3 * CHUNK_POINTS * i for i in range(len(chunks))]
    for chunk in chunks:
        kept = unpack(chunk)
        assert chunk.summary == summarise(kept.positions, kept.values).tobytes()


def test_evenly_spaced_positions_and_times_take_hardly_any_room() -> None:
    (chunk,) = pack(points(list(range(0, 7 * 4096, 7))))
    assert len(chunk.positions) + len(chunk.times) < 100


def test_a_summary_keeps_each_block_s_extremes_and_counts() -> None:
    values = np.zeros(130)
    values[[3, 5, 70]] = [-7.5, 9.25, np.nan]
    values[128:] = [np.inf, -np.inf]
    blocks = summarise(np.arange(1000, 1130), values)
    assert blocks["first"].tolist() == [1000, 1064, 1128]
    assert blocks["last"].tolist() == [1063, 1127, 1129]
    assert blocks["num_points"].tolist() == [64, 64, 2]
    assert blocks["num_nonfinite"].tolist() == [0, 1, 2]
    assert blocks["min"][:2].tolist() == [-7.5, 0.0]
    assert blocks["max"][:2].tolist() == [9.25, 0.0]
    assert np.isnan([blocks["min"][2], blocks["max"][2]]).all()


def test_buckets_by_hand() -> None:
    values = np.array([1.0, 5.0, np.nan, 2.0, -3.0, np.inf, 4.0])
    reduced = reduce_blocks(single_blocks(np.arange(0, 70, 10), values), 3)
    # Seven points into three buckets by their place: 0-2, 3-4, 5-6.
    assert reduced.first_position.tolist() == [0, 30, 50]
    assert reduced.last_position.tolist() == [20, 40, 60]
    assert reduced.min.tolist() == [1.0, -3.0, 4.0]
    assert reduced.max.tolist() == [5.0, 2.0, 4.0]
    assert reduced.num_nonfinite.tolist() == [1, 0, 1]
    assert reduced.num_points.tolist() == [3, 2, 2]


def test_nothing_reduces_to_nothing() -> None:
    assert len(reduce_blocks(np.zeros(0, BLOCK), 10)) == 0


@given(size=st.integers(1, 3000), num_buckets=st.integers(1, 400))
def test_a_spike_is_never_hidden(size: int, num_buckets: int) -> None:
    values = np.sin(np.arange(size))
    values[size // 3] = 1e9
    reduced = reduce_blocks(single_blocks(np.arange(size), values), num_buckets)
    assert len(reduced) == min(size, num_buckets)
    assert int(reduced.num_points.max()) - int(reduced.num_points.min()) <= 1
    assert reduced.max.max() == 1e9
    assert reduced.min.min() == values.min()


def test_settling_sorts_and_keeps_the_last_write() -> None:
    settled = settle(points([5, 1, 5, 3, 1, 5]))
    assert settled.positions.tolist() == [1, 3, 5]
    assert settled.values.tolist() == [4.0, 3.0, 5.0]


def test_journal_rows_keep_the_order_of_calls_across_sets_of_names() -> None:
    one, two, million = journal_layout(1).pack, journal_layout(2).pack, 1_000_000
    rows = [
        ('["a"]', 2, one(1, 10 * million, 1.0) + one(2, 21 * million - 1, 2.0)),
        ('["b", "a"]', 1, two(1, 30 * million, 3.0, 4.0)),
        ('["a"]', 1, one(1, 40 * million, 5.0)),
    ]
    found = unpack_journal(rows)
    assert found["a"].positions.tolist() == [1, 2, 1, 1]
    assert found["a"].values.tolist() == [1.0, 2.0, 4.0, 5.0]
    assert found["a"].times.tolist() == [10, 20, 30, 40]
    assert found["b"].values.tolist() == [3.0]
    assert list(unpack_journal(rows, "b")) == ["b"]


def damaged(**changes: bytes | int) -> Chunk:
    (chunk,) = pack(points([0, 1, 5, 7], [0.1, 0.2, 0.3, 0.4]))
    return Chunk(**({name: getattr(chunk, name) for name in Chunk.__dataclass_fields__} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "chunk",
    [
        damaged(values=b""),
        damaged(values=damaged().values[:-1]),
        damaged(values=damaged().values[:-6] + b"abcdef"),
        damaged(num_points=5),
        damaged(positions=b"\x07"),
        damaged(positions=b""),
        damaged(times=b"\x00123"),
    ],
)
def test_a_damaged_chunk_is_refused(chunk: Chunk) -> None:
    with pytest.raises(StoreError, match="damaged"):
        unpack(chunk)


def test_a_damaged_journal_row_is_refused() -> None:
    with pytest.raises(StoreError, match="damaged"):
        unpack_journal([('["a"]', 2, b"0" * 40)])
