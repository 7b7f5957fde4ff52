"""What the monitor gives, by hand; the code of D'Angelo et al.; when it measures; bad input."""

from __future__ import annotations

import math
import warnings
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

from thalweg.errors import ConfigError
from thalweg.optim.monitor import Monitor, default_components

SMALL = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def weight(values: list[float], gradient: list[float] | None) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(values))
    made.grad = None if gradient is None else torch.tensor(gradient)
    return made


def measure(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter], **options: Any) -> dict[str, float]:
    monitor = Monitor(optimizer, named, every=1, **options)
    monitor.before_step(0)
    optimizer.step()
    return monitor.after_step(0)


def test_by_hand() -> None:
    named = {"a.weight": weight([3.0, 4.0], [0.6, 0.8]), "b.weight": weight([2.0], [-3.0])}
    found = measure(torch.optim.SGD(named.values(), lr=0.1), named)
    assert found == pytest.approx(
        {
            "gradient_norm/a": 1.0,
            "update_ratio/a": 0.1 / 5,
            "effective_lr/a": 0.1 / 25,
            "gradient_norm/b": 3.0,
            "update_ratio/b": 0.3 / 2,
            "effective_lr/b": 0.1 / 4,
        },
        rel=1e-5,
    )


def test_parameters_of_a_component_count_as_one() -> None:
    named = {"0.q.weight": weight([3.0], [6.0]), "1.q.weight": weight([4.0], [8.0]), "n.weight": weight([1.0], [1.0])}
    found = measure(torch.optim.SGD(named.values(), lr=0.1), named, components={"queries": r"\.q\."})
    assert {name.partition("/")[2] for name in found} == {"queries", "n"}
    assert found["gradient_norm/queries"] == pytest.approx(10.0)
    assert found["update_ratio/queries"] == pytest.approx(1.0 / 5)
    assert found["effective_lr/queries"] == pytest.approx(0.1 / 25)


def test_a_component_with_two_learning_rates_has_the_mean_over_its_elements() -> None:
    named = {"0.q.weight": weight([1.0, 1.0, 1.0], [1.0] * 3), "1.q.weight": weight([1.0], [1.0])}
    first, second = named.values()
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.5}])
    assert measure(optimizer, named)["effective_lr/q"] == pytest.approx((3 * 0.1 + 0.5) / 4 / 4)


def test_adam_by_hand() -> None:
    """In Adam's first step v_hat is g^2 and the update the rate's size, whatever g is; v itself is 0.001 g^2."""
    named = {"a.weight": weight([3.0, 4.0], [0.5, -0.25])}
    found = measure(torch.optim.Adam(named.values(), lr=0.01, eps=1e-8), named)
    assert found["update_ratio/a"] == pytest.approx(0.01 * math.sqrt(2) / 5, rel=1e-4)
    assert found["adam_effective_lr"] == pytest.approx((0.01 / 0.5 + 0.01 / 0.25) / 2, rel=1e-5)
    mean = (0.01 / (math.sqrt(0.001) * 0.5) + 0.01 / (math.sqrt(0.001) * 0.25)) / 2
    assert found["avg_adam_elr"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_mean_of_d_angelo_et_al(amsgrad: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, eps=1e-6, amsgrad=amsgrad, fused=True)
    monitor = Monitor(optimizer, named, every=3)
    found: dict[str, float] = {}
    for step in range(7):
        optimizer.zero_grad()
        (model(torch.randn(8, 6)).square().mean() * 100 * 0.2**step).backward()
        monitor.before_step(step)
        optimizer.step()
        found = monitor.after_step(step) or found
    second_moment = "max_exp_avg_sq" if amsgrad else "exp_avg_sq"
    elements = torch.cat([state[second_moment].flatten() for state in optimizer.state.values()]).double()
    assert found["avg_adam_elr"] == pytest.approx(float((3e-3 / (elements.sqrt() + 1e-6)).mean()), rel=1e-5)
    v_hat = elements / (1 - 0.999**7)
    assert found["adam_effective_lr"] == pytest.approx(float((3e-3 / (v_hat.sqrt() + 1e-6)).mean()), rel=1e-5)


def test_elements_that_never_had_a_gradient_count_only_in_the_mean_of_d_angelo_et_al() -> None:
    named = {"a.weight": weight([3.0, 4.0], [0.5, 0.0])}
    found = measure(torch.optim.Adam(named.values(), lr=0.01, eps=1e-8), named)
    assert found["adam_effective_lr"] == pytest.approx(0.01 / 0.5, rel=1e-5)
    assert found["avg_adam_elr"] == pytest.approx((0.01 / 1e-8 + 0.01 / (math.sqrt(0.001) * 0.5)) / 2, rel=1e-5)
    named = {"a.weight": weight([3.0, 4.0], [0.0, 0.0])}
    found = measure(torch.optim.Adam(named.values(), lr=0.01, eps=1e-8), named)
    assert "adam_effective_lr" not in found
    assert found["avg_adam_elr"] == pytest.approx(0.01 / 1e-8)


def test_only_the_steps_that_are_due() -> None:
    embedding = nn.Embedding(3, 2)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    monitor = Monitor(optimizer, dict(embedding.named_parameters()), every=10)
    measured = []
    for step in range(21):
        if step % 10 == 0:
            embedding(torch.tensor([0])).sum().backward()
        # On the other steps there is no gradient, which a measurement would refuse.
        monitor.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        if monitor.after_step(step):
            measured.append(step)
    assert measured == [0, 10, 20]


def test_the_rate_of_the_step_and_not_of_the_next() -> None:
    named = {"a.weight": weight([1.0], [1.0])}
    optimizer = torch.optim.Adam(named.values(), lr=0.1)
    monitor = Monitor(optimizer, named, every=1)
    monitor.before_step(0)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.7
    found = monitor.after_step(0)
    assert found["effective_lr/a"] == pytest.approx(0.1)
    assert found["adam_effective_lr"] == pytest.approx(0.1)


def test_what_cannot_be_measured_is_left_out() -> None:
    named = {
        "zero.weight": weight([0.0, 0.0], [1.0, 0.0]),
        "none.weight": weight([1.0], None),
        "frozen.weight": weight([1.0], None).requires_grad_(False),
    }
    optimizer = torch.optim.SGD([named["zero.weight"], named["none.weight"]], lr=0.1)
    assert measure(optimizer, named) == {"gradient_norm/zero": 1.0}


def test_a_gradient_that_is_not_finite_shows() -> None:
    named = {"a.weight": weight([1.0], [math.inf]), "b.weight": weight([1.0], [math.nan])}
    found = measure(torch.optim.SGD(named.values(), lr=0.1), named)
    assert found["gradient_norm/a"] == math.inf
    assert math.isnan(found["gradient_norm/b"])


def components(model: nn.Module) -> set[str]:
    return set(default_components([name for name, p in model.named_parameters() if p.requires_grad]).values())


def test_components_of_a_llama() -> None:
    projections = {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    norms = {"input_layernorm", "post_attention_layernorm", "norm"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, tie_word_embeddings=True))
    assert components(model) == projections | norms | {"embed_tokens"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))
    assert components(model) == projections | norms | {"embed_tokens", "lm_head"}


def test_components_with_the_same_last_name_are_told_apart() -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2))
    assert components(model) == {"wte", "wpe", "ln_1", "ln_2", "ln_f", "c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"}
    found = components(transformers.BertModel(transformers.BertConfig(**SMALL)))
    assert {"query", "key", "value", "intermediate.dense", "attention.output.dense", "layer.output.dense"} <= found


def test_components_of_an_adapter() -> None:
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL))
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        found = components(peft.get_peft_model(model, config))
    assert found == {"classifier"} | {
        f"{projection}.lora_{side}.default" for projection in ("query", "value") for side in "AB"
    }


def test_components_without_names() -> None:
    assert default_components(["weight"]) == {"weight": "weight"}
    assert default_components(["0.weight", "0.bias", "2.weight"]) == {"0.weight": "0", "0.bias": "0", "2.weight": "2"}


def test_bad_input() -> None:
    named = {"a.weight": weight([1.0], [1.0]), "b.weight": weight([1.0], None)}
    optimizer = torch.optim.SGD(named.values(), lr=0.1)
    for every in (0, -5, 2.5):
        with pytest.raises(ConfigError, match=f"every = {every} must be"):
            Monitor(optimizer, named, every=every)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no trainable parameter"):
        Monitor(optimizer, {"a": weight([1.0], None).requires_grad_(False)})
    with pytest.raises(ConfigError, match=r"'c\.weight' is not in the optimiser"):
        Monitor(optimizer, named | {"c.weight": weight([1.0], None)})
    with pytest.raises(ConfigError, match="query = 'q_proj' matches none of 2 parameters"):
        Monitor(optimizer, named, components={"query": "q_proj"})
    monitor = Monitor(optimizer, named, every=10)
    with pytest.raises(ConfigError, match=r"after_step\(10\) needs before_step\(10\)"):
        monitor.after_step(10)
    monitor.before_step(10)
    with pytest.raises(ConfigError, match=r"after_step\(20\) needs before_step\(20\)"):
        monitor.after_step(20)
    named["a.weight"].grad = None
    with pytest.raises(ConfigError, match=r"before_step\(0\): no parameter has a gradient"):
        monitor.before_step(0)
