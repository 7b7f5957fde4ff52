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
from thalweg.space import PRIOR_WIDTH, Choice, Dimension, Hyperparameters

_FIRST_DEVIATION = 0.2
"""Of the first generation, as a share of each range; a narrower prior makes it smaller."""
_LAST_DEVIATION = 1e-3
"""As a share of each range. Finer than this, results do not tell hyperparameters apart."""
_NUM_ASKS = 16


class CmaEs:
    """The covariance matrix adaptation evolution strategy, by the package that Optuna's sampler is made of.

    It works on the ranges that exist in every point, each by its own scale. **Choices, and dimensions that exist
    under a condition only**, have no place in a covariance matrix: TPE draws them (`tpe.py`), and all of the space
    where it holds nothing else.

    **Priors.** The distribution's beginning is a prior of its own: it lies at the best of the first four results, of
    which the first is the point of the priors, and is an eighth of a range wide, instead of a fifth, where a prior
    has high confidence. From there it moves as fast as anywhere, so that a wrong prior costs a few generations. In a
    prior's coordinate it would have to shrink on its way out of what was believed.

    **Generations.** All results but the first four, in order, make up its generations, whoever proposed them. Nothing
    is remembered but the results: each proposal goes through them again. A result far from where its generation was
    drawn, such as a person's run, is taken in as one at the edge of it, so that it cannot tear the distribution
    apart. Only the order of the results in a generation counts: diverged runs are its last. Where the distribution
    has become a point, a larger generation begins elsewhere. Pending runs are not considered: draws of one generation
    are independent anyway.

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
        self._first = np.array([_first_deviation(dimension) for dimension in self._ranges.values()])

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
            units = np.clip(distribution.ask() * self._first, 0.0, 1.0)
            drawn = {name: d.at(float(x)) for (name, d), x in zip(self._ranges.items(), units, strict=True)}
            proposal = space.complete({**others, **drawn})
            if proposal not in known:
                return proposal
        return new_point(self._problem, proposal, known, index)

    def _evolved(self, observations: Sequence[Observation]) -> cmaes.CMA:
        """The distribution after all whole generations of results."""
        losses = np.array([seen.loss for seen in observations])
        coordinates = self._coordinates(observations)
        best = int(np.argmin(losses[:NUM_STARTUP]))
        mean = coordinates[best] if math.isfinite(losses[best]) else 0.5 / self._first
        distribution = self._distribution(mean, None)
        told = NUM_STARTUP
        while told + distribution.population_size <= len(observations):
            generation = slice(told, told + distribution.population_size)
            told = generation.stop
            places = np.argsort(np.argsort(losses[generation], kind="stable"))
            points = _within(distribution, coordinates[generation])
            distribution.tell(list(zip(points, places.astype(float), strict=True)))
            if self._has_converged(distribution):
                elsewhere = self._problem.rng(told).random(len(self._ranges)) / self._first
                distribution = self._distribution(elsewhere, 2 * distribution.population_size)
        return distribution

    def _coordinates(self, observations: Sequence[Observation]) -> NDArray[np.float64]:
        """One row per observation, in first deviations."""
        points = [seen.hyperparameters for seen in observations]
        units = np.array([[d.unit(point[name]) for name, d in self._ranges.items()] for point in points])
        coordinates: NDArray[np.float64] = units / self._first
        return coordinates

    def _distribution(self, mean: NDArray[np.float64], population_size: int | None) -> cmaes.CMA:
        bounds = np.column_stack([np.zeros(len(mean)), 1 / self._first])
        # Asking is seeded anew each time, and nothing else draws.
        return cmaes.CMA(mean, 1.0, bounds=bounds, seed=0, population_size=population_size)

    def _has_converged(self, distribution: cmaes.CMA) -> bool:
        _, deviations = _axes(distribution)
        return bool(deviations.max() * self._first.max() < _LAST_DEVIATION) or bool(distribution.should_stop())


def _first_deviation(dimension: Dimension) -> float:
    if dimension.prior is None:
        return _FIRST_DEVIATION
    return min(_FIRST_DEVIATION, PRIOR_WIDTH[dimension.confidence])


def _within(distribution: cmaes.CMA, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points, one per row, each moved towards the mean to where draws usually lie if it lies further away."""
    directions, deviations = _axes(distribution)
    from_mean = points - distribution.mean
    lengths = np.linalg.norm(from_mean @ directions / deviations, axis=1, keepdims=True)
    num_ranges = points.shape[1]
    most = math.sqrt(num_ranges) + 2 * num_ranges / (num_ranges + 2)
    moved: NDArray[np.float64] = distribution.mean + from_mean * (most / np.maximum(lengths, most))
    return moved


def _axes(distribution: cmaes.CMA) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The directions of the distribution's axes, as columns, and the deviations along them."""
    # The package keeps these to itself; its version is held to those that were tried.
    directions: NDArray[np.float64]
    deviations: NDArray[np.float64]
    directions, deviations = distribution._eigen_decomposition()
    return directions, distribution._sigma * deviations
