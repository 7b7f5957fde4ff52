"""CMA-ES: a normal distribution that moves to where results are good, and takes the shape of that place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cmaes
import numpy as np
from numpy.typing import NDArray

from thalweg.search.optuna_bridge import Model, tpe_sampler
from thalweg.search.startup import NUM_STARTUP, in_startup, new_point
from thalweg.search.strategy import Observation, Problem
from thalweg.space import Choice, Hyperparameters

_FIRST_DEVIATION = 0.2
"""Of the first generation, as a share of each range."""
_LAST_DEVIATION = 1e-3
"""Finer than this, results do not tell hyperparameters apart."""
_NUM_ASKS = 16


class CmaEs:
    """The covariance matrix adaptation evolution strategy, by the package that Optuna's sampler is made of.

    It works on the ranges that exist in every point, each by its coordinate in [0, 1]: that of its prior where it has
    one (`thalweg.dimensions`), else its place in the range. **Choices, and dimensions that exist under a condition
    only**, have no place in a covariance matrix: TPE draws them (`tpe.py`), and all of the space where it holds
    nothing else.

    **Generations.** The distribution begins at the best of the first four results. The others, in order, make up its
    generations, whoever proposed them. Nothing is remembered but the results: each proposal goes through them again.
    A result far from where its generation was drawn, such as a person's run, is taken in as one at the edge of it, so
    that it cannot tear the distribution apart. Only the order of the results in a generation counts: diverged runs
    are its last. Where the distribution has become a point, a larger generation begins elsewhere. Pending runs are
    not considered: draws of one generation are independent anyway.

    CMA-ES wants many cheap runs: with a budget of a few dozen, TPE or a Gaussian process gets further.

    Source: Hansen 2016, "The CMA evolution strategy: a tutorial", arXiv:1604.00772; Hansen 2011, "Injecting external
        solutions into CMA-ES", arXiv:1110.4181; Auger and Hansen 2005 (restarts with larger generations).
    """

    num_points: int | None = None

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._rest = Model(problem, tpe_sampler)
        dimensions = problem.space.dimensions
        self._ranges = {name: d for name, d in dimensions.items() if not d.when and not isinstance(d, Choice)}

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        space = self._problem.space
        usable = [seen for seen in observations if space.holds(seen.hyperparameters)]
        if in_startup(usable, index) or not self._ranges:
            return self._rest.propose(observations, pending, index)
        others: Hyperparameters = {}
        if len(self._ranges) < len(space.dimensions):
            others = self._rest.propose(observations, pending, index) or {}
        known = [*(seen.hyperparameters for seen in observations), *pending]
        distribution = self._evolved(usable)
        distribution.reseed_rng(int(self._problem.rng(index).integers(2**32)))
        for _ in range(_NUM_ASKS):
            shares = distribution.ask()
            drawn = {name: d.from_prior(float(x)) for (name, d), x in zip(self._ranges.items(), shares, strict=True)}
            proposal = space.complete({**others, **drawn})
            if proposal not in known and self._problem.is_feasible(proposal):
                return proposal
        return new_point(self._problem, self._problem.sample(self._problem.rng(index)), known, index)

    def _evolved(self, observations: Sequence[Observation]) -> cmaes.CMA:
        """The distribution after all whole generations of results."""
        best = min(observations[:NUM_STARTUP], key=lambda seen: seen.loss)
        mean = self._coordinates(best) if math.isfinite(best.loss) else np.full(len(self._ranges), 0.5)
        distribution = _distribution(mean, None)
        told = NUM_STARTUP
        while told + distribution.population_size <= len(observations):
            generation = observations[told : told + distribution.population_size]
            told += len(generation)
            coordinates = [_within(distribution, self._coordinates(seen)) for seen in generation]
            places = np.argsort(np.argsort([seen.loss for seen in generation], kind="stable"))
            distribution.tell([(x, float(place)) for x, place in zip(coordinates, places, strict=True)])
            if _has_converged(distribution):
                elsewhere = self._problem.rng(told).random(len(self._ranges))
                distribution = _distribution(elsewhere, 2 * distribution.population_size)
        return distribution

    def _coordinates(self, seen: Observation) -> NDArray[np.float64]:
        return np.array([d.to_prior(seen.hyperparameters[name]) for name, d in self._ranges.items()])


def _distribution(mean: NDArray[np.float64], population_size: int | None) -> cmaes.CMA:
    bounds = np.tile([0.0, 1.0], (len(mean), 1))
    # Asking is seeded anew each time, and nothing else draws.
    return cmaes.CMA(mean, _FIRST_DEVIATION, bounds=bounds, seed=0, population_size=population_size)


def _within(distribution: cmaes.CMA, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point, moved towards the mean to where draws usually lie, if it lies further away."""
    directions, deviations = _axes(distribution)
    from_mean = point - distribution.mean
    length = float(np.linalg.norm(directions.T @ from_mean / deviations))
    most = math.sqrt(len(point)) + 2 * len(point) / (len(point) + 2)
    return point if length <= most else distribution.mean + from_mean * (most / length)


def _has_converged(distribution: cmaes.CMA) -> bool:
    _, deviations = _axes(distribution)
    return bool(deviations.max() < _LAST_DEVIATION) or distribution.should_stop()


def _axes(distribution: cmaes.CMA) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The directions of the distribution's axes, as columns, and the deviations along them."""
    # The package keeps these to itself; its version is held to those that were tried.
    directions, deviations = distribution._eigen_decomposition()
    return directions, distribution._sigma * deviations
