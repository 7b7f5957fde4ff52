"""Learning-rate schedules: pure functions of the position, one per file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from thalweg.schedules.constant import constant
from thalweg.schedules.linear import linear

Schedule = Callable[[float], float]
"""schedule(position) -> multiplier of the peak learning rate."""

SCHEDULES: Mapping[str, Callable[..., Schedule]] = {"constant": constant, "linear": linear}
"""By the name that a study file uses."""

__all__ = ["SCHEDULES", "Schedule", "constant", "linear"]
