"""How the losses of a study's runs fall on their way to the horizon, learned from all of them together.

A run's loss at a share x of its horizon is taken to be

    y(x) = m a(x) + (mean_slope + w) phi(x) + B(ln 1/x) + noise,    phi(x) = (x^-b - 1) / (10^b - 1)

where m is what it reaches at the horizon, phi a power law that is 0 at the horizon and 1 at a tenth of it, w the run's
own deviation, and B a random walk over the logarithm of the position: it keeps old points from outweighing recent ones,
and makes a prediction over a longer way less certain. a(x) = 1 + coupling phi(x) lets worse runs fall by less, or by
more. All but m is Gaussian given these parameters, so a whole curve says about m what one measurement with a known
error would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MAX_VARIANCE = 10.0
"""A curve that says nothing about its end counts as a measurement with this variance."""
_SLOPE_SPREAD = 1.0
_RESTLESSNESS_WEIGHT = 0.5
_LOG_SPREAD = 0.7
_GRIDS: dict[str, tuple[float, ...]] = {
    "power": (0.05, 0.3, 0.7, 1.2),
    "slope_deviation": (0.01, 0.05, 0.15, 0.4, 1.0),
    "walk": (1e-4, 1e-3, 5e-3, 0.02, 0.08, 0.3),
    "noise": (0.003, 0.01, 0.03, 0.1, 0.2),
    "coupling": (-0.6, -0.3, 0.0, 0.3),
}
_NUM_SWEEPS = 2


@dataclass(frozen=True)
class Shape:
    """The parameters of the formula above, in the scale of the losses given."""

    power: float = 0.3
    """b."""
    slope_deviation: float = 0.15
    """Standard deviation of w."""
    walk: float = 5e-3
    """Variance of B per unit of ln 1/x."""
    noise: float = 0.03
    """Standard deviation of an evaluation."""
    coupling: float = 0.0
    mean_slope: float = 0.0
    mean_final: float = 0.0
    """Mean of m over runs: the coupling turns around it."""

    def phi(self, shares: FloatArray) -> FloatArray:
        """The power law at shares of the horizon."""
        return np.asarray((shares**-self.power - 1) / (10**self.power - 1))


@dataclass(frozen=True)
class Samples:
    """Points of n curves, at most p each; the rest of a row is padding."""

    shares: FloatArray
    """Shares of the horizon, in (0, 1], n x p; 1 where there is none."""
    losses: FloatArray
    """n x p; 0 where there is none."""
    present: NDArray[np.bool_]
    """Where there is a point, n x p."""

    def first(self, count: int) -> Samples:
        """The first curves only."""
        return Samples(self.shares[:count], self.losses[:count], self.present[:count])


def fit_shape(samples: Samples) -> Shape:
    """The most probable shape: a coordinate search over coarse grids, with priors that decide where points are few.

    Args:
        samples: curves whose losses have a spread of about 1; those with a single point teach nothing.
    """
    told = samples.present.sum(axis=1) >= 2
    if not told.any():
        return Shape()
    samples = Samples(samples.shares[told], samples.losses[told], samples.present[told])
    best = Shape()
    best_value, fitted = _log_posterior(best, samples)
    for _ in range(_NUM_SWEEPS):
        before = best
        for name, grid in _GRIDS.items():
            for value in grid:
                shape = replace(best, **{name: value})
                if shape == best:
                    continue
                posterior, profiled = _log_posterior(shape, samples)
                if posterior > best_value:
                    best, best_value, fitted = shape, posterior, profiled
        if best == before:
            break
    return fitted


def measured_finals(shape: Shape, samples: Samples) -> tuple[FloatArray, FloatArray]:
    """What each curve says about its end: a measured value and the variance of its error, n and n.

    A curve without points gets the largest variance.
    """
    loading, errors = _loading_and_errors(shape, samples)
    phi = np.where(samples.present, shape.phi(samples.shares), 0.0)
    offsets = shape.mean_slope * phi - (loading - samples.present) * shape.mean_final
    centred = np.where(samples.present, samples.losses - offsets, 0.0)
    solved = np.linalg.solve(errors, np.stack([loading, centred], axis=2))
    precision = (loading * solved[:, :, 0]).sum(axis=1)
    safe = np.maximum(precision, 1 / MAX_VARIANCE)
    values = (loading * solved[:, :, 1]).sum(axis=1) / safe
    surprise = (centred * solved[:, :, 1]).sum(axis=1) - safe * values**2
    freedom = np.maximum(samples.present.sum(axis=1) - 1, 0)
    restlessness = (_RESTLESSNESS_WEIGHT + np.maximum(surprise, 0.0)) / (_RESTLESSNESS_WEIGHT + freedom)
    return values, np.minimum(restlessness / safe, MAX_VARIANCE)


def _loading_and_errors(shape: Shape, samples: Samples) -> tuple[FloatArray, FloatArray]:
    """What m is multiplied by at each point, and the covariance of all else, with ones for the padding."""
    phi = np.where(samples.present, shape.phi(samples.shares), 0.0)
    loading = np.where(samples.present, np.clip(1 + shape.coupling * phi, 0.0, 3.0), 0.0)
    past = -np.log(samples.shares)
    both = samples.present[:, :, None] & samples.present[:, None, :]
    errors = shape.slope_deviation**2 * phi[:, :, None] * phi[:, None, :]
    errors += np.where(both, shape.walk * np.minimum(past[:, :, None], past[:, None, :]), 0.0)
    own = np.where(samples.present, shape.noise**2, 1.0)
    return loading, errors + own[:, :, None] * np.eye(samples.shares.shape[1])


def _log_posterior(shape: Shape, samples: Samples) -> tuple[float, Shape]:
    """Its logarithm but for a constant, and the shape with the two means that are best for it."""
    loading, errors = _loading_and_errors(shape, samples)
    phi = np.where(samples.present, shape.phi(samples.shares), 0.0)
    last = samples.losses[np.arange(len(phi)), samples.present.sum(axis=1) - 1]
    spread = max(float(np.var(last)), 0.01)
    # m is a mean and a deviation: the loading applies to the deviation alone, as the coupling turns around the mean.
    factor = np.linalg.cholesky(errors + spread * loading[:, :, None] * loading[:, None, :])
    design = np.stack([samples.present.astype(float), phi, samples.losses], axis=2)
    whitened = np.linalg.solve(factor, design).reshape(-1, 3)
    moments = whitened.T @ whitened
    system = moments[:2, :2] + np.diag([1e-6, 1 / _SLOPE_SPREAD**2])
    means = np.linalg.solve(system, moments[:2, 2])
    square = moments[2, 2] - float(means @ moments[:2, 2])
    value = -0.5 * square - float(np.log(np.diagonal(factor, axis1=1, axis2=2)).sum())
    prior = Shape()
    for name in ("slope_deviation", "walk", "noise"):
        value -= 0.5 * (math.log(getattr(shape, name) / getattr(prior, name)) / _LOG_SPREAD) ** 2
    value -= 0.5 * (shape.coupling / 0.5) ** 2
    return value, replace(shape, mean_final=float(means[0]), mean_slope=float(means[1]))
