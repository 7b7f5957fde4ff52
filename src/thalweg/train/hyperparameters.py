"""The hyperparameters that fine-tuning understands: names, defaults and ranges."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from thalweg.errors import ConfigError, nearest
from thalweg.space import Choice, Float, Hyperparameters, Space, Value


@dataclass(frozen=True, kw_only=True)
class FineTuneHyperparameters:
    """One run's hyperparameters. The defaults are those of Hugging Face's `TrainingArguments`."""

    lr: float = 5e-5
    """Peak learning rate."""
    batch_size: int = 8
    """Rows per optimiser step."""
    epochs: float = 3
    """Passes over the training rows; a part of one will do."""
    weight_decay: float = 0.0
    """AdamW's, decoupled; biases and norms are left out, as Hugging Face does."""
    warmup_fraction: float = 0.0
    """Share of the run over which the learning rate rises from 0."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 turns clipping off."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    dropout: float | None = None
    """Probability for all dropout in the model. None: as the model has it."""
    lora_r: int = 8
    """Rank of the adapter."""
    lora_alpha: float = 16
    """The adapter's output is scaled by alpha / r."""
    lora_dropout: float = 0.0

    @classmethod
    def parse(cls, hyperparameters: Hyperparameters, *, adapter: str | None) -> Self:
        """Check names and ranges, and fill in defaults.

        Raises:
            ConfigError: naming the hyperparameter, its value, and what would work.
        """
        for name, value in hyperparameters.items():
            _check_value(name, value, adapter)
        return cls(**hyperparameters)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
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


_POSITIVE = _Range(0.0, math.inf, low_included=False)
_NOT_NEGATIVE = _Range(0.0, math.inf)
_PROBABILITY = _Range(0.0, 1.0)
_COUNT = _Range(1, math.inf, whole=True)

_RANGES: Mapping[str, _Range] = {
    "lr": _POSITIVE,
    "batch_size": _COUNT,
    "epochs": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "warmup_fraction": _PROBABILITY,
    "clip_norm": _NOT_NEGATIVE,
    "beta1": _PROBABILITY,
    "beta2": _PROBABILITY,
    "epsilon": _NOT_NEGATIVE,
    "dropout": _PROBABILITY,
    "lora_r": _COUNT,
    "lora_alpha": _POSITIVE,
    "lora_dropout": _PROBABILITY,
}
assert set(_RANGES) == {field.name for field in dataclasses.fields(FineTuneHyperparameters)}


_ELSEWHERE: Mapping[str, str] = {
    "learning_rate": "lr",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_grad_norm": "clip_norm",
    "warmup_ratio": "warmup_fraction",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "epsilon",
    "r": "lora_r",
    "rank": "lora_r",
}
"""What Hugging Face and others call them."""


def check_space(space: Space, *, adapter: str | None) -> None:
    """Refuse names that fine-tuning does not know and ranges that it cannot work in.

    Raises:
        ConfigError: naming the hyperparameter, its value, and what would work.
    """
    for name, value in space.fixed.items():
        _check_value(name, value, adapter)
    for name, dimension in space.dimensions.items():
        if isinstance(dimension, Choice):
            values: tuple[Value, ...] = dimension.options
        else:
            values = (dimension.low, dimension.high)
        for value in values:
            _check_value(name, value, adapter)
        if isinstance(dimension, Float) and _RANGES[name].whole:
            raise ConfigError(f"{name} must be a whole number: use integer or choice in the space")


def _check_value(name: str, value: Value, adapter: str | None) -> None:
    known = [known for known in _RANGES if adapter == "lora" or not known.startswith("lora_")]
    if name not in known:
        reason = " without adapter = 'lora'" if name in _RANGES else ""
        hint = f" It is called {_ELSEWHERE[name]!r} here." if name in _ELSEWHERE else ""
        raise ConfigError(f"unknown hyperparameter {name!r}{reason}.{hint} {nearest(name, known)}")
    if not _RANGES[name].contains(value):
        raise ConfigError(f"{name} = {value!r} must be {_RANGES[name]}")
