"""Hold the peak."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg.schedules.schedule import check_lengths


@dataclass(frozen=True, kw_only=True)
class Constant:
    """What `constant` returns; it compares and prints by its numbers."""

    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_lengths("constant", warmup=self.warmup)

    def __call__(self, position: float) -> float:
        return position / self.warmup if position < self.warmup else 1.0


def constant(*, warmup: float = 0.0) -> Constant:
    """Rise linearly to the peak, then hold it.

    Args:
        warmup: length of the rise, in the unit of the positions (steps, samples or tokens); 0 starts at the peak.
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1].
    Raises:
        ConfigError: if the length is negative or not finite.
    Source: Hugging Face transformers, `get_constant_schedule_with_warmup`.

    >>> lr = constant(warmup=10)
    >>> [lr(p) for p in (0, 5, 10, 1000)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return Constant(warmup=warmup)
