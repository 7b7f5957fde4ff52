"""Sobol's sequence: spreads points over the space more evenly than random draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import qmc

from thalweg.search.strategy import Observation, Problem
from thalweg.space import Hyperparameters, Value


class Sobol:
    """A scrambled Sobol sequence with one coordinate per dimension.

    Point `index` is a function of the seed and the index alone. A conditional dimension keeps its own coordinate,
    which is left out where the dimension does not exist. Most even after 4, 8, 16 ... points. Where a dimension has a
    prior, its coordinate is the share of the prior's draws that lie below: points are closer together where the prior
    expects the best value.

    SciPy's generator is used directly: Optuna's sampler draws its first point outside the sequence, refuses
    conditional spaces, and keeps its place in a counter that a crash would lose.

    Source: Sobol 1967; scrambling by Owen 1998, "Scrambling Sobol' and Niederreiter-Xing points".
    """

    num_points: int | None = None

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        space = self._problem.space
        sequence = qmc.Sobol(len(space.dimensions), scramble=True, rng=np.random.default_rng(self._problem.seed))
        if index > 0:
            sequence.fast_forward(index)
        share_of = dict(zip(space.ordered, sequence.random(1)[0].tolist(), strict=True))
        chosen: dict[str, Value] = {}
        for name in space.ordered:
            if space.is_active(name, chosen):
                chosen[name] = space.dimensions[name].from_prior(share_of[name], weight=space.prior_weight(name))
        return space.complete(chosen)
