"""A river valley in two dimensions: why a high learning rate makes progress that only its decay shows.

    L(x, y) = -slope x + curvature y^2 / 2

The river runs along x, downhill for ever; the hillsides rise along y. SGD sees the gradient with noise on y. At a high
rate it goes far along the river and swings high on the hillsides; a decay lets it sink to the river at little cost of
way. The picture is that of Wen et al. 2024 (arXiv:2410.05192); this landscape and its closed forms are our own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import ConfigError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Valley:
    """The landscape, and the noise of its gradient."""

    slope: float = 0.01
    """How fast the river falls: loss per unit of x."""
    curvature: float = 1.0
    """Of the hillsides: loss per unit of y squared, times 2. Rates from 2 / curvature on diverge."""
    noise: float = 1.0
    """Standard deviation of the gradient along y."""

    def __post_init__(self) -> None:
        for name, value in (("slope", self.slope), ("noise", self.noise)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} = {value} must be a number of at least 0")
        if not 0 < self.curvature < math.inf:
            raise ConfigError(f"curvature = {self.curvature} must be a number above 0")

    def loss(self, x: Floats, y: Floats) -> Floats:
        """The loss at each point."""
        return -self.slope * x + self.curvature * y**2 / 2


def river_gain(valley: Valley, rates: Sequence[float]) -> float:
    """How far SGD comes along x: slope times the sum of the rates. The loss falls by slope times that.

    >>> round(river_gain(Valley(slope=0.5), [0.1] * 8), 6)
    0.4
    """
    return valley.slope * float(np.sum(np.asarray(rates, dtype=np.float64)))


def stationary_variance(valley: Valley, rate: float) -> float:
    """Of y, after many steps at one rate: rate noise^2 / (curvature (2 - rate curvature)).

    Raises:
        ConfigError: a rate outside (0, 2 / curvature), where SGD does not settle.

    >>> [round(stationary_variance(Valley(), rate), 6) for rate in (0.1, 0.01)]
    [0.052632, 0.005025]
    """
    limit = 2 / valley.curvature
    if not 0 < rate < limit:
        raise ConfigError(f"rate = {rate} must lie above 0 and below {limit:g} = 2 / curvature, or y does not settle")
    return rate * valley.noise**2 / (valley.curvature * (2 - rate * valley.curvature))


def hill_excess(valley: Valley, rate: float) -> float:
    """The loss that swinging on the hillsides costs at one rate: rate noise^2 / (2 (2 - rate curvature)).

    >>> [round(hill_excess(Valley(), rate), 8) for rate in (0.1, 0.01)]
    [0.02631579, 0.00251256]
    """
    return valley.curvature * stationary_variance(valley, rate) / 2


def hill_variance(valley: Valley, rates: Sequence[float], *, start: float = 0.0) -> Floats:
    """The exact second moment of y after each step, from `start` before the first.

    >>> [float(round(v, 6)) for v in hill_variance(Valley(), [0.5, 0.0, 1.0])]
    [0.25, 0.25, 1.0]
    """
    moments = np.empty(len(rates))
    moment = start
    for step, rate in enumerate(rates):
        moment = (1 - rate * valley.curvature) ** 2 * moment + (rate * valley.noise) ** 2
        moments[step] = moment
    return moments


def expected_loss(valley: Valley, rates: Sequence[float], *, start: float = 0.0) -> Floats:
    """The exact expected loss after each step of SGD from x = 0, with `start` the second moment of y there."""
    way = valley.slope * np.cumsum(np.asarray(rates, dtype=np.float64))
    return -valley.slope * way + valley.curvature * hill_variance(valley, rates, start=start) / 2


def simulate(valley: Valley, rates: Sequence[float], *, num_walkers: int = 1, seed: int = 0) -> tuple[Floats, Floats]:
    """Paths of SGD from (0, 0).

    Returns:
        x of shape (steps,), which all walkers share, and y of shape (walkers, steps), after each step.
    Raises:
        ConfigError: fewer than one walker.
    """
    if num_walkers < 1:
        raise ConfigError(f"num_walkers = {num_walkers} must be at least 1")
    rng = np.random.default_rng(seed)
    x = valley.slope * np.cumsum(np.asarray(rates, dtype=np.float64))
    y = np.empty((num_walkers, len(rates)))
    now = np.zeros(num_walkers)
    for step, rate in enumerate(rates):
        gradient = valley.curvature * now + valley.noise * rng.standard_normal(num_walkers)
        now = now - rate * gradient
        y[:, step] = now
    return x, y
