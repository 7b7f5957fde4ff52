"""Fall by a power of what is left of the run."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg.schedules.schedule import check_floor, check_positive, check_warmup


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """What `polynomial` returns; it compares and prints by its numbers."""

    power: float
    warmup: float = 0.0
    horizon: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_positive("polynomial", power=self.power)
        check_warmup("polynomial", self.warmup, self.horizon)
        check_floor("polynomial", self.floor)

    def __call__(self, position: float) -> float:
        if position < self.warmup:
            return position / self.warmup
        if position >= self.horizon:
            return self.floor
        left = (self.horizon - position) / (self.horizon - self.warmup)
        # float(): the type checker cannot know that a power of a number in [0, 1] is real.
        return self.floor + (1.0 - self.floor) * float(left**self.power)


def polynomial(*, power: float, warmup: float = 0.0, horizon: float, floor: float = 0.0) -> Polynomial:
    """Rise linearly to the peak, then fall as `left ** power`, where `left` goes from 1 to 0 at the horizon.

    Args:
        power: above 0. 1 is `linear`; a larger one falls early, a smaller one late.
        warmup: length of the rise, in the unit of the positions (steps, samples or tokens); 0 starts at the peak.
        horizon: position at which the floor is reached; the warm-up is a part of it.
        floor: multiplier from the horizon onwards, in [0, 1).
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1].
    Raises:
        ConfigError: if a length is negative, the power is not above 0, the warm-up is longer than the horizon, or the
            floor is outside [0, 1).
    Source: Hugging Face transformers, `get_polynomial_decay_schedule_with_warmup`, whose `lr_end` is floor * peak.

    >>> lr = polynomial(power=2, warmup=10, horizon=110)
    >>> [lr(p) for p in (0, 5, 10, 60, 110, 200)]
    [0.0, 0.5, 1.0, 0.25, 0.0, 0.0]
    """
    return Polynomial(power=power, warmup=warmup, horizon=horizon, floor=floor)
