"""The model of ends from results at rungs: bias, transforms, and input that has nothing to tell apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.scaling.fidelity_model import FidelityModel, Seen
from thalweg.space import Space

SPACE = Space.parse({"lr": {"log": [1e-4, 1.0]}, "width": {"linear": [0.0, 1.0]}})


def loss(lr: float, width: float, share: float) -> float:
    """The best rate falls by a decade from the first rung to the horizon: what looks best early is not best."""
    best = -2 - math.log(share) / math.log(8)
    return (math.log10(lr) - best) ** 2 + 0.5 * (width - 0.3) ** 2 + 0.3 * (1 / share - 1) / 7


def test_corrects_what_early_losses_get_wrong() -> None:
    rng = np.random.default_rng(0)
    seen = []
    for number in range(40):
        point = {"lr": 10 ** rng.uniform(-4, 0), "width": float(rng.random())}
        reached = (1 / 8, 1 / 4, 1 / 2, 1.0)[: 4 if number % 5 == 0 else 1]
        seen += [Seen(point, share, loss(point["lr"], point["width"], share)) for share in reached]
    model = FidelityModel(SPACE, seen)
    rates = np.linspace(-4, 0, 81)
    means, deviations = model.predict([{"lr": 10**rate, "width": 0.3} for rate in rates])
    assert rates[int(means.argmin())] == pytest.approx(-2, abs=0.4)  # -1 by what most runs showed
    assert np.all(deviations > 0)


def test_what_is_pending_is_known_better() -> None:
    seen = [Seen({"lr": lr, "width": 0.5}, 1.0, loss(lr, 0.5, 1.0)) for lr in (1e-4, 1e-3, 1e-2, 0.1, 1.0)]
    model = FidelityModel(SPACE, seen)
    there, far = {"lr": 3e-2, "width": 0.9}, {"lr": 1e-4, "width": 0.1}
    mean, before = model.predict([there, far])
    same, after = model.predict([there, far], pending=[there])
    assert after[0] < 0.7 * before[0]
    assert after[1] == pytest.approx(before[1], rel=0.05)
    assert same == pytest.approx(mean, abs=0.05)


def test_the_scale_is_flat_far_above_and_for_what_is_no_number() -> None:
    seen = [Seen({"lr": 10.0**-k, "width": 0.5}, 1.0, float(k)) for k in range(5)]
    scaled = FidelityModel(SPACE, seen).scaled(np.array([0.0, 2.0, 1e3, 1e300, math.inf, math.nan]))
    assert scaled[:2] == pytest.approx([0.0, math.log(2)])  # the best, and the median: one spread above it
    assert scaled[2] == scaled[3] > scaled[1]
    assert scaled[4] == scaled[5] > scaled[1]


_losses = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.inf, 1.0, 0.0, 1e300, -1e300]))
_seen = st.builds(
    lambda lr, width, share, value: Seen({"lr": lr, "width": width}, share, value),
    st.sampled_from([1e-4, 1e-2, 1.0, 30.0]),
    st.floats(0, 1),
    st.sampled_from([0.125, 0.5, 1.0]),
    _losses,
)


@settings(max_examples=60, deadline=None)
@given(seen=st.lists(_seen, min_size=1, max_size=12))
def test_predicts_finite_numbers_whatever_it_was_shown(seen: list[Seen]) -> None:
    means, deviations = FidelityModel(SPACE, seen).predict([{"lr": 1e-3, "width": 0.5}], pending=[{"lr": 1.0}])
    assert np.isfinite(means).all()
    assert np.isfinite(deviations).all()


def test_many_results_are_thinned_and_the_best_of_them_kept() -> None:
    rng = np.random.default_rng(1)
    points = [{"lr": 10 ** rng.uniform(-4, 0), "width": float(rng.random())} for _ in range(600)]
    seen = [Seen(p, share, loss(p["lr"], p["width"], share)) for p in points for share in (0.125, 1.0)]
    model = FidelityModel(SPACE, seen)
    best = min(points, key=lambda p: loss(p["lr"], p["width"], 1.0))
    means, _ = model.predict([best, *points[:50]])
    assert means[0] <= means[1:].min() + 0.05
