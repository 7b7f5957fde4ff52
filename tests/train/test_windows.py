"""Positions and the tokens that they train on."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thalweg.train.windows import Windows, crosses, window


@given(num_tokens=st.integers(2, 200), context=st.integers(1, 30), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_an_epoch_goes_through_the_stream_once(num_tokens: int, context: int, seed: int, epoch: int) -> None:
    if num_tokens <= context:
        return
    windows = Windows(np.arange(num_tokens), context=context, seed=seed)
    count = windows.num_windows
    assert count == (num_tokens - 1) // context
    inputs, targets = windows.batch(epoch * count, count)
    assert inputs.shape == targets.shape == (count, context)
    # Every token at most once, all but less than a context of them; each target is the one after its input.
    assert len(np.unique(inputs)) == inputs.size == count * context
    assert ((inputs + 1) % num_tokens == targets).all()


@given(cuts=st.lists(st.integers(1, 7), min_size=1, max_size=10), seed=st.integers(0, 3))
def test_batches_do_not_depend_on_how_they_are_cut(cuts: list[int], seed: int) -> None:
    """Whatever the batch sizes were before, a position has the same sequences."""
    ids = np.arange(50, dtype=np.uint16)
    total = sum(cuts)
    whole, _ = Windows(ids, context=6, seed=seed).batch(0, total)
    windows = Windows(ids, context=6, seed=seed)
    first, parts = 0, []
    for count in cuts:
        parts.append(windows.batch(first, count)[0])
        first += count
    assert (np.concatenate(parts) == whole).all()
    begun_later, _ = Windows(ids, context=6, seed=seed).batch(total - 1, 1)
    assert (begun_later == whole[-1:]).all()


def test_epochs_and_seeds_have_their_own_order_and_offset() -> None:
    ids = np.arange(1001)
    windows = Windows(ids, context=10, seed=1)
    first, second = windows.starts(0, 100), windows.starts(100, 100)
    assert first != second
    assert len({start % 10 for start in first}) == 1
    assert first != Windows(ids, context=10, seed=2).starts(0, 100)
    offsets = {windows.starts(100 * epoch, 1)[0] % 10 for epoch in range(40)}
    assert len(offsets) >= 8


def test_the_stream_is_a_circle() -> None:
    ids = np.array([5, 6, 7, 8], dtype=np.uint16)
    assert window(ids, 1, 2).tolist() == [6, 7, 8]
    assert window(ids, 2, 3).tolist() == [7, 8, 5, 6]
    assert window(ids, 0, 3).dtype == np.int64


@given(st.integers(1, 10_000), st.integers(1, 50), st.integers(1, 5000))
def test_every_mark_is_crossed_by_one_step(horizon: int, num_parts: int, step: int) -> None:
    boundaries = range(0, horizon + step, step)
    num_crossed = sum(crosses(p, p + step, horizon, num_parts) for p in boundaries)
    assert num_crossed <= len(boundaries)
    if step * num_parts <= horizon:
        assert sum(crosses(p, p + step, horizon, num_parts) for p in boundaries if p + step <= horizon) in (
            num_parts,
            num_parts - 1,  # the last mark is the horizon, which the last whole step may not reach
        )


def test_without_parts_nothing_is_crossed() -> None:
    assert not any(crosses(p, p + 10, 100, 0) for p in range(0, 100, 10))
