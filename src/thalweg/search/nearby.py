"""Candidates for a model to choose among: draws from the priors, and points near a given one."""

from __future__ import annotations

import numpy as np

from thalweg.space import Choice, Hyperparameters, Space, Value

_WIDTHS = (0.02, 0.1, 0.3)
"""Standard deviations of a move, as shares of a dimension's range: one is drawn per point."""
_SHARE_MOVED = 0.5
_SHARE_SWITCHED = 0.2


def drawn(space: Space, rng: np.random.Generator, *, count: int) -> list[dict[str, Value]]:
    """Points from the priors."""
    return [space.sample(rng) for _ in range(count)]


def moved(space: Space, point: Hyperparameters, rng: np.random.Generator, *, count: int) -> list[dict[str, Value]]:
    """Points in which some of the hyperparameters differ from the given ones.

    Numbers are moved by a normal draw on their own scale and cut to their range; choices are drawn again with a
    probability of 20%. What the given point lacks, or has outside the space, is drawn from its prior.
    """
    return [_moved(space, point, rng) for _ in range(count)]


def _moved(space: Space, point: Hyperparameters, rng: np.random.Generator) -> dict[str, Value]:
    width = float(rng.choice(_WIDTHS))
    chosen: dict[str, Value] = {}
    for name in space.ordered:
        if not space.is_active(name, chosen):
            continue
        dimension = space.dimensions[name]
        value = point.get(name)
        if value is None or not dimension.contains(value):
            chosen[name] = dimension.sample(rng, weight=space.prior_weight(name))
        elif isinstance(dimension, Choice):
            chosen[name] = dimension.sample(rng) if rng.random() < _SHARE_SWITCHED else value
        elif rng.random() < _SHARE_MOVED:
            chosen[name] = dimension.at(min(max(dimension.unit(value) + float(rng.normal(0, width)), 0.0), 1.0))
        else:
            chosen[name] = value
    return space.complete(chosen)
