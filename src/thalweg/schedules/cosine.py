"""Fall on half a cosine wave to the end of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thalweg.schedules.schedule import check_floor, check_warmup


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """What `cosine` returns; it compares and prints by its numbers."""

    warmup: float = 0.0
    horizon: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_warmup("cosine", self.warmup, self.horizon)
        check_floor("cosine", self.floor)

    def __call__(self, position: float) -> float:
        if position < self.warmup:
            return position / self.warmup
        if position >= self.horizon:
            return self.floor
        done = (position - self.warmup) / (self.horizon - self.warmup)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))


def cosine(*, warmup: float = 0.0, horizon: float, floor: float = 0.0) -> Cosine:
    """Rise linearly to the peak, fall on half a cosine wave to the floor at the horizon, and stay there.

    A truncated cosine, whose run ends before it has fallen, is one with a horizon beyond the run's end.

    Args:
        warmup: length of the rise, in the unit of the positions (steps, samples or tokens); 0 starts at the peak.
        horizon: position at which the floor is reached. The warm-up is a part of it, as in Megatron-LM, Hugging Face
            and optax. A paper's "cosine over N steps after W steps of warm-up" may mean a horizon of N or of N + W.
        floor: multiplier from the horizon onwards, in [0, 1). Megatron's `min_lr` and OLMo's `alpha_f` are floor * peak
            and floor.
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1].
    Raises:
        ConfigError: if a length is negative, the warm-up is longer than the horizon, or the floor is outside [0, 1).
    Source: Loshchilov and Hutter 2017, arXiv:1608.03983; Megatron-LM, `OptimizerParamScheduler`. MiniCPM's appendix B.1
        prints a cosine with a floor that goes below 0; it is a misprint of this one.

    >>> lr = cosine(warmup=10, horizon=110, floor=0.1)
    >>> [round(lr(p), 6) for p in (0, 5, 10, 60, 110, 200)]
    [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    """
    return Cosine(warmup=warmup, horizon=horizon, floor=floor)
