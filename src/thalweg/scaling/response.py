"""What training would give for any hyperparameters: made up, from a table, or learnt from runs.

A response is what a simulated study is run against (`thalweg simulate`, docs/simulate.md).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.errors import ConfigError
from thalweg.scaling.points import Points
from thalweg.space import PRIOR_WIDTH, Choice, Float, Hyperparameters, Space, Value
from thalweg.tree import Metric

_LEARNING_RATE = re.compile(r"(^|_)(lr|learning_rate)($|_)")
_FLOOR = 3.0
_EARLY = 0.02
"""Keeps the power law finite at the beginning of a run."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What training would give."""

    value: Callable[[Hyperparameters, float, int], float]
    """(hyperparameters, share of the horizon reached, seed) -> the metric measured there; NaN where the run has
    diverged. The same arguments always give the same."""
    truth: Callable[[Hyperparameters], float]
    """The metric at the end of a run, without noise; NaN where it diverges."""
    about: str
    """What it rests on, for people."""
    best: float | None = None
    """The best truth that was measured; None where nothing was."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A configuration and what was measured of it."""

    hyperparameters: Hyperparameters
    curves: Sequence[tuple[Sequence[float], Sequence[float]]]
    """One for each seed: rising shares of the horizon, and the metric there."""


def synthetic(space: Space, metric: Metric, seed: int) -> Response:
    """A surface made up to look like the training of language models, another one for each seed.

    - The loss at the end rises with the square of the distance from an optimum inside the range, on the dimension's own
      scale. The learning rate counts most and hurts three times as much above its optimum as below; a few of the others
      count, most hardly do.
    - The best learning rate moves with the other hyperparameters.
    - Curves are power laws whose height moves with the hyperparameters too, and early on a small learning rate looks
      better than it will turn out: so early evaluations rank runs only roughly as their ends do, and least so the best.
    - A learning rate far above its optimum diverges.
    - Evaluations are noisy, and so is each run's end, by its seed.
    - Where a dimension has a prior, the optimum is drawn around it, as widely as its confidence says.
    - A choice has one best option; a dimension under a condition counts only where it exists.

    The learning rate is the dimension called `lr` or `learning_rate`, or so with more words around it; where there is
    none, the first on a log scale.
    """
    surface = _Surface(space, np.random.default_rng([seed, 5]))
    sign = 1.0 if metric.goal == "min" else -1.0

    def value(hyperparameters: Hyperparameters, fraction: float, run_seed: int) -> float:
        noise = _gauss(hyperparameters, run_seed, seed) * 0.02
        noise += _gauss(hyperparameters, run_seed, seed, round(fraction * 1e6)) * 0.01
        return sign * (surface.loss(hyperparameters, fraction) + noise)

    return Response(
        value=value,
        truth=lambda hyperparameters: sign * surface.loss(hyperparameters, 1.0),
        about="made-up surfaces that look like the training of language models, another one for each seed",
    )


class _Surface:
    """One made-up surface."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self._space = space
        self._rate = _learning_rate(space)
        self._optimum: dict[str, float] = {}
        self._weight: dict[str, float] = {}
        self._offset: dict[str, list[float]] = {}
        self._shift: dict[str, list[float]] = {}
        self._height: dict[str, list[float]] = {}
        for name, dimension in space.dimensions.items():
            if isinstance(dimension, Choice):
                offsets = rng.exponential(0.15, len(dimension.options))
                self._offset[name] = [float(offset - offsets.min()) for offset in offsets]
                self._shift[name] = rng.normal(0.0, 0.06, len(dimension.options)).tolist()
                self._height[name] = rng.normal(0.0, 0.1, len(dimension.options)).tolist()
                continue
            if dimension.prior is None:
                optimum = rng.uniform(0.2, 0.8)
            else:
                optimum = rng.normal(dimension.unit(dimension.prior), PRIOR_WIDTH[dimension.confidence])
            self._optimum[name] = min(max(float(optimum), 0.05), 0.95)
            self._weight[name] = 1.0 if name == self._rate else float(0.6 * rng.exponential(0.5) ** 2)
            self._shift[name] = [float(rng.normal(0.0, 0.2))]
            self._height[name] = [float(rng.normal(0.0, 0.4))]
        self._margin = float(rng.uniform(0.35, 0.5))
        self._power = float(rng.uniform(0.3, 0.6))

    def loss(self, hyperparameters: Hyperparameters, fraction: float) -> float:
        total, best_rate, rate = _FLOOR, self._optimum.get(self._rate or "", 0.5), None
        height = 1.0
        for name, dimension in self._space.dimensions.items():
            if name not in hyperparameters:
                continue
            held = hyperparameters[name]
            if isinstance(dimension, Choice):
                index = _index(dimension.options, held)
                total += self._offset[name][index]
                best_rate += self._shift[name][index]
                height += self._height[name][index]
                continue
            unit = dimension.unit(held)
            height += self._height[name][0] * (unit - 0.5)
            if name == self._rate:
                rate = unit
                continue
            total += 4 * self._weight[name] * (unit - self._optimum[name]) ** 2
            best_rate += self._shift[name][0] * (unit - self._optimum[name])
        excess = 0.0 if rate is None else rate - min(max(best_rate, 0.05), 0.95)
        if excess > self._margin:
            return math.nan
        total += 4 * excess**2 * (3.0 if excess > 0 else 1.0)
        total += 0.3 * excess * (1 - fraction)
        return total + max(height, 0.2) * _power_law(fraction, self._power)


def measured(
    space: Space, metric: Metric, configurations: Sequence[Measured], *, num_neighbours: int = 1, about: str
) -> Response:
    """What was measured of the nearest configuration, or the mean over a few, the nearer ones counting more.

    Distances are taken on the dimensions' own scales, over those that every configuration has. Where only ends were
    measured, curves are made up: a power law, on which early evaluations deviate from the order at the end by half the
    spread of the ends, less and less towards the end.

    Raises:
        ConfigError: no configuration, or none of their hyperparameters is in the space.
    """
    nearby = _Neighbours(space, metric, configurations, num_neighbours)
    truths = [truth for one in configurations if math.isfinite(truth := nearby.truth(one.hyperparameters))]
    return Response(
        value=nearby.value, truth=nearby.truth, about=about, best=min(truths, key=metric.loss, default=None)
    )


class _Neighbours:
    """Looks up measured configurations."""

    def __init__(self, space: Space, metric: Metric, configurations: Sequence[Measured], num_neighbours: int) -> None:
        if not configurations:
            raise ConfigError("there is nothing measured to look up")
        shared = {
            name: dimension
            for name, dimension in space.dimensions.items()
            if all(name in one.hyperparameters for one in configurations)
        }
        if not shared:
            raise ConfigError(
                f"no hyperparameter of the space ({', '.join(space.dimensions)}) is given for every configuration"
            )
        self._points = Points(Space(shared))
        self._places = self._points.encode([one.hyperparameters for one in configurations])
        self._configurations = configurations
        self._count = min(num_neighbours, len(configurations))
        self._sign = 1.0 if metric.goal == "min" else -1.0
        self._only_ends = all(len(shares) == 1 for one in configurations for shares, _ in one.curves)
        ends = [values[-1] for one in configurations for _, values in one.curves if math.isfinite(values[-1])]
        if not ends:
            raise ConfigError("nothing that was measured is a finite number")
        self._spread = float(np.subtract(*np.percentile(ends, [75, 25]))) or 1.0
        self._found: dict[tuple[tuple[str, Value], ...], list[tuple[int, float]]] = {}

    def value(self, hyperparameters: Hyperparameters, fraction: float, seed: int) -> float:
        def one(configuration: Measured) -> float:
            shares, values = configuration.curves[seed % len(configuration.curves)]
            if not math.isfinite(values[-1]) and fraction >= shares[-1]:
                return math.nan
            return float(np.interp(fraction, shares, values))

        found = self._mean(hyperparameters, one)
        if self._only_ends and fraction < 1:
            slope = _power_law(fraction, 0.5)
            deviation = _gauss(hyperparameters, seed) * (1 - fraction)
            found += self._sign * self._spread * 0.5 * (slope + deviation)
        return found

    def truth(self, hyperparameters: Hyperparameters) -> float:
        def one(configuration: Measured) -> float:
            return float(np.mean([values[-1] for _, values in configuration.curves]))

        return self._mean(hyperparameters, one)

    def _mean(self, hyperparameters: Hyperparameters, one: Callable[[Measured], float]) -> float:
        near = [(one(self._configurations[i]), weight) for i, weight in self._near(hyperparameters)]
        if math.isnan(near[0][0]):
            return math.nan
        known = [(value, weight) for value, weight in near if not math.isnan(value)]
        return sum(value * weight for value, weight in known) / sum(weight for _, weight in known)

    def _near(self, hyperparameters: Hyperparameters) -> list[tuple[int, float]]:
        """The nearest configurations, the nearest first, each with its weight."""
        key = tuple(hyperparameters.items())
        if key not in self._found:
            squares = ((self._places - self._points.encode([hyperparameters])) ** 2).sum(axis=1)
            order = np.argsort(squares, kind="stable")[: self._count]
            # One alone is taken as it is, whatever its distance.
            self._found[key] = [(int(i), 1.0 if self._count == 1 else 1.0 / (float(squares[i]) + 1e-3)) for i in order]
        return self._found[key]


def _power_law(fraction: float, power: float) -> float:
    """What is still to be gained at a share of the horizon; 0 at its end."""
    return float((fraction + _EARLY) ** -power - (1 + _EARLY) ** -power)


def _learning_rate(space: Space) -> str | None:
    numbers = {name: one for name, one in space.dimensions.items() if not isinstance(one, Choice)}
    named = [name for name in numbers if _LEARNING_RATE.search(name)]
    logarithmic = [name for name, one in numbers.items() if isinstance(one, Float) and one.log]
    return next(iter([*named, *logarithmic]), None)


def _index(options: Sequence[Value], held: Value) -> int:
    return next(i for i, option in enumerate(options) if type(option) is type(held) and option == held)


def _gauss(hyperparameters: Mapping[str, Value], *more: int) -> float:
    """A standard normal number from its arguments, the same in every process."""
    return random.Random(f"{sorted(hyperparameters.items())!r} {more}").gauss(0.0, 1.0)
