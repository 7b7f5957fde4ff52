"""The loss along a line: shapes with known answers, and the line itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.scaling.landscape import line_shape, mix, places

ALPHAS = places(11, 0.25)


@given(st.floats(0.15, 0.85), st.floats(0.1, 50), st.floats(-5, 5))
def test_a_parabola_between_two_hillsides(at: float, steepness: float, level: float) -> None:
    shape = line_shape(ALPHAS, [level + steepness * (alpha - at) ** 2 for alpha in ALPHAS])
    assert shape.convex
    assert shape.minimum_at == pytest.approx(at, abs=1e-6)
    assert shape.barrier == pytest.approx(0, abs=1e-9)
    if 1e-3 * abs(level) < steepness * 0.02:
        assert shape.inner_minimum
        assert shape.direction is None
        assert "convex" in shape.text
        assert "hillsides" in shape.text


def test_a_fall_along_the_river() -> None:
    shape = line_shape(ALPHAS, [3.0 - 0.2 * alpha for alpha in ALPHAS])
    assert (shape.direction, shape.inner_minimum, shape.convex, shape.barrier) == ("falls", False, True, 0.0)
    assert shape.minimum_at == 1.0
    assert "falls all the way from A to B" in shape.text
    back = line_shape(ALPHAS, [3.0 + 0.2 * alpha for alpha in ALPHAS])
    assert back.direction == "rises"
    assert "from B to A" in back.text


def test_what_lies_beyond_the_two_is_not_judged() -> None:
    losses = [3.0 - 0.2 * alpha if 0 <= alpha <= 1 else 99.0 for alpha in ALPHAS]
    assert line_shape(ALPHAS, losses).direction == "falls"


def test_a_barrier_stands_above_the_line_between_the_ends() -> None:
    losses = [1.0 + alpha + 2.0 * math.sin(math.pi * alpha) for alpha in ALPHAS]
    shape = line_shape(ALPHAS, losses)
    assert shape.barrier == pytest.approx(2.0)
    assert shape.barrier_at == pytest.approx(0.5)
    assert not shape.convex
    assert shape.direction is None
    assert "A barrier of 2 stands at 0.50" in shape.text
    assert "(1 at A and 2 at B)" in shape.text


def test_a_level_floor_and_rounding() -> None:
    rng = np.random.default_rng(0)
    shape = line_shape(ALPHAS, list(2.5 + 1e-6 * rng.standard_normal(len(ALPHAS))))
    assert shape.direction == "flat"
    assert not shape.inner_minimum
    assert line_shape([0, 0.5, 1], [1.0, 1.0, 1.0]).direction == "flat"


def test_order_does_not_matter() -> None:
    losses = [(alpha - 0.4) ** 2 for alpha in ALPHAS]
    order = np.random.default_rng(1).permutation(len(ALPHAS))
    shuffled = line_shape([ALPHAS[i] for i in order], [losses[i] for i in order])
    assert shuffled == line_shape(ALPHAS, losses)


@pytest.mark.parametrize(
    ("alphas", "losses", "message"),
    [
        ([0, 1], [1.0, 2.0], "at least one between"),
        ([0, 0.5, 0.5, 1], [1.0, 2.0, 2.0, 3.0], "each once"),
        ([0.1, 0.5, 1], [1.0, 2.0, 3.0], "must hold 0"),
        ([0, 0.5, 1], [1.0, math.nan, 2.0], "at 0.5 of the way is nan"),
        ([0, 0.5, 1], [1.0, 2.0], "3 places and 2 losses"),
    ],
)
def test_what_cannot_be_judged(alphas: list[float], losses: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        line_shape(alphas, losses)


def test_places_include_both_ends_exactly() -> None:
    found = places(4, 0.5)
    assert found == pytest.approx([-1 / 3, 0, 1 / 3, 2 / 3, 1, 4 / 3])
    assert 0.0 in found
    assert 1.0 in found
    assert places(3, 0) == [0.0, 0.5, 1.0]
    with pytest.raises(ConfigError, match="points = 2 must be at least 3"):
        places(2, 0)
    with pytest.raises(ConfigError, match="beyond = -1"):
        places(5, -1)


def test_the_ends_of_the_line_are_the_checkpoints_bit_for_bit() -> None:
    torch.manual_seed(0)
    a = {"w": torch.randn(3, 2), "half": torch.randn(4).bfloat16(), "ids": torch.arange(3)}
    b = {"w": torch.randn(3, 2), "half": torch.randn(4).bfloat16(), "ids": torch.arange(3)}
    for alpha, end in ((0.0, a), (1.0, b)):
        for name, value in mix(a, b, alpha).items():
            assert value.dtype == end[name].dtype
            assert torch.equal(value, end[name])
    halfway = mix(a, b, 0.5)["w"]
    assert torch.allclose(halfway, (a["w"] + b["w"]) / 2)
    beyond = mix(a, b, 1.5)["w"]
    assert torch.allclose(beyond, b["w"] + (b["w"] - a["w"]) / 2)


def test_weights_without_a_line_between_them() -> None:
    a = {"w": torch.zeros(2, 3)}
    with pytest.raises(ConfigError, match=r"different models: 2 tensors differ: v \(only in B\), w \(only in A\)"):
        mix(a, {"v": torch.zeros(2, 3)}, 0.5)
    with pytest.raises(ConfigError, match=r"different shapes: w \(2, 3\) and \(3, 2\)"):
        mix(a, {"w": torch.zeros(3, 2)}, 0.5)
    with pytest.raises(ConfigError, match="without weights"):
        mix({}, a, 0.5)
