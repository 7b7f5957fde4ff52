"""Schedules against Hugging Face's own, by properties, and with bad lengths."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

from thalweg.errors import ConfigError
from thalweg.schedules import SCHEDULES, Schedule, constant, linear


def hugging_face(make: object, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_equal_to_hugging_face(warmup: int) -> None:
    ours = linear(warmup=warmup, horizon=30)
    theirs = hugging_face(lambda o: get_linear_schedule_with_warmup(o, warmup, 30), 35)
    assert [ours(step) for step in range(35)] == pytest.approx(theirs)
    theirs = hugging_face(lambda o: get_constant_schedule_with_warmup(o, warmup), 35)
    assert [constant(warmup=warmup)(step) for step in range(35)] == pytest.approx(theirs)


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


@pytest.mark.parametrize(
    ("name", "lengths", "message"),
    [
        ("linear", {"horizon": 0}, "horizon = 0"),
        ("linear", {"horizon": 5, "warmup": -1}, "warmup = -1"),
        ("linear", {"horizon": 5, "warmup": 6}, "warmup = 6"),
        ("linear", {"horizon": 5, "floor": 1.0}, "floor = 1.0"),
        ("linear", {"horizon": float("nan")}, "horizon = nan"),
        ("constant", {"warmup": -2}, "warmup = -2"),
    ],
)
def test_bad_lengths(name: str, lengths: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SCHEDULES[name](**lengths)
