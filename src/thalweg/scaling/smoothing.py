"""A curve put in order, smoothed, and the noise around it: what every finding rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from thalweg.errors import ConfigError

Floats = NDArray[np.float64]

WINDOW = 51
"""Points of a running median, where a curve is long enough for so many."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Finite points by rising position, one per position, and where the others were."""

    positions: Floats
    values: Floats
    broken: Floats
    """Positions of values that are not finite, rising."""

    @classmethod
    def of(cls, positions: Sequence[float] | NDArray[np.generic], values: Sequence[float] | Floats) -> Curve:
        """Put points in order. Of two at one position the later one counts, as in the store.

        Raises:
            ConfigError: not one value per position, or a position that is not finite.

        >>> curve = Curve.of([3, 1, 2, 1], [0.5, 9.0, float("nan"), 1.0])
        >>> curve.positions.tolist(), curve.values.tolist(), curve.broken.tolist()
        ([1.0, 3.0], [1.0, 0.5], [2.0])
        """
        x, y = np.asarray(positions, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1:
            raise ConfigError(f"{x.size} positions and {y.size} values: a curve has one value per position")
        if not np.all(np.isfinite(x)):
            raise ConfigError(f"position {x[~np.isfinite(x)][0]} is not a finite number")
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
        last = np.append(x[1:] != x[:-1], True)[: len(x)]
        x, y = x[last], y[last]
        finite = np.isfinite(y)
        return cls(x[finite], y[finite], x[~finite])

    def __len__(self) -> int:
        return len(self.positions)

    def part(self, start: float, end: float) -> Curve:
        """The points from one position to another, both included."""
        inside = (self.positions >= start) & (self.positions <= end)
        broken = self.broken[(self.broken >= start) & (self.broken <= end)]
        return Curve(self.positions[inside], self.values[inside], broken)

    def at(self, position: float) -> float:
        """The last value at or before a position, or the first one of all; NaN for an empty curve."""
        if not len(self):
            return math.nan
        index = int(np.searchsorted(self.positions, position, side="right")) - 1
        return float(self.values[max(index, 0)])


@dataclass(frozen=True)
class Noise:
    """How far points lie from their curve."""

    sigma: float
    """Standard deviation of a point, estimated such that outliers do not count."""
    correlation: float
    """Of neighbours, in [0, 1): where it is high, many points say as much as few."""

    def of_level(self, num_points: int) -> float:
        """Standard deviation of the median of so many neighbours: 5/4 of that of their mean."""
        repeats = (1 + self.correlation) / (1 - self.correlation)
        return 1.25 * self.sigma * math.sqrt(min(repeats / max(num_points, 1), 1.0))


def smooth(positions: Sequence[float] | Floats, values: Sequence[float] | Floats, *, span: float) -> Floats:
    """An exponential moving average over positions, free of the bias towards the first value.

    A point `d` before another counts exp(-d / span) as much. So the average does not depend on how densely points
    lie, and logging every second step gives the same curve. Values that are not finite are passed over; before the
    first finite one the average is NaN.

    Args:
        positions: not falling.
        span: the reach, in the unit of the positions.
    Raises:
        ConfigError: a span that is not above 0, or positions that fall.

    >>> smooth([0, 1, 2], [4.0, 4.0, 4.0], span=10).tolist()
    [4.0, 4.0, 4.0]
    >>> [float(round(v, 4)) for v in smooth([0, 1], [0.0, 1.0], span=1.0)]
    [0.0, 0.7311]
    """
    if not 0 < span < math.inf:
        raise ConfigError(f"span = {span} must be a number above 0")
    x, y = np.asarray(positions, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if np.any(np.diff(x) < 0):
        raise ConfigError("positions must not fall: put the points in order first")
    kept = np.exp(-np.diff(x, prepend=x[:1]) / span)
    result = np.empty_like(y)
    total = weight = 0.0
    for i, (keep, value, usable) in enumerate(zip(kept.tolist(), y.tolist(), np.isfinite(y).tolist(), strict=True)):
        total, weight = total * keep, weight * keep
        if usable:
            total, weight = total + value, weight + 1.0
        result[i] = total / weight if weight else math.nan
    return result


def running_median(values: Floats, window: int) -> Floats:
    """The median of the points around each; near the ends the end's value stands in for what is missing.

    Args:
        window: an odd number of points; an even one is taken as the next odd one.

    >>> running_median(np.array([1.0, 9.0, 1.0, 1.0]), 3).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    result: Floats = median_filter(values, size=window | 1, mode="nearest")
    return result


def noise_of(values: Floats) -> Noise:
    """Estimate the noise around a curve, from its points' distance to their running median and to their neighbours.

    Fewer than 5 points show none: sigma is 0.
    """
    num = len(values)
    if num < 5:
        return Noise(0.0, 0.0)
    steps = np.diff(values)
    near = _scale(steps - np.median(steps)) / math.sqrt(2)
    if num < 20:
        return Noise(max(near, _scale(np.diff(values, n=2)) / math.sqrt(6)), 0.0)
    away = values - running_median(values, min(WINDOW, num // 4))
    sigma = max(near, _scale(away))
    return Noise(sigma, _correlation(np.clip(away, -4 * sigma, 4 * sigma)))


def line_fit(positions: Floats, values: Floats) -> tuple[float, float]:
    """Slope of the straight line through points, and its standard error where neighbours are correlated.

    Needs 3 points or more; with fewer the error is infinite.
    """
    num = len(positions)
    if num < 3 or positions[0] == positions[-1]:
        return 0.0, math.inf
    centred = positions - positions.mean()
    spread = float(centred @ centred)
    slope = float(centred @ values) / spread
    left = values - values.mean() - slope * centred
    sigma = math.sqrt(float(left @ left) / (num - 2))
    correlation = _correlation(left)
    return slope, sigma / math.sqrt(spread) * math.sqrt((1 + correlation) / (1 - correlation))


def _scale(values: Floats) -> float:
    """Median distance from 0, scaled to a standard deviation."""
    return float(1.4826 * np.median(np.abs(values)))


def _correlation(values: Floats) -> float:
    total = float(values @ values)
    if total <= 0:
        return 0.0
    return min(max(float(values[1:] @ values[:-1]) / total, 0.0), 0.99)
