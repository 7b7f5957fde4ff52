"""Points to begin with, learnt from earlier studies, and how well what those say holds in the study at hand.

Losses of two studies are not comparable, so each result counts as its *regret* within its own study: 0 for the study's
best, 1 for its median and whatever is worse. What a study says of a point that it has not tried is read off the results
nearest to it.

Earlier studies may have searched another space. A point of theirs is taken into the new one so: what the new space
fixes is as it is fixed; a number beyond its range moves to the range's nearest end (and counts for what the studies say
of that end); an option that the new space does not have drops the point; a dimension that the point lacks takes its
prior or, without one, its middle.

Source: greedy portfolios are those of Wistuba et al. 2015 (Sequential model-free hyperparameter tuning) and of Metz et
al. 2020 (TaskSet), arXiv:2002.11887.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from thalweg.search.strategy import Earlier, Observation
from thalweg.space import Choice, Dimension, Float, Hyperparameters, Integer, Space, Value

_Floats = npt.NDArray[np.float64]

_NUM_CANDIDATES = 100
"""Of each study so many of its best points are tried for the portfolio."""

_NUM_NEIGHBOURS = 5
"""Results of a study that say what it thinks of a point nearby."""

_REACH = 0.1
"""At this distance, a share of the range per dimension, a result counts as much as knowing nothing."""

_MOST_WEIGHT = 4.0
"""What a result at the very point counts for, beside 1 for knowing nothing: it holds chance, and of another task."""

_UNLIKE = 0.5
"""Distance between two options without a scale, and between a value and none."""

_MIN_OBSERVATIONS = 3
"""Two results are in the predicted order by chance half of the time."""


def portfolio(space: Space, earlier: Sequence[Earlier], count: int) -> list[Hyperparameters]:
    """Points that together did well in the earlier studies, the first the best for all of them on average.

    Each next one lowers the most the mean, over the studies, of the lowest regret among those chosen. Once none lowers
    it any more, the choice begins again among the rest.

    Args:
        space: of the new study; the points are in it.
        earlier: a study that has no finite result says nothing and is left out.
        count: how many at most; there are fewer where the studies have fewer that fit the space.
    """
    known = _informative(earlier)
    candidates = _candidates(space, known)
    if not candidates or count <= 0:
        return []
    regrets = _predicted(space, known, candidates)
    chosen: list[int] = []
    lowest = np.ones(len(known))
    free = np.ones(len(candidates), dtype=bool)
    while len(chosen) < min(count, len(candidates)):
        means = np.where(free, np.minimum(regrets, lowest).mean(axis=1), np.inf)
        best = int(np.argmin(means))
        if means[best] >= lowest.mean() - 1e-12 and not np.all(lowest == 1.0):
            lowest = np.ones(len(known))
            continue
        chosen.append(best)
        free[best] = False
        lowest = np.minimum(lowest, regrets[best])
    return [candidates[index] for index in chosen]


def predicted_regrets(space: Space, earlier: Sequence[Earlier], points: Sequence[Hyperparameters]) -> list[float]:
    """What the earlier studies say of points of the new space: the mean of their regrets, in [0, 1].

    Returns:
        A number per point; all equal where no study says anything.
    """
    known = _informative(earlier)
    if not known or not points:
        return [1.0] * len(points)
    return [float(value) for value in _predicted(space, known, points).mean(axis=1)]


def agreement(
    space: Space,
    earlier: Sequence[Earlier],
    observations: Sequence[Observation],
    *,
    regrets: Callable[[Hyperparameters], float] | None = None,
) -> float | None:
    """How well the earlier studies' order predicts the order that this one has seen so far.

    Args:
        space: of this study.
        observations: its results; those that lack a dimension of the space are left out.
        regrets: what the earlier studies say of a point (`predicted_regrets`), where that was worked out already.
    Returns:
        Spearman's rank correlation of the predicted regrets with the losses, in [-1, 1]: 1 where the order is the
        same. None with fewer than 3 results, or where either side does not tell them apart.
    """
    inside = [seen for seen in observations if _mapped(space, seen.hyperparameters, complete=False) is not None]
    if len(inside) < _MIN_OBSERVATIONS:
        return None
    points = [seen.hyperparameters for seen in inside]
    predicted = _ranks(predicted_regrets(space, earlier, points) if regrets is None else [*map(regrets, points)])
    losses = _ranks([seen.loss for seen in inside])
    if np.ptp(predicted) == 0 or np.ptp(losses) == 0:
        return None
    return float(np.corrcoef(predicted, losses)[0, 1])


def _informative(earlier: Sequence[Earlier]) -> list[Earlier]:
    return [study for study in earlier if any(math.isfinite(loss) for _, loss in study.results)]


def _candidates(space: Space, earlier: Sequence[Earlier]) -> list[Hyperparameters]:
    """Each study's best points, in the new space, each once."""
    # By type as well: to Python True is 1.
    found: dict[tuple[tuple[str, type, Value], ...], Hyperparameters] = {}
    for study in earlier:
        finite = [(loss, number) for number, (_, loss) in enumerate(study.results) if math.isfinite(loss)]
        fitting = (_mapped(space, study.results[number][0]) for _, number in sorted(finite))
        taken = 0
        for point in fitting:
            if point is None:
                continue
            found.setdefault(tuple((name, type(value), value) for name, value in point.items()), point)
            taken += 1
            if taken == _NUM_CANDIDATES:
                break
    return list(found.values())


def _mapped(space: Space, given: Hyperparameters, *, complete: bool = True) -> Hyperparameters | None:
    """A point taken into the space, or None where it has no place there.

    Args:
        complete: whether what the point lacks is filled in; else it has no place.
    """
    chosen: dict[str, Value] = {}
    shared = False
    for name in space.ordered:
        if not space.is_active(name, chosen):
            continue
        dimension = space.dimensions[name]
        if name not in given and not complete:
            return None
        value = _inside(dimension, given[name]) if name in given else _unasked(dimension)
        if value is None:
            return None
        shared = shared or name in given
        chosen[name] = value
    return space.complete(chosen) if shared else None


def _inside(dimension: Dimension, value: Value) -> Value | None:
    """The dimension's value nearest to one; None where there is no such thing."""
    if isinstance(dimension, Choice):
        if dimension.contains(value):
            return value
        scale = _scale(dimension)
        if scale is None or not _is_number(value):
            return None
        place = _place(dimension, value)
        return min(dimension.options, key=lambda option: abs(_place(dimension, option) - place))
    if not _is_number(value):
        return None
    assert isinstance(value, int | float)
    clipped = min(max(value, dimension.low), dimension.high)
    return round(clipped) if isinstance(dimension, Integer) else float(clipped)


def _unasked(dimension: Dimension) -> Value:
    if dimension.prior is not None:
        return dimension.prior
    return dimension.options[0] if isinstance(dimension, Choice) else dimension.at(0.5)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _scale(dimension: Choice) -> tuple[float, float, bool] | None:
    """The ends of options that are all numbers, and whether they are compared by their ratios."""
    if len(dimension.options) < 2 or not all(_is_number(option) for option in dimension.options):
        return None
    numbers = [float(option) for option in dimension.options]
    return min(numbers), max(numbers), min(numbers) > 0


def _place(dimension: Dimension, value: Value) -> float:
    """Where a number is on the dimension's range: 0 to 1 inside, beyond that outside."""
    if isinstance(dimension, Float | Integer):
        low, high, log = float(dimension.low), float(dimension.high), dimension.log
    else:
        scale = _scale(dimension)
        assert scale is not None
        low, high, log = scale
    number = float(value)
    if not log:
        return (number - low) / (high - low)
    if number <= 0:
        return -1.0
    return math.log(number / low) / math.log(high / low)


def _coordinates(space: Space, name: str, points: Sequence[Hyperparameters]) -> _Floats:
    """Columns in which points are as far apart as they differ in one dimension."""
    dimension = space.dimensions[name]
    values = [point.get(name) for point in points]
    if isinstance(dimension, Choice) and _scale(dimension) is None:
        kinds = [(type(value), value) for value in values]
        columns = list(dict.fromkeys([*((type(option), option) for option in dimension.options), *kinds]))
        return np.array([[_UNLIKE / math.sqrt(2) * (kind == column) for column in columns] for kind in kinds])
    places = [_place(dimension, value) if value is not None and _is_number(value) else None for value in values]
    rows = [[0.5, _UNLIKE] if place is None else [min(max(place, -1.0), 2.0), 0.0] for place in places]
    return np.array(rows, dtype=np.float64)


def _predicted(space: Space, earlier: Sequence[Earlier], points: Sequence[Hyperparameters]) -> _Floats:
    """Regrets by point and study."""
    return np.stack([_predicted_by(space, study, points) for study in earlier], axis=1)


def _predicted_by(space: Space, study: Earlier, points: Sequence[Hyperparameters]) -> _Floats:
    """A mean of the nearest results' regrets and of the study's mean regret, weighted by the distance's square."""
    regrets = _regrets([loss for _, loss in study.results])
    tried = [hyperparameters for hyperparameters, _ in study.results]
    names = [name for name in space.dimensions if any(name in point for point in tried)]
    if not names:
        return np.full(len(points), float(regrets.mean()))
    columns = np.hstack([_coordinates(space, name, [*points, *tried]) for name in names])
    asked, known = columns[: len(points)], columns[len(points) :]
    squares = np.square(asked).sum(axis=1)[:, None] + np.square(known).sum(axis=1)[None] - 2 * asked @ known.T
    squares = np.maximum(squares, 0.0) / len(names)
    near = np.argsort(squares, axis=1, kind="stable")[:, :_NUM_NEIGHBOURS]
    weights = np.minimum(_REACH**2 / np.maximum(np.take_along_axis(squares, near, axis=1), 1e-12), _MOST_WEIGHT)
    total = weights.sum(axis=1) + 1.0
    estimate: _Floats = ((weights * regrets[near]).sum(axis=1) + regrets.mean()) / total
    return estimate


def _regrets(losses: Sequence[float]) -> _Floats:
    """Losses of one study, from 0 for the best to 1 for the median and all that is worse."""
    values = np.array(losses, dtype=np.float64)
    values[np.isnan(values)] = np.inf
    finite = values[np.isfinite(values)]
    best = float(finite.min())
    scale = float(np.median(finite)) - best or float(finite.max()) - best
    if scale == 0:
        return np.where(np.isfinite(values), 0.0, 1.0)
    return np.clip((values - best) / scale, 0.0, 1.0)


def _ranks(values: Sequence[float]) -> _Floats:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(np.array(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: _Floats = ends - (counts + 1) / 2
    return shared[inverse]
