"""Where runs would end, from how they stood at rungs: one Gaussian process over hyperparameters and the rung.

What is cheap and early says something about the end, but not the same everywhere: small learning rates look better
early, large batches later. A process over both learns how far a rung can be trusted, and corrects what is bent the
same way at all runs nearby.

Source: Kandasamy et al. 2017 (BOCA), arXiv:1703.06240, for a kernel over fidelity and point; the scale is this
project's own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg.scaling.gaussian_process import GaussianProcess, Kernel, fit_kernel
from thalweg.scaling.points import Points
from thalweg.space import Hyperparameters, Space

FloatArray = NDArray[np.float64]

MAX_OBSERVATIONS = 64
"""The process passes through so many: its time grows with their third power. Those near the end and the best first."""
_PER_HALVING = 0.08
"""Distance between two rungs of which one is twice as far, beside 1 between the ends of a hyperparameter's range."""
_CAP = math.log1p(8.0)
_FAILED = math.log1p(4.0)


class Seen(NamedTuple):
    """One result of one run."""

    hyperparameters: Hyperparameters
    share: float
    """Of its own horizon, in (0, 1]."""
    loss: float
    """To minimise; infinite where it diverged."""


class FidelityModel:
    """Fitted to results at rungs; predicts losses at the horizon in a scale of its own, in which less is better.

    The scale is logarithmic above the best loss seen, and flat far above, so that the good runs are told apart and one
    that explodes teaches no more than a bad one. Before that, each result is moved by what runs typically still gain
    from its rung to the horizon.

    Args:
        space: what is searched.
        results: all results, each run's by rising share.
    """

    def __init__(self, space: Space, results: Sequence[Seen]) -> None:
        self._points = Points(space)
        self._owner = np.append(self._points.owner, self._points.num_dimensions)
        shares = np.array([seen.share for seen in results])
        losses = np.array([seen.loss for seen in results])
        moved = losses - _gains(results, shares)
        finite = moved[np.isfinite(moved)]
        self._best = float(finite.min()) if finite.size else 0.0
        spread = float(np.median(finite)) - self._best if finite.size else 1.0
        self._spread = spread if spread > 1e-12 * max(abs(self._best), 1e-3) else 1.0
        values = self.scaled(moved)
        kept = _kept(shares, values)
        self._centre = float(np.median(values[kept]))
        self._unit = max(float(values[kept].std()), 0.05)
        columns = self._columns([results[i].hyperparameters for i in kept], shares[kept])
        scaled = (values[kept] - self._centre) / self._unit
        nothing = np.zeros(len(kept))
        self.kernel: Kernel = fit_kernel(columns, self._owner, scaled, nothing)
        self._data = columns, scaled
        self._process = GaussianProcess(self.kernel, columns, self._owner, scaled, nothing)

    def scaled(self, losses: FloatArray) -> FloatArray:
        """Losses at the horizon in the model's scale; not a finite number is as bad as a bad one."""
        with np.errstate(over="ignore", invalid="ignore"):
            above = np.log1p(np.maximum((losses - self._best) / self._spread, -0.9))
        return np.where(np.isfinite(losses), np.minimum(np.nan_to_num(above, nan=_FAILED), _CAP), _FAILED)

    def predict(
        self, points: Sequence[Hyperparameters], *, pending: Sequence[Hyperparameters] = ()
    ) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation at the horizon, an evaluation's own noise left out.

        Args:
            points: hyperparameters, of runs or of what may become one.
            pending: counted as if they had ended where they are expected to: what is near is known better.
        """
        process = self._process
        if pending:
            columns, values = self._data
            extra = self._columns(pending, np.ones(len(pending)))
            believed, _ = self._process.predict(extra)
            process = GaussianProcess(
                self.kernel,
                np.concatenate([columns, extra]),
                self._owner,
                np.concatenate([values, believed]),
                np.zeros(len(values) + len(pending)),
            )
        mean, variance = process.predict(self._columns(points, np.ones(len(points))))
        return self._centre + self._unit * mean, self._unit * np.sqrt(variance)

    def _columns(self, points: Sequence[Hyperparameters], shares: FloatArray) -> FloatArray:
        rung = -_PER_HALVING * np.log2(np.maximum(shares, 1e-6))
        return np.column_stack([self._points.encode(points), rung])


def _gains(results: Sequence[Seen], shares: FloatArray) -> FloatArray:
    """What runs typically still gain from each result's share to the horizon: the median over those seen at both of two
    neighbouring rungs, added up."""
    rungs = np.unique(shares)
    steps = np.zeros(len(rungs))
    place = {share: k for k, share in enumerate(rungs.tolist())}
    drops: list[list[float]] = [[] for _ in rungs]
    for before, after in itertools.pairwise(results):
        same = before.hyperparameters is after.hyperparameters and before.share < after.share
        if same and math.isfinite(before.loss) and math.isfinite(after.loss):
            k, end = place[before.share], place[after.share]
            for between in range(k, end):
                drops[between].append((before.loss - after.loss) / (end - k))
    for k, seen in enumerate(drops):
        steps[k] = float(np.median(seen)) if seen else 0.0
    still = np.cumsum(steps[::-1])[::-1]
    return np.asarray(still[np.searchsorted(rungs, shares)])


def _kept(shares: FloatArray, values: FloatArray) -> NDArray[np.int64]:
    """Which results the process passes through: those near the end first, the better ones first within a rung; at
    most half of the room for one rung's."""
    order = np.lexsort((np.arange(len(values)), values, -shares))
    if len(order) <= MAX_OBSERVATIONS:
        return np.sort(order)
    best = order[: MAX_OBSERVATIONS * 2 // 3]
    rest = np.sort(order[MAX_OBSERVATIONS * 2 // 3 :])
    spread = rest[np.linspace(0, len(rest) - 1, MAX_OBSERVATIONS - len(best)).astype(int)]
    return np.sort(np.concatenate([best, spread]))
