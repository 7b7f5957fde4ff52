"""What repetitions under other seeds say: a configuration's mean, and whether the first two differ beyond chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from thalweg.report.view import StudyView
from thalweg.report.wording import difference, number, score
from thalweg.scaling.repetitions import Confirmed, MeanDifference, best_run, confirmed, welch
from thalweg.tree import Metric

__all__ = [
    "Confirmed",
    "MeanDifference",
    "best_run",
    "confirmation_dicts",
    "confirmed",
    "mean_text",
    "statement",
    "welch",
]


def statement(groups: Sequence[Confirmed], metric: Metric) -> str:
    """Whether the best configuration is better than the second beyond noise, in a plain sentence.

    Args:
        groups: as `confirmed` gives them, the best first; at least one.
    """
    first = groups[0]
    if any(not math.isfinite(value) for value in first.values):
        return "Every repeated configuration diverged under a seed, so none can be called the better one."
    runs = f"{first.runs[0]} and its repetitions ({len(first.values)} seeds)"
    if len(groups) == 1:
        return f"Over seeds, {runs} reach {mean_text(first, metric)}. No other configuration was repeated."
    second = groups[1]
    rival = f"{second.runs[0]}'s ({len(second.values)} seeds)"
    gap = welch(first.values, second.values)
    if gap is None:
        return f"Over seeds, {runs} have the best mean, {mean_text(first, metric)}; of {rival} a run diverged."
    ends = f"{difference(metric.name, gap.low).removesuffix(' points')} to {difference(metric.name, gap.high)}"
    moved = difference(metric.name, gap.value)
    start = f"Over seeds, {runs} have the best mean, {mean_text(first, metric)}. It differs from {rival} by {moved}"
    if gap.is_noise:
        return f"{start}, which is within noise: the 95% interval of the difference, {ends}, includes zero."
    return f"{start}, which is more than noise: the 95% interval of the difference is {ends}."


def mean_text(group: Confirmed, metric: Metric) -> str:
    """A configuration's mean with its interval.

    >>> group = Confirmed(
    ...     hyperparameters={}, runs=("a-0", "a-1"), seeds=(0, 1), values=(0.8, 0.9), mean=0.85, low=0.2, high=1.5
    ... )
    >>> mean_text(group, Metric.parse("f1"))
    '85.0% (95%: 20.0% to 1.5)'
    """
    if not math.isfinite(group.mean):
        return f"{number(group.mean)}, as a run diverged"
    return (
        f"{score(metric.name, group.mean)} (95%: {score(metric.name, group.low)} to {score(metric.name, group.high)})"
    )


def confirmation_dicts(view: StudyView) -> dict[str, Any] | None:
    """For `--json`; None where nothing was repeated."""
    groups = confirmed(view.tree, view.metric)
    if not groups:
        return None
    gap = welch(groups[0].values, groups[1].values) if len(groups) > 1 else None
    return {
        "configurations": [
            {
                "hyperparameters": dict(group.hyperparameters),
                "runs": list(group.runs),
                "seeds": list(group.seeds),
                "values": list(group.values),
                "mean": group.mean,
                "low": None if math.isnan(group.low) else group.low,
                "high": None if math.isnan(group.high) else group.high,
            }
            for group in groups
        ],
        "difference": None if gap is None else {"value": gap.value, "low": gap.low, "high": gap.high},
        "more_than_noise": None if gap is None else not gap.is_noise,
        "statement": statement(groups, view.metric),
    }
