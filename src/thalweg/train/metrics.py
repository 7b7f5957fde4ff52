"""What an evaluation says: metrics of one split, and their intervals on held-back data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg.train.data import Task
from thalweg.trainer import Estimate

METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "loss"),
    "causal": ("loss", "perplexity"),
}
"""What `summarize` returns, by task."""

_Z = 1.959963984540054  # 97.5% point of the normal distribution
_NUM_RESAMPLES = 1000

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What the model did with each row of a split."""

    losses: _Array
    """float64 [rows]: the loss summed over a row's targets."""
    num_targets: _Array
    """int64 [rows]: 1 for a classified row, the predicted tokens of a causal one."""
    predictions: _Array | None = None
    """int64 [rows]: the most likely class."""
    labels: _Array | None = None
    """int64 [rows]: the true class."""
    num_classes: int = 0


def summarize(outcomes: Outcomes) -> dict[str, float]:
    """The metrics of a split, in natural units.

    Loss is the mean over targets in nats; perplexity is its exponential. F1 is that of class 1 where there are two
    classes, and the unweighted mean over classes (macro) where there are more.
    """
    loss = float(outcomes.losses.sum() / outcomes.num_targets.sum())
    if outcomes.predictions is None or outcomes.labels is None:
        return {"loss": loss, "perplexity": _exp(loss)}
    return {
        "accuracy": float((outcomes.predictions == outcomes.labels).mean()),
        "f1": f1(outcomes.predictions, outcomes.labels, outcomes.num_classes),
        "loss": loss,
    }


def estimates(outcomes: Outcomes) -> dict[str, Estimate]:
    """The same metrics with 95% intervals.

    Wilson's for accuracy; the normal one for the loss, a ratio of sums over rows, since the tokens of one text are not
    independent; its exponential for perplexity; bootstrap percentiles over rows for F1, with a fixed seed.
    """
    num_rows = len(outcomes.losses)
    values = summarize(outcomes)
    loss = values["loss"]
    half = _Z * _standard_error(outcomes.losses, outcomes.num_targets)
    result = {"loss": Estimate(loss, loss - half, loss + half, num_rows)}
    if outcomes.predictions is None or outcomes.labels is None:
        result["perplexity"] = Estimate(values["perplexity"], _exp(loss - half), _exp(loss + half), num_rows)
        return result
    num_correct = int((outcomes.predictions == outcomes.labels).sum())
    result["accuracy"] = Estimate(values["accuracy"], *wilson(num_correct, num_rows), num_rows)
    low, high = _bootstrap_f1(outcomes.predictions, outcomes.labels, outcomes.num_classes)
    result["f1"] = Estimate(values["f1"], low, high, num_rows)
    return result


def f1(predictions: _Array, labels: _Array, num_classes: int) -> float:
    """Harmonic mean of precision and recall: of class 1 of two, or averaged over all of more. A class that is neither
    predicted nor there counts 0."""
    return _f1_of_counts(np.bincount(labels * num_classes + predictions, minlength=num_classes**2), num_classes)


def wilson(num_correct: int, num_rows: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion, without continuity correction.

    >>> [round(end, 4) for end in wilson(81, 263)]  # Newcombe 1998, Statistics in Medicine 17, table I
    [0.2553, 0.3662]
    """
    p = num_correct / num_rows
    centre = p + _Z**2 / (2 * num_rows)
    half = _Z * math.sqrt(p * (1 - p) / num_rows + _Z**2 / (4 * num_rows**2))
    scale = 1 + _Z**2 / num_rows
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _f1_of_counts(counts: _Array, num_classes: int) -> float:
    """F1 from how often each (label, prediction) came up."""
    table = counts.reshape(num_classes, num_classes)
    hits = np.diagonal(table)
    total = table.sum(axis=0) + table.sum(axis=1)
    scores = np.divide(2 * hits, total, out=np.zeros(num_classes), where=total > 0)
    return float(scores[1] if num_classes == 2 else scores.mean())


def _bootstrap_f1(predictions: _Array, labels: _Array, num_classes: int) -> tuple[float, float]:
    # Rows drawn with replacement are multinomial counts of (label, prediction).
    counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    rng = np.random.default_rng(0)
    resampled = rng.multinomial(len(labels), counts / counts.sum(), size=_NUM_RESAMPLES)
    low, high = np.percentile([_f1_of_counts(row, num_classes) for row in resampled], [2.5, 97.5])
    return float(low), float(high)


def _standard_error(losses: _Array, num_targets: _Array) -> float:
    """Of the ratio sum(losses) / sum(targets), linearised."""
    num_rows = len(losses)
    if num_rows < 2:
        return math.inf
    mean = losses.sum() / num_targets.sum()
    spread = float(((losses - mean * num_targets) ** 2).sum())
    return math.sqrt(spread * num_rows / (num_rows - 1)) / float(num_targets.sum())


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
