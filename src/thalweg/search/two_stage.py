"""Two-stage Bayesian optimisation: many configurations for a short while, the best of them to the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search.ladder import Direct, Standing, Trunk, by_loss
from thalweg.search.strategy import Observation, Problem, Sampler, is_own, num_starts, propose_roots
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Tree

NUM_CONFIGS, TOP_K, FIRST_SHARE = 20, 5, 0.2
_NUM_CHECKED = 32
"""Points of the space that are tried for a trunk."""


class TwoStage:
    """Score `num_configs` configurations early, then train the `top_k` best of them to their horizons.

    **Stage 1.** Roots are proposed by the sampler and trained to t1, `first_share` of their own horizon t2. The
    sampler is told each early score, so that its model is fitted again before each proposal. **Stage 2** begins once
    no run of stage 1 is left: the `top_k` runs with the best early scores are continued from their checkpoints, the
    best first. The study's best run is then the best of these at t2. In whole runs it costs N t1 + k (t2 - t1): with
    the defaults, 20 configurations at 0.2 and 5 of them to the end, 20 * 0.2 + 5 * 0.8 = 8, where 20 whole runs would
    cost 20.

    **A budget that has no room for that**: the number of runs continued is reduced in proportion, to at least one,
    and the number of configurations to what is left beside it (`affordable`). So stage 1 never eats what stage 2
    needs. Where the budget limits nothing but the number of runs, it limits stage 1 alone.

    **What goes wrong.** Failed, stopped and diverged runs are not continued; where one of the best goes wrong in
    stage 2, the next one is continued in its place. An early score that is not a finite number is never continued.
    Runs started by hand take part where they were evaluated at t1, beside the `num_configs` of the strategy's own;
    the baseline does not: it is trained to its end in any case, and the sampler learns from its evaluation at t1 if
    it has one.

    **Bias.** With a schedule that decays over the whole run (cosine, linear) an early score has not seen the decay,
    and favours small learning rates and whatever else settles early. The report shows how well the early ranks held.
    With a schedule that holds its rate (`wsd`), `trunk` scores stage 1 on a branch that decays to t1: as honest as a
    whole run of that length. It costs each continued run its decay a second time.

    Args:
        problem: what is searched.
        sampler: proposes the configurations.
        name: the actions' origin.
        num_configs: configurations of stage 1, N.
        top_k: how many of them are continued, k.
        first_share: t1 as a share of each run's own horizon, in (0, 1).
        trunk: score stage 1 on branches.
    Raises:
        ConfigError: if an option is out of its range, or `top_k` is larger than `num_configs`.
    Source: Oliver & Wang 2024, arXiv:2407.13906 (a score at 20% of the training, then the best few to the end; N, k and
        the surrogate are not given there).
    """

    def __init__(
        self,
        problem: Problem,
        sampler: Sampler,
        name: str,
        *,
        num_configs: int = NUM_CONFIGS,
        top_k: int = TOP_K,
        first_share: float = FIRST_SHARE,
        trunk: bool = False,
    ) -> None:
        _check(num_configs, top_k, first_share)
        self._sampler = sampler
        self._num_configs = num_configs
        self._top_k = top_k
        self._ladder = Trunk(problem, (first_share, 1.0), name) if trunk else Direct(problem, (first_share, 1.0), name)
        rng = np.random.default_rng(0)
        self._ladder.check(problem.space.sample(rng) for _ in range(_NUM_CHECKED))
        self._first = first_share
        self._second = self._ladder.work([0.0, 1.0])
        """What stage 2 takes of a run, in whole runs."""
        self.num_roots = min(n for n in (num_configs, sampler.num_points) if n is not None)
        self.share = self._ladder.work([float(num_configs), float(top_k)]) / num_configs

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        if free_slots < 1:
            return []
        standings = self._ladder.standings(tree)
        num_configs, top_k = self._plan(standings, left)
        actions: list[Action] = [standing.due for standing in standings if standing.due is not None]
        actions = actions[:free_slots]
        num_begun = sum(is_own(standing.run) for standing in standings)
        count = min(num_starts(free_slots - len(actions), left), num_configs - num_begun)
        actions += self._starts(standings, num_begun, count)
        # A run is in stage 1 until it has an early score: one that goes on after it cannot hold stage 2 back.
        waits = any(standing.active and standing.losses[0] is None for standing in standings)
        if actions or waits:
            return actions
        return self._second_stage(standings, top_k)[:free_slots]

    def _plan(self, standings: Sequence[Standing], left: Left) -> tuple[int, int]:
        """N and k for the whole budget: what is left and what was spent or promised, by the runs' shares."""
        if left.whole_runs is None:
            return self._num_configs, self._top_k
        used = 0.0
        for standing in standings:
            run = standing.run
            if is_own(run):
                reached = max(run.position, run.until if standing.active else 0) / max(run.horizon, 1)
                used += min(reached, 1.0)
        return affordable(
            self._num_configs, self._top_k, first=self._first, second=self._second, whole_runs=left.whole_runs + used
        )

    def _starts(self, standings: Sequence[Standing], index: int, count: int) -> list[Action]:
        if count < 1:
            return []
        observations = [Observation(s.hyperparameters, s.loss(0)) for s in standings if s.losses[0] is not None]
        pending: list[Hyperparameters] = [
            s.hyperparameters for s in standings if s.losses[0] is None and (s.active or s.due is not None)
        ]
        proposals = propose_roots(self._sampler, observations, pending, index=index, count=count)
        return [self._ladder.begin(proposal) for proposal in proposals]

    def _second_stage(self, standings: Sequence[Standing], top_k: int) -> list[Action]:
        """The continuations of the best early runs that have not begun yet."""
        usable = [
            standing
            for standing in standings
            if standing.losses[0] is not None
            and math.isfinite(standing.losses[0])
            and standing.run.origin != "baseline"
            and not standing.given_up
            and not standing.unscored
        ]
        return [self._ladder.advance(s) for s in by_loss(usable, 0)[:top_k] if s.may_go_on]


def affordable(num_configs: int, top_k: int, *, first: float, second: float, whole_runs: float) -> tuple[int, int]:
    """N and k for a budget: as asked where it has room for them, else fewer of both.

    Args:
        num_configs, top_k: as asked.
        first, second: what a run takes in stage 1 and in stage 2, in whole runs.
        whole_runs: the whole budget, in whole runs.

    >>> affordable(20, 5, first=0.2, second=0.8, whole_runs=8.0)
    (20, 5)
    >>> affordable(20, 5, first=0.2, second=0.8, whole_runs=4.0)
    (12, 2)
    """
    wanted = num_configs * first + top_k * second
    # A thousandth of a run: sums of shares are not exact.
    if wanted <= whole_runs + 1e-3:
        return num_configs, top_k
    fewer = max(1, math.floor(top_k * whole_runs / wanted))
    room = math.floor((whole_runs - fewer * second) / first + 1e-3)
    configs = min(num_configs, max(1, room))
    return configs, min(fewer, configs)


def _check(num_configs: int, top_k: int, first_share: float) -> None:
    if num_configs < 1:
        raise ConfigError(f"strategy.num_configs = {num_configs} must be at least 1; {NUM_CONFIGS} is usual")
    if top_k < 1:
        raise ConfigError(f"strategy.top_k = {top_k} must be at least 1; {TOP_K} is usual")
    if top_k > num_configs:
        raise ConfigError(
            f"strategy.top_k = {top_k} must be at most num_configs = {num_configs}: no more can be continued than begin"
        )
    if not 0 < first_share < 1:
        raise ConfigError(f"strategy.first_share = {first_share:g} must be between 0 and 1, such as {FIRST_SHARE}")
