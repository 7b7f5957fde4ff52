"""Warm-up, stable, decay in cycles, each from the decayed weights of the one before: WSD-S."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from thalweg.errors import ConfigError
from thalweg.schedules.cycles import cycle_begin, find_cycle
from thalweg.schedules.cyclic_cosine import check_cycles
from thalweg.schedules.decay_forms import DECAY_FORMS, check_decay_form
from thalweg.schedules.schedule import check_lengths, check_positive, check_shares

DecayOf = Literal["cycle", "all"]


@dataclass(frozen=True, kw_only=True)
class CyclicWsd:
    """What `cyclic_wsd` returns; it compares and prints by its numbers."""

    period: float | None = None
    cycle_growth: float = 1.0
    num_cycles: int | None = None
    ends: tuple[float, ...] | None = None
    warmup: float = 0.0
    rewarmup: float = 0.0
    decay: float = 0.1
    decay_of: DecayOf = "cycle"
    decay_form: str = "linear"
    floor: float = 0.0
    cycle_peak: float = 1.0
    peaks: tuple[float, ...] | None = None
    start: float = 0.0
    end_included: bool = False

    def __post_init__(self) -> None:
        what = "cyclic_wsd"
        check_lengths(what, warmup=self.warmup, rewarmup=self.rewarmup, start=self.start)
        check_positive(what, decay=self.decay)
        check_decay_form(what, self.decay_form, self.floor)
        if self.decay_of not in ("cycle", "all"):
            raise ConfigError(f"{what}: decay_of = {self.decay_of!r} must be 'cycle' or 'all'")
        self._check_cycles(what)
        self._check_peaks(what)
        for index in self._cycles_to_check():
            self._check_fit(what, index)

    def __call__(self, position: float) -> float:
        index = self._find(position)
        if index is None:
            return self.floor
        begin, end = self._bounds(index)
        inside = max(0.0, position - begin)
        peak = self._peak(index)
        rise = self.rewarmup if index else self.warmup
        if inside < rise:
            low = self.floor if index else 0.0
            return low + (peak - low) * inside / rise
        decay = self._decay(begin, end)
        left = end - position
        if left >= decay:
            return peak
        return peak * DECAY_FORMS[self.decay_form](1.0 - max(0.0, left) / decay, self.floor / peak)

    def _find(self, position: float) -> int | None:
        """The cycle that a position is in; None before the first and after the last."""
        if position < self.start:
            return None
        if self.ends is not None:
            index = (bisect_left if self.end_included else bisect_right)(self.ends, position)
            return index if index < len(self.ends) else None
        assert self.period is not None
        lengths = {"first": self.period, "growth": self.cycle_growth}
        elapsed = position - self.start
        found = find_cycle(elapsed, **lengths, num_cycles=self.num_cycles)
        if self.end_included and elapsed > 0:
            # The boundary before, where the position is on it.
            last = self.num_cycles if found is None else found
            assert last is not None
            if last > 0 and elapsed <= cycle_begin(last, **lengths) * (1 + 1e-12):
                return last - 1
        return found

    def _bounds(self, index: int) -> tuple[float, float]:
        if self.ends is not None:
            return (self.ends[index - 1] if index else self.start), self.ends[index]
        assert self.period is not None
        lengths = {"first": self.period, "growth": self.cycle_growth}
        return self.start + cycle_begin(index, **lengths), self.start + cycle_begin(index + 1, **lengths)

    def _peak(self, index: int) -> float:
        return float(self.cycle_peak**index) if self.peaks is None else self.peaks[index]

    def _decay(self, begin: float, end: float) -> float:
        """The length of the decay of the cycle with these bounds."""
        if self.decay >= 1:
            return self.decay
        return self.decay * (end - begin if self.decay_of == "cycle" else end)

    def _check_cycles(self, what: str) -> None:
        if (self.period is None) == (self.ends is None):
            raise ConfigError(f"{what}: period = {self.period} and ends = {self.ends}: give exactly one of them")
        if self.ends is None:
            assert self.period is not None
            check_positive(what, period=self.period)
            check_cycles(what, self.cycle_growth, self.cycle_peak, self.num_cycles, self.floor)
            if self.decay_of == "all" and self.num_cycles is None:
                raise ConfigError(f"{what}: decay_of = 'all' needs num_cycles: in the end a decay outgrows its cycle")
            return
        if self.num_cycles is not None or self.cycle_growth != 1:
            raise ConfigError(f"{what}: num_cycles and cycle_growth belong to period: ends = {self.ends} says both")
        check_positive(what, **{f"ends[{i}]": end for i, end in enumerate(self.ends)})
        edges = (self.start, *self.ends)
        if not self.ends or any(before >= after for before, after in pairwise(edges)):
            raise ConfigError(f"{what}: ends = {list(self.ends)} must increase from start = {self.start}")
        check_cycles(what, 1.0, self.cycle_peak, len(self.ends), self.floor)

    def _check_peaks(self, what: str) -> None:
        if self.peaks is None:
            return
        num_cycles = self.num_cycles if self.ends is None else len(self.ends)
        if self.cycle_peak != 1:
            raise ConfigError(f"{what}: cycle_peak = {self.cycle_peak} and peaks = {self.peaks}: give one of them")
        if len(self.peaks) != num_cycles:
            raise ConfigError(f"{what}: peaks = {self.peaks} must have one entry for each of num_cycles = {num_cycles}")
        check_shares(what, **{f"peaks[{i}]": peak for i, peak in enumerate(self.peaks)})
        if min(self.peaks) <= self.floor:
            raise ConfigError(f"{what}: floor = {self.floor} must be below every peak of {self.peaks}")

    def _cycles_to_check(self) -> Sequence[int]:
        if self.ends is not None:
            return range(len(self.ends))
        if self.cycle_growth >= 1 and self.decay_of == "cycle":
            # Later ones are at least as long, and all else is equal.
            return range(min(2, self.num_cycles or 2))
        assert self.num_cycles is not None
        return range(self.num_cycles)

    def _check_fit(self, what: str, index: int) -> None:
        begin, end = self._bounds(index)
        name, rise = ("rewarmup", self.rewarmup) if index else ("warmup", self.warmup)
        decay = self._decay(begin, end)
        # The tolerance is for lengths that are shares, whose sum is rounded.
        if rise + decay > (end - begin) * (1 + 1e-9):
            raise ConfigError(
                f"{what}: {name} = {rise:g} and a decay of {decay:g} are longer than cycle {index}, which goes from"
                f" {begin:g} to {end:g}"
            )


def cyclic_wsd(
    *,
    period: float | None = None,
    cycle_growth: float = 1.0,
    num_cycles: int | None = None,
    ends: Sequence[float] | None = None,
    warmup: float = 0.0,
    rewarmup: float = 0.0,
    decay: float = 0.1,
    decay_of: DecayOf = "cycle",
    decay_form: str = "linear",
    floor: float = 0.0,
    cycle_peak: float = 1.0,
    peaks: Sequence[float] | None = None,
    start: float = 0.0,
    end_included: bool = False,
) -> CyclicWsd:
    """Hold the peak, decay to the floor, return to the peak from the decayed weights, and again (WSD-S).

    All lengths are in the unit of the positions (steps, samples or tokens).

    Args:
        period: length of the first cycle, its warm-up included. Either this or `ends`.
        cycle_growth: each cycle is so many times as long as the one before.
        num_cycles: after so many the floor is held; None goes on for ever.
        ends: the positions where the cycles end, instead of `period`.
        warmup: length of the rise from 0 at the beginning of the first cycle.
        rewarmup: length of the rise from the floor at the beginning of each later cycle; 0 jumps back to the peak.
        decay: below 1 a share, from 1 on a length.
        decay_of: of what it is a share. "cycle": of the cycle, warm-up included, as levanter and OLMo-core have it;
            "all": of the position where the cycle ends, so of all steps so far, as lingua has it.
        decay_form: how it falls, a name of `DECAY_FORMS`. "exponential" and "inverse" need a floor above 0.
        floor: where every decay ends, in [0, 1), as a share of the first peak.
        cycle_peak: each cycle's peak is so many times that of the one before, at most 1.
        peaks: each cycle's own peak, in (0, 1], instead of `cycle_peak`.
        start: where the first cycle begins; before it the floor, to which the weights it begins from were decayed.
        end_included: whether the position where a cycle ends has the floor (OLMo-core, which counts steps from 1) or is
            the first of the next cycle (levanter; the default).
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1]; after the last cycle the floor.
    Raises:
        ConfigError: if not exactly one of `period` and `ends` is given, a length is negative, ends do not increase, a
            rise and its decay are longer than their cycle, a peak is above 1 or not above the floor, or the form is
            unknown.
    Source: Wen et al. 2024, arXiv:2410.05192; levanter, lingua and OLMo-core (`WSDS`), which differ as said above.

    >>> lr = cyclic_wsd(period=100, decay=0.2, warmup=10)
    >>> [round(lr(p), 6) for p in (0, 5, 80, 90, 100, 180, 190)]
    [0.0, 0.5, 1.0, 0.5, 1.0, 1.0, 0.5]
    """
    return CyclicWsd(
        period=period,
        cycle_growth=cycle_growth,
        num_cycles=num_cycles,
        ends=None if ends is None else tuple(ends),
        warmup=warmup,
        rewarmup=rewarmup,
        decay=decay,
        decay_of=decay_of,
        decay_form=decay_form,
        floor=floor,
        cycle_peak=cycle_peak,
        peaks=None if peaks is None else tuple(peaks),
        start=start,
        end_included=end_included,
    )
