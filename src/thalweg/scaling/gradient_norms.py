"""What the gradient's norm tells: growth before trouble, clipping at every step, and vanishing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thalweg.scaling.smoothing import Curve, line_fit

MIN_POINTS = 40


@dataclass(frozen=True)
class Growth:
    """The norm grows over the second half of the curve."""

    start: float
    end: float
    factor: float


@dataclass(frozen=True)
class Clipping:
    """Nearly every step of the second half is clipped."""

    start: float
    share: float
    """Of the steps."""
    median_norm: float


@dataclass(frozen=True)
class Vanishing:
    """The norm at the end is next to nothing of what it was."""

    start: float
    """Position where it fell below the limit for good."""
    first: float
    last: float


def find_growth(norms: Curve) -> Growth | None:
    """A rise by a factor of 2 or more over the second half, beyond what noise explains. Needs 40 points."""
    late = _second_half(norms)
    if late is None:
        return None
    slope, error = line_fit(late.positions, np.log(late.values))
    length = float(late.positions[-1] - late.positions[0])
    if slope <= 8 * error or slope * length < math.log(2):
        return None
    return Growth(float(late.positions[0]), float(late.positions[-1]), math.exp(slope * length))


def find_clipping(norms: Curve, threshold: float) -> Clipping | None:
    """At least 9 in 10 steps of the second half have a norm above the threshold."""
    late = _second_half(norms)
    if late is None or threshold <= 0:
        return None
    share = float(np.mean(late.values > threshold))
    return Clipping(float(late.positions[0]), share, float(np.median(late.values))) if share >= 0.9 else None


def find_vanishing(norms: Curve, *, limit: float = 1e-3) -> Vanishing | None:
    """The median norm of the last tenth is below a share of that of the first tenth, or 0."""
    if len(norms) < MIN_POINTS:
        return None
    reach = len(norms) // 10
    first, last = float(np.median(norms.values[:reach])), float(np.median(norms.values[-reach:]))
    if first <= 0 or last > limit * first:
        return None
    high = np.flatnonzero(norms.values > limit * first)
    start = int(high[-1]) + 1 if len(high) else 0
    return Vanishing(float(norms.positions[min(start, len(norms) - 1)]), first, last)


def _second_half(norms: Curve) -> Curve | None:
    if len(norms) < MIN_POINTS:
        return None
    middle = (norms.positions[0] + norms.positions[-1]) / 2
    late = norms.part(middle, norms.positions[-1])
    above = late.values > 0
    late = Curve(late.positions[above], late.values[above], late.broken)
    return late if len(late) >= MIN_POINTS // 4 else None
