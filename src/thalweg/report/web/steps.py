"""Between positions, whole numbers in a store, and the steps that people see."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

from thalweg.errors import ConfigError
from thalweg.track.lineage import MAX_POSITION

SYSTEM_PREFIX = "system/"
"""Metrics of the machine: their positions are milliseconds since the writer began, their steps seconds."""

_SYSTEM_SCALE = 1000


def scale_of(metric: str, scale: int) -> int:
    """What a step of a metric is multiplied by to give its position.

    >>> scale_of("loss", 10**6), scale_of("system/cpu", 10**6)
    (1000000, 1000)
    """
    return _SYSTEM_SCALE if metric.startswith(SYSTEM_PREFIX) else scale


def step_of(position: int, scale: int) -> int | float:
    """A position as a step: a whole number where it is one.

    >>> step_of(2_500_000, 10**6), step_of(2_000_000, 10**6), step_of(7, 1)
    (2.5, 2, 7)
    """
    return position // scale if position % scale == 0 else position / scale


def first_position(text: str | None, scale: int) -> int:
    """The least position at or after a step, which may lie anywhere: where a person zoomed to. None: the first of all.

    Raises:
        ConfigError: it is not a finite number.

    >>> first_position("1.5", 1), first_position("-3", 1), first_position(None, 1)
    (2, 0, 0)
    """
    return 0 if text is None else _clipped(math.ceil(_scaled("first", text, scale)))


def last_position(text: str | None, scale: int) -> int:
    """The greatest position at or before a step; -1 where there is none. None: the last of all.

    >>> last_position("1.5", 1), last_position("1e30", 1) == 2**63 - 1, last_position("-3", 1)
    (1, True, -1)
    """
    return MAX_POSITION if text is None else _clipped(math.floor(_scaled("last", text, scale)), least=-1)


def _scaled(name: str, text: str, scale: int) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise ConfigError(f"{name} = {text!r} must be a finite number")
    # Far beyond what a store holds: the exponent may have 18 digits, and the number as many as its exponent says.
    if number and abs(number.adjusted()) > 40:
        number = Decimal("1e-40" if number.adjusted() < 0 else "1e40").copy_sign(number)
    return number * scale


def _clipped(position: int, *, least: int = 0) -> int:
    return min(max(position, least), MAX_POSITION)
