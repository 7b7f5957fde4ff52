"""Where unfinished runs will end, and where new ones would: a model of learning curves over hyperparameters.

Two layers, as in freeze-thaw optimisation: what each curve says about its own end (`curve_shapes.py`), and a Gaussian
process over the hyperparameters (`gaussian_process.py`) through these ends, each with its own uncertainty. So a run
that has just begun is predicted mostly from its neighbours, and one that is nearly over from itself.

Source: Swersky et al. 2014, arXiv:1406.3896 (a process over asymptotes with independent curves given them). The power
law with a random walk, and the transformed losses, are this file's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thalweg.scaling.curve_shapes import Samples, Shape, fit_shape, measured_finals
from thalweg.scaling.gaussian_process import GaussianProcess, Kernel, fit_kernel
from thalweg.scaling.points import Points
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Status

FloatArray = NDArray[np.float64]

MAX_FITTED = 128
"""The scale, the shape and the kernel are fitted to the first so many curves: they hardly change any more."""
MAX_SHAPED = 64
MAX_RUNS = 300
"""The process passes through so many runs: the better half of them the best there are, the others spread evenly."""
_NUM_POINTS = 8
_CAP = 10.0
_FAILED_VARIANCE = 0.01


@dataclass(frozen=True)
class Curve:
    """One run as the model sees it."""

    hyperparameters: Hyperparameters
    points: tuple[tuple[float, float], ...]
    """(share of the run's own horizon, loss to minimise), by rising share; for a fork its ancestors' points too."""
    status: Status = "paused"
    """Only `diverged` matters: it is as bad as the worst loss that was seen."""


@dataclass(frozen=True)
class LossScale:
    """A monotone transform: linear below the best loss, logarithmic above it, flat far above.

    Losses near the best are told apart finely, and one run that explodes does not flatten all others.
    """

    best: float
    spread: float

    def scaled(self, losses: FloatArray) -> FloatArray:
        """Losses to the model's scale: 0 at the best, ln 2 at a middling one; not a finite number is as the cap."""
        with np.errstate(over="ignore", invalid="ignore"):
            above = np.nan_to_num((losses - self.best) / self.spread, nan=_CAP)
        above = np.clip(above, -_CAP, _CAP)
        return np.where(above > 0, np.log1p(np.maximum(above, 0.0)), above)

    def loss(self, scaled: float) -> float:
        """A loss from the model's scale."""
        return self.best + self.spread * (math.expm1(scaled) if scaled > 0 else scaled)


class CurveModel:
    """Fits curves of runs in a space.

    What it keeps between fits are caches: a new model fits the same from the same curves.

    Args:
        space: what is searched; other hyperparameters of a curve are ignored, values outside the space allowed.
    """

    def __init__(self, space: Space) -> None:
        self._points = Points(space)
        # Id -> the object itself, so that its id stays its own, and what was computed from it.
        self._rows: dict[int, tuple[Hyperparameters, FloatArray]] = {}
        self._samples: dict[int, tuple[Curve, FloatArray, FloatArray]] = {}
        self._fitted: tuple[bytes, LossScale, Shape, Kernel, float, float] | None = None

    def fit(self, curves: Sequence[Curve]) -> CurveFit:
        """Learn from all curves, in order of creation.

        Curves without points teach nothing unless they diverged; they may be among them all the same.
        """
        columns = self._columns([curve.hyperparameters for curve in curves])
        raw = self._raw(curves)
        diverged = np.array([curve.status == "diverged" for curve in curves], dtype=bool)
        known = np.flatnonzero(raw.present.any(axis=1) | diverged)
        early = known[:MAX_FITTED]
        key = b"".join(part[early].tobytes() for part in (columns, raw.shares, raw.losses, raw.present, diverged))
        if self._fitted is None or self._fitted[0] != key:
            self._fitted = (key, *self._fit(columns[early], _rows(raw, early), diverged[early]))
        _, scale, shape, kernel, centre, spread = self._fitted
        values, variances = _measured(scale, shape, raw, diverged)
        chosen = _chosen(known, values)
        z, v = (values - centre) / spread, variances / spread**2
        process = GaussianProcess(kernel, columns[chosen], self._points.owner, z[chosen], v[chosen])
        return CurveFit(scale, shape, _Fitted(self._points, kernel, centre, spread), process, columns, (z, v), chosen)

    def _fit(
        self, columns: FloatArray, raw: Samples, diverged: NDArray[np.bool_]
    ) -> tuple[LossScale, Shape, Kernel, float, float]:
        scale = _scale(raw)
        samples = replace(raw, losses=np.where(raw.present, scale.scaled(raw.losses), 0.0))
        shape = fit_shape(_rows(samples, np.flatnonzero(~diverged)[:MAX_SHAPED]))
        values, variances = _measured(scale, shape, raw, diverged)
        weights = 1 / (variances + 0.1)
        centre = float((weights * values).sum() / weights.sum()) if len(values) else 0.0
        spread = math.sqrt(float((weights * (values - centre) ** 2).sum() / weights.sum())) if len(values) else 1.0
        spread = max(spread, 0.05)
        kernel = fit_kernel(columns, self._points.owner, (values - centre) / spread, variances / spread**2)
        return scale, shape, kernel, centre, spread

    def _columns(self, points: Sequence[Hyperparameters]) -> FloatArray:
        if len(self._rows) > 4 * len(points) + 1000:
            self._rows.clear()
        new = [point for point in points if id(point) not in self._rows]
        for point, row in zip(new, self._points.encode(new), strict=True):
            self._rows[id(point)] = (point, row)
        rows = [self._rows[id(point)][1] for point in points]
        return np.array(rows).reshape(len(points), self._points.owner.size)

    def _raw(self, curves: Sequence[Curve]) -> Samples:
        """The curves' points with losses as they are, thinned to a few per curve."""
        if len(self._samples) > 4 * len(curves) + 1000:
            self._samples.clear()
        shares = np.ones((len(curves), _NUM_POINTS))
        losses = np.zeros((len(curves), _NUM_POINTS))
        present = np.zeros((len(curves), _NUM_POINTS), dtype=bool)
        for i, curve in enumerate(curves):
            entry = self._samples.get(id(curve))
            if entry is None:
                entry = self._samples[id(curve)] = (curve, *_thinned(curve))
            count = len(entry[1])
            shares[i, :count], losses[i, :count], present[i, :count] = entry[1], entry[2], True
        return Samples(shares, losses, present)


@dataclass(frozen=True)
class _Fitted:
    points: Points
    kernel: Kernel
    centre: float
    spread: float


class CurveFit:
    """What the model believes. All means and deviations are in the scale of `scale`, where lower is better."""

    def __init__(
        self,
        scale: LossScale,
        shape: Shape,
        fitted: _Fitted,
        process: GaussianProcess,
        columns: FloatArray,
        measured: tuple[FloatArray, FloatArray],
        chosen: NDArray[np.int64],
    ) -> None:
        self.scale = scale
        self.shape = shape
        self._fitted = fitted
        self._process = process
        self._columns = columns
        self._measured = measured
        self._chosen = chosen
        self._ends: tuple[FloatArray, FloatArray] | None = None

    def predict_final(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of each given curve's loss at its horizon, without an evaluation's noise."""
        if self._ends is None:
            self._ends = self._final()
        return self._ends

    def predict_new(self, points: Sequence[Hyperparameters]) -> tuple[FloatArray, FloatArray]:
        """The same for runs that have not begun."""
        return self._outside(self._fitted.points.encode(points))

    def with_pending(self, points: Sequence[Hyperparameters]) -> CurveFit:
        """As if runs with these hyperparameters had ended where they are expected to: what is near is known better."""
        if not points:
            return self
        fitted = self._fitted
        columns = fitted.points.encode(points)
        believed, _ = self._process.predict(columns)
        z, v = self._measured
        process = GaussianProcess(
            fitted.kernel,
            np.concatenate([self._columns[self._chosen], columns]),
            fitted.points.owner,
            np.concatenate([z[self._chosen], believed]),
            np.concatenate([v[self._chosen], np.zeros(len(points))]),
        )
        pending = CurveFit(self.scale, self.shape, fitted, process, self._columns, self._measured, self._chosen)
        pending._ends = self.predict_final()
        return pending

    def _final(self) -> tuple[FloatArray, FloatArray]:
        z, v = self._measured
        mean, variance = np.empty_like(z), np.empty_like(v)
        mean[self._chosen], variance[self._chosen] = self._process.smoothed()
        others = np.setdiff1d(np.arange(len(z)), self._chosen)
        if others.size:
            prior, prior_variance = self._process.predict(self._columns[others])
            prior_variance = prior_variance + self._fitted.kernel.noise
            precision = 1 / prior_variance + 1 / v[others]
            mean[others] = (prior / prior_variance + z[others] / v[others]) / precision
            variance[others] = 1 / precision
        return self._in_scale(mean, variance)

    def _outside(self, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
        mean, variance = self._process.predict(columns)
        return self._in_scale(mean, variance + self._fitted.kernel.noise)

    def _in_scale(self, mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
        return self._fitted.centre + self._fitted.spread * mean, self._fitted.spread * np.sqrt(variance)


def _measured(
    scale: LossScale, shape: Shape, raw: Samples, diverged: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """What each curve says about its end, diverged ones as bad as the worst loss of any."""
    samples = replace(raw, losses=np.where(raw.present, scale.scaled(raw.losses), 0.0))
    values, variances = measured_finals(shape, samples)
    seen = samples.losses[samples.present & np.isfinite(raw.losses)]
    worst = max(float(seen.max()), math.log(2.0)) if seen.size else math.log1p(_CAP)
    return np.where(diverged, worst, values), np.where(diverged, _FAILED_VARIANCE, variances)


def _scale(raw: Samples) -> LossScale:
    """From the lowest loss of all and a middling run's last one."""
    told = raw.present.any(axis=1)
    last = raw.losses[told, raw.present[told].sum(axis=1) - 1]
    finite = raw.losses[raw.present & np.isfinite(raw.losses)]
    if not finite.size:
        return LossScale(0.0, 1.0)
    best = float(finite.min())
    for values in (last[np.isfinite(last)], finite):
        if values.size and (spread := float(np.median(values) - best)) > 1e-9 * max(abs(best), 1e-3):
            return LossScale(best, spread)
    return LossScale(best, max(float(finite.max()) - best, abs(best), 1.0))


def _chosen(known: NDArray[np.int64], values: FloatArray) -> NDArray[np.int64]:
    """Which runs the process passes through."""
    if len(known) <= MAX_RUNS:
        return known
    best_first = known[np.argsort(values[known], kind="stable")]
    rest = best_first[MAX_RUNS // 2 :]
    spread = rest[np.linspace(0, len(rest) - 1, MAX_RUNS - MAX_RUNS // 2).astype(int)]
    return np.sort(np.concatenate([best_first[: MAX_RUNS // 2], spread]))


def _rows(samples: Samples, rows: NDArray[np.int64]) -> Samples:
    return Samples(samples.shares[rows], samples.losses[rows], samples.present[rows])


def _thinned(curve: Curve) -> tuple[FloatArray, FloatArray]:
    """A few of the points, the last among them, closer together where the curve is steep: at its beginning."""
    count = len(curve.points)
    if not count:
        return np.empty(0), np.empty(0)
    kept = (
        np.unique(np.round(np.geomspace(1, count, _NUM_POINTS)).astype(int)) - 1
        if count > _NUM_POINTS
        else range(count)
    )
    points = np.array([curve.points[i] for i in kept], dtype=np.float64)
    return np.clip(points[:, 0], 1e-6, 1.0), points[:, 1]
