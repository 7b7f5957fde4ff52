"""Where a loss goes in the long run: away for good, nowhere, or down as the rate decays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.scaling.smoothing import Curve, Floats, line_fit, noise_of, running_median

MIN_POINTS = 20
"""A trend needs so many points."""

HELD = 0.98
"""A learning rate of at least this share of its highest counts as held."""


@dataclass(frozen=True)
class Rise:
    """A loss that left its best level and did not come back."""

    start: float
    """Position where it left."""
    best: float
    end: float
    """The level at the end."""
    first: float
    """The level at the beginning."""


@dataclass(frozen=True)
class Plateau:
    """A stretch at the end of which a held rate brings nothing any more."""

    start: float
    end: float
    level: float
    most: float
    """The largest fall over the stretch that the noise leaves possible."""


@dataclass(frozen=True)
class Decay:
    """What the loss did while the rate fell from its peak to the end of the curve."""

    start: float
    end: float
    loss_before: float
    loss_after: float
    rate_after: float
    """As a share of the peak rate."""


def find_rise(curve: Curve) -> Rise | None:
    """A rise at the end beyond what noise explains, by a fifth of what the loss had fallen or more.

    Levels are medians of a twentieth of the points. Needs 20 points.
    """
    num = len(curve)
    if num < MIN_POINTS:
        return None
    reach = max(5, num // 20) | 1
    half = reach // 2
    # The first and last few medians rest on the end's value alone.
    levels = running_median(curve.values, reach)[half : num - half]
    best_at = int(np.argmin(levels))
    best, first, end = float(levels[best_at]), float(levels[0]), float(levels[-1])
    rise = end - best
    least = max(8 * _level_noise(curve.values, reach), 0.2 * (first - best), 0.02 * abs(best), 1e-12)
    if rise <= least:
        return None
    low = best_at + np.flatnonzero(levels[best_at:] <= best + 0.1 * rise)
    return Rise(float(curve.positions[low[-1] + half]), best, end, first)


def held_stretch(rate: Curve) -> tuple[float, float] | None:
    """First and last position of the longest stretch at which the rate stays at its peak; None where it never does."""
    if len(rate) < 2 or rate.values.max() <= 0:
        return None
    high = rate.values >= HELD * rate.values.max()
    edges = np.flatnonzero(np.diff(np.concatenate(([False], high, [False])).astype(int)))
    starts, ends = edges[::2], edges[1::2] - 1
    lengths = rate.positions[ends] - rate.positions[starts]
    longest = int(np.argmax(lengths))
    if lengths[longest] <= 0:
        return None
    return float(rate.positions[starts[longest]]), float(rate.positions[ends[longest]])


def find_plateau(curve: Curve, *, rate: Curve | None = None) -> Plateau | None:
    """The last two fifths of the stretch at a held rate (of the whole curve where the rate is not known), if over them
    the loss has fallen by less than a twentieth of what it had fallen before, with 97.5% certainty.

    So a noisy curve is no plateau for its noise alone, and nor is one that never fell.
    """
    stretch = held_stretch(rate) if rate is not None else (-np.inf, np.inf)
    if stretch is None:
        return None
    held = curve.part(*stretch)
    if len(held) < 2 * MIN_POINTS:
        return None
    start = float(held.positions[0] + 0.6 * (held.positions[-1] - held.positions[0]))
    window = held.part(start, float(held.positions[-1]))
    if len(window) < MIN_POINTS:
        return None
    noise, level = noise_of(curve.values), float(np.median(window.values))
    begun = curve.part(float(curve.positions[0]), start).values
    fallen = float(np.median(begun[: max(3, len(begun) // 20)])) - level
    if fallen <= max(10 * noise.of_level(len(window)), 1e-9 * abs(level)):
        return None
    length = float(window.positions[-1] - window.positions[0])
    slope, error = line_fit(window.positions, window.values)
    most = -(slope - 2 * error) * length
    if most >= 0.05 * fallen or (slope - 2 * error) > 0:
        return None
    return Plateau(float(window.positions[0]), float(window.positions[-1]), level, max(most, 0.0))


def find_decay(curve: Curve, rate: Curve) -> Decay | None:
    """The loss before and after a decay of the rate that follows a hold and lasts to the end of the curve.

    None where the rate was not held for half as long as it falls, does not fall by half at least, or too few points lie
    in the decay to tell.
    """
    stretch = held_stretch(rate)
    if stretch is None or not len(curve):
        return None
    start, end = stretch[1], float(rate.positions[-1])
    falling = rate.part(start, end).values
    if stretch[1] - stretch[0] < 0.5 * (end - start):
        return None
    if len(falling) < 5 or falling[-1] > 0.5 * falling[0] or np.any(np.diff(falling) > 1e-9 * falling[0]):
        return None
    before = curve.part(start - (end - start), start).values[-max(5, len(falling) // 4) :]
    after = curve.part(start, end).values[-max(5, len(falling) // 10) :]
    if min(len(before), len(after)) < 5:
        return None
    low, high = float(np.median(after)), float(np.median(before))
    noise = noise_of(curve.values)
    if abs(high - low) <= 4 * (noise.of_level(len(before)) + noise.of_level(len(after))):
        return None
    return Decay(start, end, high, low, float(falling[-1] / rate.values.max()))


def never_fell(curve: Curve) -> bool:
    """The loss ends where it began, though the noise would show a change of 2% of it. Needs 50 points."""
    if len(curve) < 50:
        return False
    reach = max(5, len(curve) // 10)
    noise = noise_of(curve.values)
    first, end = float(np.median(curve.values[:reach])), _end_level(curve, reach)
    unsure = 4 * noise.of_level(reach)
    return first - end <= unsure and unsure < 0.02 * abs(first)


def _level_noise(values: Floats, reach: int) -> float:
    """Standard deviation of medians of `reach` neighbours, that of slow swings included: from one such median to the
    next."""
    blocks = np.median(values[len(values) % reach :].reshape(-1, reach), axis=1)
    # Second differences: a steady fall or rise is no noise.
    bends = np.diff(blocks, n=2)
    slow = 1.4826 * float(np.median(np.abs(bends))) / np.sqrt(6) if len(bends) > 1 else 0.0
    return max(noise_of(values).of_level(reach), slow)


def _end_level(curve: Curve, reach: int) -> float:
    return float(np.median(curve.values[-reach:]))
