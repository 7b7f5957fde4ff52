"""Several objectives with any strategy: it is shown one number per evaluation, which weighs them anew for each root."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search.strategy import Problem, Strategy, is_own
from thalweg.tree import Action, Metric, Report, Run, Tree

COST = "cost"
"""The objective that needs no report: what a run takes, as the trainer predicts it."""

TRADE_OFF = "trade-off"
"""The name of the number that a strategy minimises."""

_SUM_SHARE = 0.05


def reported(metric: Metric, objectives: Sequence[Metric]) -> list[Metric]:
    """What a trainer has to report: the objectives but for the cost, and the metric last.

    Raises:
        ConfigError: one is given twice, or the cost is to be large, or is the metric itself.
    """
    names = [metric.name, *(objective.name for objective in objectives)]
    for objective in objectives:
        if names.count(objective.name) > 1:
            raise ConfigError(f"objectives: {objective.name!r} is given twice, or is the study's metric already")
        if objective == Metric(COST, "max"):
            raise ConfigError("objectives: 'max cost': a cost can only be kept small; write 'min cost'")
    if objectives and metric.name == COST:
        raise ConfigError(
            f"metric = '{metric}': the metric has to be reported, such as 'loss'; 'min cost' can be an objective"
        )
    return [*(objective for objective in objectives if objective.name != COST), metric]


class TradeOffs:
    """A strategy that minimises a weighing of the objectives, so that its runs spread over the best trade-offs.

    Each objective's loss is scaled such that its best value so far is 0 and the third quartile of the runs' last values
    is 1. An evaluation's number is then `max(w_i * z_i) + 0.05 * sum(w_i * z_i)`: the augmented Chebyshev distance from
    the best of each, which reaches every point of a front, hollows included. The weights w are drawn anew, uniformly,
    for each number of roots begun, and are equal for the first root, and once no more may begin: what is then
    continued or confirmed is the balanced trade-offs. The strategy itself is any, and is shown a tree with this number
    in place of its metric.

    `min cost` is the predicted cost of a run's whole lineage up to its horizon, whatever it has trained so far. An
    objective that an evaluation lacks is taken from the last one before it in the lineage; where there is none,
    the evaluation counts as one without the metric.

    Args:
        problem: what is searched, with its objectives.
        make: makes the strategy from a problem with one metric.
    Source: Knowles 2006, "ParEGO", IEEE Transactions on Evolutionary Computation 10:50 (the weighing); Steuer and Choo
        1983, Mathematical Programming 26:326 (augmented Chebyshev).
    """

    def __init__(self, problem: Problem, make: Callable[[Problem], Strategy]) -> None:
        self._problem = problem
        self._metrics = (problem.metric, *problem.objectives)
        self._inner = make(dataclasses.replace(problem, metric=Metric(TRADE_OFF, "min"), objectives=()))
        self.share = self._inner.share
        self.num_roots = self._inner.num_roots
        self._costs: dict[str, float] = {}

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        return self._inner.decide(self.weighed(tree, left), free_slots=free_slots, left=left)

    def weighed(self, tree: Tree, left: Left) -> Tree:
        """The tree as the strategy sees it."""
        losses = self._losses(tree)
        best, spread = _scales([rows[-1] for rows in losses.values() if rows], len(self._metrics))
        weights = self._weights(tree, left)
        seen = Tree()
        for run in tree:
            reports = tuple(
                Report(report.position, {**report.metrics, TRADE_OFF: number})
                if (number := _distance(row, best, spread, weights)) is not None
                else report
                for report, row in zip(run.reports, losses[run.id], strict=True)
            )
            seen.absorb(dataclasses.replace(run, reports=reports))
        return seen

    def _weights(self, tree: Tree, left: Left) -> np.ndarray:
        num = len(self._metrics)
        begun = sum(is_own(run) for run in tree.roots())
        over = left.amounts.get("runs", math.inf) < 1 or (self.num_roots is not None and begun >= self.num_roots)
        if begun == 0 or over:
            return np.full(num, 1 / num)
        # A stream of its own: samplers draw from the first ones.
        return self._problem.rng(begun).spawn(4)[3].dirichlet(np.ones(num))

    def _losses(self, tree: Tree) -> dict[str, list[list[float | None]]]:
        """Per run and evaluation: each objective's loss, None where it is not known."""
        return {run.id: self._of_run(tree, run) for run in tree}

    def _of_run(self, tree: Tree, run: Run) -> list[list[float | None]]:
        cost = self._cost(tree, run) if any(metric.name == COST for metric in self._metrics) else 0.0
        known = _inherited(tree, run, self._problem.objectives)
        rows = []
        for report in run.reports:
            known |= report.metrics
            own = _loss(self._problem.metric, report.metrics, cost)
            rows.append([own, *(_loss(metric, known, cost) for metric in self._problem.objectives)])
        return rows

    def _cost(self, tree: Tree, run: Run) -> float:
        if run.id not in self._costs:  # a run's hyperparameters, horizon and fork point never change
            line = tree.lineage(run.id)
            ends = [*(child.fork_position for child in line[1:]), run.horizon]
            self._costs[run.id] = sum(
                self._problem.cost(part.hyperparameters, part.fork_position, end)
                for part, end in zip(line, ends, strict=True)
            )
        return self._costs[run.id]


def _inherited(tree: Tree, run: Run, metrics: Sequence[Metric]) -> dict[str, float]:
    """What the lineage had reported up to where the run began."""
    if run.parent is None:
        return {}
    known: dict[str, float] = {}
    line = tree.lineage(run.id)
    for part, child in itertools.pairwise(line):
        for report in part.reports:
            if report.position <= child.fork_position:
                known |= {m.name: report.metrics[m.name] for m in metrics if m.name in report.metrics}
    return known


def _loss(metric: Metric, known: Mapping[str, float], cost: float) -> float | None:
    if metric.name == COST:
        return metric.loss(cost)
    return metric.loss(known[metric.name]) if metric.name in known else None


def _scales(last: Sequence[Sequence[float | None]], num: int) -> tuple[np.ndarray, np.ndarray]:
    """Per objective: the best loss, and how far the third quartile lies above it; 1 where all are equal."""
    best, spread = np.zeros(num), np.ones(num)
    for i in range(num):
        values = np.array([row[i] for row in last if row[i] is not None], dtype=float)
        values = values[np.isfinite(values)]
        if values.size:
            best[i] = values.min()
            spread[i] = float(np.quantile(values, 0.75)) - best[i] or float(values.max()) - best[i] or 1.0
    return best, spread


def _distance(row: Sequence[float | None], best: np.ndarray, spread: np.ndarray, weights: np.ndarray) -> float | None:
    if any(value is None for value in row):
        return None
    parts = weights * (np.asarray(row, dtype=float) - best) / spread
    return float(parts.max() + _SUM_SHARE * parts.sum())
