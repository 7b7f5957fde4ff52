"""The best trade-offs of a study with several objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from thalweg.report.lineage_costs import costs_to_reach
from thalweg.report.view import StudyView
from thalweg.report.wording import CostField, amount, score
from thalweg.tree import Metric, Run

_COST = "cost"


def objective_values(view: StudyView) -> dict[str, tuple[float, ...]]:
    """Of every finished run that has them all: the metric's value and each objective's, in the study's order.

    The cost is what was spent to get to the run's end, its share of its ancestors' included: FLOPs where they are
    known, else tokens, samples, or time. An objective that the last evaluation lacks is the run's last one known.
    """
    metrics = (view.metric, *view.objectives)
    costs = costs_to_reach(view, cost_field(view)) if any(m.name == _COST for m in view.objectives) else {}
    found: dict[str, tuple[float, ...]] = {}
    for run in view.tree:
        if run.status != "finished" or not run.reports or view.metric.name not in run.reports[-1].metrics:
            continue
        known = {name: value for report in run.reports for name, value in report.metrics.items()}
        if run.id in costs:
            known[_COST] = costs[run.id]
        if all(math.isfinite(known.get(metric.name, math.nan)) for metric in metrics):
            found[run.id] = tuple(known[metric.name] for metric in metrics)
    return found


def cost_field(view: StudyView) -> CostField:
    """The part of a cost that `min cost` is counted in."""
    order: tuple[CostField, ...] = ("flops", "tokens", "samples", "device_seconds")
    return next((field for field in order if getattr(view.total_cost, field)), "device_seconds")


def front(view: StudyView) -> list[Run]:
    """Finished runs that no other beats in one objective without being worse in another, the best metric first.

    Of runs that are equal in all objectives the first counts. With one objective: the best run.
    """
    if not view.objectives:
        return [view.best] if view.best is not None else []
    values = objective_values(view)
    runs = [run for run in sorted(view.tree, key=lambda run: run.number) if run.id in values]
    losses = _losses(view, [values[run.id] for run in runs])
    kept = [runs[i] for i in non_dominated(losses)]
    return sorted(kept, key=lambda run: (view.metric.loss(values[run.id][0]), run.number))


def non_dominated(losses: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other point dominates; of equal points the first.

    >>> non_dominated([(2.0, 0.5), (1.0, 0.7), (3.0, 0.6), (2.0, 0.5)])
    [0, 1]
    """
    points = np.asarray(losses, dtype=float)
    kept = []
    for i, point in enumerate(points):
        beats = (points <= point).all(axis=1) & (points < point).any(axis=1)
        twin = (points[:i] == point).all(axis=1).any()
        if not beats.any() and not twin:
            kept.append(i)
    return kept


def hypervolume(losses: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume that points dominate, up to a reference point; exact, by slicing along the last objective.

    >>> hypervolume([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)], (4.0, 4.0))
    6.0
    """
    points = sorted({tuple(p) for p in losses if all(a < b for a, b in zip(p, reference, strict=True))})
    if not points:
        return 0.0
    if len(reference) == 1:
        return reference[0] - points[0][0]
    levels = sorted({point[-1] for point in points})
    ends = [*levels[1:], reference[-1]]
    return sum(
        (end - level) * hypervolume([p[:-1] for p in points if p[-1] <= level], reference[:-1])
        for level, end in zip(levels, ends, strict=True)
    )


def front_dict(view: StudyView) -> dict[str, Any] | None:
    """For `--json`; None for a study with one objective.

    The hypervolume is in the objectives' units, up to the worst value that a finished run has in each.
    """
    if not view.objectives:
        return None
    metrics, values, runs = (view.metric, *view.objectives), objective_values(view), front(view)
    worst: list[float] = []
    volume = 0.0
    if values:
        losses = np.array(_losses(view, list(values.values())))
        volume = hypervolume(losses.tolist(), losses.max(axis=0).tolist())
        worst = [_value(metric, loss) for metric, loss in zip(metrics, losses.max(axis=0).tolist(), strict=True)]
    return {
        "objectives": [str(metric) for metric in metrics],
        "cost_in": cost_field(view) if any(m.name == _COST for m in view.objectives) else None,
        "runs": [
            {
                "run": run.id,
                "values": dict(zip((m.name for m in metrics), values[run.id], strict=True)),
                "hyperparameters": dict(run.hyperparameters),
            }
            for run in runs
        ],
        "hypervolume": volume,
        "reference": worst,
    }


def value_text(view: StudyView, metric: Metric, value: float) -> str:
    """An objective's value for people."""
    return amount(cost_field(view), value) if metric.name == _COST else score(metric.name, value)


def _losses(view: StudyView, rows: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    metrics = (view.metric, *view.objectives)
    return [tuple(metric.loss(value) for metric, value in zip(metrics, row, strict=True)) for row in rows]


def _value(metric: Metric, loss: float) -> float:
    return loss if metric.goal == "min" else -loss
