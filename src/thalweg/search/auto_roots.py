"""Where `auto`'s new roots come from: several sources, each used the more, the more it has brought."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from thalweg.scaling.fidelity_model import FidelityModel
from thalweg.search.freeze_thaw import expected_improvement
from thalweg.search.ladder import Standing
from thalweg.search.lr_race import default_point, default_value, find_raced
from thalweg.search.nearby import drawn, moved
from thalweg.search.portfolio import agreement, portfolio, predicted_regrets
from thalweg.search.startup import new_point
from thalweg.search.strategy import Observation, Problem, is_own
from thalweg.space import Choice, Dimension, Hyperparameters, Space

Source = Literal["start", "prior", "nearby", "uniform", "model", "earlier"]
"""What proposed a root: it is part of the root's origin."""

NUM_FROM_EARLIER = 6
"""Points of earlier studies that are tried first; more of them only if they turn out well."""
_MOST_FROM_EARLIER = 32
_NUM_COMPARED = 64
_DECADE = math.log(10.0)
_RACE_DECADES = (0.0, -0.5, 0.5)
_RACE_UNITS = (0.5, 1 / 6, 5 / 6)
_BELIEF: dict[Source, tuple[float, float]] = {
    "prior": (1.5, 3.0),
    "nearby": (0.5, 3.0),
    "uniform": (0.3, 3.0),
    "model": (1.5, 3.0),
    "earlier": (1.5, 3.0),
}
"""Successes and tries that a source is credited with before it has any."""
_SHARPNESS = 2
"""A source is chosen in proportion to this power of its rate of success."""
_SUCCESS = 1 / 3
"""A root was a success where it was among the best third of those before it, at its first rung."""
_NUM_DRAWN, _NUM_UNIFORM, _NUM_MOVED, _NUM_MOVED_FROM = 64, 32, 24, 4
_LEADERS = 8
_RESULTS_PER_DIMENSION = 5
"""With fewer results for each dimension the model is asked less often."""


class Roots:
    """Proposes new roots for `Auto`.

    **The first** are up to 6 points of earlier studies (their greedy portfolio), then three learning rates: the
    prior's and half a decade to each side, or spread over the range where there is no prior; all else has its prior or
    the middle of its range.

    **After them** a source is drawn, in proportion to the square of its rate of success: how many of its roots were
    among the best third of all before them, at their first rung. A tie is no success, so that the same again earns
    nothing. Sources are the priors; the neighbourhood of runs that lead at some rung; uniform draws that ignore the
    priors, seldom at first; further points of earlier studies, as far as these tell the order of the results here (rank
    correlation); and the model: of some 200 points from the
    priors, from uniform draws and from around the leaders, the one with the largest expected improvement at the
    horizon, pending runs counted as if they had ended as expected. The model is asked less often while there are fewer
    than 5 results for each dimension.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        space = problem.space
        self._uniform = Space({n: _without_prior(d) for n, d in space.dimensions.items()}, space.fixed)
        earlier = [
            point for point in portfolio(space, problem.earlier, _MOST_FROM_EARLIER) if problem.is_feasible(point)
        ]
        race = [point for point in _race(space) if problem.is_feasible(point)]
        self._first = [*earlier[:NUM_FROM_EARLIER], *race]
        self._more = earlier[NUM_FROM_EARLIER:]
        self._regrets: dict[str, float] = {}

    def propose(
        self,
        standings: Sequence[Standing],
        model: Callable[[], FidelityModel | None],
        active: Sequence[Hyperparameters],
        unknown: Sequence[Hyperparameters],
        index: int,
    ) -> tuple[Hyperparameters, Source]:
        """A new root, and where it comes from.

        Args:
            standings: all roots.
            model: fits the model when it is called; None while there is too little to fit it to.
            active: what is being trained, or was chosen in this decision.
            unknown: of these, what has no result yet.
            index: number of own roots before it.
        """
        problem = self._problem
        known = [*(standing.hyperparameters for standing in standings), *unknown]
        if index < len(self._first):
            return new_point(problem, self._first[index], known, index), "start"
        rng = problem.rng(index)
        source = self._choose(standings, rng)
        fitted = model() if source == "model" else None
        if source == "model" and fitted is None:
            source = "prior"
        point = self._from(source, standings, fitted, active, rng)
        if not problem.is_feasible(point):
            point = problem.sample(rng)
        return new_point(problem, point, known, index), source

    def _choose(self, standings: Sequence[Standing], rng: np.random.Generator) -> Source:
        own = [s for s in standings if is_own(s.run)]
        firsts = [(_source(s), next((loss for loss in s.losses if loss is not None), None)) for s in own]
        seen = [(source, loss) for source, loss in firsts if loss is not None]
        tries: dict[str, int] = {}
        successes: dict[str, int] = {}
        before: list[float] = []
        for source, loss in seen:
            rank = bisect.bisect_right(before, loss)
            tries[source] = tries.get(source, 0) + 1
            successes[source] = successes.get(source, 0) + (math.isfinite(loss) and rank <= len(before) * _SUCCESS)
            before.insert(rank, loss)
        weights: dict[Source, float] = {}
        for source in self._open(standings, len(seen)):
            credit, given = _BELIEF[source]
            rate = (credit + successes.get(source, 0)) / (given + tries.get(source, 0))
            weights[source] = rate**_SHARPNESS
        if "model" in weights:
            enough = _RESULTS_PER_DIMENSION * len(self._problem.space.dimensions)
            weights["model"] *= min(1.0, len(seen) / enough) ** 2
        if "earlier" in weights:
            weights["earlier"] *= self._agreement(own)
        shares = np.array(list(weights.values()))
        return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]

    def _open(self, standings: Sequence[Standing], num_seen: int) -> list[Source]:
        """The sources that have something to offer."""
        found: list[Source] = ["prior"]
        if self._problem.space.has_priors:
            found.append("uniform")
        if num_seen:
            found += ["nearby", "model"]
        if self._num_used(standings) < len(self._more):
            found.append("earlier")
        return found

    def _agreement(self, own: Sequence[Standing]) -> float:
        """How well the earlier studies tell the order of what was seen here, in [0, 1]; 1 while that is not known."""
        rungs = [next((k for k, loss in enumerate(s.losses) if loss is not None), None) for s in own]
        first = [Observation(s.hyperparameters, s.loss(k)) for s, k in zip(own, rungs, strict=True) if k is not None]
        found = agreement(self._problem.space, self._problem.earlier, first[-_NUM_COMPARED:], regrets=self._regret)
        return 1.0 if found is None else max(found, 0.0)

    def _regret(self, point: Hyperparameters) -> float:
        """What the earlier studies say of a point; they never change."""
        key = repr(point)
        if key not in self._regrets:
            self._regrets[key] = predicted_regrets(self._problem.space, self._problem.earlier, [point])[0]
        return self._regrets[key]

    def _num_used(self, standings: Sequence[Standing]) -> int:
        return sum(_source(standing) == "earlier" for standing in standings)

    def _from(
        self,
        source: Source,
        standings: Sequence[Standing],
        model: FidelityModel | None,
        active: Sequence[Hyperparameters],
        rng: np.random.Generator,
    ) -> Hyperparameters:
        space = self._problem.space
        if model is not None:
            return self._promising(standings, model, active, rng)
        if source == "nearby":
            leaders = _leaders(standings)
            leader = leaders[int(rng.integers(len(leaders)))]
            return moved(space, leader.hyperparameters, rng, count=1)[0]
        if source == "earlier":
            return self._more[self._num_used(standings)]
        if source == "uniform":
            return self._uniform.sample(rng)
        return drawn(space, rng, count=1)[0]

    def _promising(
        self,
        standings: Sequence[Standing],
        model: FidelityModel,
        active: Sequence[Hyperparameters],
        rng: np.random.Generator,
    ) -> Hyperparameters:
        space = self._problem.space
        leaders = _leaders(standings)
        ends, _ = model.predict([standing.hyperparameters for standing in leaders])
        candidates: list[Hyperparameters] = [*drawn(space, rng, count=_NUM_DRAWN)]
        if space.has_priors:
            candidates += drawn(self._uniform, rng, count=_NUM_UNIFORM)
        for k in np.argsort(ends, kind="stable")[:_NUM_MOVED_FROM]:
            candidates += moved(space, leaders[k].hyperparameters, rng, count=_NUM_MOVED)
        candidates = [point for point in candidates if self._problem.is_feasible(point)] or candidates[:1]
        means, deviations = model.predict(candidates, pending=active)
        return candidates[int(np.argmax(expected_improvement(means, deviations, float(ends.min()))))]


def _source(standing: Standing) -> str:
    return standing.run.origin.partition(":")[2]


def _leaders(standings: Sequence[Standing]) -> list[Standing]:
    """The best eighth at each rung, at least one, those of higher rungs first."""
    leaders: dict[str, Standing] = {}
    for rung in reversed(range(len(standings[0].losses))):
        there = [s for s in standings if s.losses[rung] is not None and math.isfinite(s.loss(rung))]
        there.sort(key=lambda s: (s.loss(rung), s.run.number))
        for standing in there[: max(1, len(there) // _LEADERS)]:
            leaders.setdefault(standing.run.id, standing)
    return list(leaders.values()) or list(standings)


def _race(space: Space) -> list[Hyperparameters]:
    """Three learning rates, all else at its default."""
    raced = find_raced(space, None)
    dimension = space.dimensions[raced]
    if isinstance(dimension, Choice):
        return [default_point(space, raced, default_value(dimension))]
    units: Sequence[float]
    if dimension.prior is None or not dimension.log:
        units = _RACE_UNITS if dimension.prior is None else (dimension.unit(dimension.prior), *_RACE_UNITS[1:])
    else:
        centre, width = dimension.unit(dimension.prior), math.log(dimension.high / dimension.low) / _DECADE
        units = tuple(min(max(centre + decades / width, 0.0), 1.0) for decades in _RACE_DECADES)
    return [default_point(space, raced, value) for value in dict.fromkeys(map(dimension.at, units))]


def _without_prior(dimension: Dimension) -> Dimension:
    return dataclasses.replace(dimension, prior=None)
