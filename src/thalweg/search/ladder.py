"""Rungs: where runs are compared, how a run gets to the next one, and where each stands.

Directly, a run is trained to a rung and evaluated there, in the middle of its learning-rate schedule. Over a **trunk**,
the run itself holds its rate, and a fork of it, a branch, decays and is evaluated: as honest as a whole run of that
budget. The trunk goes on from its undecayed checkpoint, so that the next rung costs what lies between, and a branch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.errors import ConfigError
from thalweg.search.strategy import Branch, Problem, is_active, sorted_roots, start
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Continue, Fork, Metric, Run, Start, Tree


@dataclass(frozen=True)
class Standing:
    """A root and what it reached."""

    run: Run
    losses: tuple[float | None, ...]
    """Per rung: its loss there, infinite if it diverged; None where it has no result."""
    next_position: int | None
    """What it has to be trained to next, by itself; None where nothing is left."""
    active: bool
    """Whether a worker has it or its branch, or either waits for one."""
    due: Fork | None = None
    """The branch that it waits for."""

    @property
    def rung(self) -> int:
        """The highest rung at which it has a result, or -1."""
        return max((k for k, loss in enumerate(self.losses) if loss is not None), default=-1)

    def loss(self, rung: int) -> float:
        """Its loss at a rung where it has a result."""
        loss = self.losses[rung]
        assert loss is not None
        return loss

    def waits_at(self, rung: int) -> bool:
        """Whether it is paused with a finite loss at this rung, and may go on."""
        paused = self.run.status == "paused" and self.next_position is not None and not self.active
        return paused and self.rung == rung and math.isfinite(self.loss(rung))


def by_loss(standings: Iterable[Standing], rung: int) -> list[Standing]:
    """The best first, the earlier one where two are equal."""
    return sorted(standings, key=lambda standing: (standing.loss(rung), standing.run.number))


def fractions(eta: int, num_rungs: int | None, first_fraction: float | None) -> tuple[float, ...]:
    """Each rung's share of the horizon, rising to 1."""
    if first_fraction is None:
        num_steps, step = (3 if num_rungs is None else num_rungs) - 1, float(eta)
    else:
        num_steps = max(1, round(-math.log(first_fraction) / math.log(eta)))
        step = first_fraction ** (-1 / num_steps)
    return tuple(step ** -(num_steps - k) for k in range(num_steps + 1))


class Direct:
    """Runs are trained to a rung and evaluated there."""

    def __init__(self, problem: Problem, shares: tuple[float, ...], name: str) -> None:
        self._problem = problem
        self._shares = shares
        self._name = name

    def share(self, eta: int) -> float:
        """How much of a whole run a root gets on average, where one in `eta` takes each further step."""
        steps = zip(self._shares, (0.0, *self._shares), strict=False)
        return float(sum((end - begin) * eta**-k for k, (end, begin) in enumerate(steps)))

    def begin(self, hyperparameters: Hyperparameters) -> Start:
        """A new root, on its way to the first rung."""
        first = _positions(self._problem.horizon(hyperparameters), self._shares)[0]
        return start(self._problem, hyperparameters, first, self._name)

    def standings(self, tree: Tree) -> list[Standing]:
        """Where every root stands, in order of creation."""
        return [self._standing(run) for run in sorted_roots(tree)]

    def advance(self, standing: Standing) -> Action:
        """The step to the next rung."""
        assert standing.next_position is not None
        return Continue(standing.run.id, standing.next_position, self._name)

    def _standing(self, run: Run) -> Standing:
        rungs = _positions(run.horizon, self._shares)
        next_position = next((position for position in rungs if position > run.position), None)
        if run.status == "diverged":
            return Standing(run, (math.inf,) * len(rungs), next_position, active=False)
        losses: list[float | None] = []
        for k, position in enumerate(rungs):
            report = run.report_at(position)
            is_last = k == len(rungs) - 1
            if report is None or (not is_last and report.position >= rungs[k + 1]):
                losses.append(None)
            else:
                losses.append(_loss(report.metrics, self._problem.metric))
        return Standing(run, tuple(losses), next_position, active=is_active(run))


class Trunk(Direct):
    """Runs hold their learning rate; at each rung but the last a branch decays and is evaluated."""

    def share(self, eta: int) -> float:
        """As for `Direct`, with each branch's decay trained besides."""
        tail = 1.0 - self._a_branch_share()
        parts = zip(self._shares, (0.0, *self._shares), strict=False)
        return float(sum((end - (1 - tail) * begin) * eta**-k for k, (end, begin) in enumerate(parts)))

    def check(self, points: Iterable[Hyperparameters]) -> None:
        """Refuse a space in which some run has no trunk, or a rung too low to branch for.

        Raises:
            ConfigError: naming the hyperparameters and what would work.
        """
        for point in points:
            for budget in _positions(self._problem.horizon(point), self._shares)[:-1]:
                self._branch(point, budget)

    def begin(self, hyperparameters: Hyperparameters) -> Start:
        first = _positions(self._problem.horizon(hyperparameters), self._shares)[0]
        return start(self._problem, hyperparameters, self._branch(hyperparameters, first).at, self._name)

    def standings(self, tree: Tree) -> list[Standing]:
        children: dict[str, list[Run]] = {}
        for run in tree:
            if run.parent is not None:
                children.setdefault(run.parent, []).append(run)
        return [self._over(run, children.get(run.id, [])) for run in sorted_roots(tree)]

    def _over(self, run: Run, children: Sequence[Run]) -> Standing:
        *budgets, horizon = _positions(run.horizon, self._shares)
        metric = self._problem.metric
        if run.status == "diverged":
            return Standing(run, (math.inf,) * len(self._shares), None, active=False)
        report = run.report_at(horizon)
        at_horizon = None if report is None else _loss(report.metrics, metric)
        losses: list[float | None] = [*[None for _ in budgets], at_horizon]
        active = is_active(run)
        for k, budget in enumerate(budgets):
            branch = self._branch(run.hyperparameters, budget)
            child = next((child for child in children if _is_branch(child, run, branch, budget)), None)
            if child is not None:
                losses[k] = _final(child, metric)
                active |= is_active(child)
                if child.status in ("failed", "stopped"):  # nothing to rank it by: it is not taken further
                    return Standing(run, tuple(losses), None, active)
            elif run.position < branch.at:
                return Standing(run, tuple(losses), branch.at, active)
            elif run.position == branch.at and run.status == "paused":
                due = Fork(run.id, branch.at, branch.changes, budget, self._name)
                return Standing(run, tuple(losses), None, active, due)
        return Standing(run, tuple(losses), horizon if run.position < horizon else None, active)

    def _branch(self, hyperparameters: Hyperparameters, budget: int) -> Branch:
        branch = self._problem.branch(hyperparameters, budget)
        shown = ", ".join(f"{name} = {value!r}" for name, value in hyperparameters.items())
        if branch is None:
            raise ConfigError(
                f"strategy.trunk = true: there is no trunk to branch from with {shown}; schedule = 'wsd' has one"
            )
        if branch.at < 1:
            raise ConfigError(
                f"strategy.trunk = true: the decay of a budget of {budget} begins before its first step is over, with"
                f" {shown}; fewer rungs, a larger budget, or a shorter decay would work"
            )
        return branch

    def _a_branch_share(self) -> float:
        point = self._problem.space.sample(np.random.default_rng(0))
        budget = _positions(self._problem.horizon(point), self._shares)[0]
        return self._branch(point, budget).at / budget


@functools.lru_cache(maxsize=1024)
def _positions(horizon: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    """Positions of the rungs. A very short horizon may have several at one position."""
    return tuple(max(1, round(horizon * share)) for share in shares)


def _is_branch(child: Run, run: Run, branch: Branch, budget: int) -> bool:
    same_place = child.fork_position == branch.at and child.horizon == budget
    return same_place and child.hyperparameters == {**run.hyperparameters, **branch.changes}


def _loss(metrics: Mapping[str, float], metric: Metric) -> float | None:
    value = metrics.get(metric.name)
    return None if value is None else metric.loss(value)


def _final(branch: Run | None, metric: Metric) -> float | None:
    """What a branch reached at its end."""
    if branch is None:
        return None
    if branch.status == "diverged":
        return math.inf
    return _loss(branch.reports[-1].metrics, metric) if branch.status == "finished" and branch.reports else None
