"""The loss along the straight line between two sets of weights: its shape, and a sentence on what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

FLAT = 0.01
"""Share of the range of the losses below which a bump or a dip counts as none: points are few, and sums are rounded."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LineShape:
    """What the loss does between A, at 0, and B, at 1. Points beyond the two are left out of it."""

    convex: bool
    """No point between lies above the line between its neighbours."""
    direction: Literal["falls", "rises", "flat"] | None
    """Where it goes from A to B without turning back; None where it turns."""
    minimum_at: float
    """Share of the way from A to B: of the parabola through the least point and its neighbours."""
    minimum: float
    """The least loss that was evaluated."""
    inner_minimum: bool
    """The least loss lies between the two, clearly below both."""
    barrier: float
    """How far the loss rises above the straight line between the losses of A and B, at most; 0 where it does not."""
    barrier_at: float
    text: str
    """A sentence or two on what this means."""


def line_shape(alphas: Sequence[float], losses: Sequence[float]) -> LineShape:
    """Judge the loss along a line.

    Args:
        alphas: places on the line, in any order: 0 is A, 1 is B; both must be among them, and one between.
        losses: the loss at each place.
    Raises:
        ConfigError: places that are missing or doubled, or a loss between A and B that is not finite.
    Source: the barrier is that of Entezari et al. 2022, arXiv:2110.06296; the reading of an inner minimum and of a
        steady fall is that of Wen et al. 2024, arXiv:2410.05192.

    >>> shape = line_shape([0, 0.25, 0.5, 0.75, 1], [2.0, 1.25, 1.0, 1.25, 2.0])
    >>> shape.convex, shape.inner_minimum, shape.minimum_at, shape.barrier
    (True, True, 0.5, 0.0)
    """
    x, y = _between(alphas, losses)
    span = float(np.ptp(y))
    margin = FLAT * span
    flat = span <= 1e-3 * abs(float(np.mean(y)))
    steps = np.diff(y)
    chord = y[0] + (y[-1] - y[0]) * x
    peak = int(np.argmax(y - chord))
    barrier = max(float(y[peak] - chord[peak]), 0.0)
    low = int(np.argmin(y))
    inner = not flat and 0 < low < len(y) - 1 and bool(y[low] < min(y[0], y[-1]) - margin)
    direction: Literal["falls", "rises", "flat"] | None = None
    if flat:
        direction = "flat"
    elif np.all(steps <= margin) and not inner:
        direction = "falls"
    elif np.all(steps >= -margin) and not inner:
        direction = "rises"
    found = {
        "convex": _is_convex(x, y, margin),
        "direction": direction,
        "minimum_at": _vertex(x, y, low),
        "minimum": float(y[low]),
        "inner_minimum": inner,
        "barrier": barrier,
        "barrier_at": float(x[peak]),
    }
    return LineShape(**found, text=_sentence(found, y))  # type: ignore[arg-type]


def mix(a: Mapping[str, Tensor], b: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The weights at (1 - alpha) a + alpha b, computed in float64; alpha may lie outside [0, 1].

    What is no floating-point number (a buffer of positions) is taken from a.

    Raises:
        ConfigError: see `check_same_shapes`.
    """
    check_same_shapes(a, b)
    return {
        name: ((1 - alpha) * value.double() + alpha * b[name].double()).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in a.items()
    }


def check_same_shapes(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    """Refuse weights between which there is no line.

    Raises:
        ConfigError: a name that only one of the two has, another shape, or nothing at all; the first few are named.
    """
    if not a or not b:
        raise ConfigError("a checkpoint without weights: there is no line to draw")
    names = sorted(set(a) ^ set(b))
    if names:
        owners = ", ".join(f"{name} (only in {'A' if name in a else 'B'})" for name in names[:3])
        raise ConfigError(f"the two checkpoints are of different models: {len(names)} tensors differ: {owners}")
    shapes = [name for name in a if a[name].shape != b[name].shape]
    if shapes:
        listed = ", ".join(f"{name} {tuple(a[name].shape)} and {tuple(b[name].shape)}" for name in shapes[:3])
        raise ConfigError(
            f"the two checkpoints are of different shapes: {listed}. Both runs need the same model and adapter rank"
        )


def places(num_points: int, beyond: float) -> list[float]:
    """Evenly spaced places from A to B, and as densely on the line beyond them, up to `beyond` of its length.

    Raises:
        ConfigError: fewer than 3 points, or a negative length.

    >>> places(5, 0.3)
    [-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    """
    if num_points < 3:
        raise ConfigError(f"points = {num_points} must be at least 3: both ends and one between")
    if not 0 <= beyond <= 10:
        raise ConfigError(f"beyond = {beyond} must lie in [0, 10], in lengths of the line")
    outside = int(beyond * (num_points - 1) + 1e-9)
    return [i / (num_points - 1) for i in range(-outside, num_points + outside)]


def _between(alphas: Sequence[float], losses: Sequence[float]) -> tuple[Floats, Floats]:
    x, y = np.asarray(alphas, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ConfigError(f"{x.size} places and {y.size} losses: there must be one loss per place")
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    inside = (x >= 0) & (x <= 1)
    x, y = x[inside], y[inside]
    if len(x) < 3 or x[0] != 0 or x[-1] != 1 or np.any(np.diff(x) <= 0):
        raise ConfigError("the places must hold 0, 1 and at least one between, each once")
    broken = np.flatnonzero(~np.isfinite(y))
    if len(broken):
        raise ConfigError(f"the loss at {x[broken[0]]:g} of the way is {y[broken[0]]}: the line cannot be judged")
    return x, y


def _is_convex(x: Floats, y: Floats, margin: float) -> bool:
    if margin == 0:
        return True
    share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
    chord = y[:-2] + share * (y[2:] - y[:-2])
    return bool(np.all(y[1:-1] <= chord + margin))


def _vertex(x: Floats, y: Floats, low: int) -> float:
    if not 0 < low < len(x) - 1:
        return float(x[low])
    left, right = (x[low] - x[low - 1]), (x[low + 1] - x[low])
    fall, rise = (y[low] - y[low - 1]) / left, (y[low + 1] - y[low]) / right
    if rise == fall:
        return float(x[low])
    # The parabola's slope is `fall` in the middle of the left step and `rise` in that of the right one.
    return float(x[low] - left / 2 + (left + right) / 2 * (-fall) / (rise - fall))


def _sentence(found: Mapping[str, object], y: Floats) -> str:
    at, barrier, height = float(found["minimum_at"]), float(found["barrier"]), float(np.ptp(y))  # type: ignore[arg-type]
    ends = f"{y[0]:.4g} at A and {y[-1]:.4g} at B"
    if found["direction"] == "flat":
        return f"The loss hardly changes along the line ({ends}): the two lie on one level floor."
    if found["inner_minimum"] and barrier <= FLAT * height:
        gain = min(y[0], y[-1]) - float(found["minimum"])  # type: ignore[arg-type]
        shape = "is convex" if found["convex"] else "falls and rises again"
        return (
            f"The loss {shape} along the line, least at {at:.2f} of the way, {gain:.3g} below the better end ({ends}):"
            " both stand on the hillsides of one valley, as checkpoints at a high learning rate usually do."
            " A decay of the rate, or an average of the two, takes them down."
        )
    if found["direction"] in ("falls", "rises"):
        start, end = ("A", "B") if found["direction"] == "falls" else ("B", "A")
        return (
            f"The loss falls all the way from {start} to {end} ({ends}): the two lie along the river of one valley, as"
            f" checkpoints of a decayed rate usually do, and {end} is further down."
        )
    if barrier > FLAT * height:
        return (
            f"A barrier of {barrier:.3g} stands at {float(found['barrier_at']):.2f} of the way ({ends}): the two lie in"  # type: ignore[arg-type]
            " different valleys, and an average of them would be worse than either."
        )
    return f"The loss along the line has no clear shape ({ends}): more points may show one."
