"""Rungs: where runs are compared, how a run gets to the next one, and where each stands.

Directly, a run is trained to a rung and evaluated there, in the middle of its learning-rate schedule. Over a **trunk**,
the run itself holds its rate, and a fork of it, a branch, decays and is evaluated: as honest as a whole run of that
budget. The trunk goes on from its undecayed checkpoint, so that the next rung costs what lies between, and a branch.
The third way, shortened schedules, is in `shortened.py`.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search.strategy import Branch, Problem, is_active, sorted_roots, start
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Continue, Fork, Metric, Report, Run, Start, Status, Tree, final_loss

MARGIN = 1.15
"""Safety factor on what is kept for a last run: times are predictions."""


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
    unscored: bool = False
    """It stands at a rung whose evaluation lacks the study's metric: there is nothing to rank it by."""
    whole: Hyperparameters | None = None
    """Where `run` has a shortened schedule: the hyperparameters of the whole run."""
    newest: Run | None = None
    """With shortened schedules: the root that was begun last for these hyperparameters; `run` is the first."""

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Of the whole run: what a sampler learns from."""
        return self.run.hyperparameters if self.whole is None else self.whole

    @property
    def status(self) -> Status:
        """Of the run that stands for it now."""
        return (self.newest or self.run).status

    @property
    def given_up(self) -> bool:
        """Failed or stopped: not ranked any more."""
        return self.status in ("failed", "stopped")

    @property
    def complete(self) -> bool:
        """Whether it was trained to the horizon of the whole run."""
        return self.status == "finished" and self.next_position is None

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
        """Whether it rests with a finite loss at this rung, and may go on."""
        return self.may_go_on and not self.unscored and self.rung == rung >= 0 and math.isfinite(self.loss(rung))

    @property
    def may_go_on(self) -> bool:
        """Whether it rests short of its horizon."""
        return self.status in ("paused", "finished") and self.next_position is not None and not self.active


def has_finished(standings: Iterable[Standing]) -> bool:
    """Whether some run other than the baseline has reached its horizon."""
    return any(standing.complete and standing.run.origin != "baseline" for standing in standings)


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
        # A cache: a run's standing follows from the run, and most runs have not changed since the last decision.
        self._known: dict[str, Standing] = {}

    @property
    def num_rungs(self) -> int:
        """The horizon included."""
        return len(self._shares)

    def share(self, eta: int) -> float:
        """How much of a whole run a root gets on average, where one in `eta` takes each further step."""
        counts = [float(eta**-k) for k in range(self.num_rungs)]
        return self.work(counts) / self.num_roots(counts)

    def work(self, counts: Sequence[float], first: int = 0) -> float:
        """What it takes to bring so many runs to the rung `first` and to each after it, in whole runs."""
        ends = self._shares[first:]
        steps = zip(ends, (0.0, *ends), strict=False)
        return float(sum((end - begin) * count for (end, begin), count in zip(steps, counts, strict=True)))

    def num_roots(self, counts: Sequence[float]) -> float:
        """How many roots that takes."""
        return counts[0]

    def check(self, points: Iterable[Hyperparameters]) -> None:
        """Refuse a space in which some run cannot be compared at the rungs: none, here."""

    def begin(self, hyperparameters: Hyperparameters, rung: int = 0) -> Start:
        """A new root, on its way to its first rung."""
        first = positions(self._problem.horizon(hyperparameters), self._shares)[rung]
        return start(self._problem, hyperparameters, first, self._name)

    def standings(self, tree: Tree) -> list[Standing]:
        """Where every root stands, in order of creation."""
        standings = []
        for run in sorted_roots(tree):
            known = self._known.get(run.id)
            if known is None or known.run is not run:
                known = self._known[run.id] = self._standing(run)
            standings.append(known)
        return standings

    def advance(self, standing: Standing) -> Action:
        """The step to the next rung."""
        assert standing.next_position is not None
        return Continue(standing.run.id, standing.next_position, self._name)

    def finish(self, standing: Standing) -> Action:
        """The next step of the one run that is brought to its horizon at the end."""
        return self.advance(standing)

    def affordable(self, actions: Sequence[Action], standings: Sequence[Standing], left: Left) -> list[Action]:
        """Those after which the budget can still bring a run to its horizon, while none has reached it.

        The loop sees to that where roots begin; here, where they are continued: after such a step there must be room
        for the rest of the same run.
        """
        room = left.whole_runs
        if room is None or has_finished(standings):
            return list(actions)
        runs = {standing.run.id: standing.run for standing in standings}
        taken: list[Action] = []
        for action in actions:
            if isinstance(action, Continue):
                run = runs[action.run]
                step, rest = (action.until - run.position) / run.horizon, (run.horizon - action.until) / run.horizon
                if room - step < MARGIN * rest:
                    continue
                room -= step
            taken.append(action)
        return taken

    def last(self, actions: Sequence[Action], left: Left) -> list[Action]:
        """Those at the study's end that the budget's number of runs allows."""
        return list(actions)

    def whole(self, action: Action) -> Action:
        """An action that was not affordable, as one that takes its configuration to the horizon at once."""
        return action

    def _standing(self, run: Run) -> Standing:
        rungs = positions(run.horizon, self._shares)
        next_position = next((position for position in rungs if position > run.position), None)
        if run.status == "diverged":
            return Standing(run, (math.inf,) * len(rungs), next_position, active=False)
        losses = _losses(run, rungs, self._problem.metric)
        reached = bisect.bisect_right(rungs, run.position) - 1
        unscored = reached >= 0 and losses[reached] is None
        return Standing(run, losses, next_position, is_active(run), unscored=unscored)


class Trunk(Direct):
    """Runs hold their learning rate; at each rung but the last a branch decays and is evaluated."""

    def work(self, counts: Sequence[float], first: int = 0) -> float:
        """As for `Direct`, with each branch's decay trained besides."""
        tail = 1.0 - self._a_branch_share()
        ends = self._shares[first:]
        steps = zip(ends, (0.0, *ends), strict=False)
        parts = zip(steps, counts, strict=True)
        return float(sum((end - (1 - tail) * begin) * count for (end, begin), count in parts))

    def check(self, points: Iterable[Hyperparameters]) -> None:
        """Refuse a space in which some run has no trunk, or a rung too low to branch for.

        Raises:
            ConfigError: naming the hyperparameters and what would work.
        """
        for point in points:
            for budget in positions(self._problem.horizon(point), self._shares)[:-1]:
                self._branch(point, budget)

    def begin(self, hyperparameters: Hyperparameters, rung: int = 0) -> Start:
        """A new root, on its way to where the branch of its first rung begins."""
        horizon = self._problem.horizon(hyperparameters)
        first = positions(horizon, self._shares)[rung]
        until = first if rung == self.num_rungs - 1 else self._branch(hyperparameters, first).at
        return start(self._problem, hyperparameters, until, self._name)

    def standings(self, tree: Tree) -> list[Standing]:
        children: dict[str, list[Run]] = {}
        for run in tree:
            if run.parent is not None:
                children.setdefault(run.parent, []).append(run)
        return [self._over(run, children.get(run.id, [])) for run in sorted_roots(tree)]

    def _over(self, run: Run, children: Sequence[Run]) -> Standing:
        *budgets, horizon = positions(run.horizon, self._shares)
        metric = self._problem.metric
        if run.status == "diverged":
            return Standing(run, (math.inf,) * len(self._shares), None, active=False)
        losses: list[float | None] = [*[None for _ in budgets], *_losses(run, (horizon,), metric)]
        unscored = False
        active = is_active(run)
        for k, budget in enumerate(budgets):
            branch = self._branch(run.hyperparameters, budget)
            child = next((child for child in children if _is_branch(child, run, branch, budget)), None)
            if child is not None:
                losses[k] = final_loss(child, metric)
                active |= is_active(child)
                unscored = losses[k] is None and child.status == "finished"
                if child.status in ("failed", "stopped"):  # nothing to rank it by: it is not taken further
                    return Standing(run, tuple(losses), None, active)
            elif run.position < branch.at:
                return Standing(run, tuple(losses), branch.at, active, unscored=unscored)
            elif run.position == branch.at and run.status == "paused":
                due = Fork(run.id, branch.at, branch.changes, budget, self._name)
                return Standing(run, tuple(losses), None, active, due)
        return Standing(run, tuple(losses), horizon if run.position < horizon else None, active, unscored=unscored)

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
        budget = positions(self._problem.horizon(point), self._shares)[0]
        return self._branch(point, budget).at / budget


@functools.lru_cache(maxsize=1024)
def positions(horizon: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    """Positions of the rungs of a run. A very short horizon may have several at one position."""
    return tuple(max(1, round(horizon * share)) for share in shares)


def _is_branch(child: Run, run: Run, branch: Branch, budget: int) -> bool:
    same_place = child.fork_position == branch.at and child.horizon == budget
    return same_place and child.hyperparameters == {**run.hyperparameters, **branch.changes}


def _losses(run: Run, rungs: Sequence[int], metric: Metric) -> tuple[float | None, ...]:
    """At each rung, the first evaluation at or after it and before the next one that has the metric."""
    losses: list[float | None] = []
    for k, position in enumerate(rungs):
        end = rungs[k + 1] if k + 1 < len(rungs) else math.inf
        loss = None
        for i in range(bisect.bisect_left(run.reports, position, key=_position), len(run.reports)):
            report = run.reports[i]
            if report.position >= end:
                break
            if metric.name in report.metrics:
                loss = metric.loss(report.metrics[metric.name])
                break
        losses.append(loss)
    return tuple(losses)


def _position(report: Report) -> int:
    return report.position
