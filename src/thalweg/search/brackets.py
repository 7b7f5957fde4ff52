"""Brackets: groups of roots that are compared with each other only, rung by rung, each rung when all have arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search.ladder import Direct, Standing, by_loss
from thalweg.search.rungs import finish, learned
from thalweg.search.startup import NUM_STARTUP
from thalweg.search.strategy import Sampler, is_own, num_starts, propose_roots
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Start, Tree

Propose = Callable[[Sequence[Standing], int, int], Sequence[Hyperparameters]]
"""Where everything stands, the index of the next root and a number -> so many new configurations, or fewer where there
are no more."""


def sampled(sampler: Sampler, ladder: Direct, min_results: int = NUM_STARTUP) -> Propose:
    """Proposals by a sampler, which learns from the highest rung with `min_results` results; see `rungs.learned`."""

    def propose(standings: Sequence[Standing], index: int, count: int) -> Sequence[Hyperparameters]:
        observations, pending = learned(standings, ladder.num_rungs, min_results)
        return propose_roots(sampler, observations, pending, index=index, count=count)

    return propose


@dataclass(frozen=True)
class Bracket:
    """The shape of a group."""

    first: int
    """The rung at which its roots are compared first."""
    sizes: tuple[int, ...]
    """How many runs are trained to that rung, and to each rung after it."""


class Brackets:
    """Begin one bracket after the other, in a cycle, and take the best of each to the next rung when all are there.

    The strategy's own roots fill the brackets in the order in which they were begun. A rung is decided once the bracket
    is full and each of its runs has arrived there or is lost: failed, stopped, diverged, or without the study's metric
    there. Then as many of the best as the bracket has places at the next rung go on. A place that a run loses on its
    way goes to the next best. A run with steps so long that it passed a rung without stopping goes on with those that
    were promoted, and takes a place. Runs made by hand and the baseline are in no bracket; a sampler learns from them.

    While a rung waits for runs that are training, free workers begin the roots of the next bracket, so that no worker
    is idle; promotions of earlier brackets come first. Where no more roots may begin (the budget's runs, `max_roots`,
    an exhausted sampler), a bracket that is not full has places in proportion, at least one at each rung. A study has
    an end as `Halving` has: one run other than the baseline reaches its horizon.

    Args:
        ladder: how runs get from rung to rung.
        propose: proposes the roots.
        cycle: the brackets.
        most: configurations to begin at most, or None for as many as the budget allows.
    """

    def __init__(
        self,
        ladder: Direct,
        propose: Propose,
        cycle: Sequence[Bracket],
        *,
        most: int | None,
    ) -> None:
        self._ladder = ladder
        self._propose = propose
        self._cycle = cycle
        self._most = most
        num_roots = sum(ladder.num_roots(bracket.sizes) for bracket in cycle)
        self.share = sum(ladder.work(bracket.sizes, bracket.first) for bracket in cycle) / num_roots
        begun = sum(bracket.sizes[0] for bracket in cycle)
        self.num_roots = None if self._most is None else round(self._most * num_roots / begun)

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        if free_slots < 1:
            return []
        standings = self._ladder.standings(tree)
        own = [standing for standing in standings if is_own(standing.run)]
        room = num_starts(free_slots, left)
        if self._most is not None:
            room = min(room, self._most - len(own))
        due: list[Action] = [standing.due for standing in standings if standing.due is not None]
        actions = (due + self._promotions(own, closed=room < 1))[:free_slots]
        room = min(room, num_starts(free_slots, left) - sum(isinstance(action, Start) for action in actions))
        actions += self._starts(standings, len(own), min(free_slots - len(actions), room))
        affordable = self._ladder.affordable(actions, standings, left)
        if affordable or any(standing.active for standing in standings):
            return affordable
        if not actions:  # There is nothing more to propose.
            actions = self._promotions(own, closed=True)[:free_slots]
            if affordable := self._ladder.affordable(actions, standings, left):
                return affordable
        return finish(standings, self._ladder, actions, left)

    def _promotions(self, own: Sequence[Standing], *, closed: bool) -> list[Action]:
        """All promotions that are decided, those of the earlier brackets first."""
        promoted: list[Action] = []
        for bracket, members in self._filled(own):
            full = len(members) == bracket.sizes[0]
            if full or closed:
                promoted += [self._ladder.advance(member) for member in _going_on(bracket, members)]
        return promoted

    def _filled(self, own: Sequence[Standing]) -> Iterator[tuple[Bracket, Sequence[Standing]]]:
        """The brackets that have begun, and their runs."""
        begin, number = 0, 0
        while begin < len(own):
            bracket = self._cycle[number % len(self._cycle)]
            yield bracket, own[begin : begin + bracket.sizes[0]]
            begin, number = begin + bracket.sizes[0], number + 1

    def _starts(self, standings: Sequence[Standing], num_own: int, count: int) -> list[Action]:
        if count < 1:
            return []
        proposals = self._propose(standings, num_own, count)
        return [self._ladder.begin(p, bracket_of(self._cycle, num_own + i).first) for i, p in enumerate(proposals)]


def bracket_of(cycle: Sequence[Bracket], index: int) -> Bracket:
    """The bracket that the root of this index is in."""
    index %= sum(bracket.sizes[0] for bracket in cycle)
    for bracket in cycle:
        if index < bracket.sizes[0]:
            return bracket
        index -= bracket.sizes[0]
    raise AssertionError("an index is below the sum of the brackets' sizes")


def check_num_configs(num_configs: int | None, *, least: int) -> None:
    """Refuse a bracket too small to compare anything.

    Raises:
        ConfigError: fewer than `least`.
    """
    if num_configs is not None and num_configs < least:
        raise ConfigError(f"strategy.num_configs = {num_configs} must be at least {least}")


def _going_on(bracket: Bracket, members: Sequence[Standing]) -> list[Standing]:
    """Those that have earned the next rung and rest, the best first: all of one rung, the lowest that is not done."""
    here = [member for member in members if not member.given_up]
    for k, size in enumerate(bracket.sizes[1:]):
        rung = bracket.first + k
        if any((s.active or s.due is not None) and s.losses[rung] is None and s.rung < rung for s in here):
            return []
        places = max(1, size * len(members) // bracket.sizes[0])
        passed = [s for s in here if s.losses[rung] is None and s.rung > rung]
        ranked = by_loss((s for s in here if s.losses[rung] is not None and s.status != "diverged"), rung)
        best = ranked[: max(0, places - len(passed))]
        if going_on := [standing for standing in best if standing.waits_at(rung)]:
            return going_on
        here = passed + best
    return []
