"""The order of fine-tuning: which rows a step takes, where steps end, and when evaluations are due.

All of it follows from the seed and the position, so that nothing has to be remembered.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def epoch_order(seed: int, epoch: int, num_rows: int) -> np.ndarray[Any, Any]:
    """The order in which an epoch goes through the training rows."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def rows_of_step(order: np.ndarray[Any, Any], position: int, batch_size: int) -> np.ndarray[Any, Any]:
    """The rows of the step that begins at a position of an epoch with this order; an epoch's last step may be small."""
    offset = position % len(order)
    return order[offset : offset + batch_size]


def boundary_before(position: float, batch_size: int, num_rows: int) -> int:
    """The last step boundary at or before a position."""
    epoch, offset = divmod(int(position), num_rows)
    return epoch * num_rows + offset // batch_size * batch_size


def boundary_after(position: int, batch_size: int, num_rows: int) -> int:
    """The first step boundary at or after a position."""
    before = boundary_before(position, batch_size, num_rows)
    return before if before == position else min(before + batch_size, (position // num_rows + 1) * num_rows)


def crosses_evaluation(before: int, after: int, num_rows: int, evaluations_per_epoch: int) -> bool:
    """Whether an evaluation is due at `after`, the step boundary that follows `before`."""
    return after * evaluations_per_epoch // num_rows > before * evaluations_per_epoch // num_rows
