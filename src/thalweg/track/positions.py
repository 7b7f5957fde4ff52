"""Steps as people write them, and positions as the store keeps them: whole numbers of a fixed number of decimals.

A project keeps six decimals unless told otherwise, so that 0.1 is exactly 100,000 and a step of 10**12 still fits into
64 bits. A study's positions are whole numbers already: no decimals.
"""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import SupportsIndex

from thalweg.errors import ConfigError
from thalweg.track.lineage import MAX_POSITION

Step = int | float | Decimal | str | SupportsIndex

MAX_DECIMALS = 9

# Room for all digits of 2**63 and more: nothing is rounded without being noticed.
_EXACT = decimal.Context(prec=60, traps=[decimal.InvalidOperation])


def to_position(step: Step, decimals: int) -> int:
    """A step as a position.

    Args:
        step: a float stands for the number that it is printed as: 0.1 is one tenth.
        decimals: how many the project keeps.
    Raises:
        ConfigError: it is negative, not finite, too large, or has more decimals than are kept.

    >>> to_position(3, 6), to_position(0.1, 6), to_position("1000000000000.000001", 6)
    (3000000, 100000, 1000000000000000001)
    """
    if isinstance(step, bool):
        raise ConfigError(f"step = {step!r} must be a number, such as 100 or 0.5")
    if type(step) is int or (not isinstance(step, (str, float, Decimal)) and hasattr(step, "__index__")):
        scaled = Decimal(int(step)).scaleb(decimals, _EXACT)
    else:
        scaled = _number(step).scaleb(decimals, _EXACT)
    if not scaled.is_finite() or scaled < 0:
        raise ConfigError(f"step = {step!r} must be a number from 0 on")
    if scaled > MAX_POSITION:
        raise ConfigError(
            f"step = {step!r} is too large: with {decimals} decimals, steps go to {MAX_POSITION // 10**decimals:,}."
            " Make the project with fewer: thalweg.init(..., decimals=0)"
        )
    whole = int(scaled)
    if whole != scaled:
        raise ConfigError(f"step = {step!r} has more than the {decimals} decimals that this project keeps")
    return whole


def nearest_position(step: Step, decimals: int) -> int:
    """As `to_position`, but more decimals than are kept are rounded, half to even.

    >>> nearest_position(1 / 3, 6)
    333333
    """
    try:
        return to_position(step, decimals)
    except ConfigError:
        if isinstance(step, bool):
            raise
        rounded = _number(step)
        if not rounded.is_finite():
            raise
        return to_position(round(rounded, decimals), decimals)


def to_step(position: int, decimals: int) -> int | float:
    """A position as a step: a whole number where it is one.

    >>> to_step(3_000_000, 6), to_step(100_000, 6)
    (3, 0.1)
    """
    whole, rest = divmod(position, 10**decimals)
    return float(to_decimal(position, decimals)) if rest else whole


def to_decimal(position: int, decimals: int) -> Decimal:
    """A position as a step, exactly.

    >>> to_decimal(1_000_000_000_000_000_001, 6)
    Decimal('1000000000000.000001')
    """
    return Decimal(position).scaleb(-decimals, _EXACT)


def _number(step: object) -> Decimal:
    try:
        if isinstance(step, Decimal):
            return step
        return Decimal(step.strip() if isinstance(step, str) else repr(float(step)))  # type: ignore[arg-type]
    except (decimal.InvalidOperation, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ConfigError(f"step = {step!r} must be a number, such as 100 or 0.5") from error
