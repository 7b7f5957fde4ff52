"""Clipping against torch and optax, by hand, under accumulation and mixed precision, and with bad gradients."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import optax
import peft
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.errors import ConfigError
from thalweg.optim.clipping import ClipKind, Clipper, NonFiniteGradient, match_components
from thalweg.trainer import Diverged


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def parameters(**gradients: Any) -> dict[str, nn.Parameter]:
    """Parameters with these gradients; None for one without."""
    made = {}
    for name, gradient in gradients.items():
        values = torch.zeros(1) if gradient is None else torch.as_tensor(gradient)
        made[name] = nn.Parameter(torch.zeros_like(values))
        made[name].grad = None if gradient is None else values
    return made


def gradients(named: dict[str, nn.Parameter]) -> list[float]:
    return [x for p in named.values() if p.grad is not None for x in p.grad.flatten().tolist()]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def with_gradients(seed: int, size: float = 1.0) -> nn.Module:
    model = network()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * size
    return model


# By hand


def test_global_norm_by_hand() -> None:
    named = parameters(a=[3.0, 4.0], b=[6.0, 8.0])
    total = Clipper(named, threshold=1.0).clip()
    assert float(total) == pytest.approx(11.180340)
    assert gradients(named) == pytest.approx([0.268328, 0.357771, 0.536657, 0.715542], abs=1e-6)


def test_component_wise_by_hand() -> None:
    named = parameters(a=[3.0, 4.0], b=[6.0, 8.0])
    clipper = Clipper(named, by="component", threshold=1.0)
    assert float(clipper.clip()) == pytest.approx(11.180340)
    assert gradients(named) == pytest.approx([0.6, 0.8, 0.6, 0.8], abs=1e-6)
    assert clipper.component_norms() == {"a": 5.0, "b": 10.0}


def test_value_by_hand() -> None:
    named = parameters(a=[3.0, -4.0, 0.25])
    assert float(Clipper(named, by="value", threshold=0.5).clip()) == pytest.approx(math.sqrt(25.0625))
    assert gradients(named) == [0.5, -0.5, 0.25]


def test_groups_of_components_by_hand() -> None:
    """Two projections of norm 3 and 4 make a component of norm 5; the norm's own gradient of 0.5 is left."""
    named = parameters(q_0=[3.0, 0.0], norm=[0.5], q_1=[0.0, 4.0], mlp=[2.0])
    clipper = Clipper(named, by="component", threshold=1.0, components={"query": "q_", "feed_forward": "^mlp$"})
    clipper.clip()
    assert gradients(named) == pytest.approx([0.6, 0.0, 0.5, 0.0, 0.8, 1.0], abs=1e-6)
    assert clipper.component_norms() == {"query": 5.0, "norm": 0.5, "feed_forward": 2.0}


# Against torch and optax


@given(seed=st.integers(0, 2**16), size=st.sampled_from([1e-4, 0.1, 1.0, 300.0]), threshold=st.floats(1e-3, 1e3))
def test_global_norm_is_bit_for_bit_that_of_torch(seed: int, size: float, threshold: float) -> None:
    ours, theirs = with_gradients(seed, size), with_gradients(seed, size)
    found = Clipper(dict(ours.named_parameters()), threshold=threshold).clip()
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), threshold, foreach=True)
    assert float(found) == float(expected)
    assert gradients(dict(ours.named_parameters())) == gradients(dict(theirs.named_parameters()))


@given(seed=st.integers(0, 2**16), threshold=st.floats(1e-3, 5.0))
def test_value_is_bit_for_bit_that_of_torch(seed: int, threshold: float) -> None:
    ours, theirs = with_gradients(seed), with_gradients(seed)
    Clipper(dict(ours.named_parameters()), by="value", threshold=threshold).clip()
    torch.nn.utils.clip_grad_value_(theirs.parameters(), threshold)
    assert gradients(dict(ours.named_parameters())) == gradients(dict(theirs.named_parameters()))


@given(seed=st.integers(0, 2**16), size=st.sampled_from([0.1, 1.0, 30.0]), threshold=st.floats(1e-2, 1e2))
def test_components_are_those_of_torch_one_by_one(seed: int, size: float, threshold: float) -> None:
    ours, theirs = with_gradients(seed, size), with_gradients(seed, size)
    Clipper(
        dict(ours.named_parameters()), by="component", threshold=threshold, components={"biases": r"\.bias$"}
    ).clip()
    torch.nn.utils.clip_grad_norm_([p for n, p in theirs.named_parameters() if n.endswith("bias")], threshold)
    for name, parameter in theirs.named_parameters():
        if not name.endswith("bias"):
            torch.nn.utils.clip_grad_norm_(parameter, threshold)
    found, expected = (gradients(dict(model.named_parameters())) for model in (ours, theirs))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [0.01, 1.0, 50.0])
def test_global_norm_agrees_with_optax(size: float) -> None:
    """optax adds nothing to the norm, torch 1e-6."""
    named = dict(with_gradients(3, size).named_parameters())
    tree = {name: jnp.array(p.grad.numpy()) for name, p in named.items() if p.grad is not None}
    clip = optax.clip_by_global_norm(1.0)
    expected, _ = clip.update(tree, clip.init(tree))
    Clipper(named, threshold=1.0).clip()
    flat = [float(x) for name in named for x in expected[name].flatten()]
    assert gradients(named) == pytest.approx(flat, rel=2e-6)


@pytest.mark.parametrize("by", ["norm", "value", "component"])
@pytest.mark.parametrize("threshold", [None, math.inf, 1e9])
def test_nothing_is_touched_below_the_threshold(by: ClipKind, threshold: float | None) -> None:
    named = dict(with_gradients(0).named_parameters())
    before = gradients(named)
    total = Clipper(named, by=by, threshold=threshold).clip()
    assert gradients(named) == before
    assert float(total) == pytest.approx(math.sqrt(sum(x * x for x in before)))


# Accumulation, mixed precision, adapters


def micro_batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        yield torch.randn(6, 5, generator=generator) * 5, torch.randn(6, 3, generator=generator) * 5


@pytest.mark.parametrize("by", ["norm", "value", "component"])
def test_clipping_what_was_accumulated_is_clipping_the_full_batch(by: ClipKind) -> None:
    accumulated, full = network(), network()
    for x, y in micro_batches():
        (nn.functional.mse_loss(accumulated(x), y) / 4).backward()
    x, y = (torch.cat(parts) for parts in zip(*micro_batches(), strict=True))
    nn.functional.mse_loss(full(x), y).backward()
    unclipped = gradients(dict(full.named_parameters()))
    for model in (accumulated, full):
        Clipper(dict(model.named_parameters()), by=by, threshold=0.1).clip()
    found, expected = (gradients(dict(model.named_parameters())) for model in (accumulated, full))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert expected != unclipped


def test_a_clip_after_each_micro_batch_is_another_thing() -> None:
    """So the order matters, and the test above says something."""
    once, each = network(), network()
    for x, y in micro_batches():
        for model in (once, each):
            (nn.functional.mse_loss(model(x), y) / 4).backward()
        Clipper(dict(each.named_parameters()), threshold=0.1).clip()
    Clipper(dict(once.named_parameters()), threshold=0.1).clip()
    assert gradients(dict(each.named_parameters())) != pytest.approx(gradients(dict(once.named_parameters())), rel=0.01)


def scaled_step(model: nn.Module, scaler: Any, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> Clipper:
    clipper = Clipper(dict(model.named_parameters()), threshold=0.1)
    scaler.scale(nn.functional.mse_loss(model(x), y)).backward()
    scaler.unscale_(optimizer)
    with contextlib.suppress(NonFiniteGradient):
        clipper.clip()
    scaler.step(optimizer)
    scaler.update()
    return clipper


def test_with_a_gradient_scaler() -> None:
    plain, scaled = network(), network()
    x, y = next(micro_batches())
    nn.functional.mse_loss(plain(x), y).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled_step(scaled, scaler, torch.optim.SGD(scaled.parameters(), lr=0.1), x, y)
    for ours, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_gradient_scaler_skips_the_step_of_a_gradient_that_is_not_finite() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    x, y = next(micro_batches())
    x[0, 0] = math.inf
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled_step(model, scaler, torch.optim.SGD(model.parameters(), lr=0.1), x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert scaler.get_scale() == 512.0


@pytest.mark.parametrize("by", ["norm", "component"])
def test_gradients_of_several_precisions(by: ClipKind) -> None:
    """100,000 elements of 300: a norm of 94,868.3, beyond float16."""
    named = parameters(
        half=torch.full((100_000,), 300.0, dtype=torch.float16),
        brain=torch.full((10_000,), 0.01, dtype=torch.bfloat16),
        double=torch.ones(4, dtype=torch.float64),
    )
    clipper = Clipper(named, by=by, threshold=1.0)
    small = float(torch.tensor(0.01, dtype=torch.bfloat16))
    assert float(clipper.clip()) == pytest.approx(math.sqrt(100_000 * 300.0**2 + 10_000 * small**2 + 4), rel=2e-4)
    norms = [float(p.grad.double().norm()) for p in named.values() if p.grad is not None]
    if by == "component":
        assert norms == pytest.approx([1.0, 1.0, 1.0], rel=0.01)
    else:
        assert math.hypot(*norms) == pytest.approx(1.0, rel=0.01)
    assert [p.grad.dtype for p in named.values() if p.grad is not None] == [torch.float16, torch.bfloat16, torch.double]


def test_half_precision_is_measured_in_float32() -> None:
    """10,000 elements of 0.01 are 0.0100098 each in bfloat16; their norm, 1.00098, would be 1 in it."""
    named = parameters(brain=torch.full((10_000,), 0.01, dtype=torch.bfloat16))
    assert float(Clipper(named, threshold=None).clip()) == pytest.approx(1.00098, abs=1e-4)


@pytest.mark.parametrize(("by", "expected"), [("norm", [0.6, 0.8]), ("component", [1.0, 1.0]), ("value", [1.0, 1.0])])
def test_a_finite_gradient_whose_norm_overflows_is_clipped_rightly(by: ClipKind, expected: list[float]) -> None:
    named = parameters(a=[3e30], b=[4e30])
    assert float(Clipper(named, by=by, threshold=1.0).clip()) == pytest.approx(5e30)
    assert gradients(named) == pytest.approx(expected)


def test_with_an_adapter_the_frozen_weights_are_passed_over() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    base = transformers.LlamaForCausalLM(config)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    tokens = torch.arange(12).reshape(2, 6)
    model(input_ids=tokens, labels=tokens).loss.backward()
    twin = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    assert len(twin) == 8
    named = dict(model.named_parameters())
    clipper = Clipper(named, by="component", threshold=1e-5, components={"query": "q_proj", "value": "v_proj"})
    total = clipper.clip()
    assert float(total) == pytest.approx(float(torch.cat([g.flatten() for g in twin]).norm()))
    assert clipper.component_norms().keys() == {"query", "value"}
    clipper.clip()
    assert list(clipper.component_norms().values()) == pytest.approx([1e-5, 1e-5], rel=2e-3)


def test_a_shared_parameter_counts_once() -> None:
    (weight,) = parameters(a=[3.0, 4.0]).values()
    total = Clipper({"embedding": weight, "head": weight}, threshold=1.0).clip()
    assert float(total) == 5.0
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([0.6, 0.8], abs=1e-6)


# Bad input


@pytest.mark.parametrize("threshold", [0, 0.0, -1.0, math.nan])
def test_a_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(ConfigError, match=f"threshold = {threshold} must be above 0"):
        Clipper(parameters(a=[1.0]), threshold=threshold)


def test_bad_settings() -> None:
    named = parameters(q_proj=[1.0], k_proj=[1.0])
    with pytest.raises(ConfigError, match=r"by = 'norms'. Did you mean 'norm'\?"):
        Clipper(named, by="norms", threshold=1.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="by = 'norm'; use by = 'component'"):
        Clipper(named, threshold=1.0, components={"query": "q_proj"})
    with pytest.raises(ConfigError, match="no parameter to clip"):
        Clipper({}, threshold=1.0)
    with pytest.raises(ConfigError, match="query = 'query' matches none of 2 parameters, such as q_proj, k_proj"):
        Clipper(named, by="component", threshold=1.0, components={"query": "query"})
    with pytest.raises(ConfigError, match="'q_proj' matches both 'query' and 'attention'"):
        match_components(named, {"query": "q_proj", "attention": "_proj"})
    with pytest.raises(ConfigError, match=r"query = '\(' is not a regular expression"):
        match_components(named, {"query": "("})


def test_a_parameter_without_a_gradient_is_passed_over_but_not_all() -> None:
    named = parameters(a=None, b=[3.0, 4.0])
    assert float(Clipper(named, threshold=1.0).clip()) == 5.0
    with pytest.raises(ConfigError, match="none of the 2 parameters has a gradient"):
        Clipper(parameters(a=None, b=None), threshold=1.0).clip()


def test_a_sparse_gradient() -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match="gradient of 'weight' is sparse"):
        Clipper(dict(embedding.named_parameters()), threshold=1.0).clip()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("by", ["norm", "value", "component"])
@pytest.mark.parametrize("threshold", [1.0, None])
def test_a_gradient_that_is_not_finite(by: ClipKind, value: float, threshold: float | None) -> None:
    named = parameters(a=[3.0], b=[1.0, value], c=[4.0])
    with pytest.raises(NonFiniteGradient, match=r"the gradient is not finite in b$") as caught:
        Clipper(named, by=by, threshold=threshold).clip()
    assert caught.value.names == ("b",)
    assert gradients(named) == pytest.approx([3.0, 1.0, value, 4.0], nan_ok=True)


def test_a_gradient_that_is_not_finite_ends_a_run_as_diverged_and_can_be_sent() -> None:
    names = [f"layer.{i}" for i in range(7)]
    error = pickle.loads(pickle.dumps(NonFiniteGradient(names)))
    assert isinstance(error, Diverged)
    assert error.names == tuple(names)
    assert str(error).endswith("layer.4 and 2 more")


@pytest.mark.filterwarnings("ignore")
def test_a_sharded_parameter() -> None:
    from torch import distributed
    from torch.distributed.tensor import DeviceMesh, distribute_tensor

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        sharded = nn.Parameter(distribute_tensor(torch.zeros(4), DeviceMesh("cpu", [0])))
        with pytest.raises(ConfigError, match="'weight' is sharded"):
            Clipper({"weight": sharded}, threshold=1.0)
    finally:
        distributed.destroy_process_group()
