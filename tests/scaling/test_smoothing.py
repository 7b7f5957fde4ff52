"""Putting a curve in order, smoothing it, and measuring the noise around it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.scaling.smoothing import Curve, line_fit, noise_of, running_median, smooth

VALUES = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf])


@given(st.lists(st.tuples(st.integers(0, 20), VALUES), max_size=40))
def test_a_curve_is_its_last_writes_in_order(points: list[tuple[int, float]]) -> None:
    last = dict(points)
    curve = Curve.of([p for p, _ in points], [v for _, v in points])
    finite = sorted((p, v) for p, v in last.items() if math.isfinite(v))
    assert list(zip(curve.positions.tolist(), curve.values.tolist(), strict=True)) == finite
    assert curve.broken.tolist() == sorted(p for p, v in last.items() if not math.isfinite(v))


def test_a_curve_needs_a_value_per_position() -> None:
    with pytest.raises(ConfigError, match="2 positions and 1 values"):
        Curve.of([1, 2], [1.0])
    with pytest.raises(ConfigError, match="position nan is not"):
        Curve.of([1, math.nan], [1.0, 2.0])


def test_parts_and_places() -> None:
    curve = Curve.of([10, 20, 30, 40], [1.0, math.nan, 3.0, 4.0])
    part = curve.part(20, 30)
    assert (part.positions.tolist(), part.broken.tolist()) == ([30.0], [20.0])
    assert [curve.at(p) for p in (0, 10, 29, 30, 99)] == [1.0, 1.0, 1.0, 3.0, 4.0]
    assert math.isnan(Curve.of([], []).at(3))


def weighted(positions: list[float], values: list[float], span: float) -> list[float]:
    """The definition: every earlier value, weighted by its distance."""
    averages = []
    for i, here in enumerate(positions):
        weights = [math.exp(-(here - p) / span) for p in positions[: i + 1]]
        averages.append(sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights))
    return averages


@given(st.lists(st.tuples(st.floats(0.1, 5), st.floats(-10, 10)), min_size=1, max_size=15), st.floats(0.5, 20))
def test_smoothing_is_its_definition(points: list[tuple[float, float]], span: float) -> None:
    positions = np.cumsum([gap for gap, _ in points]).tolist()
    values = [value for _, value in points]
    assert smooth(positions, values, span=span).tolist() == pytest.approx(weighted(positions, values, span), abs=1e-9)


def test_smoothing_does_not_start_at_zero_and_passes_over_what_is_broken() -> None:
    assert smooth([0, 1, 2, 3], [5.0, math.nan, math.inf, 5.0], span=2).tolist() == pytest.approx([5.0] * 4)
    assert np.isnan(smooth([0, 1], [math.nan, 1.0], span=2)[0])


def test_thinning_a_curve_hardly_changes_its_average() -> None:
    positions = np.arange(2000.0)
    values = np.sin(positions / 300)
    every, third = smooth(positions, values, span=50), smooth(positions[::3], values[::3], span=50)
    assert np.allclose(every[600::3], third[200:], atol=5e-3)


@pytest.mark.parametrize(("positions", "span", "message"), [([0, 1], 0.0, "span = 0"), ([1, 0], 1.0, "must not fall")])
def test_smoothing_refuses(positions: list[float], span: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        smooth(positions, [1.0, 2.0], span=span)


def test_a_running_median_is_not_moved_by_an_outlier() -> None:
    values = np.linspace(1, 0, 101)
    spoilt = values.copy()
    spoilt[50] = 1e9
    assert np.allclose(running_median(spoilt, 5), values, atol=0.011)


@pytest.mark.parametrize("num", [30, 300, 3000])
def test_noise_is_measured_around_any_curve(num: int) -> None:
    curve = 2 + 3 * (1 + np.arange(num) / 5) ** -0.5
    sigmas = []
    for seed in range(40):
        values = curve + 0.2 * np.random.default_rng(seed).standard_normal(num)
        values[num // 2] = 1e3
        sigmas.append(noise_of(values).sigma)
    assert np.median(sigmas) == pytest.approx(0.2, rel=0.25)


def test_the_noise_of_a_level_follows_from_correlation() -> None:
    rng = np.random.default_rng(0)
    white = rng.standard_normal(4000)
    slow = np.empty(4000)
    slow[0] = white[0]
    for i in range(1, 4000):
        slow[i] = 0.8 * slow[i - 1] + 0.6 * white[i]  # standard deviation 1, correlation 0.8
    # The median of 100 normal values: 1.253 / 10.
    assert noise_of(white).of_level(100) == pytest.approx(0.125, rel=0.1)
    # Correlated by 0.8, 100 values count as 100 * (1 - 0.8) / (1 + 0.8) = 11.1.
    assert noise_of(slow).of_level(100) == pytest.approx(1.253 / math.sqrt(11.1), rel=0.25)
    assert noise_of(np.array([1.0, 2.0])).sigma == 0.0


def test_a_line_is_fitted_with_an_honest_error() -> None:
    x = np.arange(200.0)
    slopes, errors = [], []
    for seed in range(300):
        slope, error = line_fit(x, 0.5 * x + np.random.default_rng(seed).standard_normal(200))
        slopes.append(slope)
        errors.append(error)
    assert np.mean(slopes) == pytest.approx(0.5, abs=1e-3)
    assert np.std(slopes) == pytest.approx(np.mean(errors), rel=0.15)
    assert line_fit(x[:2], x[:2]) == (0.0, math.inf)
    assert line_fit(np.ones(5), x[:5]) == (0.0, math.inf)
