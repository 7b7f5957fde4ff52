"""What frameworks hand to their loggers, as the store takes it: numbers, and hyperparameters that print."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any


def numbers_in(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The entries that are one number each, nested ones under "outer/inner"; texts, images and None are left out.

    Zero-dimensional tensors and arrays count as numbers.

    >>> numbers_in({"loss": 0.5, "eval": {"accuracy": True}, "text": "no", "none": None})
    {'loss': 0.5, 'eval/accuracy': 1.0}
    """
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= numbers_in(value, f"{prefix}{name}/")
        elif value is not None and not isinstance(value, (str, bytes)):
            try:
                # A tensor that has a gradient warns where it is turned into a float by itself.
                found[f"{prefix}{name}"] = float(value.item() if hasattr(value, "item") else value)
            except (TypeError, ValueError, OverflowError, RuntimeError):
                continue
    return found


def plain(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Hyperparameters as texts, numbers, truth values and lists of them, nested ones under "outer/inner".

    >>> plain({"lr": 0.1, "model": {"layers": 2}, "betas": (0.9, 0.99), "device": object})
    {'lr': 0.1, 'model/layers': 2, 'betas': [0.9, 0.99], 'device': "<class 'object'>"}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= plain(value, f"{prefix}{name}/")
        else:
            found[f"{prefix}{name}"] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))  # in an order that is the same in every process
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return _plain(value.item())
    return str(value)
