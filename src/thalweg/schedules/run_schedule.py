"""A run's schedule from a name and a few numbers, as hyperparameters give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from thalweg.errors import ConfigError, nearest
from thalweg.schedules.compose import stretch
from thalweg.schedules.constant import Constant, constant
from thalweg.schedules.cosine import cosine
from thalweg.schedules.cycles import check_growth, first_length
from thalweg.schedules.cyclic_cosine import cyclic_cosine
from thalweg.schedules.cyclic_wsd import cyclic_wsd
from thalweg.schedules.decay_forms import DECAY_FORMS
from thalweg.schedules.exponential import lr_range
from thalweg.schedules.inverse_sqrt import inverse_sqrt
from thalweg.schedules.linear import linear
from thalweg.schedules.polynomial import polynomial
from thalweg.schedules.preset import preset, preset_names
from thalweg.schedules.schedule import Schedule, check_count, check_lengths, check_positive
from thalweg.schedules.wsd import Wsd, wsd


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What `for_run` was given, with the warm-up as a length."""

    horizon: float
    warmup: float
    decay: float
    decay_form: str
    floor: float
    num_cycles: int
    cycle_growth: float
    cycle_peak: float
    cycle_start: float

    @property
    def period(self) -> float:
        return first_length(self.horizon - self.cycle_start, num_cycles=self.num_cycles, growth=self.cycle_growth)

    @property
    def first_warmup(self) -> float:
        """The warm-up of a cyclic schedule: none where it goes on from decayed weights."""
        return 0.0 if self.cycle_start > 0 else self.warmup


def _wsd(run: _Run) -> Wsd:
    decay = _length(run.decay, run.horizon)
    stable = float(Fraction(run.horizon) - Fraction(run.warmup) - Fraction(decay))
    if stable < 0:
        raise ConfigError(
            f"wsd: warmup = {run.warmup:g} and decay = {decay:g} are longer than the run of {run.horizon:g} together"
        )
    return wsd(warmup=run.warmup, stable=stable, decay=decay, decay_form=run.decay_form, floor=run.floor)


def _cyclic_cosine(run: _Run) -> Schedule:
    return cyclic_cosine(
        period=run.period,
        cycle_growth=run.cycle_growth,
        cycle_peak=run.cycle_peak,
        num_cycles=run.num_cycles,
        warmup=run.first_warmup,
        floor=run.floor,
        start=run.cycle_start,
    )


def _cyclic_wsd(run: _Run) -> Schedule:
    return cyclic_wsd(
        period=run.period,
        cycle_growth=run.cycle_growth,
        num_cycles=run.num_cycles,
        warmup=run.first_warmup,
        decay=run.decay,
        decay_form=run.decay_form,
        floor=run.floor,
        cycle_peak=run.cycle_peak,
        start=run.cycle_start,
    )


_FOR_RUN: Mapping[str, Callable[[_Run], Schedule]] = {
    "constant": lambda run: constant(warmup=run.warmup),
    "linear": lambda run: linear(warmup=run.warmup, horizon=run.horizon, floor=run.floor),
    "polynomial": lambda run: polynomial(power=2, warmup=run.warmup, horizon=run.horizon, floor=run.floor),
    "inverse_sqrt": lambda run: inverse_sqrt(warmup=run.warmup, floor=run.floor),
    "cosine": lambda run: cosine(warmup=run.warmup, horizon=run.horizon, floor=run.floor),
    "wsd": _wsd,
    "cyclic_cosine": _cyclic_cosine,
    "cyclic_wsd": _cyclic_wsd,
    "lr_range": lambda run: lr_range(horizon=run.horizon, floor=run.floor),
}

RUN_SCHEDULES: tuple[str, ...] = tuple(_FOR_RUN)
"""The schedules that `for_run` makes, presets aside."""


def run_schedule_names() -> list[str]:
    """All names that `for_run` knows: schedules, then presets."""
    return [*RUN_SCHEDULES, *preset_names()]


def for_run(
    name: str,
    *,
    horizon: float,
    warmup: float = 0.0,
    decay: float = 0.1,
    decay_form: str = "linear",
    floor: float = 0.0,
    num_cycles: int = 1,
    cycle_growth: float = 1.0,
    cycle_peak: float = 1.0,
    cycle_start: float = 0.0,
) -> Schedule:
    """The schedule of one run. What a schedule does not have has no effect on it.

    Args:
        name: a schedule of `RUN_SCHEDULES`, or a preset, whose shape is stretched so that it ends at the horizon and
            which reads nothing else. "polynomial" has power 2; "inverse_sqrt" needs a warm-up, its time scale;
            "lr_range" rises from the floor, which it needs, to the peak at the horizon.
        horizon: the run's length, in the unit of its positions (steps, samples or tokens), above 0.
        warmup: rise from 0: below 1 a share of the horizon, from 1 on a length. It is a part of the horizon, and of the
            first cycle. Runs of several horizons that are to share a trunk need it as a length.
        decay: of "wsd", a share of the horizon or a length; of "cyclic_wsd", a share of each cycle or a length.
        decay_form: of "wsd" and "cyclic_wsd", a name of `DECAY_FORMS`.
        floor: the lowest multiplier after the peak, in [0, 1).
        num_cycles: of cyclic schedules: so many fill the run from `cycle_start` to the horizon.
        cycle_growth: each cycle is so many times as long as the one before.
        cycle_peak: each cycle's peak is so many times that of the one before, at most 1.
        cycle_start: where the first cycle begins. Above 0 the run goes on from decayed weights: there is no warm-up,
            and before this position, which belongs to the run it goes on from, the schedule gives the floor.
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1]. Beyond the horizon it is the floor;
        "constant" and "lr_range" hold the peak, and "inverse_sqrt" goes on falling.
    Raises:
        ConfigError: if the name is unknown, or a length or a value does not fit; it is named.

    >>> lr = for_run("wsd", horizon=1000, warmup=0.1, decay=200)
    >>> lr
    Wsd(warmup=100.0, stable=700.0, decay=200.0, floor=0.0, decay_form='linear', half_life=None)
    >>> [lr(p) for p in (0, 50, 800, 900, 1000)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check_positive(name, horizon=horizon, cycle_growth=cycle_growth, cycle_peak=cycle_peak)
    check_lengths(name, warmup=warmup, decay=decay, floor=floor, cycle_start=cycle_start)
    check_count(name, num_cycles=num_cycles)
    check_growth(name, cycle_growth, num_cycles)
    if decay_form not in DECAY_FORMS:
        raise ConfigError(f"unknown decay_form {decay_form!r}. {nearest(str(decay_form), DECAY_FORMS)}")
    if name in preset_names():
        published = preset(name)
        same = published.length == horizon
        return published.schedule if same else stretch(published.schedule, factor=horizon / published.length)
    if name not in _FOR_RUN:
        raise ConfigError(f"unknown schedule {name!r}. {nearest(str(name), run_schedule_names())}")
    if cycle_start >= horizon:
        raise ConfigError(f"{name}: cycle_start = {cycle_start} must be before the horizon of {horizon}")
    length = _length(warmup, horizon)
    if length > horizon:
        raise ConfigError(f"{name}: warmup = {warmup} is longer than the horizon of {horizon}")
    return _FOR_RUN[name](
        _Run(
            horizon=horizon,
            warmup=length,
            decay=decay,
            decay_form=decay_form,
            floor=floor,
            num_cycles=num_cycles,
            cycle_growth=cycle_growth,
            cycle_peak=cycle_peak,
            cycle_start=cycle_start,
        )
    )


def decay_start(name: str, *, horizon: float, **settings: Any) -> float | None:
    """Where a run of this schedule leaves its peak for good, so that a trunk can be forked there.

    Args:
        name, horizon, settings: as `for_run` has them.
    Returns:
        The position where the decay of "wsd" begins; the horizon for "constant". None where the peak is not held before
        a decay, and for presets, whose warm-up changes with the horizon.
    Raises:
        ConfigError: as `for_run`.

    >>> decay_start("wsd", horizon=1000), decay_start("constant", horizon=1000), decay_start("cosine", horizon=1000)
    (900.0, 1000.0, None)
    """
    schedule = for_run(name, horizon=horizon, **settings)
    if name not in _FOR_RUN:
        return None
    if isinstance(schedule, Wsd):
        return schedule.decay_start
    return float(horizon) if isinstance(schedule, Constant) else None


def _length(given: float, whole: float) -> float:
    """A share of the whole below 1, else the length itself.

    The share is read as the decimal that it was written as: 0.1 of 3 * 10^n is that exactly, which floats do not give.
    """
    return float(given) if given >= 1 else float(Fraction(str(float(given))) * Fraction(whole))
