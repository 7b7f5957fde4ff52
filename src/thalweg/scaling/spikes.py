"""Spikes: the values jump up and come back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thalweg.scaling.smoothing import WINDOW, Curve, Floats, noise_of, running_median

DEVIATIONS = 10.0
"""A spike is at least so many standard deviations high: noise with tails far longer than a normal one's is not."""

LEAST_SHARE = 0.05
"""And at least this share of the value before it."""

FEW = 11
"""Points that a level rests on at least."""

MIN_POINTS = 20


@dataclass(frozen=True)
class Spike:
    """One jump up."""

    start: float
    """Position of the first point that is too high."""
    position: float
    """Of the highest."""
    before: float
    """The level before."""
    peak: float
    recovered: float | None
    """Position of the first point back at the level before; None where the curve ends before."""

    @property
    def height(self) -> float:
        return self.peak - self.before


def find_spikes(curve: Curve, *, least_share: float = LEAST_SHARE) -> list[Spike]:
    """All spikes of a curve, by position.

    A point begins one where it is far above the median of the points before it, measured by the noise around it; that
    is the lower one of the medians of 51 and of 11 points.
    The level before stays what it was until a point is back at it. Needs 20 points or more, and finds none among the
    first 10.
    """
    values = curve.values
    if len(values) < MIN_POINTS:
        return []
    level, sigma = _level_before(values), _local_noise(values)
    threshold = np.maximum(DEVIATIONS * sigma, least_share * np.abs(level))
    threshold = np.maximum(threshold, 1e-9 * np.abs(level) + 1e-300)
    high = np.flatnonzero(values > level + threshold)
    high = high[high >= MIN_POINTS // 2]
    found: list[Spike] = []
    index = 0
    while index < len(high):
        first = int(high[index])
        back = np.flatnonzero(values[first:] <= level[first] + 2 * sigma[first] + 0.1 * threshold[first])
        end = first + int(back[0]) if len(back) else len(values)
        top = first + int(np.argmax(values[first:end]))
        found.append(
            Spike(
                start=float(curve.positions[first]),
                position=float(curve.positions[top]),
                before=float(level[first]),
                peak=float(values[top]),
                recovered=float(curve.positions[end]) if end < len(values) else None,
            )
        )
        index = int(np.searchsorted(high, end))
    return found


def find_jumps(curve: Curve) -> list[Spike]:
    """Spikes of values that are above 0 and vary by factors, such as gradient norms: at least a doubling."""
    above = curve.values > 0
    logs = Curve(curve.positions[above], np.log(curve.values[above]), curve.broken)
    found = [spike for spike in find_spikes(logs, least_share=0.0) if spike.height >= math.log(2)]
    return [Spike(s.start, s.position, math.exp(s.before), math.exp(s.peak), s.recovered) for s in found]


def _level_before(values: Floats) -> Floats:
    """For each point, the median of the points before it: of many, or of the last few where the curve falls steeply."""
    many = min(WINDOW, len(values) // 2)
    return np.minimum(_median_before(values, many), _median_before(values, min(FEW, many)))


def _median_before(values: Floats, window: int) -> Floats:
    half = window // 2
    reach = 2 * half + 1
    level = np.empty_like(values)
    level[0] = values[0]
    for i in range(1, min(reach, len(values))):
        level[i] = np.median(values[:i])
    level[reach:] = running_median(values, reach)[half : len(values) - half - 1]
    return level


def _local_noise(values: Floats) -> Floats:
    """Standard deviation around each point, and nowhere less than that of the whole curve.

    It rests on four times the points of a level, so that a spike of many steps does not count as noise.
    """
    away = np.abs(values - running_median(values, min(WINDOW, len(values) // 2)))
    around = running_median(away, min(4 * WINDOW, len(values) // 2))
    return np.maximum(1.4826 * around, noise_of(values).sigma)
