"""Where a strategy compares runs before their horizon, by its name and options as the store has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_ETA = {
    **dict.fromkeys(("halving", "asha", "successive_halving", "hyperband", "bohb"), 3.0),
    "lr_race": 2.0,
    "auto": 2.0,
}
"""Strategies whose rungs are a constant factor apart, and the factor where no option says another."""
_FIRST_FRACTION = {"auto": 1 / 8}
"""Share of the first rung, where it is not the number of rungs that decides."""
_FIRST_SHARE = {"two_stage": 0.2, "freeze_thaw": 0.0625}
WITH_RUNGS = frozenset({*_ETA, *_FIRST_SHARE})
"""The strategies that compare runs before their horizon."""


def shares(strategy: Mapping[str, Any]) -> tuple[float, ...]:
    """Each rung's share of a run's horizon, rising to 1, by the options of one of the strategies `WITH_RUNGS`.

    The same rungs as the strategy has. That of `auto` leaves out those that would cost too much to evaluate: they are
    empty.

    >>> shares({"name": "halving", "eta": 2, "num_rungs": 3})
    (0.25, 0.5, 1.0)
    >>> shares({"name": "two_stage"}), shares({"name": "freeze_thaw", "first_share": 0.1, "step": 3.0})
    ((0.2, 1.0), (0.1, 0.30000000000000004, 0.9000000000000001, 1.0))
    """
    name = str(strategy["name"])
    if name in _FIRST_SHARE:
        return _stepwise(name, strategy)
    if strategy.get("rungs") is not None:
        return tuple(map(float, strategy["rungs"]))
    eta = float(strategy.get("eta", _ETA[name]))
    first = strategy.get("first_fraction", _FIRST_FRACTION.get(name))
    if first is None:
        num_steps, step = int(strategy.get("num_rungs") or 3) - 1, eta
    else:
        num_steps = max(1, round(-math.log(first) / math.log(eta)))
        step = first ** (-1 / num_steps)
    return tuple(step ** -(num_steps - k) for k in range(num_steps + 1))


def _stepwise(name: str, strategy: Mapping[str, Any]) -> tuple[float, ...]:
    found = [float(strategy.get("first_share", _FIRST_SHARE[name]))]
    step = float(strategy.get("step", 2.0)) if name == "freeze_thaw" else math.inf
    while found[-1] * step < 0.95:  # as `thalweg.search.freeze_thaw` makes them
        found.append(found[-1] * step)
    return (*found, 1.0)
