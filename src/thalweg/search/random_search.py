"""Random search: the reference that everything else has to beat."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg.search.strategy import Observation, Problem
from thalweg.space import Hyperparameters


class RandomSearch:
    """Independent draws from the space, uniform on each dimension's scale or from its prior.

    A prior's draws are normal around it, or take its option, and uniform in a share that is smaller where it is
    believed more (`Space.prior_weight`): a wrong one makes the search slower and hides nothing from it.

    Source: Bergstra and Bengio 2012, "Random search for hyper-parameter optimization", JMLR 13.
    """

    num_points: int | None = None

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        return self._problem.sample(self._problem.rng(index))
