"""Training against validation: where the validation loss turns while the training loss goes on falling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.scaling.smoothing import Curve, noise_of

MIN_AFTER = 3
"""Evaluations after the best one that it takes to call the validation loss rising."""


@dataclass(frozen=True)
class Gap:
    """How validation compares with training."""

    best_position: float
    """Of the evaluation with the least loss."""
    best: float
    onset: float | None
    """The first evaluation from which on the validation loss stays above its best beyond noise, while the training loss
    goes on falling; None where that does not happen."""
    rise: float
    """Validation loss at the end minus its best."""
    training_fall: float
    """How far the training loss has fallen since the best evaluation; NaN where too few points tell."""
    end: float
    """Validation minus training loss at the end; NaN without training loss there."""


def compare(training: Curve, validation: Curve) -> Gap | None:
    """Find the best evaluation and the onset of over-fitting.

    Over-fitting is called where at least 3 evaluations after the best one rise, above it by more than the noise of the
    evaluations and by 1% of it, while the training loss falls by more than its own noise.

    Args:
        training: the training loss.
        validation: a loss, to minimise.
    Returns:
        None for fewer than 2 evaluations.
    """
    num = len(validation)
    if num < 2:
        return None
    best_at = int(np.argmin(validation.values))
    best, position = float(validation.values[best_at]), float(validation.positions[best_at])
    after = validation.values[best_at + 1 :]
    rise = float(np.median(after[-2:])) - best if len(after) else 0.0
    fall, certain = _training_fall(training, position)
    margin = max(5 * _noise(validation), 0.01 * abs(best))
    grows = len(after) >= MIN_AFTER and rise > margin and _agreement(validation.values[best_at:]) > 0.5
    onset = None
    if grows and certain:
        low = np.flatnonzero(after <= best + margin / 2)
        first = best_at + 1 + (int(low[-1]) + 1 if len(low) else 0)
        onset = float(validation.positions[min(first, num - 1)])
    return Gap(position, best, onset, rise, fall, _end_gap(training, validation))


def _training_fall(training: Curve, position: float) -> tuple[float, bool]:
    """How far the training loss falls from a position to the end, and whether that is more than noise."""
    late = training.part(position, np.inf).values
    reach = min(max(len(late) // 4, 3), len(late))
    if len(late) < 6:
        return float("nan"), False
    fall = float(np.median(late[:reach]) - np.median(late[-reach:]))
    return fall, fall > 5 * noise_of(training.values).of_level(reach)


def _end_gap(training: Curve, validation: Curve) -> float:
    last = training.values[training.positions <= validation.positions[-1]][-20:]
    return float(validation.values[-1] - np.median(last)) if len(last) else float("nan")


def _noise(validation: Curve) -> float:
    """Of one evaluation, from second differences, which a smooth curve has little of."""
    if len(validation) < 5:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.diff(validation.values, n=2))) / np.sqrt(6))


def _agreement(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Kendall's tau against time: 1 where each value is above all before it."""
    from scipy.stats import kendalltau

    tau = float(kendalltau(np.arange(len(values)), values).statistic)
    return tau if np.isfinite(tau) else 0.0
