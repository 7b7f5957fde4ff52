"""Draws from the prior, from all of the space, and around the best point found, in shares that the results decide."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from thalweg.dimensions import same
from thalweg.errors import ConfigError
from thalweg.search.startup import NUM_STARTUP, startup_point
from thalweg.search.strategy import Observation, Problem
from thalweg.space import Choice, Dimension, Hyperparameters, Value

MUTATION_RATE = 0.5
"""Probability that a hyperparameter of the best point is changed."""

_NUM_TRIES = 16


class PriorBand:
    """PriorBand's sampling: each root is a uniform draw, one from the priors, or a perturbation of the best point.

    **Shares.** A root that begins at rung r is drawn uniformly with probability `1 / (1 + eta ** r)`: half of the
    cheap ones, and few of those that begin at a high rung, where a bad point costs most. The rest of the probability
    belongs to the priors, until there are results to judge them by: max(4, `eta`) of them, one finite. From then on
    it is split between the priors and the best point's surroundings by how well each explains the results: by the
    density that it gives to the best 1 / `eta` of the points, each weighted by its place (k for the best of k, 1 for
    the last). So a good prior keeps its share, and a wrong one loses it.

    **Draws.** From a range's prior: normal, with the width of its confidence, cut to the range. From a choice's: its
    option with the probability of its confidence, else any. Around the best point: each hyperparameter keeps its
    value with probability 1/2; else a range's is normal around it, with a deviation of a quarter of the range, and a
    choice's is another option. Dimensions without a prior are drawn uniformly. A point that is known is drawn
    again.

    The sampler judges by the results that its strategy gives it: those of one rung (see `Halving`). The first point is
    that of the priors. Works with every strategy that takes a sampler; one whose roots begin at different rungs asks
    `at_rung`.

    Args:
        problem: what is searched.
        eta: the strategy's own, where it has one: one option sets both. At least 2.
    Raises:
        ConfigError: if `eta` is below 2.
    Source: Mallik et al. 2023, "PriorBand: practical hyperparameter optimization in the age of deep learning",
        arXiv:2306.12370. There the best point is of any rung; here of the rung that is judged by, as a sampler sees
        one.
    """

    num_points: int | None = None

    def __init__(self, problem: Problem, *, eta: int = 3) -> None:
        if eta < 2:
            raise ConfigError(f"strategy.eta = {eta} must be at least 2; 3 is usual")
        self._problem = problem
        self._eta = eta
        self._rung = 0

    def at_rung(self, rung: int) -> PriorBand:
        """The sampler of roots that begin at a rung, counted from 0 at the cheapest."""
        there = PriorBand(self._problem, eta=self._eta)
        there._rung = rung
        return there

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        known = [*(seen.hyperparameters for seen in observations), *pending]
        rng = self._problem.rng(index)
        if index == 0 and (first := startup_point(self._problem, 0)) not in known:
            return first
        usable = [seen for seen in observations if self._problem.space.holds(seen.hyperparameters)]
        best = self._best(usable)
        shares = self.shares(usable)
        for _ in range(_NUM_TRIES):
            source = rng.choice(3, p=shares)
            point = self._around(best[0], rng) if source == 2 else self._drawn(rng, 0.0 if source == 0 else None)
            if point not in known:
                break
        return point

    def shares(self, observations: Sequence[Observation]) -> tuple[float, float, float]:
        """Probabilities of a uniform draw, of one from the priors, and of one around the best point.

        Args:
            observations: points of the space.
        """
        uniform = 1 / (1 + self._eta**self._rung)
        best = self._best(observations)
        if len(observations) < max(NUM_STARTUP, self._eta) or not best:
            return uniform, 1 - uniform, 0.0
        weights = range(len(best), 0, -1)
        believed = self._problem.space.dimensions
        around = {name: _centred(dimension, best[0].get(name)) for name, dimension in believed.items()}
        by_prior, by_best = (
            sum(weight * _density(dimensions, point) for weight, point in zip(weights, best, strict=True))
            for dimensions in (believed, around)
        )
        prior = (1 - uniform) * by_prior / (by_prior + by_best)
        return uniform, prior, 1 - uniform - prior

    def _best(self, observations: Sequence[Observation]) -> list[Hyperparameters]:
        finite = [seen for seen in observations if math.isfinite(seen.loss)]
        order = sorted(finite, key=lambda seen: seen.loss)
        return [seen.hyperparameters for seen in order[: max(1, len(observations) // self._eta)]]

    def _drawn(self, rng: np.random.Generator, weight: float | None) -> dict[str, Value]:
        space = self._problem.space
        chosen: dict[str, Value] = {}
        for name in space.ordered:
            if space.is_active(name, chosen):
                dimension = space.dimensions[name]
                follow = _weight(dimension) if weight is None else weight
                chosen[name] = dimension.sample(rng, weight=follow)
        return space.complete(chosen)

    def _around(self, centre: Hyperparameters, rng: np.random.Generator) -> dict[str, Value]:
        space = self._problem.space
        chosen: dict[str, Value] = {}
        for name in space.ordered:
            if not space.is_active(name, chosen):
                continue
            dimension = space.dimensions[name]
            if name not in centre or not dimension.contains(centre[name]):
                chosen[name] = dimension.sample(rng, weight=_weight(dimension))
            elif rng.random() >= MUTATION_RATE:
                chosen[name] = centre[name]
            else:
                chosen[name] = _mutated(dimension, centre[name], rng)
        return space.complete(chosen)


def _density(dimensions: Mapping[str, Dimension], point: Hyperparameters) -> float:
    """Of a draw by the dimensions' priors, relative to a uniform draw."""
    return math.prod(
        dimension.prior_density(point[name], weight=_weight(dimension))
        for name, dimension in dimensions.items()
        if name in point and dimension.contains(point[name])
    )


def _mutated(dimension: Dimension, value: Value, rng: np.random.Generator) -> Value:
    if not isinstance(dimension, Choice):
        return _centred(dimension, value).sample(rng, weight=1.0)
    others = [option for option in dimension.options if not same(option, value)]
    return others[int(rng.integers(len(others)))] if others else value


def _centred(dimension: Dimension, value: Value | None) -> Dimension:
    """A dimension with its prior elsewhere, of medium confidence: a quarter of the range."""
    return dataclasses.replace(dimension, prior=value, confidence="medium")


def _weight(dimension: Dimension) -> float | None:
    # A range's prior is drawn from as it is, as there are uniform draws besides; a choice's would leave one option.
    return None if isinstance(dimension, Choice) else 1.0
