"""Steps, samples and tokens, under batches that grow."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.schedules import BatchRamp, batch_ramp, constant_batch, convert, cosine, in_steps, linear
from thalweg.tree import UNITS, Unit


@st.composite
def ramps(draw: st.DrawFn) -> BatchRamp:
    start, increment, num = draw(st.integers(1, 300)), draw(st.integers(1, 64)), draw(st.integers(1, 40))
    over = draw(st.integers(1, 10**6))
    return batch_ramp(start=start, increment=increment, over=over, final=start + num * increment)


@given(ramp=ramps(), num_steps=st.integers(0, 300))
def test_a_ramp_counts_as_a_loop_does(ramp: BatchRamp, num_steps: int) -> None:
    samples = 0
    for step in range(num_steps):
        assert ramp.samples_at(step) == samples
        assert ramp.steps_at(samples) == step
        samples += ramp.size_at(samples)


@given(ramp=ramps(), step=st.floats(0, 1e6))
def test_steps_and_samples_are_each_others_inverse(ramp: BatchRamp, step: float) -> None:
    assert ramp.steps_at(ramp.samples_at(step)) == pytest.approx(step, abs=1e-6)
    assert ramp.samples_at(step + 1) > ramp.samples_at(step)


@given(
    ramp=ramps(),
    length=st.floats(0, 1e9),
    given_=st.sampled_from(UNITS),
    wanted=st.sampled_from(UNITS),
    tokens_per_sample=st.integers(1, 8192),
)
def test_conversion_and_back(
    ramp: BatchRamp, length: float, given_: Unit, wanted: Unit, tokens_per_sample: int
) -> None:
    known: dict[str, Any] = {"ramp": ramp, "tokens_per_sample": tokens_per_sample}
    there = convert(length, given=given_, wanted=wanted, **known)
    assert convert(there, given=wanted, wanted=given_, **known) == pytest.approx(length, rel=1e-9, abs=1e-6)


def test_a_size_lasts_until_a_step_begins_at_or_after_the_sample_where_the_next_is_due() -> None:
    # Due at 10 and at 20 samples. Steps of 4 begin at 0, 4, 8; of 7 at 12, 19; of 10 from 26 on.
    ramp = BatchRamp(start=4, increment=3, over=20, final=10)
    assert [ramp.samples_at(step) for step in range(8)] == [0, 4, 8, 12, 19, 26, 36, 46]
    assert ramp.samples_at(4.5) == 22.5
    assert ramp.steps_at(22.5) == 4.5


def test_a_step_that_jumps_over_increments() -> None:
    # Increments are due at 2, 4, 6 samples; the first step of 8 goes beyond all of them.
    ramp = BatchRamp(start=8, increment=1, over=6, final=11)
    assert [ramp.samples_at(step) for step in range(4)] == [0, 8, 19, 30]


def test_units_are_those_of_the_tree() -> None:
    assert set(get_args(Unit)) == {"steps", "samples", "tokens"}
    batch = constant_batch(16)
    assert convert(32, given="samples", wanted="steps", ramp=batch) == 2
    assert convert(4096, given="tokens", wanted="samples", tokens_per_sample=2048) == 2
    assert convert(4096, given="tokens", wanted="tokens") == 4096


def test_a_schedule_in_samples_or_tokens_by_step() -> None:
    ramp = BatchRamp(start=4, increment=3, over=20, final=10)
    in_samples = cosine(warmup=10, horizon=200, floor=0.1)
    by_step = in_steps(in_samples, ramp)
    assert [by_step(step) for step in range(6)] == [in_samples(samples) for samples in (0, 4, 8, 12, 19, 26)]
    in_tokens = cosine(warmup=1280, horizon=25_600, floor=0.1)
    by_step_too = in_steps(in_tokens, ramp, tokens_per_sample=128)
    assert [by_step_too(step) for step in range(30)] == pytest.approx([by_step(step) for step in range(30)])


def test_with_a_constant_batch_steps_are_samples_stretched() -> None:
    assert [in_steps(linear(horizon=320), constant_batch(16))(step) for step in range(25)] == pytest.approx(
        [linear(horizon=20)(step) for step in range(25)]
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start": 0, "final": 4}, "start = 0"),
        ({"start": 4.0, "final": 4}, "start = 4.0 must be a whole number"),
        ({"start": 4, "final": 8}, "increment = 0"),
        ({"start": 4, "final": 8, "increment": 3, "over": 10}, "the increment must divide"),
        ({"start": 8, "final": 4, "increment": 4, "over": 10}, "from start = 8 to final = 4"),
        ({"start": 4, "final": 8, "increment": 4}, "over 0.0 samples"),
        ({"start": 4, "final": 8, "increment": 4, "over": float("nan")}, "over = nan"),
    ],
)
def test_bad_ramps(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchRamp(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length": 1, "given": "steps", "wanted": "epochs"}, "unknown unit 'epochs'"),
        ({"length": 1, "given": "steps", "wanted": "samples"}, "ramp, the batch size, is missing"),
        ({"length": 1, "given": "samples", "wanted": "tokens"}, "tokens_per_sample is missing"),
        ({"length": -1, "given": "samples", "wanted": "samples"}, "length = -1"),
        ({"length": 1, "given": "samples", "wanted": "tokens", "tokens_per_sample": 0}, "tokens_per_sample = 0"),
    ],
)
def test_bad_conversions(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(values.pop("length"), **values)


def test_no_tokens_in_a_sample() -> None:
    with pytest.raises(ConfigError, match="tokens_per_sample = 0"):
        in_steps(linear(horizon=10), constant_batch(1), tokens_per_sample=0)
