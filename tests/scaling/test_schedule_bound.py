"""The convex bound: published values, a direct sum of the formula, and what it says of schedules."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.scaling.schedule_bound import bound_curve, multipliers, schedule_bound
from thalweg.schedules import constant, linear


def test_the_constant_schedules_published_terms() -> None:
    bound = schedule_bound([1.0] * 10, peak=0.5)
    assert bound.distance == pytest.approx(0.1, abs=1e-12)
    assert bound.noise == pytest.approx(0.25, abs=1e-12)
    ninth_harmonic = sum(1 / k for k in range(1, 10))
    assert bound.last_iterate == pytest.approx(0.25 * ninth_harmonic, abs=1e-12)
    assert bound.last_iterate == pytest.approx(0.707242, abs=5e-7)
    assert bound.total == pytest.approx(1.057242, abs=5e-7)
    assert bound.least() == pytest.approx(0.618787, abs=5e-7)


def by_the_formula(w: list[float], peak: float, distance: float, norm: float) -> float:
    """Term by term with gradients of one norm, as the paper has it; no weight of 0 at the end."""
    num = len(w)
    total = distance**2 / (2 * peak * sum(w)) + peak / 2 * sum(v**2 * norm**2 for v in w) / sum(w)
    for k in range(num - 1):
        inner = sum(w[t] ** 2 * norm**2 for t in range(k, num)) / sum(w[k:])
        total += peak / 2 * w[k] / sum(w[k + 1 :]) * inner
    return total


WEIGHTS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12).map(lambda w: [*w, 0.3])
SCALE = st.floats(0.05, 20)


@given(WEIGHTS, SCALE, SCALE, SCALE)
def test_it_is_the_formula(w: list[float], peak: float, distance: float, norm: float) -> None:
    bound = schedule_bound(w, peak=peak, distance=distance, gradient_norm=norm)
    assert bound.total == pytest.approx(by_the_formula(w, peak, distance, norm), rel=1e-9)


@given(WEIGHTS, SCALE)
def test_no_peak_beats_the_best_one(w: list[float], peak: float) -> None:
    bound = schedule_bound(w, peak=peak)
    best = schedule_bound(w, peak=peak * bound.best_peak_factor())
    assert best.total == pytest.approx(bound.least(), rel=1e-9)
    for factor in (0.9, 1.1):
        assert schedule_bound(w, peak=peak * bound.best_peak_factor() * factor).total > best.total


def test_steps_at_a_rate_of_zero_at_the_end_change_nothing() -> None:
    assert schedule_bound([0.5, 1.0, 0.5, 0.0, 0.0], peak=1.0) == schedule_bound([0.5, 1.0, 0.5], peak=1.0)


def test_a_decay_is_worth_it_and_the_curve_drops_in_it() -> None:
    held = multipliers(constant(), num_steps=100)
    falling = multipliers(linear(horizon=100), num_steps=100)
    cooled = [min(1.0, (100 - step) / 20) for step in range(100)]
    least = [schedule_bound(w, peak=1.0).least() for w in (held, cooled, falling)]
    assert least == sorted(least, reverse=True)
    assert least[0] > 1.1 * least[1]
    peak = schedule_bound(cooled, peak=1.0).best_peak_factor()
    curve = bound_curve(cooled, peak=peak)
    assert curve[-1] == pytest.approx(least[1])
    before, within = curve[60] - curve[80], curve[80] - curve[99]
    assert within > 1.4 * before > 0


def test_a_warm_up_from_zero_has_no_bound_at_its_first_step() -> None:
    assert bound_curve([0.0, 1.0, 0.0], peak=1.0) == [math.inf, 1.0, 1.0]


def test_positions_are_spread_over_the_horizon() -> None:
    assert multipliers(linear(horizon=1000), num_steps=4, horizon=1000) == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("weights", "numbers", "message"),
    [
        ([0.0, 0.0], {"peak": 1.0}, "0 at every step"),
        ([1.0, -0.5], {"peak": 1.0}, "at step 1 is -0.5"),
        ([math.nan], {"peak": 1.0}, "at step 0 is nan"),
        ([1.0], {"peak": 0.0}, "peak = 0.0 must be a number above 0"),
        ([1.0], {"peak": 1.0, "distance": math.inf}, "distance = inf"),
        ([1.0], {"peak": 1.0, "gradient_norm": -1.0}, "gradient_norm = -1.0"),
    ],
)
def test_what_cannot_be_bounded(weights: list[float], numbers: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule_bound(weights, **numbers)


def test_no_steps() -> None:
    with pytest.raises(ConfigError, match="num_steps = 0 must be at least 1"):
        multipliers(constant(), num_steps=0)
    with pytest.raises(ConfigError, match="horizon = -1 must be"):
        multipliers(constant(), num_steps=2, horizon=-1)
