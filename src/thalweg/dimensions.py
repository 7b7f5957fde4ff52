"""One hyperparameter's values, and what is believed of them before anything was run.

A prior makes a **prior coordinate**: the share of the prior's draws that lie below a value, in [0, 1]. Samplers work in
it, so that even steps there are small where the prior expects the best value and large elsewhere. A prior never rules a
value out: a share of its draws, smaller where it is believed more, is uniform. In a space of several priors that share
is of whole points (`Space.prior_weight`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

Value = bool | int | float | str
"""A hyperparameter's value."""

Hyperparameters = Mapping[str, Value]

Confidence = Literal["low", "medium", "high"]

PRIOR_WIDTH: dict[Confidence, float] = {"low": 0.5, "medium": 0.25, "high": 0.125}
"""Standard deviation of a prior, as a share of the dimension's range (of its logarithm where it is logarithmic)."""

PRIOR_WEIGHT: dict[Confidence, float] = {"low": 0.5, "medium": 0.75, "high": 0.9}
"""Share of draws that follow the prior: a choice takes its option outright, a range is normal around it. The others are
uniform. Of a space's ranges it is the share of the points that follow all of their priors."""

_NUM_HALVINGS = 52
"""As many as a float has bits after its first."""


@dataclass(frozen=True, kw_only=True)
class _Dimension:
    prior: Value | None = None
    """The value believed best before anything was run, or None."""
    confidence: Confidence = "medium"
    """How much the prior is believed."""
    when: Mapping[str, Value] = field(default_factory=dict)
    """The dimension exists only where each of these choices was taken."""


@dataclass(frozen=True)
class Float(_Dimension):
    """A real number between `low` and `high`, both included."""

    low: float
    high: float
    log: bool = False
    """Searched by its logarithm: equal ratios count as equal steps."""

    def contains(self, value: object) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high  # type: ignore[operator]

    def at(self, unit: float) -> float:
        """The value at a share of the range, in [0, 1]."""
        return _from_unit(unit, self.low, self.high, self.log)

    def unit(self, value: Value) -> float:
        """Where a value lies in the range, in [0, 1]: the inverse of `at`."""
        return _to_unit(_number(value), self.low, self.high, self.log)

    def from_prior(self, share: float, *, weight: float | None = None) -> float:
        """The value below which a share of the prior's draws lies: the inverse of `to_prior`.

        Args:
            share: in [0, 1].
            weight: share of the draws that follow the prior instead of being uniform, in [0, 1]; None: as its
                confidence says where no other dimension has a prior. Without a prior all are uniform.
        """
        return self.at(_warp(self, weight).inverse(share))

    def to_prior(self, value: Value, *, weight: float | None = None) -> float:
        """The share of the prior's draws that lie below a value, in [0, 1]: its prior coordinate."""
        return _warp(self, weight).below(self.unit(value))

    def prior_density(self, value: Value, *, weight: float | None = None) -> float:
        """How many times as likely a value is drawn as by a uniform draw on the dimension's scale."""
        return _warp(self, weight).density(self.unit(value))

    def sample(self, rng: np.random.Generator, *, weight: float | None = None) -> float:
        """A draw from the prior, with the weight that `from_prior` describes, or a uniform one."""
        return self.at(_drawn_unit(self, rng, weight))

    def grid(self, resolution: int) -> list[Value]:
        """`resolution` values evenly spread over the range, both ends among them; a prior in place of the nearest."""
        return _with_prior(self, [self.at(unit) for unit in _spread(resolution)])

    def describe(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log scale' if self.log else ''}{_describe_prior(self)}"


@dataclass(frozen=True)
class Integer(_Dimension):
    """A whole number between `low` and `high`, both included."""

    low: int
    high: int
    log: bool = False

    def contains(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def at(self, unit: float) -> int:
        """The value at a share of the range, in [0, 1]."""
        value = round(_from_unit(unit, *self._ends, self.log))
        return min(max(value, self.low), self.high)

    def unit(self, value: Value) -> float:
        """Where a value lies in the range, in [0, 1]: inside the part that `at` gives it."""
        return _to_unit(_number(value), *self._ends, self.log)

    def from_prior(self, share: float, *, weight: float | None = None) -> int:
        """The value below which a share of the prior's draws lies; see `Float.from_prior`."""
        return self.at(_warp(self, weight).inverse(share))

    def to_prior(self, value: Value, *, weight: float | None = None) -> float:
        """A value's prior coordinate, inside the part that `from_prior` gives it; see `Float.to_prior`."""
        return _warp(self, weight).below(self.unit(value))

    def prior_density(self, value: Value, *, weight: float | None = None) -> float:
        """How many times as likely a value is drawn as by a uniform draw on the dimension's scale."""
        return _warp(self, weight).density(self.unit(value))

    def sample(self, rng: np.random.Generator, *, weight: float | None = None) -> int:
        """See `Float.sample`."""
        return self.at(_drawn_unit(self, rng, weight))

    def grid(self, resolution: int) -> list[Value]:
        """Every value where there are at most `resolution`, else that many spread over the range; a prior in place of
        the nearest."""
        if self.high - self.low < resolution:
            return list(range(self.low, self.high + 1))
        return _with_prior(self, list(dict.fromkeys(self.at(unit) for unit in _spread(resolution))))

    def describe(self) -> str:
        return f"{self.low} to {self.high}{', log scale' if self.log else ''}{_describe_prior(self)}"

    @property
    def _ends(self) -> tuple[float, float]:
        # Half a step is added on both sides, so that the end values are as likely as the ones between.
        return self.low - 0.5 + 1e-9, self.high + 0.5 - 1e-9


@dataclass(frozen=True)
class Choice(_Dimension):
    """One of a few values with no scale between them."""

    options: tuple[Value, ...]

    def contains(self, value: object) -> bool:
        return any(same(value, option) for option in self.options)

    def at(self, unit: float) -> Value:
        """The option at a share of the list, in [0, 1]: each takes an equal part."""
        return self.options[min(int(unit * len(self.options)), len(self.options) - 1)]

    def from_prior(self, share: float, *, weight: float | None = None) -> Value:
        """The option at a share of the prior's draws, in the list's order; see `Float.from_prior`."""
        reached = 0.0
        for option in self.options:
            reached += self._probability(option, weight)
            if share < reached:
                return option
        return self.options[-1]

    def to_prior(self, value: Value, *, weight: float | None = None) -> float:
        """The middle of the part that `from_prior` gives an option."""
        place = next(i for i, option in enumerate(self.options) if same(option, value))
        below = sum(self._probability(option, weight) for option in self.options[:place])
        return below + self._probability(value, weight) / 2

    def prior_density(self, value: Value, *, weight: float | None = None) -> float:
        """How many times as likely an option is drawn as by a uniform draw."""
        return self._probability(value, weight) * len(self.options)

    def sample(self, rng: np.random.Generator, *, weight: float | None = None) -> Value:
        """See `Float.sample`."""
        return self.from_prior(float(rng.random()), weight=weight)

    def grid(self, resolution: int) -> list[Value]:
        """All options, whatever the resolution."""
        return list(self.options)

    def describe(self) -> str:
        return f"{', '.join(str(option) for option in self.options)}{_describe_prior(self)}"

    def _probability(self, option: Value, weight: float | None) -> float:
        if self.prior is None:
            return 1 / len(self.options)
        weight = PRIOR_WEIGHT[self.confidence] if weight is None else weight
        return (1 - weight) / len(self.options) + (weight if same(option, self.prior) else 0.0)


Dimension = Float | Integer | Choice


def log(
    low: float,
    high: float,
    *,
    prior: float | None = None,
    confidence: Confidence = "medium",
    when: Mapping[str, Value] | None = None,
) -> Float:
    """A positive real number searched by its logarithm, such as a learning rate."""
    return Float(low, high, log=True, prior=prior, confidence=confidence, when=when or {})


def linear(
    low: float,
    high: float,
    *,
    prior: float | None = None,
    confidence: Confidence = "medium",
    when: Mapping[str, Value] | None = None,
) -> Float:
    """A real number on a linear scale, such as a dropout probability."""
    return Float(low, high, prior=prior, confidence=confidence, when=when or {})


def integer(
    low: int,
    high: int,
    *,
    log: bool = False,
    prior: int | None = None,
    confidence: Confidence = "medium",
    when: Mapping[str, Value] | None = None,
) -> Integer:
    """A whole number, both ends included."""
    return Integer(low, high, log=log, prior=prior, confidence=confidence, when=when or {})


def choice(
    options: Sequence[Value],
    *,
    prior: Value | None = None,
    confidence: Confidence = "medium",
    when: Mapping[str, Value] | None = None,
) -> Choice:
    """One of a few values, such as a batch size or an optimiser's name."""
    return Choice(tuple(options), prior=prior, confidence=confidence, when=when or {})


def same(a: object, b: object) -> bool:
    """Whether two options are one: True == 1 and 1 == 1.0 in Python, but they are different options."""
    return type(a) is type(b) and a == b


class _Warp(NamedTuple):
    """A normal distribution cut to [0, 1] and mixed with a uniform one."""

    centre: float
    width: float
    weight: float
    """Share of the normal part."""

    def below(self, unit: float) -> float:
        if self.weight == 0:
            return min(max(unit, 0.0), 1.0)
        low, high = self._cut
        inside = (_normal_below((unit - self.centre) / self.width) - low) / (high - low)
        return min(max((1 - self.weight) * unit + self.weight * inside, 0.0), 1.0)

    def density(self, unit: float) -> float:
        if self.weight == 0:
            return 1.0
        low, high = self._cut
        distance = (unit - self.centre) / self.width
        normal = math.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi) / self.width
        return 1 - self.weight + self.weight * normal / (high - low)

    def inverse(self, share: float) -> float:
        if self.weight == 0 or share in (0.0, 1.0):
            return share
        below_range, above_range = self._cut
        scale = self.weight / (above_range - below_range)
        low, high = 0.0, 1.0
        for _ in range(_NUM_HALVINGS):
            middle = (low + high) / 2
            inside = scale * (_normal_below((middle - self.centre) / self.width) - below_range)
            low, high = (middle, high) if (1 - self.weight) * middle + inside < share else (low, middle)
        return (low + high) / 2

    @property
    def _cut(self) -> tuple[float, float]:
        return _normal_below(-self.centre / self.width), _normal_below((1 - self.centre) / self.width)


def _warp(dimension: Float | Integer, weight: float | None) -> _Warp:
    if dimension.prior is None:
        return _Warp(0.5, 1.0, 0.0)
    weight = PRIOR_WEIGHT[dimension.confidence] if weight is None else weight
    return _Warp(dimension.unit(dimension.prior), PRIOR_WIDTH[dimension.confidence], weight)


def _drawn_unit(dimension: Float | Integer, rng: np.random.Generator, weight: float | None) -> float:
    """A draw's place in the range. The prior and the uniform share are drawn from directly: inverting their sum takes a
    hundred times as long."""
    if dimension.prior is None:
        return float(rng.random())
    if rng.random() >= (PRIOR_WEIGHT[dimension.confidence] if weight is None else weight):
        return float(rng.random())
    centre, width = dimension.unit(dimension.prior), PRIOR_WIDTH[dimension.confidence]
    while True:  # the centre lies in the range, so that at least two draws of five do
        unit = float(rng.normal(centre, width))
        if 0.0 <= unit <= 1.0:
            return unit


def _normal_below(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return value


def _with_prior(dimension: Float | Integer, values: list[Value]) -> list[Value]:
    if dimension.prior is None:
        return values
    distances = [abs(dimension.unit(value) - dimension.unit(dimension.prior)) for value in values]
    nearest = distances.index(min(distances))
    return [*values[:nearest], dimension.prior, *values[nearest + 1 :]]


def _spread(resolution: int) -> list[float]:
    if resolution < 2:
        return [0.5]
    return [i / (resolution - 1) for i in range(resolution)]


def _from_unit(unit: float, low: float, high: float, log: bool) -> float:
    if log:
        value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        # By halves: the largest floats are further apart than the largest float.
        value = 2 * (low / 2 + unit * (high / 2 - low / 2))
    return min(max(value, low), high)


def _to_unit(value: float, low: float, high: float, log: bool) -> float:
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    # Whole numbers beyond 2**53, and neighbouring floats, may have ends that are one as floats or as logarithms.
    return 0.5 if low == high else min(max((value / 2 - low / 2) / (high / 2 - low / 2), 0.0), 1.0)


def _describe_prior(dimension: Dimension) -> str:
    return "" if dimension.prior is None else f", prior {dimension.prior} ({dimension.confidence} confidence)"
