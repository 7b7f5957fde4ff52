"""Linear and constant by properties, each schedule's values where nothing published says them, and bad values."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.schedules import (
    SCHEDULES,
    Schedule,
    Stage,
    constant,
    cosine,
    cyclic_cosine,
    cyclic_wsd,
    inverse_sqrt,
    join,
    linear,
    lr_range,
    multi_stage,
    polynomial,
    repeat,
    scale,
    stretch,
    wsd,
)


@given(
    warmup=st.floats(0, 1e9),
    decay=st.floats(1, 1e9),
    floor=st.floats(0, 0.99),
    position=st.floats(0, 3e9),
    scale=st.sampled_from([1.0, 16.0, 2048.0]),
)
def test_linear_stays_in_its_range_and_does_not_depend_on_the_unit(
    warmup: float, decay: float, floor: float, position: float, scale: float
) -> None:
    lr = linear(warmup=warmup, horizon=warmup + decay, floor=floor)
    assert 0.0 <= lr(position) <= 1.0
    if position >= warmup:
        assert lr(position) >= floor - 1e-12
    in_other_unit = linear(warmup=warmup * scale, horizon=(warmup + decay) * scale, floor=floor)
    assert in_other_unit(position * scale) == pytest.approx(lr(position), abs=1e-6)


def test_the_floor_is_reached_and_held() -> None:
    lr = linear(warmup=0, horizon=100, floor=0.2)
    assert [lr(p) for p in (0, 50, 100, 1000)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


@pytest.mark.parametrize("schedule", [linear(warmup=3, horizon=9), constant(warmup=3)])
def test_a_schedule_can_be_sent_compared_and_is_pure(schedule: Schedule) -> None:
    copy = pickle.loads(pickle.dumps(schedule))
    assert copy == schedule
    assert [copy(p) for p in range(12)] == [schedule(p) for p in range(12)]


def test_every_schedule_says_what_comes_beyond_its_end() -> None:
    for lr, expected in (
        (constant(warmup=5), 1.0),
        (linear(horizon=100, floor=0.1), 0.1),
        (polynomial(power=3, horizon=100, floor=0.1), 0.1),
        (cosine(horizon=100, floor=0.1), 0.1),
        (wsd(stable=80, decay=20, floor=0.1), 0.1),
        (cyclic_cosine(period=50, num_cycles=2, floor=0.1), 0.1),
        (cyclic_wsd(period=50, num_cycles=2, floor=0.1), 0.1),
        (multi_stage(stages=[Stage(length=100, begin=1, end=0.3)]), 0.3),
        (lr_range(horizon=100, floor=0.1), 1.0),
        (repeat(linear(horizon=50, floor=0.1), period=50, times=2), 0.1),
    ):
        assert [lr(p) for p in (100, 101, 1e6, 1e15)] == pytest.approx([expected] * 4), lr
    assert inverse_sqrt(warmup=100)(1e6) == pytest.approx(0.01)
    assert inverse_sqrt(warmup=100, floor=0.2)(1e6) == 0.2


def test_a_truncated_cosine_is_a_longer_one() -> None:
    lr = cosine(horizon=2000)
    assert lr(1000) == pytest.approx(0.5)


def test_cycles_without_end_and_shrinking_ones() -> None:
    assert cyclic_cosine(period=10)(1e9 + 5) == pytest.approx(0.5)
    assert cyclic_wsd(period=100, decay=0.2)(100_000_090) == pytest.approx(0.5)
    # 40, 20 and 10 long.
    lr = cyclic_cosine(period=40, cycle_growth=0.5, num_cycles=3)
    assert [lr(p) for p in (0, 20, 40, 50, 60, 65, 70)] == pytest.approx([1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 0.0])


def test_a_warmup_in_each_cycle() -> None:
    lr = cyclic_cosine(period=20, warmup=4, warmup_in="each", floor=0.2, cycle_peak=0.6, num_cycles=2)
    assert [lr(p) for p in (0, 2, 4, 12, 20, 22, 24, 32, 40)] == pytest.approx(
        [0.0, 0.5, 1.0, 0.6, 0.2, 0.4, 0.6, 0.4, 0.2]
    )
    first = cyclic_cosine(period=20, warmup=4, floor=0.2)
    assert [first(p) for p in (2, 20, 30)] == pytest.approx([0.5, 1.0, 0.6])


def test_stages_rise_as_they_fall() -> None:
    for form in ("linear", "1-sqrt", "cosine", "square", "exponential", "inverse", "mirror-cosine"):
        down = multi_stage(stages=[Stage(length=100, begin=1, end=0.1, form=form)])
        up = multi_stage(stages=[Stage(length=100, begin=0.1, end=1, form=form)])
        assert [up(100 - p) for p in range(1, 100)] == pytest.approx([down(p) for p in range(1, 100)])


def test_nested_compositions() -> None:
    lr = stretch(scale(join(schedules=[linear(horizon=10), constant()], boundaries=[10]), factor=0.5), factor=3)
    assert [lr(p) for p in (0, 15, 29.999999, 30, 99)] == pytest.approx([0.5, 0.25, 0.0, 0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "lengths", "message"),
    [
        ("linear", {"horizon": 0}, "horizon = 0"),
        ("linear", {"horizon": 5, "warmup": -1}, "warmup = -1"),
        ("linear", {"horizon": 5, "warmup": 6}, "warmup = 6"),
        ("linear", {"horizon": 5, "floor": 1.0}, "floor = 1.0"),
        ("linear", {"horizon": float("nan")}, "horizon = nan"),
        ("constant", {"warmup": -2}, "warmup = -2"),
        ("constant", {"warmup": float("inf")}, "warmup = inf"),
        ("constant", {"warmup": "3"}, "warmup = 3 must be a finite number"),
        ("constant", {"warmup": True}, "warmup = True"),
        ("polynomial", {"power": 0, "horizon": 5}, "power = 0"),
        ("polynomial", {"power": float("nan"), "horizon": 5}, "power = nan"),
        ("polynomial", {"power": 1, "horizon": 5, "warmup": 6}, "warmup = 6 is longer than horizon = 5"),
        ("inverse_sqrt", {"warmup": 5, "timescale": 0}, "timescale = 0"),
        ("inverse_sqrt", {}, "warmup = 0 leaves no time scale"),
        ("cosine", {"horizon": 5, "floor": float("nan")}, "floor = nan"),
        ("cosine", {"horizon": -5}, "horizon = -5"),
        ("wsd", {"stable": 5, "decay": 0}, "decay = 0 must be above 0"),
        ("wsd", {"stable": -5, "decay": 1}, "stable = -5"),
        ("wsd", {"stable": 5, "decay": 1, "decay_form": "exponental"}, "Did you mean 'exponential'"),
        ("wsd", {"stable": 5, "decay": 1, "decay_form": "exponential"}, "give a floor above 0 or a half_life"),
        ("wsd", {"stable": 5, "decay": 1, "decay_form": "inverse"}, "'inverse' never reaches 0"),
        ("wsd", {"stable": 5, "decay": 1, "half_life": 3}, "half_life = 3 belongs to decay_form 'exponential'"),
        ("wsd", {"stable": 5, "decay": 1, "decay_form": "exponential", "half_life": 0}, "half_life = 0"),
        ("cyclic_cosine", {"period": 0}, "period = 0"),
        ("cyclic_cosine", {"period": 9, "warmup": 9}, "warmup = 9 must be shorter than its cycle of 9"),
        (
            "cyclic_cosine",
            {"period": 9, "warmup": 5, "warmup_in": "each", "cycle_growth": 0.5, "num_cycles": 2},
            "shorter than its cycle of 4.5",
        ),
        ("cyclic_cosine", {"period": 9, "warmup_in": "all"}, "warmup_in = 'all'"),
        ("cyclic_cosine", {"period": 9, "cycle_growth": 0.5}, "cycle_growth = 0.5 below 1 needs num_cycles"),
        ("cyclic_cosine", {"period": 9, "cycle_peak": 0.5, "floor": 0.1}, "needs num_cycles"),
        ("cyclic_cosine", {"period": 9, "start": -1}, "start = -1"),
        ("cyclic_wsd", {}, "give exactly one of them"),
        ("cyclic_wsd", {"period": 9, "ends": [9]}, "give exactly one of them"),
        ("cyclic_wsd", {"ends": []}, "must increase"),
        ("cyclic_wsd", {"ends": [9, 9]}, r"ends = \[9, 9\] must increase from start = 0.0"),
        ("cyclic_wsd", {"ends": [9], "start": 9}, "must increase from start = 9"),
        ("cyclic_wsd", {"ends": [9], "num_cycles": 1}, "belong to period"),
        ("cyclic_wsd", {"ends": [float("nan")]}, r"ends\[0\] = nan"),
        ("cyclic_wsd", {"ends": [90, 100], "decay": 20}, "longer than cycle 1, which goes from 90 to 100"),
        ("cyclic_wsd", {"period": 100, "rewarmup": 95}, "rewarmup = 95 and a decay of 10 are longer than cycle 1"),
        ("cyclic_wsd", {"period": 100, "decay_of": "all"}, "decay_of = 'all' needs num_cycles"),
        (
            "cyclic_wsd",
            {"period": 100, "decay_of": "all", "num_cycles": 11},
            "a decay of 110 are longer than cycle 10",
        ),
        ("cyclic_wsd", {"period": 100, "decay_of": "run"}, "decay_of = 'run'"),
        ("cyclic_wsd", {"period": 100, "peaks": [1.0]}, "one entry for each of num_cycles = None"),
        ("cyclic_wsd", {"ends": [100], "peaks": [1.0, 0.5]}, "one entry for each"),
        ("cyclic_wsd", {"ends": [100], "peaks": [1.5]}, r"peaks\[0\] = 1.5"),
        ("cyclic_wsd", {"ends": [100], "peaks": [0.5], "cycle_peak": 0.5}, "give one of them"),
        ("cyclic_wsd", {"ends": [100], "peaks": [0.5], "floor": 0.5}, "floor = 0.5 must be below every peak"),
        ("multi_stage", {"stages": []}, "stages is empty"),
        ("lr_range", {"horizon": 5, "floor": 0}, "floor = 0 must be above 0"),
        ("join", {"schedules": [], "boundaries": []}, "0 schedules and 0 boundaries"),
        ("join", {"schedules": [constant()], "boundaries": [5]}, "1 schedules and 1 boundaries"),
        ("join", {"schedules": [constant()] * 3, "boundaries": [5, 5]}, "must increase"),
        ("join", {"schedules": [constant()] * 2, "boundaries": [0]}, r"boundaries\[0\] = 0"),
        ("join", {"schedules": [3], "boundaries": []}, "3 is no schedule"),
        ("scale", {"schedule": constant(), "factor": 1.5}, "factor = 1.5 must be at most 1"),
        ("scale", {"schedule": constant(), "factor": 0}, "factor = 0"),
        ("repeat", {"schedule": constant(), "period": 0}, "period = 0"),
        ("repeat", {"schedule": constant(), "period": 5, "times": 0}, "times = 0"),
        ("stretch", {"schedule": constant(), "factor": -1}, "factor = -1"),
    ],
)
def test_bad_lengths(name: str, lengths: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SCHEDULES[name](**lengths)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length": 0, "begin": 1, "end": 0}, "length = 0"),
        ({"length": 5, "begin": 1.5, "end": 0}, "begin = 1.5"),
        ({"length": 5, "begin": 1, "end": -0.1}, "end = -0.1"),
        ({"length": 5, "begin": 1, "end": 0, "form": "cosin"}, "Did you mean 'cosine'"),
        ({"length": 5, "begin": 0, "end": 1, "form": "exponential"}, "never reaches 0"),
    ],
)
def test_bad_stages(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Stage(**values)
