"""The three forms of weight decay against optax, by hand, and from one into another; time scales of published runs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.optim.weight_decay import (
    KINDS,
    WeightDecayKind,
    adam,
    decay_factor,
    shrinkage,
    timescale_fraction,
    timescale_steps,
)

BETAS, EPSILON = (0.9, 0.95), 1e-8


def one_weight(value: float = 1.0, *, weight_decay: float) -> tuple[torch.nn.Parameter, list[dict[str, Any]]]:
    weight = torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))
    return weight, [{"params": [weight], "weight_decay": weight_decay}]


def step(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, gradient: torch.Tensor, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    weight.grad = gradient.clone()
    optimizer.step()


def optax_form(kind: WeightDecayKind, peak: float, weight_decay: float, multipliers: list[float]) -> Any:
    """The same with optax's own parts."""
    factors = jnp.array(multipliers)

    def rate(count: Any) -> Any:
        return -peak * factors[count]

    scale = optax.scale_by_adam(*BETAS, EPSILON)
    decay = optax.add_decayed_weights
    match kind:
        case "l2":
            return optax.chain(decay(weight_decay), scale, optax.scale_by_schedule(rate))
        case "decoupled":
            return optax.chain(scale, decay(weight_decay), optax.scale_by_schedule(rate))
        case "independent":
            return optax.chain(scale, decay(weight_decay / peak), optax.scale_by_schedule(rate))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_optax(kind: WeightDecayKind, fused: bool) -> None:
    peak, weight_decay = 0.02, 0.05
    multipliers = [0.25, 0.5, 1.0, 1.0, 0.5, 0.1]
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=7), rng.normal(size=(6, 7))
    weight = torch.nn.Parameter(torch.tensor(start))
    groups = [{"params": [weight], "weight_decay": weight_decay}]
    optimizer = adam(groups, lr=peak, betas=BETAS, epsilon=EPSILON, weight_decay_kind=kind, fused=fused)
    with jax.enable_x64(True):
        theirs = optax_form(kind, peak, weight_decay, multipliers)
        params = jnp.array(start)
        state = theirs.init(params)
        for gradient, multiplier in zip(gradients, multipliers, strict=True):
            step(optimizer, weight, torch.tensor(gradient), peak * multiplier)
            updates, state = theirs.update(jnp.array(gradient), state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(weight.detach().numpy(), np.asarray(params), rtol=1e-6)


def test_three_steps_without_a_gradient() -> None:
    weight, groups = one_weight(weight_decay=0.1)
    optimizer = adam(groups, lr=0.1)
    for _ in range(3):
        step(optimizer, weight, torch.zeros_like(weight), 0.1)
    assert weight.item() == pytest.approx(0.970299, abs=1e-12)


def test_independent_decay_follows_the_schedule_from_the_peak_of_its_own_group() -> None:
    first, groups = one_weight(weight_decay=0.1)
    second, more = one_weight(weight_decay=0.1)
    more[0]["lr"] = 0.004
    optimizer = adam([*groups, *more], lr=0.3, weight_decay_kind="independent")
    first.grad = second.grad = torch.zeros_like(first)
    optimizer.step()
    assert [first.item(), second.item()] == pytest.approx([0.9, 0.9])
    for group in optimizer.param_groups:
        group["lr"] /= 2
    optimizer.step()
    assert [first.item(), second.item()] == pytest.approx([0.9 * 0.95, 0.9 * 0.95])


def test_the_groups_that_are_given_stay_as_they_are() -> None:
    _, groups = one_weight(weight_decay=0.1)
    adam(groups, lr=0.01, weight_decay_kind="independent")
    assert groups[0]["weight_decay"] == 0.1
    assert "lr" not in groups[0]


@pytest.mark.parametrize(("old", "new"), list(itertools.product(KINDS, KINDS)))
def test_moments_of_one_form_go_on_in_another(old: WeightDecayKind, new: WeightDecayKind) -> None:
    """A fork may change the form: what goes on is what the new form makes of the same moments."""
    weight, groups = one_weight(0.5, weight_decay=0.1)
    before = adam(groups, lr=0.01, weight_decay_kind=old)
    for value in (1.0, -2.0, 0.5):
        step(before, weight, torch.tensor([value], dtype=torch.float64), 0.01)
    state = before.state_dict()["state"]
    m, v = float(state[0]["exp_avg"]), float(state[0]["exp_avg_sq"])
    w = weight.item()

    after = adam(groups, lr=0.02, weight_decay_kind=new)
    own = after.state_dict()["param_groups"]
    after.load_state_dict({"state": state, "param_groups": own})
    step(after, weight, torch.tensor([0.25], dtype=torch.float64), 0.02)

    g = 0.25 + (0.1 * w if new == "l2" else 0.0)
    m_hat = (0.9 * m + 0.1 * g) / (1 - 0.9**4)
    v_hat = (0.999 * v + 0.001 * g * g) / (1 - 0.999**4)
    decay = {"l2": 0.0, "decoupled": 0.02 * 0.1, "independent": 0.1}[new]
    assert weight.item() == pytest.approx(w * (1 - decay) - 0.02 * m_hat / (math.sqrt(v_hat) + 1e-8), rel=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 10.0])
@pytest.mark.parametrize("kind", KINDS)
def test_shrinkage_is_what_torch_does(kind: WeightDecayKind, scale: float) -> None:
    def schedule(position: float) -> float:
        return 1.0 if position < 10 else 0.5

    expected = []
    weight, groups = one_weight(weight_decay=0.1)
    optimizer = adam(groups, lr=0.01, weight_decay_kind=kind)
    for i in range(20):
        expected.append(weight.item())
        step(optimizer, weight, torch.tensor([scale * (-1) ** i], dtype=torch.float64), 0.01 * schedule(i))
    expected.append(weight.item())
    found = shrinkage(kind, lr=0.01, weight_decay=0.1, gradient_scale=scale, num_steps=20, schedule=schedule)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_l2_hardly_decays_a_weight_with_large_gradients() -> None:
    options = {"lr": 0.01, "weight_decay": 0.1, "num_steps": 1000}
    small, large = (shrinkage("decoupled", gradient_scale=s, **options)[-1] for s in (1e-3, 10.0))
    # 0.999^1000 = 0.3677, whatever the gradients; what these leave is about one step.
    assert [small, large] == pytest.approx([0.999**1000] * 2, abs=0.01)
    # Adam divides the decay by the size of the gradients: lr * weight_decay / 10 a step, 0.1 of the weight in all.
    assert shrinkage("l2", gradient_scale=10.0, **options)[-1] == pytest.approx(0.9, abs=0.02)
    # Where the decay is all the gradient there is, Adam makes it the full step lr, whatever weight_decay is.
    assert shrinkage("l2", gradient_scale=0.0, **options | {"num_steps": 10})[-1] == pytest.approx(0.9, abs=0.002)


@given(lr=st.floats(1e-5, 1e-1), weight_decay=st.floats(1e-4, 1.0), multiplier=st.floats(0, 1))
def test_an_independent_decay_is_a_decoupled_one_at_another_number(
    lr: float, weight_decay: float, multiplier: float
) -> None:
    one = decay_factor(lr=lr * multiplier, weight_decay=weight_decay, kind="decoupled", peak_lr=lr)
    other = decay_factor(lr=lr * multiplier, weight_decay=lr * weight_decay, kind="independent", peak_lr=lr)
    assert one == pytest.approx(other, rel=1e-12)


@given(lr=st.floats(1e-6, 1e-2), weight_decay=st.floats(1e-3, 1.0))
def test_after_a_time_scale_a_weight_is_down_to_an_e_th(lr: float, weight_decay: float) -> None:
    num_steps = timescale_steps(lr, weight_decay)
    # (1 - x)^(1/x) = e^-1 * (1 - x/2 + ...), and x is at most 0.01 here.
    assert decay_factor(lr=lr, weight_decay=weight_decay) ** num_steps == pytest.approx(math.exp(-1), rel=0.006)


def test_published_time_scales() -> None:
    assert timescale_steps(3e-4, 0.1) == pytest.approx(33_333.3, abs=0.05)
    runs = {
        "Llama 2 7B": (3e-4, 4e6, 2e12, 0.066667),
        "GPT-3 175B": (6e-5, 3.2e6, 300e9, 1.7778),
        "Llama 3 405B": (8e-5, 16e6, 15.6e12, 0.12821),
    }
    for name, (lr, batch, tokens, share) in runs.items():
        found = timescale_fraction(lr=lr, weight_decay=0.1, batch_size=batch, horizon=tokens)
        assert found == pytest.approx(share, rel=1e-4), name
    assert timescale_steps(1e-3, 0.0) == math.inf


def test_bad_input() -> None:
    _, groups = one_weight(weight_decay=0.1)
    with pytest.raises(ConfigError, match=r"weight decay 'decopled'. Did you mean 'decoupled'\?"):
        adam(groups, lr=0.1, weight_decay_kind="decopled")  # type: ignore[arg-type]
    for lr in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match=f"lr = {lr} must be"):
            adam(groups, lr=lr, weight_decay_kind="independent")
        with pytest.raises(ConfigError, match=f"lr = {lr} must be"):
            timescale_steps(lr, 0.1)
    for weight_decay in (-0.1, math.nan):
        with pytest.raises(ConfigError, match=f"weight_decay = {weight_decay} must be"):
            adam(one_weight(weight_decay=weight_decay)[1], lr=0.1)
        with pytest.raises(ConfigError, match=f"weight_decay = {weight_decay} must be"):
            timescale_steps(0.1, weight_decay)
    with pytest.raises(ConfigError, match="has no weight_decay"):
        adam([{"params": groups[0]["params"]}], lr=0.1)
    with pytest.raises(ConfigError, match="no fixed decay factor"):
        decay_factor(lr=0.1, weight_decay=0.1, kind="l2")
    with pytest.raises(ConfigError, match=r"lr = 0.2 must be between 0 and the peak, 0.1"):
        decay_factor(lr=0.2, weight_decay=0.1, peak_lr=0.1)
    with pytest.raises(ConfigError, match="batch_size = 10 and horizon = 5"):
        timescale_fraction(lr=0.1, weight_decay=0.1, batch_size=10, horizon=5)
    with pytest.raises(ConfigError, match=r"gradient_scale = -1.0 and num_steps = 3"):
        shrinkage("l2", lr=0.1, weight_decay=0.1, gradient_scale=-1.0, num_steps=3)
