"""The first points of a search that learns, and what it does where its model has no answer: draws and priors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thalweg.search.strategy import Observation, Problem
from thalweg.space import Choice, Hyperparameters, Space, Value

NUM_STARTUP = 4
"""Roots drawn at random before a model takes over. Few, because 6 to 20 runs is the normal size of a study here."""

_NUM_RETRIES = 16


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
    """The point of the priors first, if there are any and it is feasible, then draws from them.

    Dimensions without a prior are drawn at random in the first point too.
    """
    space, rng = problem.space, problem.rng(index)
    if index > 0:
        return problem.sample(rng)
    chosen: dict[str, Value] = {}
    for name in space.ordered:
        dimension = space.dimensions[name]
        if space.is_active(name, chosen):
            drawn = dimension.sample(rng)
            chosen[name] = drawn if dimension.prior is None else dimension.prior
    point = space.complete(chosen)
    return point if problem.is_feasible(point) else problem.sample(rng)


def new_point(
    problem: Problem, proposal: Hyperparameters, known: Sequence[Hyperparameters], index: int
) -> Hyperparameters:
    """The proposal, or a drawn point where it is known already, while a few draws find one that is not."""
    retries = problem.rng(index).spawn(1)[0]
    for _ in range(_NUM_RETRIES):
        if proposal not in known:
            break
        proposal = problem.sample(retries)
    return proposal


def prior_weight(space: Space, name: str, num_results: int) -> float | None:
    """How much a prior still weighs beside results: what was measured takes over from what was believed.

    That of its space (`Space.prior_weight`) until there are 8 results, half of it from then on, a quarter from 16 on,
    and so forth: 4 / n, in steps, so that what is kept in the prior's coordinate is seldom computed again. None
    without a prior.

    Source: the decay is that of Hvarfner et al. 2022 (piBO), arXiv:2204.11051.

    >>> space = Space.parse({"lr": {"log": [1e-5, 1e-3], "prior": 1e-4, "confidence": "low"}})
    >>> [prior_weight(space, "lr", n) for n in (0, 4, 7, 8, 15, 16, 100)]
    [0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.03125]
    """
    num_doublings = (max(num_results, NUM_STARTUP) // NUM_STARTUP).bit_length() - 1
    weight = space.prior_weight(name)
    return None if weight is None else weight / (1 << num_doublings)


def believed_option(space: Space, name: str, num_results: int, rng: np.random.Generator) -> Value | None:
    """The option of a choice's prior where it is to be taken whatever a model says, else None."""
    weight = prior_weight(space, name, num_results)
    if weight is None or not isinstance(dimension := space.dimensions[name], Choice):
        return None
    return dimension.prior if rng.random() < weight else None
