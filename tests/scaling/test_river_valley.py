"""The toy landscape: closed forms against the facts, and against its own simulation."""

import numpy as np
import pytest

from thalweg.errors import ConfigError
from thalweg.scaling.river_valley import (
    Valley,
    expected_loss,
    hill_excess,
    hill_variance,
    river_gain,
    simulate,
    stationary_variance,
)


def test_the_stationary_values_of_the_closed_form() -> None:
    valley = Valley(slope=1.0, curvature=1.0, noise=1.0)
    assert stationary_variance(valley, 0.1) == pytest.approx(0.052632, abs=5e-7)
    assert hill_excess(valley, 0.1) == pytest.approx(0.0263158, abs=5e-8)
    assert hill_excess(valley, 0.01) == pytest.approx(0.00251256, abs=5e-9)


def test_other_units_scale_as_they_must() -> None:
    # By hand: 0.2 * 9 / (4 * (2 - 0.8)) = 0.375.
    assert stationary_variance(Valley(curvature=4.0, noise=3.0), 0.2) == pytest.approx(0.375)


def test_the_recursion_settles_at_the_stationary_variance() -> None:
    valley = Valley(curvature=2.0, noise=0.5)
    assert hill_variance(valley, [0.3] * 200)[-1] == pytest.approx(stationary_variance(valley, 0.3), rel=1e-12)


def test_a_simulation_agrees() -> None:
    valley = Valley(slope=0.01, curvature=1.0, noise=1.0)
    rates = [0.1] * 150 + [0.1 * (1 - i / 50) for i in range(50)]
    x, y = simulate(valley, rates, num_walkers=20_000, seed=1)
    assert x.shape == (200,)
    assert y.shape == (20_000, 200)
    # A sample variance of n normal values has a relative standard error of sqrt(2 / n) = 0.01.
    assert np.var(y[:, 149]) == pytest.approx(0.052632, rel=0.04)
    assert np.allclose(np.mean(y**2, axis=0), hill_variance(valley, rates), rtol=0.05)
    assert np.allclose(valley.loss(x, y).mean(axis=0), expected_loss(valley, rates), atol=2e-3)


def test_the_river_does_not_care_about_the_order_of_the_rates() -> None:
    valley = Valley(slope=2.0)
    assert river_gain(valley, [0.1, 0.2, 0.3]) == pytest.approx(1.2)
    x, _ = simulate(valley, [0.3, 0.1, 0.2])
    assert x[-1] == pytest.approx(1.2)


def test_a_decay_reveals_the_way_that_a_high_rate_has_made() -> None:
    valley = Valley(slope=0.05)
    high = expected_loss(valley, [0.5] * 1000)
    low = expected_loss(valley, [0.01] * 1000)
    cooled = expected_loss(valley, [0.5] * 900 + [0.5 * (1 - i / 100) for i in range(100)])
    assert cooled[-1] < low[-1] - 0.1
    # By hand: the decay takes off nearly the whole excess of 1/6, and gives up 25 rates' way of the river, 0.0625.
    assert 0.07 < high[-1] - cooled[-1] < 1 / 6 - 0.0625


def test_a_start_on_the_hillside_is_forgotten() -> None:
    # (1 - 0.5)^2 * 16 + 0.25 by hand.
    assert hill_variance(Valley(), [0.5], start=16.0)[0] == pytest.approx(4.25)
    far = expected_loss(Valley(), [0.5] * 60, start=100.0)
    assert far[-1] == pytest.approx(expected_loss(Valley(), [0.5] * 60)[-1])


@pytest.mark.parametrize("rate", [0.0, 1.0, 1.5, float("nan")])
def test_rates_at_which_it_does_not_settle(rate: float) -> None:
    with pytest.raises(ConfigError, match="below 1 = 2 / curvature"):
        stationary_variance(Valley(curvature=2.0), rate)


def test_landscapes_that_are_none() -> None:
    with pytest.raises(ConfigError, match="curvature = 0"):
        Valley(curvature=0.0)
    with pytest.raises(ConfigError, match="noise = -1"):
        Valley(noise=-1.0)
    with pytest.raises(ConfigError, match="num_walkers = 0"):
        simulate(Valley(), [0.1], num_walkers=0)
