"""Rise by equal ratios: the LR range test."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg.errors import ConfigError
from thalweg.schedules.schedule import check_floor, check_positive


@dataclass(frozen=True, kw_only=True)
class LrRange:
    """What `lr_range` returns; it compares and prints by its numbers."""

    horizon: float
    floor: float

    def __post_init__(self) -> None:
        check_positive("lr_range", horizon=self.horizon)
        check_floor("lr_range", self.floor)
        if self.floor == 0:
            raise ConfigError(
                "lr_range: floor = 0 must be above 0: it is where the geometric rise begins, such as 1e-4"
            )

    def __call__(self, position: float) -> float:
        if position >= self.horizon:
            return 1.0
        return float(self.floor ** (1.0 - position / self.horizon))


def lr_range(*, horizon: float, floor: float) -> LrRange:
    """Rise from the floor to the peak at the horizon, by equal ratios in equal times; then hold the peak.

    Args:
        horizon: length of the rise, in the unit of the positions (steps, samples or tokens).
        floor: multiplier at position 0, in (0, 1).
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in (0, 1].
    Raises:
        ConfigError: if the horizon is not above 0, or the floor is outside (0, 1).
    Source: Smith 2017, arXiv:1506.01186, with the geometric steps that fastai made usual.

    >>> lr = lr_range(horizon=100, floor=1e-4)
    >>> [round(lr(p), 6) for p in (0, 25, 50, 100, 200)]
    [0.0001, 0.001, 0.01, 1.0, 1.0]
    """
    return LrRange(horizon=horizon, floor=floor)
