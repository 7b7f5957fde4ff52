"""Asynchronous successive halving: many runs begin, the better ones are continued."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search.ladder import Direct, Standing, Trunk, by_loss, fractions
from thalweg.search.startup import NUM_STARTUP
from thalweg.search.strategy import Observation, Problem, Sampler, is_own, num_starts, propose_roots
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Tree

_NUM_CHECKED = 32
"""Points of the space that are tried for a trunk."""


class Halving:
    """Start roots at the lowest rung; whenever a worker is free, continue the best run that has earned it.

    **Rungs.** Rung k of a run lies at `round(horizon * eta ** -(num_rungs - 1 - k))` of the run's own horizon; the last
    is the horizon. Where all horizons are equal, these are the usual rungs. Where the number of epochs is itself
    searched, runs are compared at the same phase of their learning-rate schedule: at equal positions, a short run that
    has decayed its rate would always beat a long one that has not. A run's score at a rung is its first evaluation at
    or after it and before the next rung (trainers stop at a step boundary). Scores at different rungs are never
    compared. A diverged run scores infinity at every rung.

    **Promotion.** From the top rung down: the runs with a result at a rung are ranked, and one of the best
    `floor(n / eta)` that is paused there is continued to the next rung. Failed and stopped runs are not ranked. Only
    where there is none is a new root begun. A promoted run is continued from its checkpoint, so that no position is
    trained twice.

    **Trunks.** With `trunk`, a run's score at a rung below its horizon is that of a branch: a fork that decays the
    learning rate over the end of the rung's budget. It is what a whole run of that budget would have reached, while
    the trunk itself goes on from its undecayed checkpoint. It takes a trainer and a schedule that hold the rate
    (`wsd`). The sampler learns from the branches' scores.

    **The end.** With the 6 to 20 runs that are normal here, `floor(n / eta)` may promote nobody to the last rung. So
    once no more roots may begin (the budget's runs, `max_roots`, or an exhausted sampler) and nothing is active, the
    best paused run of the highest rung is continued, until one run other than the baseline has reached its horizon.

    **What the sampler learns from.** As in BOHB, the highest rung with at least 4 results; before there is one, the
    rung with the most. Diverged runs count there too. Runs that are active without a result there are pending. The
    baseline counts where it has evaluations: at least at its horizon.

    Args:
        problem: what is searched.
        sampler: proposes the roots.
        name: the actions' origin.
        eta: one in `eta` runs goes on from each rung, and trains `eta` times as long. At least 2.
        num_rungs: rungs, the horizon included; 3 unless `first_fraction` is given. At least 2.
        first_fraction: share of the horizon at which the first rung lies, in (0, 1), instead of `num_rungs`: the
            number of rungs is then such that the steps between them are as near to `eta` as they can be.
        max_roots: most roots to begin, or None for as many as the budget allows.
        trunk: score the rungs on branches.
    Raises:
        ConfigError: if an option is out of its range, or `num_rungs` and `first_fraction` are both given.
    Source: Li et al. 2018, arXiv:1810.05934 (asynchronous halving); Falkner et al. 2018, arXiv:1807.01774 (BOHB).
    """

    def __init__(
        self,
        problem: Problem,
        sampler: Sampler,
        name: str,
        *,
        eta: int = 3,
        num_rungs: int | None = None,
        first_fraction: float | None = None,
        max_roots: int | None = None,
        trunk: bool = False,
    ) -> None:
        _check(eta, num_rungs, first_fraction, max_roots)
        self._sampler = sampler
        self._eta = eta
        self._max_roots = max_roots
        shares = fractions(eta, num_rungs, first_fraction)
        self._num_rungs = len(shares)
        self._ladder = Direct(problem, shares, name)
        if trunk:
            self._ladder = over_trunks = Trunk(problem, shares, name)
            rng = np.random.default_rng(0)
            over_trunks.check(problem.space.sample(rng) for _ in range(_NUM_CHECKED))
        self.share = self._ladder.share(eta)
        self.num_roots = min((n for n in (max_roots, sampler.num_points) if n is not None), default=None)

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        if free_slots < 1:
            return []
        standings = self._ladder.standings(tree)
        actions: list[Action] = [standing.due for standing in standings if standing.due is not None]
        actions = (actions + self._promotions(standings))[:free_slots]
        actions += self._starts(standings, num_starts(free_slots - len(actions), left))
        if actions or any(standing.active for standing in standings):
            return actions
        return self._finish(standings)

    def _promotions(self, standings: Sequence[Standing]) -> list[Action]:
        """All promotions that are earned, those to the highest rung first and the best first within a rung."""
        ranked = [standing for standing in standings if standing.run.status not in ("failed", "stopped")]
        promoted: list[Standing] = []
        for rung in reversed(range(self._num_rungs - 1)):
            order = by_loss((standing for standing in ranked if standing.losses[rung] is not None), rung)
            promoted += [s for s in order[: len(order) // self._eta] if s.waits_at(rung)]
        return [self._ladder.advance(standing) for standing in promoted]

    def _starts(self, standings: Sequence[Standing], count: int) -> list[Action]:
        num_roots = sum(is_own(standing.run) for standing in standings)
        if self._max_roots is not None:
            count = min(count, self._max_roots - num_roots)
        if count < 1:
            return []
        observations, pending = self._learned(standings)
        proposals = propose_roots(self._sampler, observations, pending, index=num_roots, count=count)
        return [self._ladder.begin(proposal) for proposal in proposals]

    def _learned(self, standings: Sequence[Standing]) -> tuple[list[Observation], list[Hyperparameters]]:
        """What the sampler is told: the results at one rung, and who has none there yet."""
        counts = [
            sum(s.losses[rung] is not None and s.run.status != "diverged" for s in standings)
            for rung in range(self._num_rungs)
        ]
        # Diverged runs count at every rung, but are no reason to look at a higher one.
        rung = max(range(len(counts)), key=lambda k: (min(counts[k], NUM_STARTUP), k))
        observations = [
            Observation(s.run.hyperparameters, s.loss(rung)) for s in standings if s.losses[rung] is not None
        ]
        waiting = (s for s in standings if s.active or s.due is not None)
        return observations, [s.run.hyperparameters for s in waiting if s.losses[rung] is None]

    def _finish(self, standings: Sequence[Standing]) -> list[Action]:
        """The step towards one run at its horizon where no more roots may begin; nothing once there is one."""
        for standing in standings:
            if standing.run.status == "finished" and standing.run.origin != "baseline":
                return []
        for rung in reversed(range(self._num_rungs - 1)):
            waiting = by_loss((standing for standing in standings if standing.waits_at(rung)), rung)
            if waiting:
                return [self._ladder.advance(waiting[0])]
        return []


def _check(eta: int, num_rungs: int | None, first_fraction: float | None, max_roots: int | None) -> None:
    if eta < 2:
        raise ConfigError(f"strategy.eta = {eta} must be at least 2; 3 is usual")
    if num_rungs is not None and first_fraction is not None:
        raise ConfigError(
            f"strategy: num_rungs = {num_rungs} and first_fraction = {first_fraction:g} say the same; give one of them"
        )
    if num_rungs is not None and not 2 <= num_rungs <= 20:
        raise ConfigError(f"strategy.num_rungs = {num_rungs} must be from 2 to 20; 3 is usual")
    if first_fraction is not None and not 0 < first_fraction < 1:
        raise ConfigError(f"strategy.first_fraction = {first_fraction:g} must be between 0 and 1, such as 0.1")
    if max_roots is not None and max_roots < 1:
        raise ConfigError(f"strategy.max_roots = {max_roots} must be at least 1")
