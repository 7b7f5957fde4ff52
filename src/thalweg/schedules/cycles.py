"""Where the cycles of a cyclic schedule begin and end."""

from __future__ import annotations

import math

from thalweg.errors import ConfigError

# Cycles of, say, a sixth of a horizon do not add up to it exactly. A position this close to a boundary, as a share of
# the first cycle, is on it.
_ROUNDING = 1e-9


def cycle_begin(index: int, *, first: float, growth: float) -> float:
    """Where a cycle begins, from the beginning of cycle 0.

    Args:
        first: the length of cycle 0.
        growth: each cycle is so many times as long as the one before.

    >>> [cycle_begin(i, first=10, growth=2) for i in range(5)]
    [0.0, 10.0, 30.0, 70.0, 150.0]
    """
    if growth == 1:
        return float(first * index)
    if abs(growth - 1) < 1e-3:
        return first * math.expm1(index * math.log(growth)) / (growth - 1)
    return float(first * (float(growth) ** index - 1) / (growth - 1))


def find_cycle(elapsed: float, *, first: float, growth: float, num_cycles: int | None) -> int | None:
    """The cycle that a position is in, where a boundary belongs to the cycle that begins there.

    Args:
        elapsed: the position, from the beginning of cycle 0; 0 or more.
        num_cycles: None for cycles without end.
    Returns:
        Its index, or None at and after the end of the last cycle.

    >>> [find_cycle(e, first=10, growth=2, num_cycles=3) for e in (0, 9, 10, 30, 69, 70)]
    [0, 0, 1, 2, 2, None]
    """
    elapsed += _ROUNDING * first
    if num_cycles is not None and elapsed >= cycle_begin(num_cycles, first=first, growth=growth):
        return None
    if growth == 1:
        return int(elapsed / first)
    index = int(math.log1p(elapsed * (growth - 1) / first) / math.log(growth))
    # The logarithm may be off by one at a boundary.
    while cycle_begin(index + 1, first=first, growth=growth) <= elapsed:
        index += 1
    while index > 0 and cycle_begin(index, first=first, growth=growth) > elapsed:
        index -= 1
    return index


def check_growth(schedule: str, growth: float, num_cycles: int) -> None:
    """Refuse cycles that grow beyond what a number can hold.

    Raises:
        ConfigError: naming the schedule and both numbers.
    """
    if num_cycles * math.log(growth) > 600:
        raise ConfigError(
            f"{schedule}: num_cycles = {num_cycles} that grow by cycle_growth = {growth} are too many: the last is"
            " more than 10^260 times as long as the first"
        )


def first_length(total: float, *, num_cycles: int, growth: float) -> float:
    """The length of the first of so many cycles that are `total` long together.

    >>> first_length(70, num_cycles=3, growth=2)
    10.0
    """
    return total / cycle_begin(num_cycles, first=1.0, growth=growth)
