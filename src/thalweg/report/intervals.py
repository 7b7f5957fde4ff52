"""Whether a difference of two measured values is more than noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thalweg.trainer import Estimate


@dataclass(frozen=True)
class Difference:
    """A value minus another, with a 95% confidence interval."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Zero lies within the interval."""
        return not (self.low > 0 or self.high < 0)


def newcombe(first: Estimate, second: Estimate) -> Difference | None:
    """Difference of two proportions by Newcombe's hybrid score interval, from their two Wilson intervals.

    The two are taken to be measured on different samples. Where they were measured on the same ones the true interval
    is narrower, so what is called more than noise here is more than noise.

    Args:
        first, second: proportions with their Wilson intervals.
    Returns:
        first - second; None where a value or an end is not a finite number.
    Source: Newcombe 1998, Statistics in Medicine 17:873, method 10.
    """
    if not (usable(first) and usable(second)):
        return None
    value = first.value - second.value
    return Difference(
        value,
        value - math.hypot(first.value - first.low, second.high - second.value),
        value + math.hypot(first.high - first.value, second.value - second.low),
    )


def overlap(first: Estimate, second: Estimate) -> bool | None:
    """Whether two intervals share a point; None where a value or an end is not a finite number."""
    if not (usable(first) and usable(second)):
        return None
    return first.low <= second.high and second.low <= first.high


def usable(estimate: Estimate) -> bool:
    """It rests on samples, and its value and both ends are finite."""
    return estimate.num_samples > 0 and all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))
