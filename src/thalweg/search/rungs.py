"""What all strategies with rungs share: their options, what a sampler learns from rungs, and how a study ends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search.ladder import Direct, Standing, Trunk, by_loss, fractions, has_finished
from thalweg.search.shortened import Shortened
from thalweg.search.startup import NUM_STARTUP
from thalweg.search.strategy import Observation, Problem
from thalweg.space import Hyperparameters
from thalweg.tree import Action

_NUM_CHECKED = 32
"""Points of the space that are tried for a trunk, or for a shortened schedule."""
_MAX_RUNGS = 20


def shares(
    *, eta: int, num_rungs: int | None, first_fraction: float | None, rungs: Sequence[float] | None
) -> tuple[float, ...]:
    """Each rung's share of a run's horizon, rising to 1.

    Args:
        eta: a rung is as many times as long as the one below it, unless other options say otherwise. At least 2.
        num_rungs: rungs, the horizon included; 3 where nothing else is given.
        first_fraction: share at which the first rung lies; the number of rungs is then such that the steps between
            them are as near to `eta` as they can be.
        rungs: the shares themselves.
    Raises:
        ConfigError: a value out of its range, or more than one of the last three.
    """
    if eta < 2:
        raise ConfigError(f"strategy.eta = {eta} must be at least 2; 3 is usual")
    given = {"num_rungs": num_rungs, "first_fraction": first_fraction, "rungs": rungs}
    said = [f"{name} = {value}" for name, value in given.items() if value is not None]
    if len(said) > 1:
        raise ConfigError(f"strategy: {' and '.join(said)} say the same; give one of them")
    if num_rungs is not None and not 2 <= num_rungs <= _MAX_RUNGS:
        raise ConfigError(f"strategy.num_rungs = {num_rungs} must be from 2 to {_MAX_RUNGS}; 3 is usual")
    if first_fraction is not None and not 0 < first_fraction < 1:
        raise ConfigError(f"strategy.first_fraction = {first_fraction:g} must be between 0 and 1, such as 0.1")
    if rungs is not None:
        return _given(rungs)
    return fractions(eta, num_rungs, first_fraction)


def make_ladder(problem: Problem, shares: tuple[float, ...], name: str, *, trunk: bool, shortened: bool) -> Direct:
    """The ladder that options ask for.

    Args:
        problem: what is searched.
        shares: each rung's share of a run's horizon.
        name: the actions' origin.
        trunk: score the rungs on branches that decay.
        shortened: score the rungs on runs of their own, whose schedule ends there.
    Raises:
        ConfigError: both are asked for, or the trainer or the space does not allow it.
    """
    if trunk and shortened:
        raise ConfigError(
            "strategy: trunk = true and shortened = true exclude each other: where the schedule has a trunk, branches"
            " of it are as honest and train nothing twice"
        )
    kind = Trunk if trunk else Shortened if shortened else Direct
    ladder = kind(problem, shares, name)
    rng = np.random.default_rng(0)
    if trunk or shortened:
        ladder.check(problem.space.sample(rng) for _ in range(_NUM_CHECKED))
    return ladder


def check_max_roots(max_roots: int | None) -> None:
    """Refuse a limit that allows nothing.

    Raises:
        ConfigError: it is below 1.
    """
    if max_roots is not None and max_roots < 1:
        raise ConfigError(f"strategy.max_roots = {max_roots} must be at least 1")


def most_roots(*limits: int | None) -> int | None:
    """The lowest of several limits, None being none."""
    return min((limit for limit in limits if limit is not None), default=None)


def learned(
    standings: Sequence[Standing], num_rungs: int, min_results: int = NUM_STARTUP
) -> tuple[list[Observation], list[Hyperparameters]]:
    """What a sampler is told: the results at one rung, and the hyperparameters of the runs without one there yet.

    The rung is the highest with `min_results` results; before there is one, that with the most. Diverged runs count at
    every rung, but are no reason to look at a higher one.
    """
    counts = [
        sum(s.losses[rung] is not None and s.status != "diverged" for s in standings) for rung in range(num_rungs)
    ]
    rung = max(range(num_rungs), key=lambda k: (min(counts[k], min_results), k))
    observations = [Observation(s.hyperparameters, s.loss(rung)) for s in standings if s.losses[rung] is not None]
    waiting = (s for s in standings if s.active or s.due is not None)
    return observations, [s.hyperparameters for s in waiting if s.losses[rung] is None]


def finish(standings: Sequence[Standing], ladder: Direct, dropped: Sequence[Action], left: Left) -> list[Action]:
    """The step towards one run at its horizon where no more roots may begin; nothing once there is one.

    The best waiting run of the highest rung goes on. Where none has a finite result, it is the first of those whose
    evaluation at their rung lacks the study's metric: it may be there at the horizon.

    Args:
        standings: where every configuration stands.
        ladder: how a run gets to its horizon.
        dropped: actions that there was no room for: the first becomes a whole run where nothing else can.
        left: what remains of the budget.
    """
    if has_finished(standings):
        return []
    for rung in reversed(range(ladder.num_rungs - 1)):
        waiting = by_loss((standing for standing in standings if standing.waits_at(rung)), rung)
        if waiting:
            return ladder.last([ladder.finish(waiting[0])], left)
    unscored = [ladder.finish(standing) for standing in standings if standing.unscored and standing.may_go_on]
    return ladder.last((unscored or [ladder.whole(action) for action in dropped])[:1], left)


def _given(rungs: Sequence[float]) -> tuple[float, ...]:
    shown = f"strategy.rungs = {list(rungs)}"
    example = "such as [0.1, 0.3, 1]"
    if not 2 <= len(rungs) <= _MAX_RUNGS:
        raise ConfigError(f"{shown} must be 2 to {_MAX_RUNGS} shares of a run's horizon, {example}")
    if not all(0 < share <= 1 for share in rungs):
        raise ConfigError(f"{shown} must be shares of a run's horizon, above 0 and at most 1, {example}")
    if any(low >= high for low, high in itertools.pairwise(rungs)):
        raise ConfigError(f"{shown} must rise from each rung to the next, {example}")
    if rungs[-1] != 1:
        raise ConfigError(f"{shown} must end at 1, the horizon, {example}")
    return tuple(float(share) for share in rungs)
