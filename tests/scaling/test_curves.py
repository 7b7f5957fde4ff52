"""Findings: planted ones are found where they are, and noise gives none."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.scaling.curves import Finding, RunCurves, find_all
from thalweg.scaling.smoothing import Curve, Floats
from thalweg.schedules import Schedule, constant, linear

NUM = 1000
POSITIONS = np.arange(1, NUM + 1) * 8


def falling(num: int = NUM) -> Floats:
    return 2.0 + 2.0 * (1 + np.arange(num) / (num / 20)) ** -0.5


def noisy(seed: int, values: Floats, sigma: float = 0.05) -> Floats:
    return values + sigma * np.random.default_rng(seed).standard_normal(len(values))


def correlated(seed: int, num: int, correlation: float) -> Floats:
    steps = np.random.default_rng(seed).standard_normal(num)
    values = np.empty(num)
    values[0] = steps[0]
    for i in range(1, num):
        values[i] = correlation * values[i - 1] + math.sqrt(1 - correlation**2) * steps[i]
    return values


def analyse(training: Floats, **others: Any) -> list[Finding]:
    curves = {name: Curve.of(POSITIONS, v) if isinstance(v, np.ndarray) else v for name, v in others.items()}
    return find_all(RunCurves(training=Curve.of(POSITIONS, training), unit="samples", **curves))


def only(findings: list[Finding], kind: str) -> Finding:
    assert [finding.kind for finding in findings] == [kind]
    return findings[0]


def rates(schedule: Schedule) -> Floats:
    return np.array([3e-4 * schedule(p) for p in POSITIONS])


def held_then_decayed(position: float) -> float:
    return min(1.0, max(0.0, (8000 - position) / 1600))


# No finding on noise


@pytest.mark.parametrize("num", [12, 30, 100, 1000])
@pytest.mark.parametrize("level", ["flat", "falls"])
@pytest.mark.parametrize("noise", ["normal", "laplace", "correlated"])
def test_noise_gives_no_finding(noise: str, level: str, num: int) -> None:
    """Fewer than 1 curve in 50 is called anything but what it is. With 60 curves of a kind, up to 1 may be."""
    found: Counter[str] = Counter()
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        make = {
            "normal": lambda rng=rng: rng.standard_normal(num),
            "laplace": lambda rng=rng: rng.laplace(size=num) / math.sqrt(2),
            "correlated": lambda rng=rng: correlated(int(rng.integers(2**31)), num, 0.5),
        }[noise]
        base = np.full(num, 3.0) if level == "flat" else falling(num)
        positions = np.arange(1, num + 1)
        each = max(num // 10, 1)
        curves = RunCurves(
            training=Curve.of(positions, base + 0.1 * make()),
            validation=Curve.of(positions[::each], base[::each] + 0.01 * rng.standard_normal(len(base[::each]))),
            gradient_norm=Curve.of(positions, np.exp(0.3 * make())),
            clip=2.0,
        )
        found.update(finding.kind for finding in find_all(curves))
    assert sum(found.values()) <= 1, found


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_curve_at_all_is_taken(data: st.DataObject) -> None:
    value = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.sampled_from([0.0, 1.0, 1e-30])
    points = st.lists(st.tuples(st.integers(0, 300), value), max_size=150)

    def curve() -> Curve | None:
        drawn = data.draw(points | st.none())
        return None if drawn is None else Curve.of([p for p, _ in drawn], [v for _, v in drawn])

    curves = RunCurves(
        training=curve(),
        validation=curve(),
        gradient_norm=curve(),
        rate=curve(),
        clip=data.draw(st.none() | st.just(1.0)),
    )
    findings = find_all(curves)
    assert findings == sorted(findings, key=lambda finding: finding.position)
    for finding in findings:
        assert math.isfinite(finding.position)
        assert finding.text.endswith(".")


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-12, 1e12])
def test_a_constant_curve_is_calm(value: float) -> None:
    assert analyse(np.full(NUM, value), gradient_norm=np.full(NUM, max(value, 1e-9))) == []


# Spikes


@settings(max_examples=40, deadline=None)
@given(st.integers(150, 900), st.integers(1, 20), st.floats(1.0, 100.0), st.integers(0, 10**6))
def test_a_spike_is_found_where_it_is(at: int, length: int, height: float, seed: int) -> None:
    loss = noisy(seed, falling())
    loss[at : at + length] += height * np.linspace(1, 0.5, length)
    found = only(analyse(loss), "spike")
    assert found.position == POSITIONS[at]
    assert found.severity == "note"
    assert f"{POSITIONS[at + length]:,} samples" in found.text


def test_a_jump_of_the_gradient_norm_before_a_spike_is_told() -> None:
    loss, norm = noisy(0, falling()), np.exp(0.2 * np.random.default_rng(1).standard_normal(NUM))
    loss[500:510] += 3.0
    norm[497] = 60.0
    found = only(analyse(loss, gradient_norm=norm), "spike")
    assert f"before it, at {POSITIONS[497]:,} samples" in found.text
    assert "clip threshold" in found.text
    far = norm.copy()
    far[497], far[300] = 1.0, 60.0
    assert "gradient norm" not in only(analyse(loss, gradient_norm=far), "spike").text


def test_a_spike_after_a_fork_is_put_down_to_it() -> None:
    loss = noisy(0, falling())
    loss[502:520] += 2.0
    found = only(analyse(loss, forks=(float(POSITIONS[500]),)), "spike")
    assert f"the fork at {POSITIONS[500]:,} samples" in found.text


def test_many_spikes_are_one_sentence() -> None:
    loss = noisy(0, falling())
    loss[100:900:80] += 2.0
    loss[420] += 5.0
    found = only(analyse(loss), "spikes")
    assert "spikes 10 times" in found.text
    assert f"at {POSITIONS[420]:,} samples" in found.text


# Away for good


@settings(max_examples=30, deadline=None)
@given(st.integers(300, 800), st.integers(0, 10**6))
def test_divergence_is_found_where_it_begins(at: int, seed: int) -> None:
    loss = falling()
    loss[at:] = loss[at] + 5 * (np.arange(NUM - at) / (NUM - at)) ** 0.7
    found = [f for f in analyse(noisy(seed, loss)) if f.kind == "divergence"]
    assert len(found) == 1
    assert found[0].severity == "problem"
    assert abs(found[0].position - POSITIONS[at]) <= 80 * 8


def test_a_smaller_rise_is_no_divergence() -> None:
    loss = falling()
    loss[700:] += np.linspace(0, 0.5, 300)
    assert only(analyse(noisy(0, loss, 0.02)), "rise").severity == "warning"


def test_a_loss_that_is_not_finite() -> None:
    loss = noisy(0, falling())
    loss[600:] = math.nan
    found = only(analyse(loss), "divergence")
    assert found.position == POSITIONS[600]
    assert "400 values" in found.text
    loss = noisy(0, falling())
    loss[600] = math.inf
    found = only(analyse(loss), "not-finite")
    assert (found.position, found.severity) == (POSITIONS[600], "warning")


def test_a_rise_after_the_rate_goes_up_again_is_expected() -> None:
    loss = falling()
    loss[500:600] -= np.linspace(0, 0.6, 100)
    rate = np.concatenate([np.full(500, 1.0), np.linspace(1, 0, 100), np.full(400, 1.0)]) * 1e-3
    assert [f.kind for f in analyse(noisy(0, loss, 0.02), rate=rate) if f.severity != "note"] == []
    assert "rise" in [f.kind for f in analyse(noisy(0, loss, 0.02))]


def test_a_divergence_while_the_rate_warms_up_is_one() -> None:
    loss = falling()
    loss[300:] += np.linspace(0, 6, 700)
    kinds = [f.kind for f in analyse(noisy(0, loss), rate=rates(constant(warmup=8000)))]
    assert kinds == ["divergence"]


# Nowhere


def levelled(at: int = 300) -> Floats:
    values = falling()
    values[at:] = values[at]
    return values


def test_a_plateau_at_a_held_rate() -> None:
    found = only(analyse(noisy(0, levelled()), rate=rates(constant())), "plateau")
    # The last two fifths of the held stretch.
    assert abs(found.position - (8 + 0.6 * 7992)) <= 8
    assert "2.76" in found.text or "2.75" in found.text
    assert "the learning rate is held" in found.text


def test_no_plateau_while_the_rate_falls_or_the_loss_does() -> None:
    assert analyse(noisy(0, levelled()), rate=rates(linear(horizon=8001))) == []
    assert analyse(noisy(0, 4.0 - np.linspace(0, 2, NUM)), rate=rates(constant())) == []
    # A noisy curve that may still be falling.
    assert analyse(noisy(0, levelled(), sigma=0.5), rate=rates(constant())) == []


def test_a_loss_that_never_fell_at_a_known_rate() -> None:
    found = only(analyse(noisy(0, np.full(NUM, 0.6931), 0.01), rate=rates(constant())), "not-learning")
    assert "higher learning rate" in found.text


# Down in the decay


def test_what_a_decay_brought() -> None:
    loss = falling()
    loss[800:] -= np.linspace(0, 0.3, 200)
    found = only(analyse(noisy(0, loss, 0.02), rate=rates(held_then_decayed)), "decay")
    assert abs(found.position - 6400) <= 40
    assert "hillsides" in found.text


# Validation


def test_overfitting_and_where_it_begins() -> None:
    training = noisy(0, 2.0 - 1.5 * np.linspace(0, 1, NUM))
    at = POSITIONS[::50]
    x = np.linspace(0, 1, len(at))
    validation = 2.0 - 1.5 * np.minimum(x, 0.5) + 1.0 * np.maximum(x - 0.5, 0) + 0.005 * np.cos(40 * x)
    found = only(analyse(training, validation=Curve.of(at, validation)), "overfitting")
    assert abs(found.position - 4000) <= 3 * 400
    best = at[int(np.argmin(validation))]
    assert f"best at {best:,} samples" in found.text


def test_no_overfitting_where_both_rise_or_few_evaluations_tell() -> None:
    flat = noisy(0, np.full(NUM, 2.0))
    rising = Curve.of(POSITIONS[::100], np.linspace(2, 3, 10))
    assert analyse(flat, validation=rising) == []
    training = noisy(0, 2.0 - 1.5 * np.linspace(0, 1, NUM))
    assert analyse(training, validation=Curve.of([2000, 5000, 8000], [1.5, 1.0, 1.4])) == []


# Gradient norms


def test_a_growing_gradient_norm() -> None:
    norm = np.exp(0.3 * np.random.default_rng(0).standard_normal(NUM))
    norm[500:] *= np.geomspace(1, 8, 500)
    found = only(analyse(noisy(0, falling()), gradient_norm=norm), "gradient-growth")
    assert abs(found.position - 4000) <= 16
    factor = float(found.text.split("grows ")[1].split(" times")[0])
    assert factor == pytest.approx(8, rel=0.15)


def test_clipping_at_every_step() -> None:
    norm = np.exp(0.3 * np.random.default_rng(0).standard_normal(NUM)) * 5
    loss = noisy(0, falling())
    assert "100% of the steps" in only(analyse(loss, gradient_norm=norm, clip=1.0), "always-clipped").text
    assert analyse(loss, gradient_norm=norm, clip=6.0) == []
    assert analyse(loss, gradient_norm=norm) == []


def test_a_vanishing_gradient() -> None:
    norm = np.exp(0.1 * np.random.default_rng(0).standard_normal(NUM))
    norm[700:] *= 1e-5
    found = only(analyse(noisy(0, falling()), gradient_norm=norm), "gradient-vanishing")
    assert found.position == POSITIONS[700]


def test_order_of_points_does_not_matter() -> None:
    loss = noisy(0, falling())
    loss[500:510] += 3.0
    order = np.random.default_rng(0).permutation(NUM)
    shuffled = find_all(RunCurves(training=Curve.of(POSITIONS[order], loss[order]), unit="samples"))
    assert shuffled == analyse(loss)
