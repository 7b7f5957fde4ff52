"""Steps, samples and tokens, also where the batch grows: then equal samples are not equal steps."""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from dataclasses import dataclass

from thalweg.errors import ConfigError, nearest
from thalweg.schedules.schedule import Schedule, check_count, check_lengths, check_schedule
from thalweg.tree import UNITS, Unit


@dataclass(frozen=True, kw_only=True)
class BatchRamp:
    """A batch size that grows in equal increments, at equal distances in samples, as Megatron-LM has it.

    A batch size changes between two steps: at the first step that begins at or after the sample where it is due.

    >>> ramp = BatchRamp(start=2, increment=2, over=8, final=6)
    >>> [ramp.size_at(samples) for samples in (0, 2, 4, 8, 100)]
    [2, 2, 4, 6, 6]
    >>> [ramp.samples_at(step) for step in range(6)]
    [0.0, 2.0, 4.0, 8.0, 14.0, 20.0]
    >>> ramp.steps_at(14)
    4.0
    """

    start: int
    """Samples of the first step, at least 1."""
    increment: int = 0
    """By how much the size grows each time; `final - start` is a multiple of it."""
    over: float = 0.0
    """The number of samples after which the size is final."""
    final: int
    """Samples of a step from there on, at least `start`."""

    def __post_init__(self) -> None:
        check_count("batch ramp", start=self.start, final=self.final)
        check_lengths("batch ramp", increment=self.increment, over=self.over)
        grows = self.final - self.start
        if grows == 0 and self.increment == 0 and self.over == 0:
            return
        if grows <= 0 or self.increment < 1 or grows % self.increment or self.over <= 0:
            raise ConfigError(
                f"batch ramp: from start = {self.start} to final = {self.final} by increment = {self.increment} over"
                f" {self.over} samples: the increment must divide final - start, and all but it must be above 0"
            )

    def size_at(self, samples: float) -> int:
        """The batch size of a step that begins after so many samples."""
        if samples >= self.over:
            return self.final
        num_increments = (self.final - self.start) // self.increment
        return self.start + self.increment * math.floor(samples * num_increments / self.over)

    def samples_at(self, step: float) -> float:
        """How many samples are consumed before a step; within a step in proportion."""
        begins = _stretches(self)
        at_step, at_sample, size = begins[bisect_right(begins, step, key=lambda begin: begin[0]) - 1]
        return at_sample + (step - at_step) * size

    def steps_at(self, samples: float) -> float:
        """How many steps so many samples take; a part of a step in proportion."""
        begins = _stretches(self)
        at_step, at_sample, size = begins[bisect_right(begins, samples, key=lambda begin: begin[1]) - 1]
        return at_step + (samples - at_sample) / size


@functools.cache
def _stretches(ramp: BatchRamp) -> list[tuple[float, float, int]]:
    """Step, sample and batch size where each size begins."""
    found: list[tuple[float, float, int]] = [(0.0, 0.0, ramp.size_at(0))]
    num_increments = (ramp.final - ramp.start) // ramp.increment if ramp.increment else 0
    for index in range(1, num_increments + 1):
        step, sample, size = found[-1]
        # The last one is `over` itself, whatever the division would round to.
        due = ramp.over if index == num_increments else ramp.over * index / num_increments
        if sample >= due:
            continue  # one long step went past this increment too
        num_steps = math.ceil((due - sample) / size)
        sample += num_steps * size
        found.append((step + num_steps, sample, ramp.size_at(sample)))
    return found


def batch_ramp(*, start: int, increment: int, over: float, final: int) -> BatchRamp:
    """A batch that grows from `start` to `final` samples by `increment`, over so many samples.

    Raises:
        ConfigError: if sizes are not whole numbers that grow, or the increment does not divide their difference.
    Source: Megatron-LM, `--rampup-batch-size start increment over`.
    """
    return BatchRamp(start=start, increment=increment, over=over, final=final)


def constant_batch(size: int) -> BatchRamp:
    """A batch of always so many samples.

    >>> constant_batch(16).samples_at(10)
    160.0
    """
    return BatchRamp(start=size, final=size)


def convert(
    length: float, *, given: Unit, wanted: Unit, ramp: BatchRamp | None = None, tokens_per_sample: int | None = None
) -> float:
    """A length from the beginning of a run, in another unit.

    Args:
        given, wanted: "steps", "samples" or "tokens".
        ramp: the batch; needed to and from steps.
        tokens_per_sample: needed to and from tokens.
    Raises:
        ConfigError: if the length is negative, a unit unknown, or what the conversion needs is missing.

    >>> convert(10, given="steps", wanted="tokens", ramp=constant_batch(16), tokens_per_sample=128)
    20480.0
    """
    check_lengths("convert", length=length)
    for unit in (given, wanted):
        if unit not in UNITS:
            raise ConfigError(f"unknown unit {unit!r}. {nearest(str(unit), UNITS)}")
    if given == wanted:
        return float(length)
    if "tokens" in (given, wanted):
        if tokens_per_sample is None:
            raise ConfigError(f"from {given} to {wanted}: tokens_per_sample is missing")
        check_count("convert", tokens_per_sample=tokens_per_sample)
    if "steps" in (given, wanted) and ramp is None:
        raise ConfigError(f"from {given} to {wanted}: ramp, the batch size, is missing")
    samples = float(length)
    if given == "tokens" and tokens_per_sample is not None:
        samples = length / tokens_per_sample
    elif given == "steps" and ramp is not None:
        samples = ramp.samples_at(length)
    if wanted == "tokens" and tokens_per_sample is not None:
        return samples * tokens_per_sample
    if wanted == "steps" and ramp is not None:
        return ramp.steps_at(samples)
    return samples


@dataclass(frozen=True, kw_only=True)
class InSteps:
    """What `in_steps` returns; it compares and prints by its parts."""

    schedule: Schedule
    ramp: BatchRamp
    tokens_per_sample: int = 1

    def __post_init__(self) -> None:
        check_schedule("in_steps", self.schedule)
        check_count("in_steps", tokens_per_sample=self.tokens_per_sample)

    def __call__(self, position: float) -> float:
        return self.schedule(self.ramp.samples_at(position) * self.tokens_per_sample)


def in_steps(schedule: Schedule, ramp: BatchRamp, *, tokens_per_sample: int = 1) -> InSteps:
    """A schedule that is given in samples or tokens, by step.

    Args:
        ramp: the batch size in samples, which may grow.
        tokens_per_sample: for a schedule in tokens; 1 for one in samples.
    Returns:
        schedule(step) -> multiplier of the peak learning rate.
    Raises:
        ConfigError: if `tokens_per_sample` is not a whole number above 0.

    >>> from thalweg.schedules import linear
    >>> lr = in_steps(linear(horizon=20), BatchRamp(start=2, increment=2, over=8, final=6))
    >>> [lr(step) for step in range(6)]
    [1.0, 0.9, 0.8, 0.6, 0.3, 0.0]
    """
    return InSteps(schedule=schedule, ramp=ramp, tokens_per_sample=tokens_per_sample)
