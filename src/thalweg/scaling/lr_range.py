"""The learning-rate range test: train while the rate rises, and read from the loss how large it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import ConfigError

MIN_POINTS = 10
"""Fewer pairs of rate and loss say nothing."""

BELOW_MINIMUM = 10.0
"""The suggestion lies by this factor below the rate of the least loss."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LRRange:
    """What a range test showed. Rates are in the unit that they were given in."""

    rates: Floats
    """Where the loss was finite, rising."""
    losses: Floats
    smoothed: Floats
    """A straight line fitted around each point, over a tenth of the points, after outliers were taken out."""
    steepest: float | None
    """The rate at which the loss fells most per factor of the rate; None where it never fell."""
    minimum: float | None
    """The rate of the least smoothed loss; None where it never fell."""
    diverges: float | None
    """The rate at which the loss is no longer finite, or has lost half of its fall for good; None up to the end."""
    suggestion: float | None
    """A peak rate to begin with; None where the test shows none."""
    rule: str
    """How the suggestion was made, in words."""


def read_lr_range(rates: Sequence[float], losses: Sequence[float]) -> LRRange:
    """Judge a range test.

    The suggestion is a tenth of the rate at which the loss was least, where the loss rose again after it. Where it was
    still falling at the end, it is the rate of the steepest fall.

    Args:
        rates: the learning rate of each step, in any order, above 0.
        losses: the training loss at each; the first that is not finite ends the test.
    Raises:
        ConfigError: fewer than 10 pairs with a finite loss, or a rate that is not above 0.
    Source: Smith 2017, arXiv:1506.01186, for the test; a tenth of the minimum is fastai's rule.
    """
    x, y, broken = _prepared(rates, losses)
    cleaned = _without_outliers(y)
    smoothed, slopes = _local_lines(np.log(x), cleaned, window=max(7, len(x) // 10 | 1))
    noise = _noise(y) * math.sqrt(4 / max(7, len(x) // 10))
    low = int(np.argmin(smoothed))
    start = float(np.median(smoothed[: max(len(smoothed) // 10, 1)]))
    fall = start - float(smoothed[low])
    curve = {"rates": x, "losses": y, "smoothed": smoothed}
    if fall <= max(4 * noise, 1e-9 * abs(start)):
        risen = start + max(8 * noise, 0.05 * abs(start))
        rule = "The loss did not fall at any rate: begin at a lower one, or make the test longer."
        diverges = _first_above(x, smoothed, risen, 0, broken)
        return LRRange(**curve, steepest=None, minimum=None, diverges=diverges, suggestion=None, rule=rule)
    steepest, minimum = float(x[int(np.argmin(slopes[: low + 1]))]), float(x[low])
    diverges = _first_above(x, smoothed, float(smoothed[low]) + fall / 2, low, broken)
    suggestion, rule = _suggest(steepest, minimum, diverges, highest=float(x[-1]), lowest=float(x[0]))
    return LRRange(**curve, steepest=steepest, minimum=minimum, diverges=diverges, suggestion=suggestion, rule=rule)


def _suggest(
    steepest: float, minimum: float, diverges: float | None, *, highest: float, lowest: float
) -> tuple[float, str]:
    if diverges is None:
        return steepest, (
            f"The rate of the steepest fall: the loss had not risen clearly by the highest rate, {highest:.2g},"
            " so a test up to a higher one would say more."
        )
    tenth = minimum / BELOW_MINIMUM
    if tenth < lowest:
        return steepest, (
            f"The rate of the steepest fall: a tenth of the rate of the least loss, {minimum:.2g}, lies below the"
            f" lowest rate tried, {lowest:.2g}."
        )
    return tenth, f"A tenth of {minimum:.2g}, the rate at which the loss was least before it rose."


def _prepared(rates: Sequence[float], losses: Sequence[float]) -> tuple[Floats, Floats, float | None]:
    """Pairs with a finite loss, by rising rate, and the rate of the first loss that is not finite."""
    x, y = np.asarray(rates, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ConfigError(f"{x.size} rates and {y.size} losses: there must be one loss per rate")
    wrong = x[~(np.isfinite(x) & (x > 0))]
    if len(wrong):
        raise ConfigError(f"a learning rate of {wrong[0]} has no place in a range test: it must be above 0")
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    bad = np.flatnonzero(~np.isfinite(y))
    end = int(bad[0]) if len(bad) else len(x)
    if end < MIN_POINTS:
        raise ConfigError(
            f"a range test needs at least {MIN_POINTS} steps with a finite loss, and has {end}:"
            " make it longer, or begin at a lower rate"
        )
    return x[:end], y[:end], float(x[end]) if len(bad) else None


def _without_outliers(values: Floats) -> Floats:
    """Points far from the median of their neighbours are moved onto it."""
    from scipy.ndimage import median_filter

    middle: Floats = median_filter(values, size=5, mode="nearest")
    away = np.abs(values - middle)
    return np.where(away > 4 * max(_noise(values), 1e-12), middle, values)


def _noise(values: Floats) -> float:
    """Standard deviation around a smooth curve, from second differences and robust against outliers."""
    return float(1.4826 * np.median(np.abs(np.diff(values, n=2))) / math.sqrt(6))


def _local_lines(x: Floats, y: Floats, *, window: int) -> tuple[Floats, Floats]:
    """Value and slope at each point of the straight line fitted to the points around it."""
    values, slopes = np.empty_like(y), np.empty_like(y)
    half = window // 2
    for i in range(len(x)):
        part = slice(max(0, i - half), i + half + 1)
        centred = x[part] - x[part].mean()
        spread = float(centred @ centred)
        slopes[i] = float(centred @ y[part]) / spread if spread else 0.0
        values[i] = y[part].mean() + slopes[i] * (x[i] - x[part].mean())
    return values, slopes


def _first_above(x: Floats, smoothed: Floats, level: float, after: int, broken: float | None) -> float | None:
    """The first rate after an index from which the loss stays above a level, or the one where it is not finite."""
    below = np.flatnonzero(smoothed[after:] <= level)
    first = after + (int(below[-1]) + 1 if len(below) else 0)
    return float(x[first]) if first < len(x) else broken
