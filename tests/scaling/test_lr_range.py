"""The range test's reading of synthetic curves whose answers are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.scaling.lr_range import read_lr_range

NUM = 400


def synthetic(centre: float, lowest: float, *, num: int = NUM, top: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A logistic fall around `centre` (where it is steepest), a parabola up from `lowest` on, in log10 of the rate."""
    rates = np.geomspace(1e-7, top, num)
    log_rates = np.log10(rates)
    fall = 3.0 / (1 + np.exp(2 * (log_rates - math.log10(centre))))
    rise = 2.0 * np.maximum(log_rates - math.log10(lowest), 0) ** 2
    return rates, 1.0 + fall + rise


def decades(a: float, b: float) -> float:
    return abs(math.log10(a) - math.log10(b))


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15])
def test_known_places(noise: float) -> None:
    rates, losses = synthetic(1e-4, 1e-2)
    exact = rates[np.argmin(losses)]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = read_lr_range(rates, losses + noise * rng.standard_normal(NUM))
        assert found.steepest is not None
        assert found.minimum is not None
        assert found.suggestion is not None
        assert found.diverges is not None
        assert decades(found.steepest, 1e-4) < 0.15 + 2.5 * noise
        assert decades(found.minimum, exact) < 0.2 + 2 * noise
        assert found.suggestion == pytest.approx(found.minimum / 10)
        half = losses.min() + (losses[0] - losses.min()) / 2
        assert decades(found.diverges, rates[(rates > exact) & (losses > half)][0]) < 0.1
        assert "tenth" in found.rule


@settings(max_examples=40, deadline=None)
@given(st.floats(-5.0, -3.5), st.floats(1.5, 2.5), st.integers(0, 10**6))
def test_wherever_the_valley_is(centre: float, gap: float, seed: int) -> None:
    rates, losses = synthetic(10**centre, 10 ** (centre + gap))
    found = read_lr_range(rates, losses + 0.05 * np.random.default_rng(seed).standard_normal(NUM))
    assert found.steepest is not None
    assert found.minimum is not None
    assert decades(found.steepest, 10**centre) < 0.4
    assert decades(found.minimum, rates[np.argmin(losses)]) < 0.4


def test_outliers_do_not_move_it() -> None:
    rates, losses = synthetic(1e-4, 1e-2)
    clean = read_lr_range(rates, losses)
    spoilt = losses.copy()
    spoilt[[30, 110, 190]] += 50.0
    spoilt[[60, 240]] -= 5.0
    found = read_lr_range(rates, spoilt)
    assert found.minimum == pytest.approx(clean.minimum, rel=0.2)
    assert found.steepest == pytest.approx(clean.steepest, rel=0.2)


def test_a_loss_that_is_no_longer_finite_is_where_it_diverges() -> None:
    rates, losses = synthetic(1e-4, 1e-2)
    end = int(np.searchsorted(rates, 2e-2))
    losses[end] = math.nan
    losses[end + 1 :] = 1.0  # whatever comes after says nothing
    found = read_lr_range(rates, losses)
    assert found.diverges == rates[end]
    assert len(found.rates) == end
    assert found.suggestion == pytest.approx(found.minimum / 10)


def test_still_falling_at_the_end() -> None:
    rates, losses = synthetic(1e-4, 1e-2, top=1e-3)
    found = read_lr_range(rates, losses)
    assert found.diverges is None
    assert found.suggestion == found.steepest
    assert "steepest" in found.rule
    assert "higher one" in found.rule


def test_no_fall_no_suggestion() -> None:
    rates = np.geomspace(1e-5, 1, 200)
    suggested = 0
    for seed in range(100):
        noise = np.random.default_rng(seed).standard_normal(200)
        suggested += read_lr_range(rates, 5.0 + 0.1 * noise).suggestion is not None
    assert suggested <= 2
    rising = read_lr_range(rates, np.maximum(np.log10(rates) + 3, 0) + 2.0)
    assert (rising.suggestion, rising.minimum) == (None, None)
    assert rising.diverges is not None
    assert "lower one" in rising.rule


def test_a_tenth_below_the_range_is_not_suggested() -> None:
    rates = np.geomspace(1e-3, 1, 200)
    losses = 2.0 - np.log10(rates / 1e-3) + 3 * np.maximum(np.log10(rates / 5e-3), 0) ** 2
    found = read_lr_range(rates, losses)
    assert found.suggestion == found.steepest
    assert "below the lowest rate tried" in found.rule


def test_order_does_not_matter() -> None:
    rates, losses = synthetic(1e-4, 1e-2)
    order = np.random.default_rng(0).permutation(NUM)
    assert read_lr_range(rates[order], losses[order]).suggestion == read_lr_range(rates, losses).suggestion


@pytest.mark.parametrize(
    ("rates", "losses", "message"),
    [
        ([1e-3] * 5, [1.0] * 5, "at least 10 steps with a finite loss, and has 5"),
        (np.geomspace(1e-3, 1, 20), [1.0] * 4 + [math.inf] * 16, "and has 4"),
        ([0.0] * 20, [1.0] * 20, "learning rate of 0.0"),
        ([1.0, 2.0], [1.0], "2 rates and 1 losses"),
    ],
)
def test_bad_input(rates: list[float], losses: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_lr_range(rates, losses)
