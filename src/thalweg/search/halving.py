"""Asynchronous successive halving: many runs begin, the better ones are continued."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg.budget import Left
from thalweg.search.ladder import Standing, by_loss
from thalweg.search.rungs import check_max_roots, finish, learned, make_ladder, most_roots, shares
from thalweg.search.strategy import Problem, Sampler, is_own, num_starts, propose_roots
from thalweg.tree import Action, Start, Tree


class Halving:
    """Start roots at the lowest rung; whenever a worker is free, continue the best run that has earned it.

    **Rungs.** Rung k of a run lies at `round(horizon * eta ** -(num_rungs - 1 - k))` of the run's own horizon; the last
    is the horizon. Where all horizons are equal, these are the usual rungs. Where the number of epochs is itself
    searched, runs are compared at the same phase of their learning-rate schedule: at equal positions, a short run that
    has decayed its rate would always beat a long one that has not. A run's score at a rung is its first evaluation at
    or after it and before the next rung (trainers stop at a step boundary). Scores at different rungs are never
    compared. A diverged run scores infinity at every rung. A run whose evaluation at a rung lacks the study's metric is
    not ranked there, and not promoted.

    **Promotion.** From the top rung down: the runs with a result at a rung are ranked, and one of the best
    `floor(n / eta)` that is paused there is continued to the next rung. Failed and stopped runs are not ranked. Only
    where there is none is a new root begun. A promoted run is continued from its checkpoint, so that no position is
    trained twice.

    **Trunks.** With `trunk`, a run's score at a rung below its horizon is that of a branch: a fork that decays the
    learning rate over the end of the rung's budget. It is what a whole run of that budget would have reached, while
    the trunk itself goes on from its undecayed checkpoint. It takes a trainer and a schedule that hold the rate
    (`wsd`). The sampler learns from the branches' scores.

    **Shortened schedules.** Where a schedule has a fixed horizon (cosine, linear), a run stopped at a rung still has a
    high rate, and small rates look better than they are. With `shortened`, each rung is a root of its own, whose
    schedule ends there (`shortened.py`): as honest as trunks, but promotion trains again from the start.

    **The end.** With the 6 to 20 runs that are normal here, `floor(n / eta)` may promote nobody to the last rung. So
    once no more roots may begin (the budget's runs, `max_roots`, or an exhausted sampler) and nothing is active, the
    best paused run of the highest rung is continued, until one run other than the baseline has reached its horizon.
    Before there is one, no run is promoted where what is left of the budget would not bring that run to its horizon.
    Where all results are infinite, there is no best, and the study ends without.

    **`asha`** is this strategy under the name that the field knows. Li et al. differ in two things only: their sampler
    is random (`sampler = "random"`), and they have no end, so that nothing may have reached its horizon when the budget
    is used up. Unlike the scheduler of that name in Ray Tune, it pauses runs and goes on with them when they turn out
    to be among the best later; it does not stop them for good.

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
        rungs: the rungs' shares of the horizon themselves, instead of either: rising, the last of them 1.
        max_roots: most configurations to begin, or None for as many as the budget allows.
        trunk: score the rungs on branches.
        shortened: score the rungs on runs of their own, whose schedules end there.
    Raises:
        ConfigError: an option is out of its range, two say the same, or the trainer cannot do what they ask for.
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
        rungs: list[float] | None = None,
        max_roots: int | None = None,
        trunk: bool = False,
        shortened: bool = False,
    ) -> None:
        ends = shares(eta=eta, num_rungs=num_rungs, first_fraction=first_fraction, rungs=rungs)
        check_max_roots(max_roots)
        self._sampler = sampler
        self._eta = eta
        self._max_roots = max_roots
        self._ladder = make_ladder(problem, ends, name, trunk=trunk, shortened=shortened)
        self.share = self._ladder.share(eta)
        self.num_roots = self._most_roots()

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        if free_slots < 1:
            return []
        standings = self._ladder.standings(tree)
        actions: list[Action] = [standing.due for standing in standings if standing.due is not None]
        actions = (actions + self._promotions(standings))[:free_slots]
        room = num_starts(free_slots, left) - sum(isinstance(action, Start) for action in actions)
        actions += self._starts(standings, min(free_slots - len(actions), room))
        affordable = self._ladder.affordable(actions, standings, left)
        if affordable or any(standing.active for standing in standings):
            return affordable
        return finish(standings, self._ladder, actions, left)

    def _most_roots(self) -> int | None:
        most = most_roots(self._max_roots, self._sampler.num_points)
        if most is None:
            return None
        return round(self._ladder.num_roots([most * self._eta**-k for k in range(self._ladder.num_rungs)]))

    def _promotions(self, standings: Sequence[Standing]) -> list[Action]:
        """All promotions that are earned, those to the highest rung first and the best first within a rung."""
        ranked = [standing for standing in standings if not standing.given_up]
        promoted: list[Standing] = []
        for rung in reversed(range(self._ladder.num_rungs - 1)):
            order = by_loss((standing for standing in ranked if standing.losses[rung] is not None), rung)
            promoted += [s for s in order[: len(order) // self._eta] if s.waits_at(rung)]
        return [self._ladder.advance(standing) for standing in promoted]

    def _starts(self, standings: Sequence[Standing], count: int) -> list[Action]:
        num_roots = sum(is_own(standing.run) for standing in standings)
        if self._max_roots is not None:
            count = min(count, self._max_roots - num_roots)
        if count < 1:
            return []
        observations, pending = learned(standings, self._ladder.num_rungs)
        proposals = propose_roots(self._sampler, observations, pending, index=num_roots, count=count)
        return [self._ladder.begin(proposal) for proposal in proposals]
