"""Train every proposal to its horizon: what a sampler's name means as a strategy's name."""

from __future__ import annotations

from thalweg.budget import Left
from thalweg.search.strategy import (
    Observation,
    Problem,
    Sampler,
    is_own,
    num_starts,
    propose_roots,
    sorted_roots,
)
from thalweg.tree import Action, Start, Tree, final_loss


class Full:
    """Start a new root whenever a worker is free, until the budget's runs or the sampler's proposals are used up.

    The sampler learns from the last evaluation of every root that finished or diverged, the baseline and those started
    by hand included. Failed and stopped runs teach nothing. Forks are left out: what a child reached is its parent's
    merit too.
    """

    def __init__(self, problem: Problem, sampler: Sampler, name: str) -> None:
        self._problem = problem
        self._sampler = sampler
        self._name = name
        self.share = 1.0
        self.num_roots = sampler.num_points

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        roots = sorted_roots(tree)
        observations, pending = [], []
        for run in roots:
            loss = final_loss(run, self._problem.metric)
            if loss is not None:
                observations.append(Observation(run.hyperparameters, loss))
            elif not run.ended:
                pending.append(run.hyperparameters)
        proposals = propose_roots(
            self._sampler,
            observations,
            pending,
            index=sum(map(is_own, roots)),
            count=num_starts(free_slots, left),
        )
        return [Start(proposal, self._problem.horizon(proposal), self._name) for proposal in proposals]
