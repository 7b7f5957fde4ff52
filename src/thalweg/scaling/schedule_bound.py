"""The last-iterate bound of convex optimisation, which ranks learning-rate schedules before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import ConfigError
from thalweg.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A bound on how far the last iterate's expected loss lies above the least loss, in its three parts."""

    distance: float
    """The way that is left to go: D^2 / (2 peak sum w). A larger rate makes it smaller."""
    noise: float
    """The steps' own noise, peak G^2 / 2 times their mean weight. A larger rate makes it larger."""
    last_iterate: float
    """What it costs to keep the last iterate instead of the average one: a decay makes it small."""

    @property
    def total(self) -> float:
        """The bound itself."""
        return self.distance + self.noise + self.last_iterate

    def best_peak_factor(self) -> float:
        """The factor on the peak rate at which the bound is least: the first part falls with it, the others rise."""
        return math.sqrt(self.distance / (self.noise + self.last_iterate))

    def least(self) -> float:
        """The bound at the best peak rate.

        >>> round(schedule_bound([1.0] * 10, peak=0.5).least(), 6)
        0.618787
        """
        return 2 * math.sqrt(self.distance * (self.noise + self.last_iterate))


def multipliers(schedule: Schedule, *, num_steps: int, horizon: float | None = None) -> list[float]:
    """A schedule's multiplier at each step: step t begins at position t * horizon / num_steps.

    Args:
        num_steps: steps to sample.
        horizon: the positions' end, in the schedule's unit; by default the number of steps.
    Raises:
        ConfigError: fewer than one step, or a horizon that is not above 0.

    >>> multipliers(lambda position: 1 - position / 4, num_steps=4)
    [1.0, 0.75, 0.5, 0.25]
    """
    end = float(num_steps if horizon is None else horizon)
    if num_steps < 1:
        raise ConfigError(f"num_steps = {num_steps} must be at least 1")
    if not 0 < end < math.inf:
        raise ConfigError(f"horizon = {horizon} must be a number above 0")
    return [float(schedule(step * end / num_steps)) for step in range(num_steps)]


def schedule_bound(
    weights: Sequence[float], *, peak: float, distance: float = 1.0, gradient_norm: float = 1.0
) -> Bound:
    """The bound for SGD with learning rate peak * w_t at step t, on a convex loss.

    With W(k) the sum of w_k ... w_T and Q(k) that of their squares,

        D^2 / (2 peak W(1)) + peak G^2 / 2 (Q(1) / W(1) + sum over k < T of w_k / W(k + 1) * Q(k) / W(k)).

    Steps with a rate of 0 at the end change nothing and are left out, as the bound divides by their sum.

    Args:
        weights: multipliers of the peak rate, one per step (see `multipliers`).
        peak: the peak learning rate.
        distance: D, from the start to the minimiser.
        gradient_norm: G, which no gradient exceeds.
    Raises:
        ConfigError: no weight above 0, a negative or non-finite one, or another number that is not above 0.
    Source: Schaipp et al. 2025, "The Surprising Agreement Between Convex Optimization Theory and Learning-Rate
        Scheduling for Large Model Training", ICML 2025.

    >>> bound = schedule_bound([1.0] * 10, peak=0.5)
    >>> [round(part, 6) for part in (bound.distance, bound.noise, bound.last_iterate, bound.total)]
    [0.1, 0.25, 0.707242, 1.057242]
    """
    w = _checked(weights)
    for name, value in (("peak", peak), ("distance", distance), ("gradient_norm", gradient_norm)):
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} = {value} must be a number above 0")
    sums, squares = _from_end(w), _from_end(w**2)
    extra = float(np.sum(w[:-1] / sums[1:] * squares[:-1] / sums[:-1]))
    half = peak * gradient_norm**2 / 2
    return Bound(
        distance=float(distance**2 / (2 * peak * sums[0])),
        noise=float(half * squares[0] / sums[0]),
        last_iterate=half * extra,
    )


def bound_curve(
    weights: Sequence[float], *, peak: float, distance: float = 1.0, gradient_norm: float = 1.0
) -> list[float]:
    """The bound if training ended after 1, 2, ... steps: it has the shape of a loss curve under the schedule.

    Steps before the first rate above 0 have no bound: infinity. Takes time in the square of the number of steps.
    """
    _checked(weights)
    numbers: dict[str, Any] = {"peak": peak, "distance": distance, "gradient_norm": gradient_norm}
    return [
        schedule_bound(weights[:end], **numbers).total if max(weights[:end]) > 0 else math.inf
        for end in range(1, len(weights) + 1)
    ]


def _checked(weights: Sequence[float]) -> NDArray[np.float64]:
    """The weights up to the last one above 0."""
    w = np.asarray(weights, dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(w) & (w >= 0)))
    if len(wrong):
        raise ConfigError(f"the schedule's multiplier at step {wrong[0]} is {w[wrong[0]]}: it must be 0 or more")
    above = np.flatnonzero(w > 0)
    if not len(above):
        raise ConfigError("the schedule's multiplier is 0 at every step: there is nothing to bound")
    return w[: above[-1] + 1]


def _from_end(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cumsum(values[::-1])[::-1]
