"""The first points of a search that learns: there is nothing to learn from yet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from thalweg.search.strategy import Observation, Problem
from thalweg.space import Hyperparameters, Value

NUM_STARTUP = 4
"""Roots drawn at random before a model takes over. Few, because 6 to 20 runs is the normal size of a study here."""


def in_startup(observations: Sequence[Observation], index: int) -> bool:
    """Whether it is too early for a model.

    At most 4 roots are drawn at random, fewer where a baseline or a person's runs were observed already. A model also
    needs something to tell apart: two observations, one of them finite. So more are drawn while many workers start
    together, or while runs fail.

    >>> results = [Observation({"lr": 0.1}, 0.5), Observation({"lr": 0.2}, 0.4)]
    >>> in_startup(results, index=3), in_startup(results, index=4), in_startup(results[:1], index=9)
    (True, False, True)
    """
    can_compare = len(observations) >= 2 and any(math.isfinite(seen.loss) for seen in observations)
    return not can_compare or max(index, len(observations)) < NUM_STARTUP


def startup_point(problem: Problem, index: int) -> Hyperparameters:
    """The point of the priors first, if there are any, then draws from them.

    Dimensions without a prior are drawn at random in the first point too.
    """
    space, rng = problem.space, problem.rng(index)
    if index > 0:
        return space.sample(rng)
    chosen: dict[str, Value] = {}
    for name in space.ordered:
        dimension = space.dimensions[name]
        if space.is_active(name, chosen):
            drawn = dimension.sample(rng)
            chosen[name] = drawn if dimension.prior is None else dimension.prior
    return space.complete(chosen)
