"""Grid search: all combinations of a few values per dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thalweg.errors import ConfigError
from thalweg.search.strategy import Observation, Problem
from thalweg.space import Hyperparameters

MAX_POINTS = 100_000


class Grid:
    """Every combination once, in an order shuffled by the seed.

    Shuffled, so that a budget that ends early has seen all of the space rather than one corner of it. Choices are
    taken whole, ranges at `resolution` values. Priors are not used.

    Args:
        problem: what is searched.
        resolution: values per range, both ends among them; at 1, the middle.
    Raises:
        ConfigError: if `resolution` is below 1 or the grid has more than 100,000 points.
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
        order = np.random.default_rng(problem.seed).permutation(len(points))
        self._points = [points[i] for i in order]
        self.num_points: int | None = len(points)

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        return self._points[index] if index < len(self._points) else None
