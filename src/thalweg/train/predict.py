"""What training will cost, from the lengths of the rows."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from thalweg.budget import Cost
from thalweg.train.hyperparameters import FineTuneHyperparameters
from thalweg.train.order import crosses_evaluation
from thalweg.train.sizes import Sizes
from thalweg.train.tokens import Rows

_Array = np.ndarray[Any, Any]


def predict_cost(
    rows: Rows,
    sizes: Sizes,
    settings: FineTuneHyperparameters,
    span: tuple[int, int],
    *,
    micro_batch: int,
    evaluations_per_epoch: int,
) -> Cost:
    """The cost of training over a span of positions and of the evaluations on the way and at its end.

    Training tokens are an expectation over the shuffling; all else is exact.
    """
    start, until = span
    boundaries = step_boundaries(len(rows.train), settings.batch_size, start, until)
    num_samples = boundaries[-1] - start
    length, length_squared = expected_longest(rows.train.lengths, min(micro_batch, settings.batch_size))
    # FLOPs per token are a constant plus a multiple of the length, so their expectation follows from two moments.
    per_length = sizes.train_flops_per_token(1) - sizes.train_flops_per_token(0)
    train_flops = num_samples * (sizes.train_flops_per_token(0) * length + per_length * length_squared)
    num_between = sum(
        crosses_evaluation(before, after, len(rows.train), evaluations_per_epoch)
        for before, after in itertools.pairwise(boundaries[:-1])
    )
    num_evaluations = num_between + 1
    widths = _batch_widths(rows.validation.lengths, micro_batch)
    evaluate_flops = sum(count * width * sizes.evaluate_flops_per_token(width) for count, width in widths)
    return Cost(
        samples=num_samples + num_evaluations * len(rows.validation),
        tokens=round(num_samples * length) + num_evaluations * sum(count * width for count, width in widths),
        flops=train_flops + num_evaluations * evaluate_flops,
    )


def step_boundaries(num_rows: int, batch_size: int, start: int, until: int) -> list[int]:
    """The positions between steps, from `start` to the first one at or after `until`.

    >>> step_boundaries(10, 4, 0, 15)
    [0, 4, 8, 10, 14, 18]
    """
    boundaries = [start]
    while boundaries[-1] < until:
        position = boundaries[-1]
        boundaries.append(position + min(batch_size, num_rows - position % num_rows))
    return boundaries


def expected_longest(lengths: _Array, num_drawn: int) -> tuple[float, float]:
    """Mean of the longest of some rows drawn at random, and the mean of its square.

    >>> expected_longest(np.array([1, 3]), 2)  # 1 once in four draws, else 3
    (2.5, 7.0)
    """
    ordered = np.sort(lengths).astype(np.float64)
    ranks = np.arange(len(ordered) + 1) / len(ordered)
    chances = np.diff(ranks**num_drawn)
    return float(chances @ ordered), float(chances @ ordered**2)


def _batch_widths(lengths: _Array, micro_batch: int) -> list[tuple[int, int]]:
    """Rows and padded length of each batch of an evaluation, which goes by falling length."""
    ordered = -np.sort(-lengths)
    groups = [ordered[i : i + micro_batch] for i in range(0, len(ordered), micro_batch)]
    return [(len(group), int(group[0])) for group in groups]
