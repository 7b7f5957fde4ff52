"""Sequences of a token stream: which tokens a position trains on, as a pure function of it.

Shapes: B sequences, C tokens of context.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]


def num_windows(num_tokens: int, context: int) -> int:
    """Whole windows in a stream of tokens; each predicts `context` tokens, the first of the next one included.

    >>> [num_windows(n, 4) for n in (4, 5, 8, 9)]
    [0, 1, 1, 2]
    """
    return max(0, num_tokens - 1) // context


class Windows:
    """The sequences that a run trains on, in their order.

    Each epoch cuts the stream into windows at an offset of its own and goes through them in an order of its own, both
    decided by the run's seed and the epoch. The stream is taken as a circle, so that each epoch has as many windows.
    """

    def __init__(self, ids: _Array, *, context: int, seed: int) -> None:
        """
        Args:
            ids: at least `context + 1` tokens.
            seed: the run's.
        """
        self._ids = ids
        self._context = context
        self._seed = seed
        self._epochs: dict[int, _Array] = {}
        self.num_windows = num_windows(len(ids), context)
        assert self.num_windows >= 1, "the caller has checked that the data holds a window"

    def starts(self, first: int, count: int) -> list[int]:
        """Where the sequences from number `first` on begin in the stream, counted from the run's position 0."""
        return [int(self._epoch(i // self.num_windows)[i % self.num_windows]) for i in range(first, first + count)]

    def batch(self, first: int, count: int) -> tuple[_Array, _Array]:
        """Inputs and targets of these sequences, int64 (B, C) each; what stands at a token predicts the next."""
        rows = np.stack([window(self._ids, start, self._context) for start in self.starts(first, count)])
        return rows[:, :-1], rows[:, 1:]

    def _epoch(self, epoch: int) -> _Array:
        """The starts of an epoch's windows, in the order that it goes through them."""
        if epoch not in self._epochs:
            rng = np.random.default_rng([self._seed, epoch])
            order = rng.permutation(self.num_windows)
            # A step may reach into the next epoch, so the one before stays.
            self._epochs = {e: starts for e, starts in self._epochs.items() if e == epoch - 1}
            self._epochs[epoch] = order * self._context + rng.integers(self._context)
        return self._epochs[epoch]


def window(ids: _Array, start: int, context: int) -> _Array:
    """int64 [context + 1]: tokens from a place on, from the stream's beginning again after its end.

    >>> window(np.arange(5), 3, 3).tolist()
    [3, 4, 0, 1]
    """
    if start + context < len(ids):
        return ids[start : start + context + 1].astype(np.int64)
    return np.take(ids, np.arange(start, start + context + 1), mode="wrap").astype(np.int64)


def crosses(before: int, after: int, horizon: int, num_parts: int) -> bool:
    """Whether a step from one position to the next reaches or passes a mark that parts the horizon into equal parts.

    >>> [crosses(p, p + 10, 100, 4) for p in (0, 10, 20, 40, 45)]
    [False, False, True, True, True]
    """
    return after * num_parts // horizon > before * num_parts // horizon
