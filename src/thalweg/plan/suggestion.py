"""What is to be trained, and what is suggested for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from thalweg.errors import ConfigError, nearest
from thalweg.space import Choice, Confidence, Dimension, Float, Integer, Value

Mode = Literal["full", "lora", "pretrain"]
MODES: tuple[Mode, ...] = ("full", "lora", "pretrain")

BEYOND = 10.0
"""A law is followed this far beyond the ends of what it was fitted on, and no further."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is to be trained, on how much data, and how."""

    mode: Mode
    """All weights (`full`), an adapter (`lora`), or a new model (`pretrain`)."""
    num_parameters: float
    """Of the model; for pre-training without the embedding."""
    kind: Literal["encoder", "decoder"] = "decoder"
    """Whether the pre-trained model is like BERT or like GPT; for fine-tuning."""
    width: int | None = None
    """Of the model's residual stream, where it is known; for fine-tuning."""
    family: str | None = None
    """`llama`, `qwen`, or another's name; for fine-tuning."""
    num_rows: int | None = None
    """Training rows, for fine-tuning."""
    num_tokens: float | None = None
    """Tokens that a run trains on, for pre-training."""
    context: int = 2048
    """Tokens of a training sequence, for pre-training."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"mode = {self.mode!r} is not known. {nearest(str(self.mode), MODES)}")
        size = ("num_tokens", self.num_tokens) if self.mode == "pretrain" else ("num_rows", self.num_rows)
        if size[1] is None:
            what = "tokens that a run trains on" if self.mode == "pretrain" else "training rows"
            raise ConfigError(f"mode = {self.mode!r} needs the number of {what}")
        counts = {"num_parameters": self.num_parameters, size[0]: size[1], "context": self.context}
        for name, value in (counts | ({} if self.width is None else {"width": self.width})).items():
            if not (value >= 1 and math.isfinite(value)):
                raise ConfigError(f"{name} = {value:g} must be at least 1 and finite")


@dataclass(frozen=True)
class Suggestion:
    """One hyperparameter: what to search or to fix, and why."""

    name: str
    entry: Dimension | Value
    """A dimension, or a fixed value."""
    why: str
    """The rule, with the numbers of this case."""
    source: str


def around(prior: float, confidence: Confidence) -> Float:
    """A tenth to ten times of a prior."""
    return log_scale(prior / 10, prior * 10, prior, confidence)


def log_scale(low: float, high: float, prior: float, confidence: Confidence) -> Float:
    """A logarithmic range with numbers that are short to read: two digits for the ends, three for the prior."""
    return Float(_rounded(low, 2), _rounded(high, 2), log=True, prior=_rounded(prior, 3), confidence=confidence)


def options_of(options: Sequence[int], prior: int, confidence: Confidence) -> Choice | int:
    """A choice, or a single option as a fixed value."""
    return Choice(tuple(options), prior=prior, confidence=confidence) if len(options) > 1 else options[0]


def typical(found: Suggestion) -> float:
    """The prior, or the fixed value."""
    value = found.entry.prior if isinstance(found.entry, Float | Integer | Choice) else found.entry
    assert isinstance(value, int | float)
    return float(value)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def in_words(value: float) -> str:
    """A large number for a person: 59.3M."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def within(value: float, fitted: tuple[float, float]) -> float:
    """A value as far as a law is followed that was fitted between two ends."""
    return min(max(value, fitted[0] / BEYOND), fitted[1] * BEYOND)
