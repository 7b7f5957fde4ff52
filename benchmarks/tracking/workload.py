"""What is logged. It needs nothing but Python, as every peer's environment reads it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

METRIC = "loss"
"""The metric of a long series."""

NUM_LATEST = 3
"""Metrics of each run in a long list of runs."""

Calls = Sequence[tuple[int, Mapping[str, float]]]
"""(step, metrics) of each log call."""


class Logging(NamedTuple):
    """A run that is open for logging."""

    log: Callable[[int, Mapping[str, float]], object]
    finish: Callable[[], object]
    """Returns once another process can read all that was logged."""


def wide(num_steps: int, num_metrics: int = 100, seed: int = 0) -> Calls:
    """Many metrics a step, normal values."""
    rng = random.Random(seed)
    names = [f"metric/{i}" for i in range(num_metrics)]
    return [(step, {name: rng.gauss(0, 1) for name in names}) for step in range(num_steps)]


def long(num_steps: int, seed: int = 0) -> Calls:
    """One metric, normal values."""
    return [(step, {METRIC: value}) for step, value in enumerate(normal(num_steps, seed))]


def normal(num: int, seed: int = 0) -> list[float]:
    """Normal values: they do not compress, so that bytes a point are not flattered."""
    rng = random.Random(seed)
    return [rng.gauss(0, 1) for _ in range(num)]


def hyperparameters(number: int) -> dict[str, float]:
    """Of a run in a long list."""
    return {"lr": 1e-4 * (1 + number % 7), "batch_size": 2.0 ** (number % 5), "dropout": 0.1}


def latest(number: int) -> dict[str, float]:
    """The last values of a run in a long list."""
    return {f"metric/{i}": (number * 37 % 1000) / 1000 + i for i in range(NUM_LATEST)}
