"""Learning-rate races: four rates by halving, then four neighbours of the winner, and so on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thalweg.errors import ConfigError, nearest
from thalweg.search.brackets import Bracket, Brackets
from thalweg.search.ladder import Standing
from thalweg.search.rungs import check_max_roots, make_ladder, shares
from thalweg.search.startup import new_point
from thalweg.search.strategy import Problem
from thalweg.space import PRIOR_WIDTH, Choice, Dimension, Float, Hyperparameters, Integer, Space, Value

NAMES = ("lr", "learning_rate", "peak_lr", "max_lr", "base_lr")
"""What a learning rate is called; the first of these that the space has is raced."""

NUM_SEATS = 4
"""Runs in a race."""

_OFFSETS = (-0.5, 0.5, 1.5, -1.5)
"""Of the first race's rates from the prior, in steps."""
_STEP_DECADES = 0.5
"""Between neighbouring rates of the first race: a factor of the square root of 10."""
_LINEAR_STEP = 1 / 6
"""The same where the range has no ratios, as a share of it."""
_RATE_SPREAD = 0.5
"""Standard deviation of a later race's rate from the winner's, in steps of the first race."""
_CHANGED = 0.5
"""Probability that a neighbour differs from the winner in another dimension."""
_SHRINK = 0.9
"""The spread of each race, in that of the one before."""
_NARROWEST = 0.3
"""Where the spread stops shrinking."""


class LrRace(Brackets):
    """Race four learning rates by halving; then, while budget is left, four neighbours of what is best so far.

    **The first race** varies the rate alone. Where it has a prior: four rates a factor of the square root of 10 apart,
    two on each side of the prior, as one moved into the range where they would leave it, and closer where the range is
    shorter. Without a prior: the middles of the four quarters of the range, on its scale. Everything else has its
    prior; without one, the middle of its range, the middle option where all are numbers, or else the first option.

    **A race** is synchronous halving: all four are trained to the first rung, the better two to the second, the best
    to its horizon, each from its checkpoint. With the rungs at 1/4, 1/2 and 1, it takes two whole runs. What becomes
    of lost runs, idle workers and the end is in `Brackets`.

    **Later races** are held among neighbours of the incumbent: of all runs in the space, hand-made ones and the
    baseline included, the best at the highest rung that any has reached. The first of the four differs from it in the
    rate only, by half a step of the first race (one standard deviation, on the rate's scale). The others may differ in
    every other dimension, too, each with probability 1/2, by the width of its prior's confidence (a quarter of the
    range where nothing is said); a choice is drawn anew. These spreads shrink by 0.9 with each race, down to 0.3. What
    lies outside a range is moved to its end. A point that the constraints forbid, or that is there already, is
    replaced by a draw from the priors.

    **What is raced.** `dimension`; else what is called `lr`, `learning_rate`, `peak_lr`, `max_lr` or `base_lr`; else
    the first dimension that is searched by its logarithm, the first with a range, or the first of all. Of a choice, up
    to four options are raced. Where the dimension exists under a condition only, the first race keeps that condition.

    Args:
        problem: what is searched.
        name: the actions' origin.
        dimension: the name of what is raced, or None to find it.
        num_rungs, first_fraction, rungs: where the rungs are, as in `halving` with `eta = 2`.
        max_roots: most configurations to begin, or None for as many as the budget allows.
        trunk: score the rungs on branches, as in `halving`.
        shortened: score the rungs on runs of their own, whose schedules end there, as in `halving`.
    Raises:
        ConfigError: `dimension` is not searched, an option is out of its range, two say the same, or the trainer
            cannot do what they ask for.
    """

    def __init__(
        self,
        problem: Problem,
        name: str,
        *,
        dimension: str | None = None,
        num_rungs: int | None = None,
        first_fraction: float | None = None,
        rungs: list[float] | None = None,
        max_roots: int | None = None,
        trunk: bool = False,
        shortened: bool = False,
    ) -> None:
        ends = shares(eta=2, num_rungs=num_rungs, first_fraction=first_fraction, rungs=rungs)
        check_max_roots(max_roots)
        ladder = make_ladder(problem, ends, name, trunk=trunk, shortened=shortened)
        sizes = (*(max(1, NUM_SEATS // 2**k) for k in range(len(ends) - 1)), 1)
        super().__init__(ladder, Racers(problem, dimension), [Bracket(0, sizes)], most=max_roots)


class Racers:
    """Who takes part in the races; see `LrRace`.

    Args:
        problem: what is searched.
        dimension: the name of what is raced, or None to find it.
    """

    def __init__(self, problem: Problem, dimension: str | None) -> None:
        self._problem = problem
        self._raced = find_raced(problem.space, dimension)
        grid = _grid(problem.space.dimensions[self._raced])
        self._first = [default_point(problem.space, self._raced, rate) for rate in grid]
        self._default = default_point(problem.space, self._raced, default_value(problem.space.dimensions[self._raced]))

    def __call__(self, standings: Sequence[Standing], index: int, count: int) -> list[Hyperparameters]:
        """See `brackets.Propose`."""
        incumbent = self._incumbent(standings)
        known: list[Hyperparameters] = [standing.hyperparameters for standing in standings]
        for seat in range(index, index + count):
            point = self._first[seat] if seat < len(self._first) else self._neighbour(incumbent, seat)
            if not self._problem.is_feasible(point):
                point = self._problem.sample(self._problem.rng(seat).spawn(2)[1])
            known.append(new_point(self._problem, point, known, seat))
        return known[len(standings) :]

    def _incumbent(self, standings: Sequence[Standing]) -> Hyperparameters:
        """The best at the highest rung that any run of the space has reached; before there is one, the default."""
        space = self._problem.space
        scored = [s for s in standings if not s.given_up and s.rung >= 0 and math.isfinite(s.loss(s.rung))]
        inside = [s for s in scored if _lies_in(space, s.hyperparameters)]
        best = min(inside, key=lambda s: (-s.rung, s.loss(s.rung), s.run.number), default=None)
        return self._default if best is None else best.hyperparameters

    def _neighbour(self, incumbent: Hyperparameters, seat: int) -> Hyperparameters:
        space, rng = self._problem.space, self._problem.rng(seat)
        race = max(1, seat // NUM_SEATS)
        spread = max(_NARROWEST, _SHRINK ** (race - 1))
        rate_alone = seat % NUM_SEATS == 0
        point: dict[str, Value] = {}
        for name in space.ordered:
            if not space.is_active(name, point):
                continue
            dimension = space.dimensions[name]
            # A dimension that exists here and not in the incumbent begins at its default.
            value = incumbent[name] if name in incumbent else default_value(dimension)
            if name == self._raced:
                value = _moved(dimension, value, spread * _RATE_SPREAD * _step(dimension), rng)
            elif not rate_alone and rng.random() < _CHANGED:
                value = _moved(dimension, value, spread * PRIOR_WIDTH[dimension.confidence], rng)
            point[name] = value
        return space.complete(point)


def find_raced(space: Space, dimension: str | None) -> str:
    if dimension is not None:
        if dimension not in space.dimensions:
            raise ConfigError(
                f"strategy.dimension = {dimension!r} is not searched. {nearest(dimension, space.dimensions)}"
            )
        return dimension
    ranges = {n: d for n, d in space.dimensions.items() if not isinstance(d, Choice) and not d.when}
    logarithmic = [name for name, d in ranges.items() if d.log]
    return [*(name for name in NAMES if name in space.dimensions), *logarithmic, *ranges, *space.dimensions][0]


def default_point(space: Space, raced: str, rate: Value) -> Hyperparameters:
    """`raced` at this value, with those choices under which it exists, and everything else at its default."""
    conditions: dict[str, Value] = {raced: rate}
    waiting = [raced]
    while waiting:
        when = space.dimensions[waiting.pop()].when
        conditions |= when
        waiting += when
    chosen: dict[str, Value] = {}
    for name in space.ordered:
        if space.is_active(name, chosen):
            chosen[name] = conditions[name] if name in conditions else default_value(space.dimensions[name])
    return space.complete(chosen)


def default_value(dimension: Dimension) -> Value:
    if dimension.prior is not None:
        return dimension.prior
    if isinstance(dimension, Choice) and not all(type(option) in (int, float) for option in dimension.options):
        return dimension.options[0]
    return dimension.at(0.5)


def _step(dimension: Dimension) -> float:
    """Between neighbouring rates of the first race, as a share of the range."""
    if isinstance(dimension, Choice) or not dimension.log:
        return _LINEAR_STEP
    return min(_STEP_DECADES / math.log10(dimension.high / dimension.low), 1 / (NUM_SEATS - 1))


def _grid(dimension: Dimension) -> list[Value]:
    """The first race's rates; fewer than four where the dimension has fewer values."""
    if isinstance(dimension, Choice):
        others = [option for option in dimension.options if option is not dimension.prior]
        return [*([] if dimension.prior is None else [dimension.prior]), *others][:NUM_SEATS]
    if dimension.prior is None:
        units = [(seat + 0.5) / NUM_SEATS for seat in range(NUM_SEATS)]
        return list(dict.fromkeys(dimension.at(unit) for unit in units))
    return _around(dimension, float(dimension.prior))


def _around(dimension: Float | Integer, prior: float) -> list[Value]:
    """Four rates around a prior, moved into the range as one."""
    low, high = float(dimension.low), float(dimension.high)
    by_ratio = low > 0 or (low == 0 and prior > high * 10**-3)
    if by_ratio:
        low = max(low, high * 10**-4)
        low, high, prior = math.log10(low), math.log10(high), math.log10(prior)
        step = min(_STEP_DECADES, (high - low) / (NUM_SEATS - 1))
    else:
        step = _LINEAR_STEP * (high - low)
    places = [prior + offset * step for offset in _OFFSETS]
    shift = max(0.0, low - min(places)) - max(0.0, max(places) - high)
    numbers = [10 ** (place + shift) if by_ratio else place + shift for place in places]
    return list(dict.fromkeys(_within(dimension, number) for number in numbers))


def _within(dimension: Float | Integer, number: float) -> Value:
    clipped = min(max(number, dimension.low), dimension.high)
    return round(clipped) if isinstance(dimension, Integer) else float(clipped)


def _moved(dimension: Dimension, value: Value, spread: float, rng: np.random.Generator) -> Value:
    if isinstance(dimension, Choice):
        return dimension.sample(rng)
    unit = dimension.unit(value) + float(rng.normal(0.0, spread))
    return dimension.at(min(max(unit, 0.0), 1.0))


def _lies_in(space: Space, hyperparameters: Hyperparameters) -> bool:
    try:
        space.check(hyperparameters)
    except ConfigError:
        return False
    return True
