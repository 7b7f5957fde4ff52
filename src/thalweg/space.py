"""What a study may choose from: a named dimension per hyperparameter.

In Python and in a study file alike:

    lr         = log(1e-6, 1e-3, prior=2e-5)    # lr = { log = [1e-6, 1e-3], prior = 2e-5 }
    batch_size = choice([8, 16, 32])            # batch_size = { choice = [8, 16, 32] }
    epochs     = integer(1, 3)                  # epochs = { integer = [1, 3] }
    lora_r     = integer(2, 64, log=True, when={"adapter": "lora"})
    dropout    = 0.1                            # fixed
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from thalweg.dimensions import (
    PRIOR_WEIGHT,
    PRIOR_WIDTH,
    Choice,
    Confidence,
    Dimension,
    Float,
    Hyperparameters,
    Integer,
    Value,
    choice,
    integer,
    linear,
    log,
    same,
)
from thalweg.errors import ConfigError, nearest

__all__ = [
    "PRIOR_WEIGHT",
    "PRIOR_WIDTH",
    "Choice",
    "Confidence",
    "Dimension",
    "Float",
    "Hyperparameters",
    "Integer",
    "Space",
    "Value",
    "choice",
    "integer",
    "linear",
    "log",
]


@dataclass(frozen=True)
class Space:
    """All hyperparameters of a study: the dimensions that are searched and the values that are fixed.

    >>> space = Space.parse({"lr": {"log": [1e-5, 1e-3]}, "batch_size": {"choice": [8, 16]}, "dropout": 0.1})
    >>> space.grid(2)[0]
    {'lr': 1e-05, 'batch_size': 8, 'dropout': 0.1}
    """

    dimensions: Mapping[str, Dimension]
    fixed: Hyperparameters = field(default_factory=dict)

    @classmethod
    def parse(cls, spec: Mapping[str, Any] | Space) -> Space:
        """Check and read a space from Python objects or from a study file's tables.

        Raises:
            ConfigError: naming the field, the value, and what would work.
        """
        if isinstance(spec, Space):
            return spec
        dimensions: dict[str, Dimension] = {}
        fixed: dict[str, Value] = {}
        for name, entry in spec.items():
            if isinstance(entry, bool | int | float | str):
                fixed[name] = entry
            else:
                dimensions[name] = entry if isinstance(entry, Dimension) else _parse_dimension(name, entry)
                _check(name, dimensions[name])
        if not dimensions:
            raise ConfigError("space: it holds nothing to search; for example lr = { log = [1e-6, 1e-3] }")
        _check_conditions(dimensions)
        return cls(dimensions, fixed)

    @property
    def names(self) -> list[str]:
        return [*self.dimensions, *self.fixed]

    @property
    def ordered(self) -> list[str]:
        """The searched names, each after all those that its condition names."""
        return list(self._order)

    @cached_property
    def _order(self) -> tuple[str, ...]:
        done: list[str] = []
        waiting = list(self.dimensions)
        while waiting:
            ready = [name for name in waiting if all(parent in done for parent in self.dimensions[name].when)]
            done += ready
            waiting = [name for name in waiting if name not in ready]
        return tuple(done)

    def is_active(self, name: str, chosen: Hyperparameters) -> bool:
        """Whether a dimension exists, given what was chosen for those before it."""
        return all(parent in chosen and same(chosen[parent], v) for parent, v in self.dimensions[name].when.items())

    def holds(self, point: Hyperparameters) -> bool:
        """Whether each dimension that exists has a value of its own in a point, whatever else the point has."""
        return all(
            name in point and dimension.contains(point[name])
            for name, dimension in self.dimensions.items()
            if not dimension.when or self.is_active(name, point)
        )

    @property
    def has_priors(self) -> bool:
        return any(dimension.prior is not None for dimension in self.dimensions.values())

    def prior_weight(self, name: str) -> float | None:
        """Share of a dimension's draws that follow its prior; None where it has none.

        Of a range it is its confidence's `PRIOR_WEIGHT` to the power of 1 / k, with k ranges that have priors. So a
        point follows the priors of all its ranges with the probability of the weight itself, however many there are:
        with 75% for each of eight, nine points of ten would be uniform in one of them at least, and a single wrong
        value ruins a run. A choice has nothing around its prior to draw from: its own weight is what makes it take
        another option at all.

        >>> four = Space.parse({name: {"log": [1e-4, 1.0], "prior": 0.01} for name in "abcd"})
        >>> weight = four.prior_weight("a")
        >>> round(weight, 4), round(weight**4, 4)
        (0.9306, 0.75)
        """
        return self._prior_weights[name]

    @cached_property
    def _prior_weights(self) -> Mapping[str, float | None]:
        dimensions = self.dimensions
        num_ranges = sum(d.prior is not None and not isinstance(d, Choice) for d in dimensions.values())
        weights: dict[str, float | None] = {}
        for name, dimension in dimensions.items():
            weight = None if dimension.prior is None else PRIOR_WEIGHT[dimension.confidence]
            is_range = weight is not None and not isinstance(dimension, Choice)
            weights[name] = weight ** (1 / num_ranges) if weight is not None and is_range else weight
        return weights

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """A random point, drawn from the priors where there are some, with the weights of `prior_weight`."""
        chosen: dict[str, Value] = {}
        for name in self._order:
            if self.is_active(name, chosen):
                chosen[name] = self.dimensions[name].sample(rng, weight=self._prior_weights[name])
        return self.complete(chosen)

    def grid(self, resolution: int) -> list[dict[str, Value]]:
        """All combinations: choices whole, ranges at `resolution` values; inactive dimensions left out."""
        points: list[dict[str, Value]] = [{}]
        for name in self.ordered:
            points = [extended for point in points for extended in self._extend(point, name, resolution)]
        return [self.complete(point) for point in points]

    def complete(self, chosen: Hyperparameters) -> dict[str, Value]:
        """Add the fixed values, in the space's own order."""
        everything = {**self.fixed, **chosen}
        return {name: everything[name] for name in self.names if name in everything}

    def check(self, hyperparameters: Hyperparameters, *, partial: bool = False) -> None:
        """Refuse unknown names, values outside their dimension and, unless `partial`, missing ones.

        Raises:
            ConfigError: naming the field, the value, and what would work.
        """
        for name, value in hyperparameters.items():
            dimension = self.dimensions.get(name)
            if dimension is None and name not in self.fixed:
                raise ConfigError(f"unknown hyperparameter {name!r}. {nearest(name, self.names)}")
            if dimension is not None and not dimension.contains(value):
                raise ConfigError(f"{name} = {value!r} is outside the space: {dimension.describe()}")
        missing = [n for n in self.ordered if self.is_active(n, hyperparameters) and n not in hyperparameters]
        if missing and not partial:
            raise ConfigError(f"hyperparameters: no value for {', '.join(missing)}")

    def to_dict(self) -> dict[str, Any]:
        """The form that `parse` reads, for the store and for comparing two spaces."""
        return {name: _to_dict(dimension) for name, dimension in self.dimensions.items()} | dict(self.fixed)

    def _extend(self, point: dict[str, Value], name: str, resolution: int) -> Iterator[dict[str, Value]]:
        if not self.is_active(name, point):
            yield point
            return
        for value in self.dimensions[name].grid(resolution):
            yield {**point, name: value}


_KINDS = ("log", "linear", "integer", "choice")
_OPTIONS = {"prior", "confidence", "when"}


def _parse_dimension(name: str, entry: object) -> Dimension:
    example = "for example { log = [1e-6, 1e-3] } or { choice = [8, 16, 32] }"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"space.{name} = {entry!r} is neither a value nor a range; {example}")
    kinds = [kind for kind in _KINDS if kind in entry]
    log_integer = sorted(kinds) == ["integer", "log"] and isinstance(entry["log"], bool)
    if len(kinds) != 1 and not log_integer:
        raise ConfigError(f"space.{name} = {dict(entry)!r} needs exactly one of {', '.join(_KINDS)}; {example}")
    unknown = set(entry) - {*kinds} - _OPTIONS
    if unknown:
        key = sorted(unknown)[0]
        raise ConfigError(f"space.{name}: unknown key {key!r}. {nearest(key, {*_KINDS, *_OPTIONS})}")
    options: dict[str, Any] = {key: entry[key] for key in _OPTIONS if key in entry}
    kind = "integer" if log_integer else kinds[0]
    if kind == "choice":
        if not isinstance(entry["choice"], list | tuple):
            raise ConfigError(f"space.{name}.choice = {entry['choice']!r} must be a list, such as [8, 16, 32]")
        return Choice(tuple(entry["choice"]), **options)
    low, high = _ends(name, kind, entry[kind])
    if kind == "integer":
        return Integer(low, high, log=bool(entry.get("log", False)), **options)
    return Float(low, high, log=kind == "log", **options)


def _ends(name: str, kind: str, ends: object) -> tuple[Any, Any]:
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        raise ConfigError(f"space.{name}.{kind} = {ends!r} must be two numbers, [low, high]")
    return ends[0], ends[1]


def _check(name: str, dimension: Dimension) -> None:
    where = f"space.{name}"
    if dimension.confidence not in list(PRIOR_WIDTH):
        raise ConfigError(f"{where}.confidence = {dimension.confidence!r}. Known: {', '.join(PRIOR_WIDTH)}")
    if not isinstance(dimension.when, Mapping):
        raise ConfigError(f"{where}.when = {dimension.when!r} must be a table, such as {{ adapter = 'lora' }}")
    if isinstance(dimension, Choice):
        _check_choice(where, dimension)
    else:
        _check_range(where, dimension)
    if dimension.prior is not None and not dimension.contains(dimension.prior):
        raise ConfigError(f"{where}.prior = {dimension.prior!r} is outside {dimension.describe()}")


def _check_choice(where: str, dimension: Choice) -> None:
    if not dimension.options:
        raise ConfigError(f"{where}.choice = [] is empty; give at least one value")
    for option in dimension.options:
        if not isinstance(option, bool | int | float | str):
            raise ConfigError(f"{where}.choice: {option!r} must be a number, a string or a boolean")
    for first, second in itertools.combinations(dimension.options, 2):
        if same(first, second):
            raise ConfigError(f"{where}.choice: {first!r} is given twice")


def _check_range(where: str, dimension: Float | Integer) -> None:
    low, high = dimension.low, dimension.high
    for end in (low, high):
        is_number = isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end)
        if not is_number or (isinstance(dimension, Integer) and not isinstance(end, int)):
            kind = "whole number" if isinstance(dimension, Integer) else "finite number"
            raise ConfigError(f"{where}: {end!r} must be a {kind}")
    if low >= high:
        raise ConfigError(
            f"{where} = [{low:g}, {high:g}] is {'empty' if low == high else 'inverted'}; low must be below high"
            f" (for a single value write {where.removeprefix('space.')} = {low:g})"
        )
    if dimension.log and low <= 0:
        raise ConfigError(f"{where} = [{low:g}, {high:g}] is logarithmic, so low must be above zero, such as 1e-6")


def _check_conditions(dimensions: Mapping[str, Dimension]) -> None:
    for name, dimension in dimensions.items():
        for parent, value in dimension.when.items():
            other = dimensions.get(parent)
            if not isinstance(other, Choice):
                choices = [n for n, d in dimensions.items() if isinstance(d, Choice)]
                raise ConfigError(f"space.{name}.when: {parent!r} is not a searched choice. {nearest(parent, choices)}")
            if not other.contains(value):
                raise ConfigError(f"space.{name}.when: {parent} = {value!r} is not one of {other.describe()}")
    resolved: set[str] = set()
    while ready := {n for n, d in dimensions.items() if n not in resolved and set(d.when) <= resolved}:
        resolved |= ready
    if circle := sorted(set(dimensions) - resolved):
        raise ConfigError(f"space: the conditions of {', '.join(circle)} refer to each other in a circle")


def _to_dict(dimension: Dimension) -> dict[str, Any]:
    entry: dict[str, Any]
    match dimension:
        case Choice():
            entry = {"choice": list(dimension.options)}
        case Integer():
            entry = {"integer": [dimension.low, dimension.high]} | ({"log": True} if dimension.log else {})
        case Float():
            entry = {"log" if dimension.log else "linear": [dimension.low, dimension.high]}
    if dimension.prior is not None:
        entry |= {"prior": dimension.prior, "confidence": dimension.confidence}
    return entry | ({"when": dict(dimension.when)} if dimension.when else {})
