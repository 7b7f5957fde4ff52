"""The default strategy: priors, early rungs, continued runs, a model as results come in, and a confirmed winner."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from scipy.special import ndtr

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.scaling.fidelity_model import FidelityModel, Seen
from thalweg.search.auto_roots import Roots
from thalweg.search.ladder import Direct, Standing, Trunk, by_loss, fractions, has_finished, positions
from thalweg.search.rungs import check_max_roots
from thalweg.search.startup import startup_point
from thalweg.search.strategy import Problem, is_own, num_starts
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Run, Start, Tree

ETA = 2
FIRST_FRACTION = 1 / 8
CONFIRMED_SHARE = 0.15
"""Of a whole budget, what confirmation may take."""
FINISHING_SHARE = 0.2
"""Of the budget of a search: its last part, in which what has begun comes before what is new."""
RESULTS_PER_DIMENSION = 5
"""From so many results for each dimension on the model is believed as much as what was measured at a rung."""
_MIN_RESULTS = 6
_DEAREST_EVALUATION = 1.5
_LEAST_CHANCE = 0.02
_ROOM_FOR_MORE = 2.0
"""Whole runs; with less left at the end no root begins: it would hardly be completed."""
_NUM_IN_QUESTION = 32
"""At each rung, runs that a model's prediction is asked for."""
_MANY_FINALISTS = 6
_MOST_SEEDS = 4
_CONFIRM = "confirm"


class Auto:
    """What to use where there is no reason for something else.

    **Rungs.** Runs are compared at 1/8, 1/4, 1/2 and all of their horizon, and continued from their checkpoints; where
    the trainer's schedule has a trunk (`wsd`), on branches that decay (see `halving`). A rung so low that its
    evaluation costs more than half of its training is left out.

    **Roots** come from several sources, which compete: the priors, the neighbourhood of the best, uniform draws that
    ignore the priors, a model, and earlier studies (`auto_roots.py`). The first ones are the best points of earlier
    studies, if there are any, and three learning rates around the prior's. So what is believed, what was measured and
    what is known from elsewhere each have their turn, and whichever is wrong loses it.

    **Promotion** is asynchronous halving: of the runs at a rung one in two goes on. Every other one is chosen by its
    loss there, and every other, once there are 5 results for each dimension, by where a model expects it to end
    (`scaling/fidelity_model.py`), which corrects what early losses get wrong in the same way everywhere.

    **The end.** In the last fifth of the budget paused runs that may still beat the best one are brought on before new
    ones begin, and in the last two whole runs no more begin.

    **Confirmation.** From some 14 whole runs' worth of budget on, 15% of it is kept: the two or three best complete
    runs are trained again from scratch under 1 to 4 other seeds, and the winner is the one with the best mean. The
    report says by how much, with an interval, and says so plainly where the difference is within noise. With
    several objectives there is no single winner, and nothing is confirmed.

    Roots have the origin `auto:` and their source; `auto:confirm` are confirmations. Diverged runs are as bad as can
    be; failed and stopped ones are not ranked. Where the budget limits nothing but the number of runs, there is no last
    fifth: promotions go on until none is earned and one run is complete.

    Args:
        problem: what is searched.
        name: the actions' origin.
        confirm: whether to keep a part of the budget for confirmation.
        trunk: score the rungs on branches; None: where every run has a trunk.
        max_roots: most roots to begin, confirmations not counted, or None for as many as the budget allows.
    Raises:
        ConfigError: an option is out of its range, or `trunk` is asked for where there is none.
    """

    def __init__(
        self,
        problem: Problem,
        name: str,
        *,
        confirm: bool = True,
        trunk: bool | None = None,
        max_roots: int | None = None,
    ) -> None:
        check_max_roots(max_roots)
        self._problem = problem
        self._name = name
        self._confirms = confirm and not problem.objectives
        self._max_roots = max_roots
        self._shares = _shares(problem)
        self._ladder = _ladder(problem, self._shares, name, trunk)
        self._roots = Roots(problem)
        self._needed = max(_MIN_RESULTS, 2 + len(problem.space.dimensions))
        # A cache: the model of the results seen last.
        self._fitted: tuple[list[Seen], FidelityModel] | None = None
        self.share = self._ladder.share(ETA)
        self.num_roots = max_roots

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        if free_slots < 1:
            return []
        confirmations = [run for run in tree if run.origin == f"{self._name}:{_CONFIRM}"]
        standings = [s for s in self._ladder.standings(tree) if s.run.origin != f"{self._name}:{_CONFIRM}"]
        plan = self._plan(tree, standings, confirmations, left)
        if not confirmations:
            actions = _Turn(self, standings, plan, num_starts(free_slots, left)).actions(free_slots)
            if actions or any(standing.active for standing in standings):
                return actions
        return self._confirmations(standings, confirmations, plan, num_starts(free_slots, left))

    def model(self, standings: Sequence[Standing]) -> FidelityModel | None:
        """Of where runs end, or None while there is too little to fit it to."""
        seen = [result for standing in standings for result in self._results(standing)]
        told = sum(standing.rung >= 0 for standing in standings)
        if told < self._needed or not any(math.isfinite(result.loss) for result in seen):
            return None
        if self._fitted is None or self._fitted[0] != seen:
            self._fitted = seen, FidelityModel(self._problem.space, seen)
        return self._fitted[1]

    def _results(self, standing: Standing) -> list[Seen]:
        if standing.status == "diverged":
            return [Seen(standing.hyperparameters, self._shares[0], math.inf)]
        pairs = zip(self._shares, standing.losses, strict=True)
        return [Seen(standing.hyperparameters, share, loss) for share, loss in pairs if loss is not None]

    def _plan(self, tree: Tree, standings: Sequence[Standing], confirmations: Sequence[Run], left: Left) -> _Plan:
        """What the budget is for: all of it is what was spent and what is left."""
        horizons = {run.id: run.horizon for run in tree if run.parent is None}
        spent = sum((run.position - run.fork_position) / _root_horizon(tree, run, horizons) for run in tree)
        room, runs = left.whole_runs, left.amounts.get("runs")
        total = room + spent if room is not None else None
        if runs is not None:
            by_runs = runs + len(standings) + len(confirmations)
            total = by_runs if total is None else min(total, by_runs)
        reserve = CONFIRMED_SHARE * total if self._confirms and total is not None else 0.0
        num_finalists = 2 if reserve < _MANY_FINALISTS else 3
        num_seeds = min(int(reserve / num_finalists + 1e-9), _MOST_SEEDS)
        kept = 0 if confirmations else num_finalists * num_seeds
        return _Plan(
            room=None if room is None else room - kept,
            runs=None if runs is None else runs - kept,
            finishing=None if total is None else max(FINISHING_SHARE * total, 1.0),
            num_finalists=num_finalists,
            num_seeds=num_seeds,
        )

    def _confirmations(
        self, standings: Sequence[Standing], done: Sequence[Run], plan: _Plan, starts: int
    ) -> list[Action]:
        """The best complete runs again, under other seeds: a seed for all of them before the next seed."""
        if plan.num_seeds < 1 and not done:
            return []
        complete = [s for s in standings if s.complete and s.run.origin != "baseline" and s.losses[-1] is not None]
        finalists = _distinct(by_loss(complete, -1))[: plan.num_finalists]
        if len(finalists) < 2:
            return []
        begun = [(run.seed, run.hyperparameters) for run in done]
        actions: list[Action] = []
        for offset in range(1, plan.num_seeds + 1):
            for standing in finalists:
                seed, point = self._problem.seed + offset, standing.hyperparameters
                if len(actions) < starts and (seed, point) not in begun:
                    horizon = self._problem.horizon(point)
                    actions.append(Start(point, horizon, f"{self._name}:{_CONFIRM}", seed))
        return actions

    @property
    def ladder(self) -> Direct:
        """The rungs."""
        return self._ladder

    def begin(self, point: Hyperparameters, source: str) -> Action:
        """A new root."""
        return dataclasses.replace(self._ladder.begin(point), origin=f"{self._name}:{source}")

    def begun(self, standings: Sequence[Standing]) -> int:
        """Roots of its own so far."""
        return sum(is_own(standing.run) for standing in standings)

    def may_begin(self, index: int) -> bool:
        """Whether its own limit allows for one more root."""
        return self._max_roots is None or index < self._max_roots

    @property
    def roots(self) -> Roots:
        """Where new roots come from."""
        return self._roots

    @property
    def trusted(self) -> int:
        """Results from which on the model decides promotions, too."""
        return RESULTS_PER_DIMENSION * len(self._problem.space.dimensions)


@dataclass(frozen=True)
class _Plan:
    """What a decision may use."""

    room: float | None
    """Whole runs that there is compute for, what is kept for confirmation left out; None: not limited."""
    runs: float | None
    """Roots that may still begin, likewise."""
    finishing: float | None
    """With so little room left, runs are brought to an end before new ones begin."""
    num_finalists: int
    num_seeds: int
    """Further seeds for each finalist."""

    @property
    def is_finishing(self) -> bool:
        """Whether the last part of the budget has begun."""
        return self.room is not None and self.finishing is not None and self.room <= self.finishing


class _Turn:
    """One decision of the search."""

    def __init__(self, auto: Auto, standings: Sequence[Standing], plan: _Plan, starts: int) -> None:
        self._auto, self._standings, self._plan = auto, standings, plan
        self._taken: set[str] = set()
        self._index = auto.begun(standings)
        self._pending = [s.hyperparameters for s in standings if s.active or s.due is not None]
        self._known_pending = [s.hyperparameters for s in standings if (s.active or s.due is not None) and s.rung < 0]
        runs = math.inf if plan.runs is None else plan.runs
        self._room = math.inf if plan.room is None else plan.room
        self._complete = has_finished(standings)
        self._starts = min(starts, runs) if self._room >= 1 else 0
        self._begun = any(s.complete or s.may_go_on or s.active for s in standings)

    def actions(self, free_slots: int) -> list[Action]:
        """At most so many; none where there is nothing to do but to wait, or nothing at all."""
        actions: list[Action] = [s.due for s in self._standings if s.due is not None]
        while len(actions) < free_slots:
            action = self._next()
            if action is None:
                break
            actions.append(action)
        if not actions and not any(standing.active for standing in self._standings):
            actions = self._bring_one_to_the_end()
        return actions[:free_slots]

    def _next(self) -> Action | None:
        chosen = self._worth_finishing() if self._plan.is_finishing else self._earned()
        if chosen is not None and self._complete and self._step(chosen) > self._room:
            chosen = None  # what is kept for confirmation is not spent before
        if chosen is not None:
            self._room -= self._step(chosen)
            self._taken.add(chosen.run.id)
            self._pending.append(chosen.hyperparameters)
            return self._auto.ladder.advance(chosen)
        too_late = self._plan.is_finishing and self._begun and self._room < _ROOM_FOR_MORE
        if self._starts < 1 or not self._auto.may_begin(self._index) or too_late:
            return None
        point, source = self._auto.roots.propose(
            self._standings, lambda: self._model, self._pending, self._known_pending, self._index
        )
        self._starts -= 1
        self._index += 1
        self._pending.append(point)
        self._known_pending.append(point)
        return self._auto.begin(point, source)

    def _step(self, standing: Standing) -> float:
        """What the way to its next rung takes, in whole runs."""
        assert standing.next_position is not None
        return (standing.next_position - standing.run.position) / standing.run.horizon

    @cached_property
    def _trusts(self) -> bool:
        """Whether there are results enough for the model to decide promotions."""
        return sum(standing.rung >= 0 for standing in self._standings) >= self._auto.trusted

    @cached_property
    def _model(self) -> FidelityModel | None:
        return self._auto.model(self._standings)

    @cached_property
    def _ends(self) -> dict[str, tuple[float, float]]:
        """Where the model expects each run to end that comes into question, and how surely, in its own scale; empty
        without a model."""
        if self._model is None:
            return {}
        asked = {standing.run.id: standing for standing in self._in_question()}
        means, deviations = self._model.predict([standing.hyperparameters for standing in asked.values()])
        return dict(zip(asked, zip(means.tolist(), deviations.tolist(), strict=True), strict=True))

    def _in_question(self) -> list[Standing]:
        """At each rung the best of those that wait there, and of the complete ones."""
        found: list[Standing] = []
        for rung in range(self._auto.ladder.num_rungs - 1):
            found += by_loss((s for s in self._standings if s.rung == rung and _waits(s)), rung)[:_NUM_IN_QUESTION]
        return found + by_loss((s for s in self._standings if _has_result_at_end(s)), -1)[:_NUM_IN_QUESTION]

    def _earned(self) -> Standing | None:
        """The next promotion, to the highest rung first."""
        for rung in reversed(range(self._auto.ladder.num_rungs - 1)):
            there = [s for s in self._standings if s.losses[rung] is not None and not s.given_up]
            gone = sum(s.rung > rung or s.run.id in self._taken or (s.active and s.rung == rung) for s in there)
            waiting = [s for s in by_loss(there, rung) if s.run.id not in self._taken and s.waits_at(rung)]
            if not waiting or gone >= len(there) // ETA:
                continue
            if self._trusts and gone % 2 == 1 and self._ends:
                return min(waiting, key=self._rank)
            return waiting[0]
        return None

    def _worth_finishing(self) -> Standing | None:
        """The paused run that promises most, unless it hardly stands a chance against the best complete one."""
        waiting = [s for s in self._standings if s.run.id not in self._taken and _waits(s)]
        if not waiting:
            return None
        furthest = min(waiting, key=lambda s: (-s.rung, s.loss(s.rung), s.run.number))
        if not self._ends:
            return furthest
        chosen = furthest
        if self._trusts:
            chosen = min(waiting, key=self._rank)
        complete = [self._ends[s.run.id][0] for s in self._standings if s.complete and s.run.id in self._ends]
        mean, deviation = self._ends.get(chosen.run.id, (math.inf, 1.0))
        if complete and ndtr((min(complete) - mean) / max(deviation, 1e-12)) < _LEAST_CHANCE:
            return None
        return chosen

    def _rank(self, standing: Standing) -> tuple[float, int]:
        """The lower, the better it is expected to end; what does not come into question is last."""
        return self._ends.get(standing.run.id, (math.inf, 1.0))[0], standing.run.number

    def _bring_one_to_the_end(self) -> list[Action]:
        """Where nothing else is left to do, one run is completed: that brought furthest, the best there; the
        first one where none has a result."""
        if has_finished(self._standings):
            return []
        waiting = [s for s in self._standings if _waits(s)]
        chosen = min(waiting, key=lambda s: (-s.rung, s.loss(s.rung), s.run.number), default=None)
        chosen = chosen or next((s for s in self._standings if s.may_go_on and s.rung < 0), None)
        return [] if chosen is None else [self._auto.ladder.advance(chosen)]


def _waits(standing: Standing) -> bool:
    """Whether it rests at a rung with a finite result, and may go on."""
    return standing.rung >= 0 and standing.waits_at(standing.rung)


def _has_result_at_end(standing: Standing) -> bool:
    return standing.complete and standing.losses[-1] is not None


def _shares(problem: Problem) -> tuple[float, ...]:
    """The rungs that an average run has and that are worth their evaluation."""
    point = startup_point(problem, 0)
    horizon = problem.horizon(point)
    whole = problem.cost(point, 0, horizon)
    shares = list(fractions(ETA, None, FIRST_FRACTION))
    while len(shares) > 1:
        first, second = positions(horizon, (shares[0], shares[1]))
        cost = problem.cost(point, 0, first)
        if first < second and cost <= _DEAREST_EVALUATION * shares[0] * whole:
            break
        del shares[0]
    return tuple(shares)


def _ladder(problem: Problem, shares: tuple[float, ...], name: str, trunk: bool | None) -> Direct:
    if trunk is False or len(shares) == 1:
        return Direct(problem, shares, name)
    over_trunks = Trunk(problem, shares, name)
    try:
        over_trunks.check(problem.sample(problem.rng(index)) for index in range(32))
    except ConfigError:
        if trunk:
            raise
        return Direct(problem, shares, name)
    return over_trunks


def _root_horizon(tree: Tree, run: Run, horizons: dict[str, int]) -> int:
    return max(1, horizons.get(run.id) or tree.lineage(run.id)[0].horizon)


def _distinct(standings: Sequence[Standing]) -> list[Standing]:
    """Each set of hyperparameters once, the first that comes."""
    kept: list[Standing] = []
    for standing in standings:
        if all(standing.hyperparameters != other.hyperparameters for other in kept):
            kept.append(standing)
    return kept
