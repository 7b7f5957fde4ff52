"""What a schedule is, and the checks that all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real

from thalweg.errors import ConfigError

Schedule = Callable[[float], float]
"""schedule(position) -> multiplier of the peak learning rate. Positions are 0 or more, in any one unit."""


def check_lengths(schedule: str, **lengths: float) -> None:
    """Refuse what is not a length: a finite number, 0 or more.

    Raises:
        ConfigError: naming the schedule, the length and its value.
    """
    for name, value in lengths.items():
        if not (_is_finite(value) and value >= 0):
            raise ConfigError(f"{schedule}: {name} = {value} must be a finite number of 0 or more")


def check_positive(schedule: str, **values: float) -> None:
    """Refuse what is not a finite number above 0.

    Raises:
        ConfigError: naming the schedule, the parameter and its value.
    """
    for name, value in values.items():
        if not (_is_finite(value) and value > 0):
            raise ConfigError(f"{schedule}: {name} = {value} must be a finite number above 0")


def check_floor(schedule: str, floor: float) -> None:
    """Refuse a floor at or above the peak.

    Raises:
        ConfigError: naming the schedule and the floor.
    """
    if not (_is_finite(floor) and 0 <= floor < 1):
        raise ConfigError(f"{schedule}: floor = {floor} must be in [0, 1): a share of the peak")


def check_shares(schedule: str, **shares: float) -> None:
    """Refuse what is no share of the peak: a number in [0, 1].

    Raises:
        ConfigError: naming the schedule, the parameter and its value.
    """
    for name, value in shares.items():
        if not (_is_finite(value) and 0 <= value <= 1):
            raise ConfigError(f"{schedule}: {name} = {value} must be in [0, 1]: a share of the peak")


def check_warmup(schedule: str, warmup: float, horizon: float) -> None:
    """Refuse a warm-up that is longer than the horizon, and what is no length.

    Raises:
        ConfigError: naming the schedule and both lengths.
    """
    check_lengths(schedule, warmup=warmup)
    check_positive(schedule, horizon=horizon)
    if warmup > horizon:
        raise ConfigError(f"{schedule}: warmup = {warmup} is longer than horizon = {horizon}, which includes it")


def check_count(schedule: str, **counts: int) -> None:
    """Refuse what is not a whole number of 1 or more.

    Raises:
        ConfigError: naming the schedule, the parameter and its value.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ConfigError(f"{schedule}: {name} = {value} must be a whole number of at least 1")


def check_schedule(schedule: str, part: Schedule) -> None:
    """Refuse a part that is no schedule.

    Raises:
        ConfigError: naming the composition and what it was given.
    """
    if not callable(part):
        raise ConfigError(f"{schedule}: {part!r} is no schedule: a function from a position to a multiplier is wanted")


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
