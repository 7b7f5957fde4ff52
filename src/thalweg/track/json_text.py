"""Values as JSON text that comes back as it went in: NaN and infinities too, 1.0 as a float and 1 as an integer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from thalweg.errors import ConfigError


def encode(value: Any, field: str) -> str:
    """A mapping, list, string, number, boolean or None as text; NumPy scalars become Python's.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{field} cannot be kept: {error}. Use numbers, strings, booleans, lists and tables"
        ) from error


def decode(text: str) -> Any:
    """What `encode` was given."""
    return json.loads(text)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")
