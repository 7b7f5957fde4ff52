"""The model of learning curves: synthetic curves with known ends, an independent Gaussian process, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.scaling.curve_shapes import Samples, Shape, fit_shape, measured_finals
from thalweg.scaling.gaussian_process import GaussianProcess, Kernel, fit_kernel
from thalweg.scaling.learning_curves import Curve, CurveModel, LossScale
from thalweg.scaling.points import Points
from thalweg.space import Space

SPACE = Space.parse({"x": {"linear": [0.0, 1.0]}, "z": {"linear": [0.0, 1.0]}})
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def crossing(x: float, share: float) -> float:
    """Ends at (x - 0.3)^2 + 1; a larger x begins higher and falls more steeply, so that curves cross."""
    return (x - 0.3) ** 2 + 1 + 0.4 * (0.2 + x) * (share**-0.5 - 1)


def synthetic(num: int, seed: int, noise: float = 0.01) -> tuple[list[Curve], np.ndarray, np.ndarray]:
    """Curves, every fourth complete and the others at a quarter; their true ends; and which are open."""
    rng = np.random.default_rng(seed)
    points = rng.random((num, 2))
    complete = np.arange(num) % 4 == 0
    curves = []
    for (x, z), whole in zip(points, complete, strict=True):
        shares = SHARES if whole else SHARES[:3]
        losses = tuple((share, crossing(x, share) + noise * rng.normal()) for share in shares)
        curves.append(Curve({"x": float(x), "z": float(z)}, losses, "finished" if whole else "paused"))
    return curves, np.array([crossing(x, 1.0) for x, _ in points]), ~complete


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def test_ends_of_crossing_power_laws_are_ranked_better_than_by_last_values() -> None:
    better = []
    for seed in range(4):
        curves, ends, is_open = synthetic(40, seed)
        means, _ = CurveModel(SPACE).fit(curves).predict_final()
        last = np.array([curve.points[-1][1] for curve in curves])
        by_model = np.corrcoef(ranks(means[is_open]), ranks(ends[is_open]))[0, 1]
        by_last = np.corrcoef(ranks(last[is_open]), ranks(ends[is_open]))[0, 1]
        better.append(by_model - by_last)
    assert min(better) > 0


def test_intervals_cover_what_they_say() -> None:
    """Over 300 open curves, one standard deviation covers 68%: between 50% and 90% is asked for, 2 cover over 85%."""
    within = []
    for seed in range(10):
        curves, ends, is_open = synthetic(40, seed, noise=0.02)
        fit = CurveModel(SPACE).fit(curves)
        means, deviations = fit.predict_final()
        within.append(np.abs(fit.scale.scaled(ends) - means)[is_open] / deviations[is_open])
    distances = np.concatenate(within)
    assert 0.5 < np.mean(distances < 1) < 0.9
    assert np.mean(distances < 2) > 0.85


def test_a_finished_run_is_predicted_where_it_ended() -> None:
    curves, _, is_open = synthetic(40, 0)
    fit = CurveModel(SPACE).fit(curves)
    means, deviations = fit.predict_final()
    seen = np.array([fit.scale.scaled(np.array([curve.points[-1][1]]))[0] for curve in curves])
    assert np.abs(means - seen)[~is_open].max() < 0.1
    assert deviations[~is_open].max() < deviations[is_open].min()


def test_new_points_are_known_better_where_runs_are_near_or_pending() -> None:
    curves, _, _ = synthetic(40, 0)
    fit = CurveModel(SPACE).fit(curves)
    here, far = {"x": 1.4, "z": -0.4}, curves[0].hyperparameters
    _, before = fit.predict_new([here, far])
    assert before[1] < before[0]
    pending = fit.with_pending([here])
    means, after = pending.predict_new([here, far])
    assert after[0] < before[0]
    assert means[0] == pytest.approx(fit.predict_new([here])[0][0], abs=1e-6)
    np.testing.assert_array_equal(pending.predict_final()[0], fit.predict_final()[0])


def test_diverged_runs_are_as_bad_as_the_worst() -> None:
    curves, _, _ = synthetic(20, 1)
    gone = Curve({"x": 0.9, "z": 0.5}, ((1 / 16, 1.2),), "diverged")
    means, _ = CurveModel(SPACE).fit([*curves, gone, Curve({"x": 0.2, "z": 0.1}, (), "diverged")]).predict_final()
    assert min(means[-2:]) > np.median(means[:-2])


def test_what_was_fitted_before_changes_nothing() -> None:
    curves, _, _ = synthetic(30, 2)
    used = CurveModel(SPACE)
    for count in (3, 29, 30, 12, 30):
        again = used.fit(curves[:count]).predict_final()
    fresh = CurveModel(SPACE).fit(list(curves)).predict_final()
    np.testing.assert_array_equal(again, fresh)


def test_more_runs_than_the_process_passes_through() -> None:
    """Runs that it leaves out are predicted from it and from their own curves."""
    curves, ends, is_open = synthetic(400, 3)
    means, deviations = CurveModel(SPACE).fit(curves).predict_final()
    assert np.isfinite(means).all()
    assert (deviations > 0).all()
    assert np.corrcoef(ranks(means[is_open]), ranks(ends[is_open]))[0, 1] > 0.8


def test_a_measured_end_by_hand() -> None:
    """Of one point, at 1/4 with b = 1: phi = 3 / 9; its error is w phi, a walk over ln 4, and the evaluation's."""
    shape = Shape(power=1.0, slope_deviation=0.3, walk=0.05, noise=0.02, coupling=0.0, mean_slope=0.6)
    samples = Samples(np.array([[0.25, 1.0]]), np.array([[2.0, 0.0]]), np.array([[True, False]]))
    values, variances = measured_finals(shape, samples)
    assert values[0] == pytest.approx(2.0 - 0.6 / 3)
    assert variances[0] == pytest.approx((0.3 / 3) ** 2 + 0.05 * math.log(4) + 0.02**2)


def test_a_common_fall_is_found() -> None:
    """Curves that all fall by the same power law: what is left of it is taken off."""
    rng = np.random.default_rng(0)
    ends = rng.normal(1.0, 0.5, 40)
    shares = np.tile(SHARES[:4], (40, 1))
    losses = ends[:, None] + 0.5 * (shares**-0.7 - 1) / (10**0.7 - 1) + 0.003 * rng.normal(size=shares.shape)
    samples = Samples(shares, losses, np.ones_like(shares, dtype=bool))
    shape = fit_shape(samples)
    values, _ = measured_finals(shape, samples)
    assert np.abs(values - ends).max() < 0.1
    # At half of the horizon, what is left to fall: 0.5 (2^0.7 - 1) / (10^0.7 - 1).
    left = shape.mean_slope * shape.phi(np.array([0.5]))[0]
    assert left == pytest.approx(0.5 * (2**0.7 - 1) / (10**0.7 - 1), abs=0.03)


def test_the_process_equals_the_textbook_formula() -> None:
    """Three points in one dimension, with the Matern 5/2 kernel written out and a plain matrix inverse."""

    def kernel(a: float, b: float) -> float:
        r = math.sqrt(5) * abs(a - b) / 0.4
        return 1.5 * (1 + r + r * r / 3) * math.exp(-r)

    at, values, own = [0.0, 0.3, 1.0], np.array([0.5, -0.2, 0.9]), np.array([0.1, 0.0, 0.02])
    matrix = np.array([[kernel(a, b) for b in at] for a in at]) + np.diag(own + 0.05)
    cross = np.array([kernel(0.5, a) for a in at])
    process = GaussianProcess(Kernel(np.array([0.4]), 1.5, 0.05), np.array(at)[:, None], np.array([0]), values, own)
    mean, variance = process.predict(np.array([[0.5]]))
    assert mean[0] == pytest.approx(cross @ np.linalg.inv(matrix) @ values, abs=1e-6)
    assert variance[0] == pytest.approx(1.5 - cross @ np.linalg.inv(matrix) @ cross, abs=1e-6)
    smooth = (matrix - np.diag(own)) @ np.linalg.inv(matrix) @ values
    np.testing.assert_allclose(process.smoothed()[0], smooth, atol=1e-6)


def test_the_kernel_sees_which_dimension_matters() -> None:
    rng = np.random.default_rng(0)
    columns = rng.random((60, 12))
    values = np.sin(6 * columns[:, 4])
    kernel = fit_kernel(columns, np.arange(12), (values - values.mean()) / values.std(), np.full(60, 1e-3))
    assert int(np.argmin(kernel.lengths)) == 4


def test_points_by_hand() -> None:
    space = Space.parse(
        {
            "lr": {"log": [1e-4, 1e-2]},
            "kind": {"choice": ["a", True, 1]},
            "rank": {"integer": [2, 10], "when": {"kind": "a"}},
            "fixed": 3,
        }
    )
    half = math.sqrt(0.5)
    found = Points(space).encode(
        [
            {"lr": 1e-3, "kind": "a", "rank": 4},
            {"lr": 1e-4, "kind": 1},
            {"lr": 1.0, "kind": "unknown", "rank": math.nan},
            {"lr": -1.0},
        ]
    )
    expected = [[0.5, half, 0, 0, 0.25], [0, 0, 0, half, 0.5], [1.5, 0, 0, 0, 0.5], [-0.5, 0, 0, 0, 0.5]]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert list(Points(space).owner) == [0, 1, 1, 1, 2]


def test_the_scale_by_hand() -> None:
    scale = LossScale(best=2.0, spread=0.5)
    losses = np.array([2.0, 2.5, 1.5, math.inf, math.nan, 1e300, -1e300])
    cap = math.log(11)
    np.testing.assert_allclose(scale.scaled(losses), [0, math.log(2), -1, cap, cap, cap, -10])
    assert [scale.loss(v) for v in (0.0, math.log(2), -1.0)] == pytest.approx([2.0, 2.5, 1.5])


_losses = st.one_of(
    st.sampled_from([0.0, 1.0, -1e300, 1e300, math.inf, math.nan, 1e-300]),
    st.floats(allow_nan=True, allow_infinity=True),
)


@st.composite
def curves(draw: st.DrawFn) -> list[Curve]:
    """Constant, infinite, duplicate, one-point and empty curves."""
    unit = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(-2, 3))
    found = []
    for _ in range(draw(st.integers(0, 12))):
        shares = sorted(draw(st.lists(st.sampled_from([1e-9, 0.01, *SHARES, 1.02]), max_size=5, unique=True)))
        losses = draw(st.one_of(_losses.map(lambda loss: [loss] * 5), st.lists(_losses, min_size=5, max_size=5)))
        points = tuple(zip(shares, losses, strict=False))
        status = draw(st.sampled_from(["paused", "finished", "diverged", "failed", "stopped", "running"]))
        found.append(Curve({"x": draw(unit), "z": draw(unit)}, points, status))
    return found


@settings(max_examples=60, deadline=None)
@given(curves=curves(), twice=st.booleans())
def test_whatever_the_curves_predictions_are_numbers(curves: list[Curve], twice: bool) -> None:
    fit = CurveModel(SPACE).fit(curves * 2 if twice else curves)
    new = [{"x": 0.5, "z": 0.5}, {"x": 0.5, "z": 0.5}]
    for means, deviations in (fit.predict_final(), fit.predict_new(new), fit.with_pending(new).predict_new(new)):
        assert np.isfinite(means).all()
        assert np.isfinite(deviations).all()
        assert (deviations > 0).all()
    assert len(fit.predict_final()[0]) == len(curves) * (1 + twice)
