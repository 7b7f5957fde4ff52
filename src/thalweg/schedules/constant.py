"""Hold the peak."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Constant:
    """What `constant` returns; it compares and prints by its numbers."""

    warmup: float

    def __call__(self, position: float) -> float:
        return min(1.0, position / self.warmup) if self.warmup else 1.0


def constant(*, warmup: float = 0.0) -> Constant:
    """Rise linearly to the peak, then hold it.

    Args:
        warmup: length of the rise, in the unit of the positions (steps, samples or tokens); 0 starts at the peak.
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1].
    Raises:
        ConfigError: if the length is negative.

    >>> lr = constant(warmup=10)
    >>> [lr(p) for p in (0, 5, 10, 1000)]
    [0.0, 0.5, 1.0, 1.0]
    """
    if not warmup >= 0:
        raise ConfigError(f"constant: warmup = {warmup} must be 0 or more")
    return Constant(warmup=warmup)
