"""Which hyperparameters mattered, by Optuna's functional ANOVA."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.report.view import StudyView
from thalweg.space import Choice, Dimension, Integer, Value
from thalweg.tree import Run

if TYPE_CHECKING:
    import optuna

MIN_RUNS = 4
ENOUGH_RUNS = 8
"""A later rung is preferred, but not with fewer runs than this where an earlier one has more."""


MOST_RUNS = 200
"""Most runs that forests are fitted to: their time grows with the square of the number (30 s at 1,000)."""
_NUM_SAMPLES = 20
_VAGUE = 0.5
"""An interval as wide as half of what is possible says next to nothing."""


@dataclass(frozen=True)
class Importance:
    """Shares of the result's variance that hyperparameters explain."""

    shares: dict[str, float]
    """Hyperparameter -> share, the largest first, with a sum of 1; empty where it cannot be told."""
    basis: str
    """What it rests on, or why it cannot be told, as a sentence."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Hyperparameter -> ends of a 90% bootstrap interval over the runs."""


def importance(view: StudyView) -> Importance:
    """Shares of variance explained, from the furthest rung at which enough runs were evaluated.

    Forests of 64 trees are fitted with a fixed seed (Hutter et al. 2014, An Efficient Approach for Assessing
    Hyperparameter Importance). Hyperparameters that not every run has are left out.
    """
    scored, share = _comparable(view)
    num_scored = len(scored)
    if num_scored > MOST_RUNS:
        drawn = np.random.default_rng(view.seed).choice(num_scored, MOST_RUNS, replace=False)
        scored = [scored[i] for i in sorted(drawn)]
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
    if num_scored > MOST_RUNS:
        basis += f" Of {num_scored:,} such runs they are drawn at random, to save time."
    shares = _shares(view, scored, varied)
    intervals = _intervals(view, scored, list(shares))
    if vague := [name for name, (low, high) in intervals.items() if high - low >= _VAGUE]:
        basis += f" Not enough runs: the interval of {' and of '.join(vague)} spans half of what is possible or more."
    return Importance(shares, basis, intervals)


def _intervals(
    view: StudyView, scored: Sequence[tuple[Run, float]], names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    rng = np.random.default_rng(view.seed)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(_NUM_SAMPLES):
        sample = [scored[i] for i in rng.integers(len(scored), size=len(scored))]
        varied = [name for name in names if len({repr(run.hyperparameters[name]) for run, _ in sample}) > 1]
        told = len({loss for _, loss in sample}) > 1 and bool(varied)
        shares = _shares(view, sample, varied, num_trees=16, max_depth=6) if told else {}
        for name in names:
            found[name].append(shares.get(name, 0.0))
    ranked = {name: sorted(values) for name, values in found.items()}
    return {name: (values[1], values[-2]) for name, values in ranked.items()}


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


def _shares(
    view: StudyView,
    scored: Sequence[tuple[Run, float]],
    names: Sequence[str],
    *,
    num_trees: int = 64,
    max_depth: int = 64,
) -> dict[str, float]:
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
            evaluator = optuna.importance.FanovaImportanceEvaluator(
                n_trees=num_trees, max_depth=max_depth, seed=view.seed % 2**32
            )
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
