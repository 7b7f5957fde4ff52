"""A Gaussian process whose observations may each have their own noise, fitted in milliseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

FloatArray = NDArray[np.float64]

_SQRT5 = math.sqrt(5.0)
_JITTER = 1e-8
_LENGTH_SPREAD = 0.4
_LENGTH_OF_ONE = 0.12
_VARIANCE_PRIOR = (0.0, 0.7)
_NOISE_PRIOR = (math.log(0.5), 0.4)
_BOUND = 4.0
"""No parameter moves further from its prior's centre than so many of the prior's standard deviations."""


@dataclass(frozen=True)
class Kernel:
    """What is fitted: all in the scale of standardised observations."""

    lengths: FloatArray
    """Lengthscale per dimension: the distance over which observations stay alike."""
    variance: float
    noise: float
    """Variance of each observation beside its own known one."""


def fit_kernel(columns: FloatArray, owner: NDArray[np.int64], values: FloatArray, variances: FloatArray) -> Kernel:
    """The kernel with the largest posterior density, from one start: the same for the same data.

    With few observations the priors decide: lengthscales are log-normal around 0.12 times the root of the number of
    dimensions, so that a space of 20 dimensions is not taken to be rougher than one of 2.

    Args:
        columns: a row per observation, n x c.
        owner: the dimension of each column, c.
        values: standardised observations, n.
        variances: their known variances, in the same scale, n.
    Source: Hvarfner et al. 2024, arXiv:2402.02229 (a prior that grows with the root of the dimension).
    """
    num_dimensions = int(owner.max()) + 1
    centre = np.full(num_dimensions + 2, math.log(_LENGTH_OF_ONE) + 0.5 * math.log(num_dimensions))
    spread = np.full(num_dimensions + 2, _LENGTH_SPREAD)
    centre[-2:], spread[-2:] = (_VARIANCE_PRIOR[0], _NOISE_PRIOR[0]), (_VARIANCE_PRIOR[1], _NOISE_PRIOR[1])
    if len(values) < 2:
        return _kernel(centre)
    gaps = columns[:, None, :] - columns[None, :, :]
    squares = np.stack([(gaps[:, :, owner == d] ** 2).sum(axis=2) for d in range(num_dimensions)])

    def objective(parameters: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = _negative_log_likelihood(parameters, squares, values, variances)
        away = (parameters - centre) / spread
        return value + 0.5 * float(away @ away), gradient + away / spread

    bounds = list(zip(centre - _BOUND * spread, centre + _BOUND * spread, strict=True))
    found = minimize(objective, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 25})
    return _kernel(found.x if np.isfinite(found.fun) else centre)


class GaussianProcess:
    """The posterior given a kernel.

    Args:
        kernel: as fitted.
        columns, owner: as in `fit_kernel`.
        values: observations around zero, in the kernel's scale.
        variances: their known variances.
    """

    def __init__(
        self,
        kernel: Kernel,
        columns: FloatArray,
        owner: NDArray[np.int64],
        values: FloatArray,
        variances: FloatArray,
    ) -> None:
        self._kernel = kernel
        self._owner = owner
        self._columns = columns / kernel.lengths[owner]
        self._values, self._variances = values, variances
        matrix = kernel.variance * _matern(_distances(self._columns, self._columns))
        self._factor = np.linalg.cholesky(matrix + np.diag(kernel.noise + variances + _JITTER))
        self._weights: FloatArray = cho_solve((self._factor, True), values)

    def smoothed(self) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of what was observed, without the observations' own errors.

        The kernel's noise belongs to what was observed: runs with equal hyperparameters do differ.
        """
        inverse = solve_triangular(self._factor, np.eye(len(self._values)), lower=True)
        precision = (inverse**2).sum(axis=0)
        variance = self._variances - self._variances**2 * precision
        return self._values - self._variances * self._weights, np.maximum(variance, 1e-10)

    def predict(self, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of the process, its noise left out."""
        cross = self._kernel.variance * _matern(_distances(columns / self._kernel.lengths[self._owner], self._columns))
        explained = solve_triangular(self._factor, cross.T, lower=True)
        variance = self._kernel.variance - (explained**2).sum(axis=0)
        return cross @ self._weights, np.maximum(variance, 1e-10)


def _kernel(parameters: FloatArray) -> Kernel:
    *lengths, variance, noise = np.exp(parameters)
    return Kernel(np.array(lengths), float(variance), float(noise))


def _negative_log_likelihood(
    parameters: FloatArray, squares: FloatArray, values: FloatArray, variances: FloatArray
) -> tuple[float, FloatArray]:
    kernel = _kernel(parameters)
    scaled = squares / kernel.lengths[:, None, None] ** 2
    distances = np.sqrt(scaled.sum(axis=0))
    matrix = kernel.variance * _matern(distances)
    noisy = matrix + np.diag(kernel.noise + variances + _JITTER)
    factor = np.linalg.cholesky(noisy)
    inverse = cho_solve((factor, True), np.eye(len(values)))
    weights = inverse @ values
    value = 0.5 * float(values @ weights) + float(np.log(np.diag(factor)).sum())
    # d(-log p)/dt = 1/2 tr((K^-1 - w w^T) dK/dt)
    left = 0.5 * (inverse - np.outer(weights, weights))
    # The Matern 5/2 kernel's derivative by log l_d is 5/3 s2 (1 + sqrt5 r) exp(-sqrt5 r) (x_d - x'_d)^2 / l_d^2.
    slope = left * (5.0 / 3.0 * kernel.variance * (1 + _SQRT5 * distances) * np.exp(-_SQRT5 * distances))
    gradient = np.empty_like(parameters)
    gradient[:-2] = np.einsum("dij,ij->d", scaled, slope)
    gradient[-2] = float((left * matrix).sum())
    gradient[-1] = kernel.noise * float(np.trace(left))
    return value, gradient


def _distances(first: FloatArray, second: FloatArray) -> FloatArray:
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None, :] - 2 * first @ second.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _matern(distances: FloatArray) -> FloatArray:
    scaled = _SQRT5 * distances
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))
