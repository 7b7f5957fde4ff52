"""Hyperparameters as points of a metric space: what a Gaussian process over them compares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thalweg.space import Choice, Dimension, Hyperparameters, Space

FloatArray = NDArray[np.float64]

_OUTSIDE = 0.5
"""How far beyond its range, as a share of it, a value is still told apart from the range's end."""


class Points:
    """Turns hyperparameters into vectors.

    A number becomes its share of the dimension's range (of its logarithm where it is logarithmic). A choice becomes one
    column per option, such that two different options are at a distance of 1. A dimension that a point does not have,
    because its condition does not hold, stands in the middle of its range: its parent's columns tell the two kinds of
    points apart. Fixed values are left out.

    Args:
        space: what is searched.

    >>> points = Points(Space.parse({"lr": {"log": [1e-4, 1e-2]}, "optimizer": {"choice": ["adam", "sgd"]}}))
    >>> points.encode([{"lr": 1e-3, "optimizer": "sgd"}]).round(3)
    array([[0.5  , 0.   , 0.707]])
    """

    def __init__(self, space: Space) -> None:
        self._dimensions = dict(space.dimensions)
        sizes = [len(d.options) if isinstance(d, Choice) else 1 for d in self._dimensions.values()]
        self.num_dimensions = len(sizes)
        self.owner: NDArray[np.int64] = np.repeat(np.arange(len(sizes)), sizes)
        """Per column, the dimension that it belongs to, in the space's order."""

    def encode(self, points: Sequence[Hyperparameters]) -> FloatArray:
        """A row per point, a column per number and per option. Values outside the space are allowed."""
        rows = [[x for name, d in self._dimensions.items() for x in _columns(d, point.get(name))] for point in points]
        return np.array(rows, dtype=np.float64).reshape(len(points), self.owner.size)


def _columns(dimension: Dimension, value: object) -> list[float]:
    if isinstance(dimension, Choice):
        return [math.sqrt(0.5) * (type(o) is type(value) and o == value) for o in dimension.options]
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return [0.5]
    low, high = float(dimension.low), float(dimension.high)
    if dimension.log:
        if value <= 0:
            return [-_OUTSIDE]
        unit = math.log(value / low) / math.log(high / low)
    else:
        unit = (value - low) / (high - low)
    return [min(max(unit, -_OUTSIDE), 1 + _OUTSIDE)]
