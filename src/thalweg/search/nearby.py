"""Candidates for a model to choose among: draws from the priors, and points near a given one."""

from __future__ import annotations

import numpy as np

from thalweg.space import PRIOR_WEIGHT, PRIOR_WIDTH, Choice, Dimension, Hyperparameters, Space, Value

_WIDTHS = (0.02, 0.1, 0.3)
"""Standard deviations of a move, as shares of a dimension's range: one is drawn per point."""
_SHARE_MOVED = 0.5
_SHARE_SWITCHED = 0.2


def drawn(space: Space, rng: np.random.Generator, *, count: int) -> list[dict[str, Value]]:
    """Points from the priors, distributed as `Space.sample` draws them, and a hundred times as fast.

    A prior and the uniform share beside it are drawn from directly, instead of by the inverse of what both add up to.
    """
    return [_drawn(space, rng) for _ in range(count)]


def moved(space: Space, point: Hyperparameters, rng: np.random.Generator, *, count: int) -> list[dict[str, Value]]:
    """Points in which some of the hyperparameters differ from the given ones.

    Numbers are moved by a normal draw on their own scale and cut to their range; choices are drawn again with a
    probability of 20%. What the given point lacks, or has outside the space, is drawn from its prior.
    """
    return [_moved(space, point, rng) for _ in range(count)]


def _drawn(space: Space, rng: np.random.Generator) -> dict[str, Value]:
    chosen: dict[str, Value] = {}
    for name in space.ordered:
        if space.is_active(name, chosen):
            chosen[name] = _value(space.dimensions[name], rng)
    return space.complete(chosen)


def _value(dimension: Dimension, rng: np.random.Generator) -> Value:
    if isinstance(dimension, Choice):
        return dimension.sample(rng)
    prior = dimension.prior
    if prior is None or rng.random() >= PRIOR_WEIGHT[dimension.confidence]:
        return dimension.at(float(rng.random()))
    centre = dimension.unit(prior)
    while True:
        unit = float(rng.normal(centre, PRIOR_WIDTH[dimension.confidence]))
        if 0.0 <= unit <= 1.0:
            return dimension.at(unit)


def _moved(space: Space, point: Hyperparameters, rng: np.random.Generator) -> dict[str, Value]:
    width = float(rng.choice(_WIDTHS))
    chosen: dict[str, Value] = {}
    for name in space.ordered:
        if not space.is_active(name, chosen):
            continue
        dimension = space.dimensions[name]
        value = point.get(name)
        if value is None or not dimension.contains(value):
            chosen[name] = _value(dimension, rng)
        elif isinstance(dimension, Choice):
            chosen[name] = dimension.sample(rng) if rng.random() < _SHARE_SWITCHED else value
        elif rng.random() < _SHARE_MOVED:
            chosen[name] = dimension.at(min(max(dimension.unit(value) + float(rng.normal(0, width)), 0.0), 1.0))
        else:
            chosen[name] = value
    return space.complete(chosen)
