"""A population read from the tree: who its members are, where each stands, and how they compare at equal positions.

Members are trained from mark to mark. A member is a line of runs: a root and, where it was replaced, the fork that took
its place. Nothing records which fork replaced whom, and nothing has to: the population is whole while there are as many
runs in it as there were roots.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np

from thalweg.search.strategy import Problem, is_active
from thalweg.space import Choice
from thalweg.tree import Metric, Run, Tree

_NUM_DRAWS = 64


@dataclass(frozen=True)
class Member:
    """A run of the population that has not ended."""

    run: Run
    mark: int
    """The marks that it has passed."""
    is_active: bool
    """Whether a worker has it or it waits for one."""
    is_last: bool
    """Whether what it was last asked for is its horizon."""

    @property
    def is_ready(self) -> bool:
        """Whether it waits for a decision."""
        return not self.is_active


@dataclass(frozen=True)
class Result:
    """What a run of the population had at a mark."""

    run: Run
    loss: float
    """To minimise; infinite for a run that had diverged."""


class Population:
    """The runs that a strategy of this name has made.

    Args:
        problem: what is searched.
        tree: all runs of the study; those of a person or of the baseline do not belong to the population.
        name: the origin of the population's runs.
        interval: from mark to mark, as a share of a run's horizon.
    """

    def __init__(self, problem: Problem, tree: Tree, name: str, interval: float) -> None:
        self.runs = sorted((run for run in tree if run.origin == name), key=lambda run: run.number)
        self._interval = interval
        self._by_id = tree.runs
        self.num_roots = sum(run.parent is None for run in self.runs)
        lost = sum(run.status in ("stopped", "failed", "diverged") for run in self.runs)
        self.num_missing = lost - (len(self.runs) - self.num_roots)
        """Members that were lost and not replaced; negative where a replaced one has not been stopped yet."""
        self.members = [self._member(run) for run in self.runs if not run.ended]
        self._results: dict[int, list[Result]] = {}
        for run in self.runs:
            for mark, loss in losses(run, problem.metric, interval).items():
                self._results.setdefault(mark, []).append(Result(run, loss))
        for results in self._results.values():
            results.sort(key=lambda result: (result.loss, result.run.number))

    @property
    def top_mark(self) -> int:
        """The highest mark at which there is a result; 0 before there is any."""
        return max(self._results, default=0)

    def at(self, mark: int) -> list[Result]:
        """The results at a mark, the best first."""
        return self._results.get(mark, [])

    def is_judged(self, mark: int) -> bool:
        """Whether at least half of the results that there will be at a mark are there."""
        to_come = sum(member.mark < mark for member in self.members)
        return len(self.at(mark)) >= max(1, to_come)

    def loss_before(self, run: Run, metric: Metric) -> float | None:
        """The loss at a run's fork point, which its parent had there; None for a root, and where there is none."""
        parent = None if run.parent is None else self._by_id.get(run.parent)
        if parent is None:
            return None
        passed = num_passed(parent.horizon, self._interval, run.fork_position)
        return losses(parent, metric, self._interval).get(passed)

    def _member(self, run: Run) -> Member:
        mark = num_passed(run.horizon, self._interval, run.position)
        return Member(run, mark, is_active(run), run.until >= run.horizon)


@functools.lru_cache(maxsize=1024)
def marks(horizon: int, interval: float) -> tuple[int, ...]:
    """Where runs of this horizon are compared; the last mark is the horizon. A very short horizon may have several at
    one position, so that runs of other horizons are compared with it at the same share.

    >>> marks(100, 0.3)
    (30, 60, 90, 100)
    """
    num = math.ceil(1 / interval - 1e-9)
    return (*(max(1, round(horizon * interval * k)) for k in range(1, num)), horizon)


def num_passed(horizon: int, interval: float, position: int) -> int:
    """How many marks lie at or before a position."""
    return sum(mark <= position for mark in marks(horizon, interval))


def next_mark(run: Run, interval: float) -> int:
    """Where a run that is not complete goes to next."""
    return next(mark for mark in marks(run.horizon, interval) if mark > run.position)


def losses(run: Run, metric: Metric, interval: float) -> dict[int, float]:
    """A run's own losses by mark: its first evaluation at or after the mark, and before the next.

    Where it has none, or one without the metric, there is no entry; a diverged run has infinity at all marks beyond its
    last result.
    """
    places = marks(run.horizon, interval)
    found: dict[int, float] = {}
    for mark, place in enumerate(places, start=1):
        report = run.report_at(place) if place > run.fork_position else None
        beyond = mark < len(places) and report is not None and report.position >= places[mark]
        if report is not None and not beyond and metric.name in report.metrics:
            found[mark] = metric.loss(report.metrics[metric.name])
        elif report is None and run.status == "diverged" and place > run.fork_position:
            found[mark] = math.inf
    return found


def remaining(problem: Problem, run: Run, interval: float) -> float:
    """What is left of a run beyond what it was asked for, evaluations at the marks included: a share of the whole."""
    start = run.until if is_active(run) else run.position
    places = [start, *(mark for mark in marks(run.horizon, interval) if mark > start)]
    whole = problem.cost(run.hyperparameters, 0, run.horizon)
    steps = itertools.pairwise(places)
    return sum(problem.cost(run.hyperparameters, begin, end) for begin, end in steps) / whole


def reasons_against(problem: Problem) -> dict[str, str]:
    """The searched hyperparameters that a fork cannot mutate, each with the reason."""
    space = problem.space
    found = dict(problem.fixed_at_start(list(space.dimensions)))
    for name, dimension in space.dimensions.items():
        if name in found:
            continue
        if children := [child for child, other in space.dimensions.items() if name in other.when]:
            found[name] = f"{', '.join(children)} exists only under a condition on it"
        elif isinstance(dimension, Choice) and len(dimension.options) == 1:
            found[name] = "it has a single value"
        elif decides_horizon(problem, name):
            found[name] = "it decides how long a run is, and members are compared at equal positions"
    return found


def decides_horizon(problem: Problem, name: str) -> bool:
    """Whether runs that differ in this hyperparameter alone may be of different length, by its ends' or options'."""
    rng = np.random.default_rng(0)
    points = (problem.space.sample(rng) for _ in range(_NUM_DRAWS))
    point = next((point for point in points if name in point), None)
    if point is None:
        return False
    values = problem.space.dimensions[name].grid(2)
    return len({problem.horizon({**point, name: value}) for value in values}) > 1


def is_decisive(problem: Problem, name: str) -> bool:
    """Whether the trainer or the horizon stands against mutating this, rather than the space."""
    return name in problem.fixed_at_start([name]) or decides_horizon(problem, name)
