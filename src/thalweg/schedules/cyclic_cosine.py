"""A cosine that restarts: SGDR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from thalweg.errors import ConfigError
from thalweg.schedules.cycles import check_growth, cycle_begin, find_cycle
from thalweg.schedules.schedule import check_count, check_floor, check_lengths, check_positive

WarmupIn = Literal["first", "each"]


@dataclass(frozen=True, kw_only=True)
class CyclicCosine:
    """What `cyclic_cosine` returns; it compares and prints by its numbers."""

    period: float
    cycle_growth: float = 1.0
    cycle_peak: float = 1.0
    num_cycles: int | None = None
    warmup: float = 0.0
    warmup_in: WarmupIn = "first"
    floor: float = 0.0
    start: float = 0.0

    def __post_init__(self) -> None:
        what = "cyclic_cosine"
        check_positive(what, period=self.period)
        check_cycles(what, self.cycle_growth, self.cycle_peak, self.num_cycles, self.floor)
        check_lengths(what, warmup=self.warmup, start=self.start)
        if self.warmup_in not in ("first", "each"):
            raise ConfigError(f"{what}: warmup_in = {self.warmup_in!r} must be 'first' or 'each'")
        shortest = self.period
        if self.warmup_in == "each" and self.num_cycles is not None:
            shortest = min(shortest, self.period * self.cycle_growth ** (self.num_cycles - 1))
        if self.warmup >= shortest:
            raise ConfigError(f"{what}: warmup = {self.warmup} must be shorter than its cycle of {shortest:g}")

    def __call__(self, position: float) -> float:
        elapsed = position - self.start
        lengths = {"first": self.period, "growth": self.cycle_growth}
        index = find_cycle(elapsed, **lengths, num_cycles=self.num_cycles) if elapsed >= 0 else None
        if index is None:
            return self.floor
        begin = cycle_begin(index, **lengths)
        length = cycle_begin(index + 1, **lengths) - begin
        inside = max(0.0, elapsed - begin)
        peak = float(self.cycle_peak**index)
        warmup = self.warmup if index == 0 or self.warmup_in == "each" else 0.0
        if inside < warmup:
            low = self.floor if index else 0.0
            return low + (peak - low) * inside / warmup
        done = min(1.0, (inside - warmup) / (length - warmup))
        return self.floor + (peak - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))


def check_cycles(schedule: str, growth: float, peak: float, num_cycles: int | None, floor: float) -> None:
    """Refuse what cycles cannot have: peaks above 1 or below the floor, and what never ends though it shrinks.

    Raises:
        ConfigError: naming the schedule, the parameter and its value.
    """
    check_positive(schedule, cycle_growth=growth, cycle_peak=peak)
    check_floor(schedule, floor)
    if peak > 1:
        raise ConfigError(f"{schedule}: cycle_peak = {peak} must be at most 1: raise the peak learning rate instead")
    if num_cycles is not None:
        check_count(schedule, num_cycles=num_cycles)
        check_growth(schedule, growth, num_cycles)
        if floor >= peak ** (num_cycles - 1):
            raise ConfigError(
                f"{schedule}: floor = {floor} is not below the last cycle's peak,"
                f" cycle_peak ** {num_cycles - 1} = {peak ** (num_cycles - 1):g}"
            )
    elif growth < 1:
        raise ConfigError(
            f"{schedule}: cycle_growth = {growth} below 1 needs num_cycles: such cycles shrink to nothing"
        )
    elif peak < 1 and floor > 0:
        raise ConfigError(
            f"{schedule}: cycle_peak = {peak} with floor = {floor} needs num_cycles: later peaks are below the floor"
        )


def cyclic_cosine(
    *,
    period: float,
    cycle_growth: float = 1.0,
    cycle_peak: float = 1.0,
    num_cycles: int | None = None,
    warmup: float = 0.0,
    warmup_in: WarmupIn = "first",
    floor: float = 0.0,
    start: float = 0.0,
) -> CyclicCosine:
    """Fall on half a cosine wave to the floor, jump back to the peak, and again (SGDR).

    The position at which a cycle ends is the first of the next one, so it has the next one's peak. Hugging Face's
    `cosine_with_hard_restarts` has its warm-up before the cycles; that is
    `join(schedules=[constant(warmup=w), cyclic_cosine(...)], boundaries=[w])`.

    Args:
        period: length of the first cycle, T_0, in the unit of the positions (steps, samples or tokens).
        cycle_growth: each cycle is so many times as long as the one before, T_mult. Lengths are not rounded.
        cycle_peak: each cycle's peak is so many times that of the one before, at most 1 (gamma in ESPnet).
        num_cycles: after so many the floor is held; None goes on for ever.
        warmup: length of the rise at the beginning of a cycle, a part of the cycle: from 0 in the first cycle, from the
            floor in later ones.
        warmup_in: whether only the "first" or "each" cycle has it.
        floor: where every cycle ends, in [0, 1), as a share of the first peak.
        start: where the first cycle begins; before it the floor.
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1].
    Raises:
        ConfigError: if a length is negative or the period 0, a warm-up fills its cycle, a peak is above 1 or not above
            the floor, or cycles without end shrink.
    Source: Loshchilov and Hutter 2017, arXiv:1608.03983; torch, `CosineAnnealingWarmRestarts`.

    >>> lr = cyclic_cosine(period=10, cycle_growth=2, cycle_peak=0.75)
    >>> [round(lr(p), 4) for p in (0, 5, 10, 20, 30)]
    [1.0, 0.5, 0.75, 0.375, 0.5625]
    """
    return CyclicCosine(
        period=period,
        cycle_growth=cycle_growth,
        cycle_peak=cycle_peak,
        num_cycles=num_cycles,
        warmup=warmup,
        warmup_in=warmup_in,
        floor=floor,
        start=start,
    )
