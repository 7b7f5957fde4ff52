"""Fall on a straight line to the end of the run."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg.schedules.schedule import check_floor, check_warmup


@dataclass(frozen=True, kw_only=True)
class Linear:
    """What `linear` returns; it compares and prints by its numbers."""

    warmup: float = 0.0
    horizon: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_warmup("linear", self.warmup, self.horizon)
        check_floor("linear", self.floor)

    def __call__(self, position: float) -> float:
        if position < self.warmup:
            return position / self.warmup
        if position >= self.horizon:
            return self.floor
        left = (self.horizon - position) / (self.horizon - self.warmup)
        return self.floor + (1.0 - self.floor) * left


def linear(*, warmup: float = 0.0, horizon: float, floor: float = 0.0) -> Linear:
    """Rise linearly to the peak, then fall linearly to the floor at the horizon, and stay there.

    Args:
        warmup: length of the rise, in the unit of the positions (steps, samples or tokens); 0 starts at the peak.
        horizon: position at which the floor is reached; the warm-up is a part of it.
        floor: multiplier from the horizon onwards, in [0, 1).
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1].
    Raises:
        ConfigError: if a length is negative, the warm-up is longer than the horizon, or the floor is outside [0, 1).
    Source: Hugging Face transformers, `get_linear_schedule_with_warmup`, whose floor is 0.

    >>> lr = linear(warmup=10, horizon=110)
    >>> [lr(p) for p in (0, 5, 10, 60, 110, 200)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    return Linear(warmup=warmup, horizon=horizon, floor=floor)
