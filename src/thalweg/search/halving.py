"""Asynchronous successive halving: many runs begin, the better ones are continued."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search.startup import NUM_STARTUP
from thalweg.search.strategy import (
    Observation,
    Problem,
    Sampler,
    is_active,
    is_own,
    num_starts,
    propose_roots,
    sorted_roots,
    start,
)
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Continue, Metric, Run, Tree


@dataclass(frozen=True)
class _Standing:
    """A root and what it reached."""

    run: Run
    losses: tuple[float | None, ...]
    """Per rung: its loss there, infinite if it diverged; None where it has no result."""
    next_rung: int | None
    """Position of the first rung that it has not trained to yet."""

    @property
    def rung(self) -> int:
        """The highest rung at which it has a result, or -1."""
        return max((k for k, loss in enumerate(self.losses) if loss is not None), default=-1)

    @property
    def can_continue(self) -> bool:
        return self.run.status == "paused" and self.next_rung is not None

    def loss(self, rung: int) -> float:
        """Its loss at a rung where it has a result."""
        loss = self.losses[rung]
        assert loss is not None
        return loss


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
    ) -> None:
        _check(eta, num_rungs, first_fraction, max_roots)
        self._problem = problem
        self._sampler = sampler
        self._name = name
        self._eta = eta
        self._max_roots = max_roots
        self._fractions = _fractions(eta, num_rungs, first_fraction)
        # One root in `eta` takes each further step.
        steps = zip(self._fractions, (0.0, *self._fractions), strict=False)
        self.share = sum((end - begin) * eta**-k for k, (end, begin) in enumerate(steps))
        self.num_roots = min((n for n in (max_roots, sampler.num_points) if n is not None), default=None)

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        if free_slots < 1:
            return []
        standings = [_standing(run, self._fractions, self._problem.metric) for run in sorted_roots(tree)]
        actions = self._promotions(standings)[:free_slots]
        actions += self._starts(standings, num_starts(free_slots - len(actions), left))
        if actions or any(is_active(standing.run) for standing in standings):
            return actions
        return self._finish(standings)

    def _promotions(self, standings: Sequence[_Standing]) -> list[Action]:
        """All promotions that are earned, those to the highest rung first and the best first within a rung."""
        ranked = [standing for standing in standings if standing.run.status not in ("failed", "stopped")]
        promoted: list[_Standing] = []
        for rung in reversed(range(len(self._fractions) - 1)):
            order = _by_loss((standing for standing in ranked if standing.losses[rung] is not None), rung)
            promoted += [s for s in order[: len(order) // self._eta] if _waits_at(s, rung)]
        return [self._advance(standing) for standing in promoted]

    def _starts(self, standings: Sequence[_Standing], count: int) -> list[Action]:
        num_roots = sum(is_own(standing.run) for standing in standings)
        if self._max_roots is not None:
            count = min(count, self._max_roots - num_roots)
        if count < 1:
            return []
        observations, pending = self._learned(standings)
        proposals = propose_roots(self._sampler, observations, pending, index=num_roots, count=count)
        return [start(self._problem, proposal, self._first_rung(proposal), self._name) for proposal in proposals]

    def _learned(self, standings: Sequence[_Standing]) -> tuple[list[Observation], list[Hyperparameters]]:
        """What the sampler is told: the results at one rung, and who has none there yet."""
        counts = [
            sum(s.losses[rung] is not None and s.run.status != "diverged" for s in standings)
            for rung in range(len(self._fractions))
        ]
        # Diverged runs count at every rung, but are no reason to look at a higher one.
        rung = max(range(len(counts)), key=lambda k: (min(counts[k], NUM_STARTUP), k))
        observations = [
            Observation(s.run.hyperparameters, s.loss(rung)) for s in standings if s.losses[rung] is not None
        ]
        pending = [s.run.hyperparameters for s in standings if is_active(s.run) and s.losses[rung] is None]
        return observations, pending

    def _finish(self, standings: Sequence[_Standing]) -> list[Action]:
        """The step towards one run at its horizon where no more roots may begin; nothing once there is one."""
        for standing in standings:
            if standing.run.status == "finished" and standing.run.origin != "baseline":
                return []
        for rung in reversed(range(len(self._fractions) - 1)):
            waiting = _by_loss((standing for standing in standings if _waits_at(standing, rung)), rung)
            if waiting:
                return [self._advance(waiting[0])]
        return []

    def _advance(self, standing: _Standing) -> Action:
        assert standing.next_rung is not None
        return Continue(standing.run.id, standing.next_rung, self._name)

    def _first_rung(self, hyperparameters: Hyperparameters) -> int:
        return _rungs(self._problem.horizon(hyperparameters), self._fractions)[0]


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


def _fractions(eta: int, num_rungs: int | None, first_fraction: float | None) -> tuple[float, ...]:
    """Each rung's share of the horizon, rising to 1."""
    if first_fraction is None:
        num_steps, step = (3 if num_rungs is None else num_rungs) - 1, float(eta)
    else:
        num_steps = max(1, round(-math.log(first_fraction) / math.log(eta)))
        step = first_fraction ** (-1 / num_steps)
    return tuple(step ** -(num_steps - k) for k in range(num_steps + 1))


@functools.lru_cache(maxsize=1024)
def _rungs(horizon: int, fractions: tuple[float, ...]) -> tuple[int, ...]:
    """Positions of the rungs. A very short horizon may have several at one position."""
    return tuple(max(1, round(horizon * fraction)) for fraction in fractions)


def _standing(run: Run, fractions: tuple[float, ...], metric: Metric) -> _Standing:
    rungs = _rungs(run.horizon, fractions)
    next_rung = next((position for position in rungs if position > run.position), None)
    if run.status == "diverged":
        return _Standing(run, (math.inf,) * len(rungs), next_rung)
    losses: list[float | None] = []
    for k, position in enumerate(rungs):
        report = run.report_at(position)
        is_last = k == len(rungs) - 1
        if report is None or metric.name not in report.metrics or (not is_last and report.position >= rungs[k + 1]):
            losses.append(None)
        else:
            losses.append(metric.loss(report.metrics[metric.name]))
    return _Standing(run, tuple(losses), next_rung)


def _waits_at(standing: _Standing, rung: int) -> bool:
    """Whether it is paused with a finite loss at this rung, and may go on."""
    return standing.can_continue and standing.rung == rung and math.isfinite(standing.loss(rung))


def _by_loss(standings: Iterable[_Standing], rung: int) -> list[_Standing]:
    """The best first, the earlier one where two are equal."""
    return sorted(standings, key=lambda standing: (standing.loss(rung), standing.run.number))
