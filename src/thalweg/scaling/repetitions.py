"""Configurations that were trained under several seeds: their means, and whether two of them differ beyond chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.space import Hyperparameters, Value
from thalweg.tree import Metric, Run, Tree

NUM_FINALISTS = 4
"""Most configurations that are worth repeating at the end of a study: their checkpoints are kept for it."""

_LEVEL = 0.975
"""The quantile of Student's t at the ends of a two-sided 95% interval."""

_Key = tuple[tuple[int, tuple[tuple[str, str, Value], ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """One configuration and its final results, one per seed."""

    hyperparameters: Hyperparameters
    """Of the runs; where they are forks, those that they ended with."""
    runs: tuple[str, ...]
    """Run ids in order of creation, a run per seed."""
    seeds: tuple[int, ...]
    """Their seeds."""
    values: tuple[float, ...]
    """Their final values of the metric; of a diverged run the worst there is, an infinity."""
    mean: float
    """Of the values."""
    low: float
    """Lower end of the mean's 95% t-interval; not-a-number where a run diverged."""
    high: float
    """Upper end."""


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """The mean of one sample minus another's, with Welch's 95% interval."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Zero lies within the interval."""
        return not (self.low > 0 or self.high < 0)


def confirmed(tree: Tree, metric: Metric) -> list[Confirmed]:
    """Configurations with results under at least two seeds, the best mean first.

    Runs belong together where their whole lineages have the same hyperparameters and fork at the same positions, to
    whoever they owe their start. Finished and diverged runs count. Of several with one seed the first counts: training
    is deterministic, so that the others say nothing new. The run by which a configuration became a finalist is one of
    its results; as it was chosen for being good, the mean is a little too good where repetitions are few.

    Args:
        tree: all runs of a study, in any order.
        metric: what is compared.
    """
    groups: dict[_Key, dict[int, tuple[Run, float]]] = {}
    for run in sorted(tree, key=lambda run: run.number):
        value = final_value(run, metric)
        if value is not None:
            groups.setdefault(_key(tree, run), {}).setdefault(run.seed, (run, value))
    repeated = [_confirmed(list(group.values())) for group in groups.values() if len(group) > 1]
    # Groups are in order of their first run, and sorting keeps it where means are equal.
    return sorted(repeated, key=lambda each: metric.loss(each.mean))


def final_value(run: Run, metric: Metric) -> float | None:
    """A finished run's last evaluation; the worst there is where it diverged; None for any other run."""
    worst = math.inf if metric.goal == "min" else -math.inf
    if run.status == "diverged":
        return worst
    if run.status != "finished" or not run.reports or metric.name not in run.reports[-1].metrics:
        return None
    value = run.reports[-1].metrics[metric.name]
    return worst if math.isnan(value) else value


def best_run(tree: Tree, metric: Metric) -> Run | None:
    """The run to recommend: of the best mean where the best single run's configuration was repeated, else that run.

    Of the winning configuration's runs it is the one of the first seed, which its repetitions are compared with.
    A repetition that somebody made of another configuration alone changes nothing.
    """
    best = tree.best(metric)
    if best is None or all(run.seed == best.seed for run in tree):
        return best
    groups = confirmed(tree, metric)
    own = _key(tree, best)
    if not any(_key(tree, tree[group.runs[0]]) == own for group in groups):
        return best
    winner = tree[groups[0].runs[0]]
    return winner if winner.status == "finished" else best


def finalists(tree: Tree, metric: Metric, count: int) -> list[Run]:
    """The finished runs that one would repeat under other seeds: the best ones, the first seed's of each configuration.

    A run that is among them at the end of a study has been among them since it finished.
    """
    firsts: dict[_Key, Run] = {}
    for run in sorted(tree, key=lambda run: run.number):
        if run.status == "finished" and final_value(run, metric) is not None:
            firsts.setdefault(_key(tree, run), run)
    return sorted(firsts.values(), key=lambda run: metric.loss(run.reports[-1].metrics[metric.name]))[:count]


def welch(first: Sequence[float], second: Sequence[float]) -> MeanDifference | None:
    """The difference of two means with Welch's 95% interval, which takes the variances to be unequal.

    Args:
        first, second: at least two finite values each.
    Returns:
        first - second; None where a sample is too small or not finite.
    Source: Welch 1947, "The generalization of 'Student's' problem", with Satterthwaite's degrees of freedom.

    >>> gap = welch([1.0, 2.0, 3.0], [4.0, 6.0])
    >>> gap.value, gap.is_noise
    (-3.0, True)
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(a) < 2 or len(b) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    value = float(a.mean() - b.mean())
    parts = (_variance(a) / len(a), _variance(b) / len(b))
    variance = sum(parts)
    if variance == 0:
        return MeanDifference(value=value, low=value, high=value)
    freedom = variance**2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    reach = _t(freedom) * math.sqrt(variance)
    return MeanDifference(value=value, low=value - reach, high=value + reach)


def _confirmed(results: Sequence[tuple[Run, float]]) -> Confirmed:
    values = np.array([value for _, value in results])
    mean, low, high = float(values.mean()), math.nan, math.nan
    if np.isfinite(values).all():
        reach = _t(len(values) - 1) * math.sqrt(_variance(values) / len(values))
        low, high = mean - reach, mean + reach
    return Confirmed(
        hyperparameters=results[0][0].hyperparameters,
        runs=tuple(run.id for run, _ in results),
        seeds=tuple(run.seed for run, _ in results),
        values=tuple(values.tolist()),
        mean=mean,
        low=low,
        high=high,
    )


def _variance(values: np.ndarray) -> float:
    # The mean of equal numbers may be rounded to another one.
    return 0.0 if (values == values[0]).all() else float(values.var(ddof=1))


def _t(freedom: float) -> float:
    from scipy.special import stdtrit  # a tenth of a second less than scipy.stats takes to import

    return float(stdtrit(freedom, _LEVEL))


def _key(tree: Tree, run: Run) -> _Key:
    """What a lineage was trained with. With the types: to Python, True is 1 and 1.0 is 1."""
    return tuple(
        (part.fork_position, tuple(sorted((n, type(v).__name__, v) for n, v in part.hyperparameters.items())))
        for part in tree.lineage(run.id)
    )
