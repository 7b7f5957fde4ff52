"""The hyperparameters that our trainers understand: names, defaults and ranges."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from thalweg import schedules
from thalweg.errors import ConfigError, nearest
from thalweg.schedules import Schedule
from thalweg.space import Choice, Float, Hyperparameters, Space, Value


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """What every training has. The defaults are those of Hugging Face's `TrainingArguments`."""

    lr: float = 5e-5
    """Peak learning rate."""
    batch_size: int = 8
    """Rows (fine-tuning) or sequences (pre-training) per optimiser step."""
    schedule: str = "linear"
    """The learning rate's course: a name of `thalweg.schedules`, or a preset's, whose shape is stretched to the run."""
    warmup: float = 0.0
    """Rise from 0: below 1 a share of the run, from 1 on a length in samples or tokens."""
    decay: float = 0.1
    """Fall at the end (`wsd`), or at the end of each cycle (`cyclic_wsd`): a share or a length as above."""
    decay_form: str = "linear"
    """How it falls: a name of `thalweg.schedules.decay_forms`."""
    floor: float = 0.0
    """The lowest learning rate after the peak, as a share of the peak."""
    num_cycles: int = 1
    """Cycles of a cyclic schedule."""
    cycle_growth: float = 1.0
    """Each cycle is so many times as long as the one before."""
    cycle_peak: float = 1.0
    """Each cycle's peak is so many times that of the one before."""
    cycle_start: float = 0.0
    """Where the first cycle begins: the end of the run that this one extends from its decayed weights."""
    weight_decay: float = 0.0
    """Norms and biases are left out, as Hugging Face does."""
    weight_decay_kind: str = "decoupled"
    """`decoupled` (AdamW), `l2` (in the gradient) or `independent` (of the peak learning rate)."""
    clip: float = 1.0
    """Threshold of gradient clipping; 0 turns it off."""
    clip_by: str = "norm"
    """What is held below the threshold: the global `norm`, each `value`, or each `component`'s norm."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    horizon_name: ClassVar[str]
    """The hyperparameter that decides how long a run is."""

    @classmethod
    def parse(cls, hyperparameters: Hyperparameters, *, without: str | None = None) -> Self:
        """Check names and ranges, and fill in defaults. Names of other libraries are understood: `ALIASES`.

        Args:
            without: hyperparameters that begin with this do not apply, such as `lora_` without an adapter.
        Raises:
            ConfigError: naming the hyperparameter, its value, and what would work.
        """
        values: dict[str, Value] = {}
        for given, value in hyperparameters.items():
            name = ALIASES.get(given, given)
            if name in values:
                raise ConfigError(f"{given!r} and {name!r} are the same hyperparameter: give one of them")
            cls._check_value(given, value, without)
            values[name] = value
        return cls(**values)  # type: ignore[arg-type]

    @classmethod
    def check_space(cls, space: Space, *, without: str | None = None) -> None:
        """Refuse names that this trainer does not know and ranges that it cannot work in.

        Raises:
            ConfigError: naming the hyperparameter, its value, and what would work.
        """
        for name, value in space.fixed.items():
            cls._check_value(name, value, without)
        for name, dimension in space.dimensions.items():
            if isinstance(dimension, Choice):
                values: tuple[Value, ...] = dimension.options
            else:
                values = (dimension.low, dimension.high)
            for value in values:
                cls._check_value(name, value, without)
            allowed = _RANGES[ALIASES.get(name, name)]
            if isinstance(dimension, Float) and isinstance(allowed, _Range) and allowed.whole:
                raise ConfigError(f"{name} must be a whole number: use integer or choice in the space")
        seen: dict[str, str] = {}
        for name in space.names:
            other = seen.setdefault(ALIASES.get(name, name), name)
            if other != name:
                raise ConfigError(f"{other!r} and {name!r} are the same hyperparameter: give one of them")

    @classmethod
    def _check_value(cls, given: str, value: Value, without: str | None) -> None:
        all_names = [field.name for field in dataclasses.fields(cls)]
        known = [name for name in all_names if without is None or not name.startswith(without)]
        name = ALIASES.get(given, given)
        if name not in known:
            reason = " without adapter = 'lora'" if name in all_names else ""
            raise ConfigError(f"unknown hyperparameter {given!r}{reason}. {nearest(given, known)}")
        allowed = _RANGES[name]
        if not allowed.contains(value):
            hint = (
                f". {nearest(value, allowed.known())}" if isinstance(allowed, _Names) and isinstance(value, str) else ""
            )
            raise ConfigError(f"{given} = {value!r} must be {allowed}{hint}")

    @classmethod
    def fixed_at_start(cls, names: Iterable[str]) -> dict[str, str]:
        """Of these names, those that a fork cannot change, each with the reason."""
        shapes = "it decides the shapes of the adapter's weights"
        return {given: shapes for given in names if ALIASES.get(given, given) == "lora_r"}

    @classmethod
    def spelled(cls, hyperparameters: Hyperparameters, name: str) -> str:
        """The name under which a hyperparameter is given, where it is; else its own."""
        return next((given for given in hyperparameters if ALIASES.get(given, given) == name), name)

    def schedule_for(self, horizon: float) -> Schedule:
        """The learning rate of a run of this length, as a multiplier of the peak.

        Raises:
            ConfigError: warm-up and decay are longer than the run, or a value does not fit the schedule.
        """
        return schedules.for_run(self.schedule, **self._lengths(horizon))

    def decay_start(self, horizon: float) -> float | None:
        """Where the learning rate leaves its peak for good; None where it is not held before that."""
        return schedules.decay_start(self.schedule, **self._lengths(horizon))

    @property
    def is_cyclic(self) -> bool:
        """Whether the schedule goes on from its decayed end with another cycle."""
        return self.schedule.startswith("cyclic")

    def extended(self, hyperparameters: Hyperparameters, horizon: float, value: Value) -> dict[str, Value]:
        """The changes that give a run another horizon and leave what it has trained as it is.

        Args:
            hyperparameters: what these settings were parsed from.
            horizon: the run's horizon until now.
            value: the new one's, of the hyperparameter `horizon_name`.
        """
        changes = {self.spelled(hyperparameters, self.horizon_name): value}
        if 0 < self.warmup < 1:
            # A share of another horizon would be another warm-up; less than 1 would be read as a share again.
            changes[self.spelled(hyperparameters, "warmup")] = max(1.0, self.warmup * horizon)
        if self.is_cyclic:
            return {**changes, "cycle_start": horizon, "num_cycles": 1}
        return changes

    def _lengths(self, horizon: float) -> dict[str, Any]:
        names = ("warmup", "decay", "decay_form", "floor", "num_cycles", "cycle_growth", "cycle_peak", "cycle_start")
        return {"horizon": horizon} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class FineTuneHyperparameters(Optimization):
    """Of fine-tuning."""

    epochs: float = 3
    """Passes over the training rows; a part of one will do."""
    dropout: float | None = None
    """Probability for all dropout in the model. None: as the model has it."""
    lora_r: int = 8
    """Rank of the adapter."""
    lora_alpha: float = 16
    """The adapter's output is scaled by alpha / r."""
    lora_dropout: float = 0.0

    horizon_name = "epochs"


@dataclass(frozen=True, kw_only=True)
class PretrainHyperparameters(Optimization):
    """Of pre-training. Defaults that differ are what language models are usually pre-trained with."""

    tokens: int = 1_000_000
    """Tokens to train on: the run's horizon."""
    lr: float = 3e-3
    batch_size: int = 16
    schedule: str = "wsd"
    warmup: float = 0.02
    weight_decay: float = 0.1
    beta2: float = 0.95

    horizon_name = "tokens"


@dataclass(frozen=True)
class _Range:
    low: float
    high: float = math.inf
    low_included: bool = True
    whole: bool = False

    def contains(self, value: Value) -> bool:
        if isinstance(value, bool | str) or (self.whole and not isinstance(value, int)):
            return False
        above = value >= self.low if self.low_included else value > self.low
        return above and value < self.high

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"{'of at least' if self.low_included else 'above'} {self.low:g}"
        return f"{kind} {low}" + (f" and below {self.high:g}" if math.isfinite(self.high) else "")


@dataclass(frozen=True)
class _Names:
    what: str
    known: Callable[[], list[str]]

    def contains(self, value: Value) -> bool:
        return value in self.known()

    def __str__(self) -> str:
        return f"the name of {self.what}"


_POSITIVE = _Range(0.0, low_included=False)
_NOT_NEGATIVE = _Range(0.0)
_PROBABILITY = _Range(0.0, 1.0)
_COUNT = _Range(1, whole=True)

_RANGES: Mapping[str, _Range | _Names] = {
    "lr": _POSITIVE,
    "batch_size": _COUNT,
    "schedule": _Names("a schedule", schedules.run_schedule_names),
    "warmup": _NOT_NEGATIVE,
    "decay": _NOT_NEGATIVE,
    "decay_form": _Names("a form of decay", lambda: list(schedules.DECAY_FORMS)),
    "floor": _PROBABILITY,
    "num_cycles": _COUNT,
    "cycle_growth": _POSITIVE,
    "cycle_peak": _POSITIVE,
    "cycle_start": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "weight_decay_kind": _Names("a kind of weight decay", lambda: ["decoupled", "l2", "independent"]),
    "clip": _NOT_NEGATIVE,
    "clip_by": _Names("a way of clipping", lambda: ["norm", "value", "component"]),
    "beta1": _PROBABILITY,
    "beta2": _PROBABILITY,
    "epsilon": _NOT_NEGATIVE,
    "epochs": _POSITIVE,
    "tokens": _COUNT,
    "dropout": _PROBABILITY,
    "lora_r": _COUNT,
    "lora_alpha": _POSITIVE,
    "lora_dropout": _PROBABILITY,
}

ALIASES: Mapping[str, str] = {
    "learning_rate": "lr",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "num_tokens": "tokens",
    "max_grad_norm": "clip",
    "clip_norm": "clip",
    "warmup_ratio": "warmup",
    "warmup_fraction": "warmup",
    "lr_scheduler_type": "schedule",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "epsilon",
    "r": "lora_r",
    "rank": "lora_r",
}
"""What Hugging Face and others call them: understood everywhere, and kept as they were written."""

_NUM_CHECKED = 64


def check_schedules(
    space: Space, parse: Callable[[Hyperparameters], Optimization], horizon: Callable[[Hyperparameters], int]
) -> None:
    """Refuse a space in which some schedule does not fit its run: 64 draws and each dimension's ends are tried.

    Raises:
        ConfigError: a warm-up and a decay that are longer than the run, a form of decay that needs another floor ...
    """
    for point in _points(space):
        try:
            parse(point).schedule_for(horizon(point))
        except ConfigError as error:
            shown = ", ".join(f"{name} = {value!r}" for name, value in point.items())
            raise ConfigError(f"{error}\nwith {shown}") from None


def _points(space: Space) -> Iterator[Hyperparameters]:
    rng = np.random.default_rng(0)
    first = space.sample(rng)
    yield first
    for name, dimension in space.dimensions.items():
        if name in first:
            yield from ({**first, name: value} for value in dimension.grid(2))
    for _ in range(_NUM_CHECKED):
        yield space.sample(rng)
