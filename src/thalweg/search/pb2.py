"""Population-based bandits: as population-based training, but what a fork tries comes from a Gaussian process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from thalweg.budget import Left
from thalweg.search.exploit import PopulationStrategy, Settings
from thalweg.search.perturb import Perturb, mutable
from thalweg.search.population import Population, losses, num_passed
from thalweg.search.strategy import Problem
from thalweg.space import Choice, Float, Hyperparameters, Integer, Value
from thalweg.tree import Action, Run, Tree

FloatArray = NDArray[np.float64]

FORGETTING = 0.1
"""How fast what was seen in other intervals counts less: epsilon."""
NUM_RESTARTS = 10
CLIP = 2.0
"""Standardised improvements are cut here."""
_MIN_SEEN = 4
"""Below, there is nothing to fit a process to."""
_MAX_SEEN = 300
"""The latest that it is fitted to, so that its time stays within milliseconds."""
_JITTER = 1e-8


class PB2:
    """As `PBT`, with what a fork changes chosen by a bandit.

    What is learned is the improvement of the metric per interval, from where the interval began (its mark and the
    metric there) and the hyperparameters. A fork's first interval begins at the metric of the run that it was forked
    from, so the jump from the loser's metric to the winner's is not taken for an improvement. The process forgets: what
    was seen d intervals away counts (1 - 0.1)^(d/2) times as much. The fork gets the point with the largest upper
    confidence bound, the mean plus sqrt(0.2 log(0.4 n)) standard deviations after n observations; those that are being
    tried at the time count as seen, without a result. Hyperparameters that are choices are perturbed as in `PBT`, and
    so is all as long as fewer than four improvements were seen.

    Args:
        problem: what is searched.
        name: the actions' origin.
        population: members, at least 2. As the process learns from all of them, fewer will do than for `PBT`.
        interval, selection, quantile, perturb, resample, mutate: see `PBT`.
    Raises:
        ConfigError: see `PBT`.
    Source: Parker-Holder et al. 2020, arXiv:2002.02518.
    """

    share = 1.0

    def __init__(
        self,
        problem: Problem,
        name: str,
        *,
        population: int = 8,
        interval: float = 0.1,
        selection: str = "truncation",
        quantile: float = 0.25,
        perturb: float = 0.2,
        resample: float = 0.25,
        mutate: list[str] | None = None,
    ) -> None:
        settings = Settings(population=population, interval=interval, selection=selection, quantile=quantile)
        names = mutable(problem, mutate)
        perturbed = Perturb(problem, names, perturb=perturb, resample=resample)
        choices = [name for name in names if isinstance(problem.space.dimensions[name], Choice)]
        among = Perturb(problem, choices, perturb=perturb, resample=resample)
        numbers = [name for name in names if name not in choices]
        self._inner = PopulationStrategy(problem, name, settings, Bandit(problem, interval, numbers, perturbed, among))

    @property
    def num_roots(self) -> int | None:
        return self._inner.settings.population

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        return self._inner.decide(tree, free_slots=free_slots, left=left)


@dataclass(frozen=True)
class Improvement:
    """What one interval of one run brought."""

    mark: int
    """At which the interval began."""
    before: float
    """The loss there."""
    hyperparameters: Hyperparameters
    per_interval: float
    """By how much the loss fell; minus infinity where the run diverged."""


@dataclass(frozen=True)
class Bandit:
    """`Explore` by an upper confidence bound."""

    problem: Problem
    interval: float
    numbers: Sequence[str]
    """What the process proposes."""
    perturbed: Perturb
    """For all, before there is enough to learn from."""
    choices: Perturb
    """For what has no scale."""

    def __call__(
        self, winner: Run, population: Population, tried: Sequence[Hyperparameters], rng: np.random.Generator
    ) -> dict[str, Value]:
        names = [name for name in self.numbers if name in winner.hyperparameters]
        seen = improvements(self.problem, population, self.interval)
        seen = [one for one in seen if all(name in one.hyperparameters for name in names)][-_MAX_SEEN:]
        mark = num_passed(winner.horizon, self.interval, winner.position)
        before = losses(winner, self.problem.metric, self.interval).get(mark)
        if not names or before is None or sum(math.isfinite(one.per_interval) for one in seen) < _MIN_SEEN:
            return self.perturbed(winner, population, tried, rng)
        units = self._propose(names, seen, tried, (mark, before), rng)
        changes = self.choices(winner, population, tried, rng)
        for name, unit in zip(names, units, strict=True):
            value: Value = self._range(name).at(float(unit))
            if value != winner.hyperparameters[name]:
                changes[name] = value
        return changes

    def _propose(
        self,
        names: Sequence[str],
        seen: Sequence[Improvement],
        tried: Sequence[Hyperparameters],
        place: tuple[int, float],
        rng: np.random.Generator,
    ) -> FloatArray:
        """Shares of the ranges, for an interval that begins at this mark with this loss."""
        befores = [one.before for one in seen] + [place[1]]
        low, width = min(befores), max(max(befores) - min(befores), 1e-12)
        where = [place[0], (place[1] - low) / width]
        rows = [[one.mark, (one.before - low) / width, *self._units(names, one.hyperparameters)] for one in seen]
        waiting = [[*where, *self._units(names, point)] for point in tried if all(name in point for name in names)]
        process = TimeVaryingProcess.fitted(np.array(rows, float), standardised([one.per_interval for one in seen]))
        predict, spread = process.predictor(np.array(waiting, float)), math.sqrt(beta(len(seen)))

        def bound(units: FloatArray) -> float:
            mean, deviation = predict(np.array([*where, *units]))
            return mean + spread * deviation

        return maximise(bound, len(names), rng)

    def _units(self, names: Sequence[str], point: Hyperparameters) -> list[float]:
        return [self._range(name).unit(point[name]) for name in names]

    def _range(self, name: str) -> Float | Integer:
        dimension = self.problem.space.dimensions[name]
        assert not isinstance(dimension, Choice)
        return dimension


def improvements(problem: Problem, population: Population, interval: float) -> list[Improvement]:
    """What the population's intervals brought, in order of the runs; a root's first has nothing to be compared with."""
    found: list[Improvement] = []
    for run in population.runs:
        mark = num_passed(run.horizon, interval, run.fork_position)
        before = population.loss_before(run, problem.metric)
        for end, loss in sorted(losses(run, problem.metric, interval).items()):
            if before is not None and math.isfinite(before):
                found.append(Improvement(mark, before, run.hyperparameters, (before - loss) / (end - mark)))
            if not math.isfinite(loss):
                break
            mark, before = end, loss
    return found


def beta(num_seen: int) -> float:
    """The weight of uncertainty, squared; none before there are three observations.

    >>> round(beta(10), 6), round(beta(100), 6), beta(2)
    (0.277259, 0.737776, 0.0)
    """
    return max(0.0, 0.2 * math.log(0.4 * num_seen)) if num_seen else 0.0


def standardised(values: Sequence[float]) -> FloatArray:
    """With mean 0 and deviation 1, cut at `CLIP`; what is not finite is the worst."""
    given = np.array(values, float)
    finite = np.isfinite(given)
    centre, deviation = float(np.mean(given[finite])), float(np.std(given[finite]))
    scaled = (np.where(finite, given, centre) - centre) / (deviation if deviation > 0 else 1.0)
    return np.where(finite, np.clip(scaled, -CLIP, CLIP), -CLIP)


@dataclass(frozen=True)
class TimeVaryingProcess:
    """A Gaussian process with unit variance whose first input, the interval's number, makes it forget."""

    inputs: FloatArray
    values: FloatArray
    length: float
    """Over which points are alike."""
    noise: float
    """Variance of an observation."""

    @classmethod
    def fitted(cls, inputs: FloatArray, values: FloatArray) -> TimeVaryingProcess:
        """With the length and the noise that make the observations most likely."""

        def cost(logs: FloatArray) -> float:
            matrix = kernel(inputs, inputs, math.exp(logs[0])) + (math.exp(logs[1]) + _JITTER) * np.eye(len(values))
            factor = cho_factor(matrix, lower=True)
            weighted = float(values @ cho_solve(factor, values))
            return 0.5 * weighted + float(np.sum(np.log(np.diag(factor[0]))))

        bounds = [(math.log(0.1), math.log(3.0)), (math.log(1e-3), math.log(1.0))]
        best = minimize(cost, np.log([0.5, 0.1]), method="L-BFGS-B", bounds=bounds).x
        return cls(inputs, values, math.exp(best[0]), math.exp(best[1]))

    def predictor(self, waiting: FloatArray) -> Callable[[FloatArray], tuple[float, float]]:
        """A function of a point that gives mean and standard deviation there.

        Args:
            waiting: points whose results are to come: they lessen the deviation, and leave the mean.
        """
        weights = cho_solve(self._factor(self.inputs), self.values)
        inputs = self.inputs if waiting.size == 0 else np.vstack([self.inputs, waiting])
        factor = self._factor(inputs)

        def predict(point: FloatArray) -> tuple[float, float]:
            across = kernel(point[None, :], inputs, self.length)[0]
            variance = 1.0 - float(across @ cho_solve(factor, across))
            return float(across[: len(weights)] @ weights), math.sqrt(max(variance, 0.0))

        return predict

    def _factor(self, inputs: FloatArray) -> tuple[FloatArray, bool]:
        matrix = kernel(inputs, inputs, self.length) + (self.noise + _JITTER) * np.eye(len(inputs))
        factor, lower = cho_factor(matrix, lower=True)
        return factor, bool(lower)


def kernel(first: FloatArray, second: FloatArray, length: float) -> FloatArray:
    """Squared exponential in all inputs but the first, times (1 - epsilon)^(d/2) for intervals that are d apart.

    >>> rows = np.array([[1.0, 0.2], [3.0, 0.2]])
    >>> np.round(kernel(rows, rows, 0.5), 2)
    array([[1. , 0.9],
           [0.9, 1. ]])
    """
    squares = ((first[:, None, 1:] - second[None, :, 1:]) ** 2).sum(axis=2)
    apart = np.abs(first[:, None, 0] - second[None, :, 0])
    return np.asarray((1 - FORGETTING) ** (apart / 2) * np.exp(-squares / (2 * length**2)))


def maximise(bound: Callable[[FloatArray], float], num_dimensions: int, rng: np.random.Generator) -> FloatArray:
    """The best of several climbs over the unit cube."""
    best, highest = np.full(num_dimensions, 0.5), -math.inf
    for _ in range(NUM_RESTARTS):
        begin = rng.random(num_dimensions)
        found = minimize(lambda units: -bound(units), begin, method="L-BFGS-B", bounds=[(0.0, 1.0)] * num_dimensions)
        if -found.fun > highest:
            best, highest = np.clip(found.x, 0.0, 1.0), -float(found.fun)
    return best
