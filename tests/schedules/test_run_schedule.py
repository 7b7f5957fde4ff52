"""A run's schedule from its hyperparameters, against schedules that were made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from thalweg.errors import ConfigError
from thalweg.schedules import (
    constant,
    cosine,
    cyclic_cosine,
    cyclic_wsd,
    decay_start,
    for_run,
    inverse_sqrt,
    linear,
    lr_range,
    polynomial,
    preset,
    wsd,
)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("constant", {"warmup": 0.1}, constant(warmup=100)),
        ("linear", {"warmup": 30, "floor": 0.2}, linear(warmup=30, horizon=1000, floor=0.2)),
        ("linear", {"warmup": 1.0}, linear(warmup=1, horizon=1000)),
        ("polynomial", {"warmup": 0.03}, polynomial(power=2, warmup=30, horizon=1000)),
        ("cosine", {"warmup": 0.1, "floor": 0.1}, cosine(warmup=100, horizon=1000, floor=0.1)),
        ("inverse_sqrt", {"warmup": 0.1}, inverse_sqrt(warmup=100)),
        ("wsd", {}, wsd(stable=900, decay=100)),
        ("wsd", {"warmup": 50, "decay": 0.2}, wsd(warmup=50, stable=750, decay=200)),
        ("wsd", {"warmup": 0.5, "decay": 500}, wsd(warmup=500, stable=0, decay=500)),
        (
            "wsd",
            {"decay": 200, "decay_form": "exponential", "floor": 0.01},
            wsd(stable=800, decay=200, decay_form="exponential", floor=0.01),
        ),
        ("cyclic_cosine", {"num_cycles": 4}, cyclic_cosine(period=250, num_cycles=4)),
        (
            "cyclic_cosine",
            {"num_cycles": 3, "cycle_growth": 2.0, "cycle_peak": 0.75, "cycle_start": 300, "warmup": 0.1},
            cyclic_cosine(period=100, num_cycles=3, cycle_growth=2, cycle_peak=0.75, start=300),
        ),
        ("cyclic_wsd", {"num_cycles": 2, "warmup": 0.1}, cyclic_wsd(period=500, num_cycles=2, warmup=100, decay=0.1)),
        (
            "cyclic_wsd",
            {"cycle_start": 400, "decay": 60, "warmup": 50, "floor": 0.1},
            cyclic_wsd(period=600, num_cycles=1, decay=60, start=400, floor=0.1),
        ),
        ("lr_range", {"floor": 1e-3}, lr_range(horizon=1000, floor=1e-3)),
    ],
)
def test_made_by_hand(name: str, settings: dict[str, Any], expected: object) -> None:
    assert for_run(name, horizon=1000, **settings) == expected


@pytest.mark.parametrize("horizon", [30, 3_000, 70_000, 330_000_000, 9_999_999_990])
def test_a_tenth_is_exactly_a_tenth(horizon: int) -> None:
    lr = for_run("wsd", horizon=horizon, warmup=0.3, decay=0.1)
    assert lr == wsd(warmup=3 * horizon / 10, stable=6 * horizon / 10, decay=horizon / 10)
    assert lr(horizon) == 0.0


def test_cycles_that_do_not_divide_the_run_still_begin_where_they_should() -> None:
    lr = for_run("cyclic_cosine", horizon=1000, num_cycles=6)
    assert lr(500) == pytest.approx(1.0)
    assert lr(499) < 0.01
    assert lr(1000) == 0.0


def test_extending_from_decayed_weights() -> None:
    """The parent ended at 1,000; its extension jumps to the peak there, and decays at its own end."""
    lr = for_run("cyclic_wsd", horizon=2000, warmup=0.1, cycle_start=1000, floor=0.1)
    assert [lr(p) for p in (0, 999)] == [0.1, 0.1]
    assert [lr(p) for p in (1000, 1500, 1900)] == [1.0, 1.0, 1.0]
    assert lr(1950) == pytest.approx(0.55)
    assert lr(2000) == 0.1


def test_a_preset_is_stretched_to_the_run() -> None:
    bloom = preset("bloom-176b")
    lr = for_run("bloom-176b", horizon=2200, warmup=0.5, floor=0.9)
    for position in range(0, 2201, 50):
        assert lr(position) == pytest.approx(bloom.schedule(position * 100_000))
    assert for_run("bloom-176b", horizon=220_000_000) is bloom.schedule


def test_where_the_decay_begins() -> None:
    assert decay_start("wsd", horizon=1000, warmup=0.1, decay=0.2) == 800.0
    assert decay_start("wsd", horizon=1000, decay=50) == 950.0
    assert decay_start("constant", horizon=1000, warmup=0.1) == 1000.0
    for name in ("linear", "cosine", "polynomial", "cyclic_cosine", "cyclic_wsd", "minicpm-2.4b"):
        assert decay_start(name, horizon=1000) is None
    assert decay_start("lr_range", horizon=10, floor=0.1) is None


def test_budgets_of_one_trunk_agree_until_the_first_of_them_decays() -> None:
    runs = {horizon: for_run("wsd", horizon=horizon, warmup=20) for horizon in (1000, 2000, 4000)}
    trunk = for_run("constant", horizon=4000, warmup=20)
    for horizon, lr in runs.items():
        start = decay_start("wsd", horizon=horizon, warmup=20)
        assert start == 0.9 * horizon
        assert [lr(p) for p in range(int(start) + 1)] == [trunk(p) for p in range(int(start) + 1)]
        assert lr(start + 1) < 1.0


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wsdd", {}, "unknown schedule 'wsdd'. Did you mean 'wsd'"),
        ("linear", {"horizon": 0}, "horizon = 0"),
        ("linear", {"horizon": float("nan")}, "horizon = nan"),
        ("linear", {"horizon": float("inf")}, "horizon = inf"),
        ("constant", {"warmup": -1}, "warmup = -1"),
        ("constant", {"warmup": 1001}, "warmup = 1001 is longer than the horizon of 1000"),
        ("wsd", {"warmup": float("nan")}, "warmup = nan"),
        ("wsd", {"decay": 1001}, "longer than the run of 1000"),
        ("wsd", {"decay": 0.6, "warmup": 0.5}, "warmup = 500 and decay = 600 are longer than the run of 1000"),
        ("wsd", {"decay": 0}, "decay = 0.*'constant'"),
        ("wsd", {"decay": -0.1}, "decay = -0.1"),
        ("wsd", {"decay_form": "liner"}, "unknown decay_form 'liner'. Did you mean 'linear'"),
        ("linear", {"decay_form": "sqrt"}, "unknown decay_form 'sqrt'. Did you mean '1-sqrt'"),
        ("wsd", {"decay_form": "inverse"}, "'inverse' never reaches 0"),
        ("wsd", {"decay_form": "exponential"}, "half_life"),
        ("wsd", {"floor": 1.0}, "floor = 1.0"),
        ("cosine", {"floor": 1.5}, "floor = 1.5"),
        ("cosine", {"floor": -0.1}, "floor = -0.1"),
        ("inverse_sqrt", {}, "warmup = 0 leaves no time scale"),
        ("lr_range", {}, "floor = 0 must be above 0"),
        ("cyclic_cosine", {"num_cycles": 0}, "num_cycles = 0"),
        ("cyclic_cosine", {"num_cycles": 2.5}, "num_cycles = 2.5"),
        ("cyclic_cosine", {"cycle_growth": 0}, "cycle_growth = 0"),
        ("cyclic_cosine", {"num_cycles": 5000, "cycle_growth": 2}, "too many"),
        ("cyclic_cosine", {"cycle_peak": 1.1}, "cycle_peak = 1.1 must be at most 1"),
        ("cyclic_cosine", {"cycle_peak": 0.5, "num_cycles": 4, "floor": 0.2}, "floor = 0.2 is not below the last"),
        ("cyclic_cosine", {"cycle_start": 1000}, "cycle_start = 1000 must be before the horizon"),
        ("cyclic_cosine", {"num_cycles": 10, "warmup": 0.1}, "warmup = 100.0 must be shorter than its cycle of 100"),
        ("cyclic_wsd", {"num_cycles": 10, "decay": 101}, "a decay of 101 are longer than cycle 0"),
        ("cyclic_wsd", {"num_cycles": 2, "warmup": 0.45, "decay": 0.2}, "warmup = 450 and a decay of 100"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        for_run(name, **{"horizon": 1000, **settings})
    with pytest.raises(ConfigError, match=message):
        decay_start(name, **{"horizon": 1000, **settings})
