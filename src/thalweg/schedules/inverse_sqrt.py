"""Fall as one over the square root of the position: no horizon is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thalweg.errors import ConfigError
from thalweg.schedules.schedule import check_floor, check_lengths, check_positive


@dataclass(frozen=True, kw_only=True)
class InverseSqrt:
    """What `inverse_sqrt` returns; it compares and prints by its numbers."""

    warmup: float = 0.0
    timescale: float | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_lengths("inverse_sqrt", warmup=self.warmup)
        check_floor("inverse_sqrt", self.floor)
        if self.timescale is not None:
            check_positive("inverse_sqrt", timescale=self.timescale)
        elif self.warmup == 0:
            raise ConfigError(
                "inverse_sqrt: warmup = 0 leaves no time scale: give a warmup above 0, whose length it then is, or"
                " timescale"
            )

    def __call__(self, position: float) -> float:
        if position < self.warmup:
            return position / self.warmup
        timescale = self.warmup if self.timescale is None else self.timescale
        return max(self.floor, 1.0 / math.sqrt(1.0 + (position - self.warmup) / timescale))


def inverse_sqrt(*, warmup: float = 0.0, timescale: float | None = None, floor: float = 0.0) -> InverseSqrt:
    """Rise linearly to the peak, then fall as 1 / sqrt(1 + (position - warmup) / timescale), for ever.

    Args:
        warmup: length of the rise, in the unit of the positions (steps, samples or tokens); 0 starts at the peak.
        timescale: how long after the warm-up the multiplier is 1 / sqrt(2). None: the warm-up's length, which makes
            the fall sqrt(warmup / position).
        floor: the multiplier does not fall below this, in [0, 1).
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1].
    Raises:
        ConfigError: if a length is negative, there is neither warm-up nor time scale, or the floor is outside [0, 1).
    Source: Vaswani et al. 2017, arXiv:1706.03762; Hugging Face transformers, `get_inverse_sqrt_schedule`, which takes
        10,000 for the time scale where there is no warm-up.

    >>> lr = inverse_sqrt(warmup=100)
    >>> [lr(p) for p in (0, 50, 100, 400, 10_000)]
    [0.0, 0.5, 1.0, 0.5, 0.1]
    """
    return InverseSqrt(warmup=warmup, timescale=timescale, floor=floor)
