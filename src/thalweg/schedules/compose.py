"""Schedules made of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from thalweg.errors import ConfigError
from thalweg.schedules.cycles import find_cycle
from thalweg.schedules.schedule import Schedule, check_count, check_positive, check_schedule


@dataclass(frozen=True, kw_only=True)
class Join:
    """What `join` returns; it compares and prints by its parts."""

    schedules: tuple[Schedule, ...]
    boundaries: tuple[float, ...]

    def __post_init__(self) -> None:
        for part in self.schedules:
            check_schedule("join", part)
        if not self.schedules or len(self.boundaries) != len(self.schedules) - 1:
            raise ConfigError(
                f"join: {len(self.schedules)} schedules and {len(self.boundaries)} boundaries: give at least one"
                " schedule, and a boundary between each two"
            )
        check_positive("join", **{f"boundaries[{i}]": boundary for i, boundary in enumerate(self.boundaries)})
        if any(before >= after for before, after in pairwise(self.boundaries)):
            raise ConfigError(f"join: boundaries = {list(self.boundaries)} must increase")

    def __call__(self, position: float) -> float:
        index = sum(boundary <= position for boundary in self.boundaries)
        begin = self.boundaries[index - 1] if index else 0.0
        return self.schedules[index](position - begin)


def join(*, schedules: Sequence[Schedule], boundaries: Sequence[float]) -> Join:
    """One schedule after the other; each sees positions from its own beginning.

    Args:
        schedules: in their order.
        boundaries: the positions at which the second, the third ... begin; each belongs to the one that begins there.
    Returns:
        schedule(position) -> multiplier of the peak learning rate. Beyond the last boundary the last one decides.
    Raises:
        ConfigError: if there is no schedule, not one boundary between each two, or boundaries do not increase from 0.
    Source: optax, `join_schedules`.

    >>> from thalweg.schedules import constant, linear
    >>> lr = join(schedules=[constant(warmup=10), linear(horizon=4)], boundaries=[20])
    >>> [lr(p) for p in (5, 19, 20, 22, 24)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    return Join(schedules=tuple(schedules), boundaries=tuple(boundaries))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What `scale` returns; it compares and prints by its parts."""

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        check_schedule("scale", self.schedule)
        check_positive("scale", factor=self.factor)
        if self.factor > 1:
            raise ConfigError(f"scale: factor = {self.factor} must be at most 1: raise the peak learning rate instead")

    def __call__(self, position: float) -> float:
        return self.factor * self.schedule(position)


def scale(schedule: Schedule, *, factor: float) -> Scale:
    """The same schedule with a lower peak.

    Args:
        factor: what every multiplier is multiplied by, in (0, 1].
    Returns:
        schedule(position) -> multiplier of the peak learning rate, at most `factor`.
    Raises:
        ConfigError: if the factor is outside (0, 1].

    >>> from thalweg.schedules import linear
    >>> lr = scale(linear(horizon=10), factor=0.5)
    >>> [lr(p) for p in (0, 5, 10)]
    [0.5, 0.25, 0.0]
    """
    return Scale(schedule=schedule, factor=factor)


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """What `repeat` returns; it compares and prints by its parts."""

    schedule: Schedule
    period: float
    times: int | None = None

    def __post_init__(self) -> None:
        check_schedule("repeat", self.schedule)
        check_positive("repeat", period=self.period)
        if self.times is not None:
            check_count("repeat", times=self.times)

    def __call__(self, position: float) -> float:
        index = find_cycle(position, first=self.period, growth=1.0, num_cycles=self.times)
        if index is None:
            return self.schedule(self.period)
        return self.schedule(max(0.0, position - index * self.period))


def repeat(schedule: Schedule, *, period: float, times: int | None = None) -> Repeat:
    """The same schedule again and again.

    Args:
        period: where it begins again, in the unit of the positions; that position belongs to the next repetition.
        times: how often; after that the multiplier at the end of a period is held. None: for ever.
    Returns:
        schedule(position) -> multiplier of the peak learning rate.
    Raises:
        ConfigError: if the period is not above 0 or `times` is below 1.

    >>> from thalweg.schedules import linear
    >>> lr = repeat(linear(horizon=10), period=10, times=2)
    >>> [lr(p) for p in (0, 5, 10, 15, 20, 25)]
    [1.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    return Repeat(schedule=schedule, period=period, times=times)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What `stretch` returns; it compares and prints by its parts."""

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        check_schedule("stretch", self.schedule)
        check_positive("stretch", factor=self.factor)

    def __call__(self, position: float) -> float:
        return self.schedule(position / self.factor)


def stretch(schedule: Schedule, *, factor: float) -> Stretch:
    """The same schedule over a longer or shorter time, or in another unit.

    Args:
        factor: by how much every length grows; the batch size makes a schedule in steps one in samples.
    Returns:
        schedule(position) -> multiplier of the peak learning rate.
    Raises:
        ConfigError: if the factor is not above 0.

    >>> from thalweg.schedules import linear
    >>> lr = stretch(linear(horizon=10), factor=16)
    >>> [lr(p) for p in (0, 80, 160)]
    [1.0, 0.5, 0.0]
    """
    return Stretch(schedule=schedule, factor=factor)
