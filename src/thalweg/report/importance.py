"""Which hyperparameters mattered, by Optuna's functional ANOVA."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thalweg.report.view import StudyView
from thalweg.space import Choice, Dimension, Integer, Value
from thalweg.tree import Run

if TYPE_CHECKING:
    import optuna

MIN_RUNS = 4
ENOUGH_RUNS = 8
"""A later rung is preferred, but not with fewer runs than this where an earlier one has more."""


@dataclass(frozen=True)
class Importance:
    """Shares of the result's variance that hyperparameters explain."""

    shares: dict[str, float]
    """Hyperparameter -> share, the largest first, with a sum of 1; empty where it cannot be told."""
    basis: str
    """What it rests on, or why it cannot be told, as a sentence."""


def importance(view: StudyView) -> Importance:
    """Shares of variance explained, from the furthest rung at which enough runs were evaluated.

    Forests of 64 trees are fitted with a fixed seed (Hutter et al. 2014, An Efficient Approach for Assessing
    Hyperparameter Importance). Hyperparameters that not every run has are left out.
    """
    scored, share = _comparable(view)
    if len(scored) < MIN_RUNS:
        return Importance(
            {}, f"Too few runs to tell: {len(scored)} comparable results, and at least {MIN_RUNS} needed."
        )
    searched = [name for name in view.space.dimensions if all(name in run.hyperparameters for run, _ in scored)]
    varied = [name for name in searched if len({repr(run.hyperparameters[name]) for run, _ in scored}) > 1]
    if not varied or len({loss for _, loss in scored}) == 1:
        return Importance({}, "All comparable runs have the same hyperparameters or the same result: nothing to tell.")
    where = "at the end of training" if share >= 0.995 else f"after {share:.0%} of their training"
    basis = f"From {len(scored)} runs compared {where}."
    if len(scored) < ENOUGH_RUNS:
        basis += " So few runs give a hint, not a measurement."
    if left_out := [name for name in view.space.dimensions if name not in searched]:
        basis += f" Left out, because not every run has them: {', '.join(left_out)}."
    return Importance(_shares(view, scored, varied), basis)


def _comparable(view: StudyView) -> tuple[list[tuple[Run, float]], float]:
    """Runs with their losses at one share of their horizon, and that share.

    The furthest share with ENOUGH_RUNS results, else the furthest with MIN_RUNS, else the one with most.
    """
    by_share: dict[float, dict[str, tuple[Run, float]]] = {}
    # A fork owes its result to its parent's hyperparameters too.
    for run in view.tree.roots():
        for report in run.reports:
            value = report.metrics.get(view.metric.name, math.nan)
            # Step boundaries overshoot a rung by a little: one percent of the horizon is the same rung.
            share = min(round(report.position / max(run.horizon, 1), 2), 1.0)
            if math.isfinite(value):
                by_share.setdefault(share, {})[run.id] = (run, view.metric.loss(value))
    if not by_share:
        return [], 1.0
    for least in (ENOUGH_RUNS, MIN_RUNS):
        if enough := [share for share, runs in by_share.items() if len(runs) >= least]:
            return list(by_share[max(enough)].values()), max(enough)
    most = max(by_share, key=lambda share: (len(by_share[share]), share))
    return list(by_share[most].values()), most


def _shares(view: StudyView, scored: list[tuple[Run, float]], names: list[str]) -> dict[str, float]:
    import optuna

    optuna_verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        values = {n: _widened([run.hyperparameters[n] for run, _ in scored], view.space.dimensions[n]) for n in names}
        for run, loss in scored:
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: run.hyperparameters[name] for name in names}, distributions=values, value=loss
                )
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=view.seed % 2**32)
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(optuna_verbosity)
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def _widened(values: list[Value], dimension: Dimension) -> optuna.distributions.BaseDistribution:
    """The dimension for Optuna, wide enough for values outside it: a baseline or a fork by hand may lie there."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(tuple(dict.fromkeys([*dimension.options, *values])))
    numbers: list[Any] = [*values, dimension.low, dimension.high]
    low, high = min(numbers), max(numbers)
    log = dimension.log and low > 0
    kind = IntDistribution if isinstance(dimension, Integer) and all(isinstance(n, int) for n in numbers) else None
    return (kind or FloatDistribution)(low, high, log=log)
