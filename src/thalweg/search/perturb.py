"""How a population explores: what a fork may change, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from thalweg.errors import ConfigError, nearest
from thalweg.search.population import Population, is_decisive, reasons_against
from thalweg.search.strategy import Problem
from thalweg.space import Choice, Dimension, Float, Hyperparameters, Integer, Value
from thalweg.tree import Run

Explore = Callable[[Run, Population, Sequence[Hyperparameters], np.random.Generator], dict[str, Value]]
"""The winner, the population, points that are being tried, and randomness -> what the fork changes."""


class Perturb:
    """Explore as Jaderberg et al. do: each hyperparameter is multiplied by a factor, or drawn anew.

    A value is never left as it was where there is another one to move to: a whole number moves by at least one, a zero
    by a share of the range, and a value at the end of its range back into it. Ordered numbers to choose from move to a
    neighbour; other choices are drawn anew.

    Args:
        problem: what is searched.
        names: the hyperparameters that are mutated, where a point has them.
        perturb: the factors are 1 + this and 1 - this.
        resample: probability of drawing anew.
    """

    def __init__(self, problem: Problem, names: Sequence[str], *, perturb: float, resample: float) -> None:
        if not 0 < perturb < 1:
            raise ConfigError(f"strategy.perturb = {perturb:g} must be between 0 and 1; 0.2 is usual")
        if not 0 <= resample <= 1:
            raise ConfigError(f"strategy.resample = {resample:g} must be a probability; 0.25 is usual")
        self._problem = problem
        self._names = names
        self._factors = (1 + perturb, 1 - perturb)
        self._resample = resample

    def __call__(
        self, winner: Run, population: Population, tried: Sequence[Hyperparameters], rng: np.random.Generator
    ) -> dict[str, Value]:
        changes: dict[str, Value] = {}
        for name in self._names:
            if name in winner.hyperparameters:
                value = self._mutated(self._problem.space.dimensions[name], winner.hyperparameters[name], rng)
                if value != winner.hyperparameters[name]:
                    changes[name] = value
        return changes

    def _mutated(self, dimension: Dimension, value: Value, rng: np.random.Generator) -> Value:
        anew, upwards = rng.random() < self._resample, rng.random() < 0.5
        if anew:
            return dimension.sample(rng)
        factors = self._factors if upwards else self._factors[::-1]
        match dimension:
            case Choice():
                return neighbour(dimension, value, upwards) if is_ordered(dimension) else dimension.sample(rng)
            case Integer():
                moved: list[float] = [moved_integer(dimension, value, factor) for factor in factors]
            case Float():
                moved = [moved_float(dimension, value, factor) for factor in factors]
        # At an end of the range one of the two goes nowhere.
        return next((new for new in moved if new != value), value)


def mutable(problem: Problem, wanted: Sequence[str] | None) -> list[str]:
    """The hyperparameters to mutate.

    Args:
        problem: what is searched.
        wanted: their names, or None for all that exist in every point and that a fork can change.
    Raises:
        ConfigError: an unknown name, one that cannot be mutated, or none that can, each with the reason.
    """
    space = problem.space
    against = reasons_against(problem)
    if wanted is None:
        found = [name for name, dimension in space.dimensions.items() if name not in against and not dimension.when]
        if not found and any(is_decisive(problem, name) for name in against):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in against.items())
            raise ConfigError(f"nothing in the space can be mutated in the middle of a run. {reasons}")
        return found
    if not wanted:
        raise ConfigError("strategy.mutate = [] names no hyperparameter; leave it out to mutate all that a fork can")
    for name in wanted:
        if name in space.fixed:
            raise ConfigError(f"strategy.mutate: {name!r} has a fixed value in the space; give it a range")
        if name not in space.dimensions:
            raise ConfigError(f"strategy.mutate: unknown hyperparameter {name!r}. {nearest(name, space.dimensions)}")
        if name in against:
            usable = [other for other in space.dimensions if other not in against]
            instead = f"; these can be: {', '.join(usable)}" if usable else ""
            raise ConfigError(
                f"strategy.mutate: {name!r} cannot be mutated in the middle of a run: {against[name]}{instead}"
            )
    return list(dict.fromkeys(wanted))


def is_ordered(dimension: Choice) -> bool:
    """Whether the options are numbers, between which there are neighbours."""
    return all(isinstance(option, int | float) and not isinstance(option, bool) for option in dimension.options)


def neighbour(dimension: Choice, value: Value, upwards: bool) -> Value:
    """The next larger or smaller option; at an end, the other neighbour."""
    ordered = sorted(dimension.options, key=float)
    place = next(i for i, option in enumerate(ordered) if option == value)
    steps = (1, -1) if upwards else (-1, 1)
    return next((ordered[place + step] for step in steps if 0 <= place + step < len(ordered)), value)


def moved_integer(dimension: Integer, value: Value, factor: float) -> int:
    """The value times the factor, moved by at least one and kept in the range."""
    assert isinstance(value, int)
    moved = round(value * factor)
    if moved == value:
        moved = value + 1 if factor > 1 else value - 1
    return min(max(moved, dimension.low), dimension.high)


def moved_float(dimension: Float, value: Value, factor: float) -> float:
    """The value times the factor, kept in the range; a zero is moved by a share of the range instead."""
    assert isinstance(value, int | float)
    moved = value * factor if value else (factor - 1) * (dimension.high - dimension.low)
    return float(min(max(moved, dimension.low), dimension.high))
