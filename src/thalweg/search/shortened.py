"""Rungs on shortened schedules: a run at a rung is a root of its own, whose learning-rate schedule ends there.

Where a schedule has a fixed horizon (cosine, linear), a run stopped at a rung still has a high rate, and small rates
look better than they are. Here each rung is a whole, shorter run, and ranks are as honest as those of whole runs. The
price is that nothing is continued: promotion trains again from the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search.ladder import MARGIN, Direct, Standing, has_finished, positions
from thalweg.search.strategy import Problem, is_active, sorted_roots, start
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Metric, Run, Start, Tree, final_loss


class Shortened(Direct):
    """A configuration's roots, one per rung, each with a horizon of that rung's budget.

    Which root belongs to which configuration is read from the tree alone: a root's hyperparameters, with those that
    shortening changes as the space has them, are the configuration; and the root stands for the rung whose changes it
    has. So what shortening changes (the number of epochs or tokens) may not itself be searched. Of the changes that the
    trainer makes for another horizon only those are taken that the horizon needs: a warm-up given as a share of the run
    remains that share, one given as a length remains that length.
    """

    def __init__(self, problem: Problem, shares: tuple[float, ...], name: str) -> None:
        super().__init__(problem, shares, name)
        # A cache: what a root stands for follows from its hyperparameters, which never change.
        self._places: dict[str, _Place] = {}
        self._changed: frozenset[str] | None = None

    def work(self, counts: Sequence[float], first: int = 0) -> float:
        """See `Direct.work`; every step begins from scratch."""
        return float(sum(share * count for share, count in zip(self._shares[first:], counts, strict=True)))

    def num_roots(self, counts: Sequence[float]) -> float:
        """One for every rung that a configuration reaches."""
        return sum(counts)

    def check(self, points: Iterable[Hyperparameters]) -> None:
        """Refuse a space in which some run cannot be shortened, or whose horizons are searched.

        Raises:
            ConfigError: naming the hyperparameters and what would work.
        """
        for point in points:
            for rung in range(self.num_rungs - 1):
                changes = self._changes(point, rung)
                if changes is None:
                    raise ConfigError(
                        "strategy.shortened = true: the trainer does not know how to give a run another horizon. Runs"
                        " of FineTune and Pretrain can be shortened, and those of a Hugging Face Trainer with max_steps"
                        " and schedule among its hyperparameters; without it, runs are stopped at rungs and continued"
                    )
                for name in changes:
                    if name in self._problem.space.dimensions:
                        raise ConfigError(
                            f"strategy.shortened = true shortens runs by their {name}, which is searched; fix it in the"
                            f" space, such as {name} = {point[name]!r}"
                        )

    def begin(self, hyperparameters: Hyperparameters, rung: int = 0) -> Start:
        """The root of a configuration at a rung."""
        changed = {**hyperparameters, **(self._changes(hyperparameters, rung) or {})}
        return start(self._problem, changed, self._problem.horizon(changed), self._name)

    def advance(self, standing: Standing) -> Action:
        """The root at the next rung."""
        assert standing.next_position is not None
        whole = self._problem.horizon(standing.hyperparameters)
        return self.begin(standing.hyperparameters, positions(whole, self._shares).index(standing.next_position))

    def finish(self, standing: Standing) -> Action:
        """Straight to the horizon: what lies between would be trained for nothing."""
        return self.begin(standing.hyperparameters, self.num_rungs - 1)

    def affordable(self, actions: Sequence[Action], standings: Sequence[Standing], left: Left) -> list[Action]:
        """Those for which there is room; every root counts as a run of the budget.

        While no whole run is done, one stays untouched by all others: in the loop's eyes each root is complete in
        itself, so that nothing else would keep the room for it.
        """
        num_runs, room = left.amounts.get("runs", math.inf), left.whole_runs
        reserve = not has_finished(standings)
        taken: list[Action] = []
        for action in actions:
            share, is_whole = self._extent(action)
            short = num_runs < 2 or (room is not None and room - share < MARGIN)
            if num_runs < 1 or (reserve and short and not is_whole):
                continue
            taken.append(action)
            num_runs -= 1
            room = None if room is None else room - share
            reserve = reserve and not is_whole
        return taken

    def last(self, actions: Sequence[Action], left: Left) -> list[Action]:
        """See `Direct.last`."""
        return list(actions[: max(0, int(left.amounts.get("runs", len(actions))))])

    def whole(self, action: Action) -> Action:
        """See `Direct.whole`."""
        assert isinstance(action, Start)
        return self.begin(self._place(action.hyperparameters).whole, self.num_rungs - 1)

    def standings(self, tree: Tree) -> list[Standing]:
        """Where every configuration stands, in the order in which they were begun.

        A root above the lowest rung goes on with the earliest configuration that has its hyperparameters and stands
        below; any other root begins one.
        """
        entries: list[_Entry] = []
        by_whole: dict[str, list[_Entry]] = {}
        for run in sorted_roots(tree):
            place = self._place(run.hyperparameters)
            same = by_whole.setdefault(place.key, [])
            below = [e for e in same if place.rungs and e.top < place.rungs[0] and run.origin == self._name]
            entry = min(below, key=lambda e: e.claim(self._problem.metric), default=None)
            if entry is None or not entry.may_have_gone_on:
                entry = _Entry(place)
                entries.append(entry)
                same.append(entry)
            entry.runs.append(run)
            entry.rungs.append(place.rungs)
        return [self._standing_of(entry) for entry in entries]

    def _standing_of(self, entry: _Entry) -> Standing:
        first, newest = entry.runs[0], entry.runs[-1]
        losses: list[float | None] = [None] * self.num_rungs
        for run, rungs in zip(entry.runs, entry.rungs, strict=True):
            for rung in rungs:
                losses[rung] = final_loss(run, self._problem.metric)
        if any(run.status == "diverged" for run in entry.runs):
            worst = (math.inf,) * self.num_rungs
            return Standing(first, worst, None, active=False, whole=entry.place.whole, newest=newest)
        may_go_on = newest.status == "finished" and 0 <= entry.top < self.num_rungs - 1
        return Standing(
            first,
            tuple(losses),
            entry.place.positions[entry.top + 1] if may_go_on else None,
            active=is_active(newest),
            unscored=may_go_on and losses[entry.top] is None,
            whole=entry.place.whole,
            newest=newest,
        )

    def _changes(self, whole: Hyperparameters, rung: int) -> Hyperparameters | None:
        """What gives a configuration the horizon of a rung; None where the trainer does not know how."""
        horizon = self._problem.horizon(whole)
        budget = positions(horizon, self._shares)[rung]
        if rung == self.num_rungs - 1 or budget == horizon:
            return {}
        changes = self._problem.shortened(whole, budget)
        if changes is None:
            return None
        return {
            name: value for name, value in changes.items() if self._problem.horizon({**whole, name: value}) != horizon
        }

    def _place(self, hyperparameters: Hyperparameters) -> _Place:
        key = _key(hyperparameters)
        if key not in self._places:
            whole = self._whole(hyperparameters)
            changes = [self._changes(whole, rung) for rung in range(self.num_rungs)]
            rungs = [k for k, change in enumerate(changes) if change is not None and _key({**whole, **change}) == key]
            ends = positions(self._problem.horizon(whole), self._shares)
            self._places[key] = _Place(whole, _key(whole), tuple(rungs), ends)
        return self._places[key]

    def _whole(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """With what shortening changes as the space has it."""
        fixed = self._problem.space.fixed
        if self._changed is None:
            point = self._problem.space.sample(self._problem.rng(0))
            self._changed = frozenset(self._changes(point, 0) or {})
        kept = {n: v for n, v in hyperparameters.items() if n not in self._changed}
        return {**kept, **{n: fixed[n] for n in self._changed if n in fixed}}

    def _extent(self, action: Action) -> tuple[float, bool]:
        """The share of a whole run that a root takes, and whether it is one."""
        assert isinstance(action, Start)
        place = self._place(action.hyperparameters)
        return self._shares[place.rungs[-1]], place.rungs[-1] == self.num_rungs - 1


@dataclass(frozen=True)
class _Place:
    """What a root's hyperparameters stand for."""

    whole: Hyperparameters
    key: str
    """Of `whole`: equal for the roots of one configuration."""
    rungs: tuple[int, ...]
    """Its rung; several where short horizons make them one; none for a length that is no rung's."""
    positions: tuple[int, ...]
    """Of the rungs, which are the horizons of the configuration's roots."""


@dataclass
class _Entry:
    """A configuration while the tree is read."""

    place: _Place
    runs: list[Run] = field(default_factory=list)
    rungs: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def top(self) -> int:
        """The highest rung of its newest root; -1 where that is no rung."""
        return max(self.rungs[-1], default=-1)

    @property
    def may_have_gone_on(self) -> bool:
        """Whether it may be the one that a root at a higher rung goes on with."""
        return self.runs[-1].status not in ("failed", "stopped", "diverged")

    def claim(self, metric: Metric) -> tuple[bool, float, int]:
        """Which of several with the same hyperparameters was promoted: the best, the earlier where two are equal."""
        loss = final_loss(self.runs[-1], metric)
        return not self.may_have_gone_on, math.inf if loss is None else loss, self.runs[0].number


def _key(hyperparameters: Hyperparameters) -> str:
    # To Python, True, 1 and 1.0 are equal; to a trainer they are not.
    return repr(sorted((name, type(value).__name__, value) for name, value in hyperparameters.items()))
