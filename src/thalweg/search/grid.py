"""Grid search: all combinations of a few values per dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thalweg.errors import ConfigError
from thalweg.search.strategy import Observation, Problem
from thalweg.space import Hyperparameters, Value

MAX_POINTS = 100_000


class Grid:
    """Every combination once, in an order shuffled by the seed.

    Shuffled, so that a budget that ends early has seen all of the space rather than one corner of it. Choices are
    taken whole, ranges at `resolution` values. A range's prior takes the place of the nearest of them. Where there are
    priors, the point that they favour most comes first, and the others follow in a random order in which each
    next point is drawn by the priors' density: the more it is believed in, the earlier it comes.

    Args:
        problem: what is searched.
        resolution: values per range, both ends among them; at 1, the prior or else the middle.
    Raises:
        ConfigError: if `resolution` is below 1, or the grid has more than 100,000 points.
    Source: Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir" (the order).
    """

    def __init__(self, problem: Problem, *, resolution: int = 3) -> None:
        if resolution < 1:
            raise ConfigError(f"strategy.resolution = {resolution} must be at least 1; 3 is usual")
        # An upper bound where dimensions are conditional: the grid itself may be too large to build.
        size = math.prod(len(dimension.grid(resolution)) for dimension in problem.space.dimensions.values())
        if size > MAX_POINTS:
            raise ConfigError(
                f"strategy.resolution = {resolution} gives a grid of up to {size:,} points, more than {MAX_POINTS:,};"
                f" lower it, fix some dimensions, or use 'random' or 'sobol'"
            )
        points = problem.space.grid(resolution)
        self._points = _ordered(problem, points)
        self.num_points: int | None = len(points)

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        return self._points[index] if index < len(self._points) else None


def _ordered(problem: Problem, points: list[dict[str, Value]]) -> list[dict[str, Value]]:
    rng, space = np.random.default_rng(problem.seed), problem.space
    if not space.has_priors:
        return [points[i] for i in rng.permutation(len(points))]
    believed = np.array(
        [
            math.prod(
                d.prior_density(point[name], weight=space.prior_weight(name))
                for name, d in space.dimensions.items()
                if name in point
            )
            for point in points
        ]
    )
    # Waiting times at these rates: who comes first is drawn by the rates, and so on among the rest.
    waits = rng.exponential(size=len(points)) / believed
    favoured = believed >= believed.max() * (1 - 1e-9)
    return [points[i] for i in np.lexsort((waits, ~favoured | (waits > waits[favoured].min())))]
