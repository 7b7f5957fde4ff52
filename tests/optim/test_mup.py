"""muP on small Llamas: the rules worked by hand, the base model unchanged, and what it must survive."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.optim.lr_scheduler import ScheduledLR
from thalweg.optim.mup import MuP, apply_mup, as_granite, multipliers, mup_groups, restore_mup
from thalweg.optim.weight_decay import adam
from thalweg.schedules import linear

TOKENS = torch.randint(30, (2, 9), generator=torch.Generator().manual_seed(0))


def make(kind: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
    """Hidden 64, 2 layers, 4 heads of 16 and 2 for keys and values, 30 tokens."""
    shape = {
        "vocab_size": 30,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "use_cache": False,
        **changes,
    }
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **shape))


def loss_of(model: Any) -> torch.Tensor:
    loss: torch.Tensor = model(input_ids=TOKENS, labels=TOKENS).loss
    return loss


def logits_of(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=TOKENS).logits
    return logits


def by_name(groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in groups}


def train(model: Any, optimizer: torch.optim.Optimizer, num_steps: int) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def test_the_rules_for_width_4_and_depth_8() -> None:
    """facts.md section 10."""
    found = multipliers(4, 8, alpha=1)
    assert (found.residual, found.hidden_lr, found.vector_lr) == (0.125, 0.25, 1.0)
    assert (found.epsilon, found.weight_decay, found.hidden_variance) == (0.03125, 4.0, 0.25)
    found = multipliers(4, 8, alpha=0.5)
    values = (found.residual, found.hidden_lr, found.vector_lr, found.epsilon)
    assert values == pytest.approx((0.353553, 0.0883883, 0.353553, 0.0883883), rel=1e-5)
    assert (found.weight_decay, found.hidden_variance) == (4.0, 0.25)


def test_the_rules_for_width_alone() -> None:
    found = multipliers(4)
    assert (found.residual, found.vector_lr) == (1, 1)
    assert (found.hidden_lr, found.hidden_variance, found.logits, found.outer_epsilon) == (0.25, 0.25, 0.25, 0.25)


@given(width=st.floats(0.01, 1e3), depth=st.floats(0.01, 1e3), alpha=st.floats(0.5, 1.0))
def test_rules_chain_over_sizes_and_keep_the_decay_of_a_step(width: float, depth: float, alpha: float) -> None:
    once, twice = multipliers(width, depth, alpha=alpha), multipliers(width**2, depth**2, alpha=alpha)
    for name, value in vars(once).items():
        assert getattr(twice, name) == pytest.approx(value**2, rel=1e-9)
    assert once.hidden_lr * once.weight_decay == pytest.approx(once.vector_lr, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0, 1.0), "width = 0.0"),
        ((math.nan, 1.0, 1.0), "width = nan"),
        ((1.0, -2.0, 1.0), "depth = -2.0"),
        ((1.0, 1.0, 0.4), r"alpha = 0.4 must be in \[0.5, 1\]"),
        ((1.0, 1.0, math.nan), "alpha = nan"),
    ],
)
def test_bad_ratios_are_refused(arguments: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        multipliers(arguments[0], arguments[1], alpha=arguments[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_width": 0}, "base_width = 0"),
        ({"base_width": 64.0}, "base_width = 64.0"),
        ({"base_head_dim": True}, "base_head_dim = True"),
        ({"base_layers": -1}, "base_layers = -1"),
        ({"input_multiplier": 0.0}, "input_multiplier = 0.0"),
        ({"output_multiplier": math.inf}, "output_multiplier = inf"),
        ({"alpha": 2.0}, "alpha = 2.0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MuP(**{"base_width": 64, "base_head_dim": 16, **changes})


@pytest.mark.parametrize("tied", [False, True])
def test_the_base_model_is_the_plain_one_bit_for_bit(tied: bool) -> None:
    plain, model = make(tie_word_embeddings=tied), make(tie_word_embeddings=tied)
    apply_mup(model, MuP(base_width=64, base_head_dim=16, base_layers=2))
    assert torch.equal(logits_of(plain), logits_of(model))
    train(plain, torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.0), 3)
    train(model, torch.optim.AdamW(mup_groups(model, lr=0.01)), 3)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_at_four_times_the_base_width() -> None:
    """By hand: m = 4, so lr / 4, wd x 4, eps / 4, standard deviation / 2; heads of 16 from heads of 4: scores / 2."""
    plain, model = make(), make()
    apply_mup(model, MuP(base_width=16, base_head_dim=4))
    ours, theirs = dict(model.named_parameters()), dict(plain.named_parameters())
    for name, parameter in ours.items():
        factor = 0.5 if "layers" in name and "proj" in name else 1.0
        assert torch.equal(parameter, theirs[name] * factor), name
    for layer in model.model.layers:
        assert layer.self_attn.scaling == pytest.approx(16**-0.5 / 2)
    groups = by_name(mup_groups(model, lr=0.02, weight_decay=0.1, epsilon=1e-8))
    settings = {name: (g["lr"], g["weight_decay"], g["eps"]) for name, g in groups.items()}
    assert settings == {
        "embedding": (0.02, 0.1, 2.5e-9),
        "hidden": (0.005, 0.4, 2.5e-9),
        "vectors": (0.02, 0.0, 2.5e-9),
        "last norm": (0.02, 0.0, 2.5e-9),
        "readout": (0.02, 0.1, 2.5e-9),
    }
    assert groups["embedding"]["param_names"] == ["model.embed_tokens.weight"]
    assert groups["readout"]["param_names"] == ["lm_head.weight"]
    assert groups["last norm"]["param_names"] == ["model.norm.weight"]
    assert len(groups["hidden"]["params"]) == 2 * 7
    assert len(groups["vectors"]["params"]) == 2 * 2


def test_the_forward_pass_at_four_times_the_base_width() -> None:
    """The same logits as of a plain model whose weights hold the factors."""
    model = make(num_attention_heads=4, num_key_value_heads=4)
    apply_mup(model, MuP(base_width=16, base_head_dim=4, input_multiplier=3.0, output_multiplier=2.0, base_layers=1))
    folded = make(num_attention_heads=4, num_key_value_heads=4)
    folded.load_state_dict(model.state_dict())
    with torch.no_grad():
        folded.model.embed_tokens.weight *= 3.0
        folded.lm_head.weight *= 2.0 / 4
        for layer in folded.model.layers:
            layer.self_attn.q_proj.weight *= 0.5  # the score's
            layer.self_attn.o_proj.weight *= 0.5  # depth 2, alpha 1
            layer.mlp.down_proj.weight *= 0.5
    torch.testing.assert_close(logits_of(model), logits_of(folded), rtol=1e-5, atol=1e-6)


def test_choices_of_groups() -> None:
    model = make()
    apply_mup(model, MuP(base_width=16, base_head_dim=4))
    model.model.embed_tokens.weight.requires_grad_(False)
    groups = by_name(mup_groups(model, lr=0.02, weight_decay=0.1, scale_weight_decay=False, decay_embeddings=False))
    assert (groups["hidden"]["weight_decay"], groups["readout"]["weight_decay"]) == (0.1, 0.0)
    assert "embedding" not in groups


def test_a_schedule_keeps_the_ratios() -> None:
    model = make()
    apply_mup(model, MuP(base_width=16, base_head_dim=4))
    optimizer = torch.optim.AdamW(mup_groups(model, lr=0.02))
    scheduler = ScheduledLR(optimizer, linear(horizon=4))
    train(model, optimizer, 1)
    scheduler.step()
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert (rates["embedding"], rates["hidden"]) == pytest.approx((0.015, 0.00375))


def test_the_three_forms_of_weight_decay_take_its_groups() -> None:
    model = make()
    apply_mup(model, MuP(base_width=16, base_head_dim=4))
    decoupled = adam(mup_groups(model, lr=0.02, weight_decay=0.1), lr=1.0)
    hidden = by_name(decoupled.param_groups)["hidden"]
    assert (hidden["lr"], hidden["eps"], hidden["weight_decay"]) == (0.005, 2.5e-9, 0.4)
    # Independent of the learning rate, a step takes 0.001 of the weights at every width.
    groups = mup_groups(model, lr=0.02, weight_decay=0.001, scale_weight_decay=False)
    for group in adam(groups, lr=1.0, weight_decay_kind="independent").param_groups:
        if group["weight_decay"]:
            assert group["lr"] * group["weight_decay"] == pytest.approx(0.001)


def test_initialisation_by_choice() -> None:
    plain, model = make(), make()
    apply_mup(model, MuP(base_width=16, base_head_dim=4), shrink_residual_init=True, zero_readout=True, zero_query=True)
    assert not model.lm_head.weight.any()
    ours, theirs = model.model.layers[1], plain.model.layers[1]
    assert not ours.self_attn.q_proj.weight.any()
    # Standard deviation by sqrt(4) for the width, and by sqrt(2 x 2 layers) at the ends of the branches.
    torch.testing.assert_close(ours.mlp.down_proj.weight, theirs.mlp.down_proj.weight / 4)
    torch.testing.assert_close(ours.self_attn.o_proj.weight, theirs.self_attn.o_proj.weight / 4)
    torch.testing.assert_close(ours.mlp.up_proj.weight, theirs.mlp.up_proj.weight / 2)


def test_tied_embeddings_are_one_parameter_with_the_embeddings_rate() -> None:
    model = make(tie_word_embeddings=True)
    apply_mup(model, MuP(base_width=16, base_head_dim=4))
    groups = by_name(mup_groups(model, lr=0.02, weight_decay=0.1))
    assert "readout" not in groups
    assert groups["embedding"]["param_names"] == ["model.embed_tokens.weight"]
    # The width is in the logits, so that the shared weight can be as large as an embedding should be.
    hidden = model.model(input_ids=TOKENS).last_hidden_state
    torch.testing.assert_close(logits_of(model), hidden @ model.model.embed_tokens.weight.T / 4)
    with pytest.raises(ConfigError, match="would zero the embeddings too"):
        apply_mup(make(tie_word_embeddings=True), MuP(base_width=16, base_head_dim=4), zero_readout=True)


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "qwen3"])
def test_models_like_llama(kind: str) -> None:
    """Qwen2 has biases, Qwen3 norms of queries and keys: all of them vectors."""
    model = make(kind, head_dim=16)
    apply_mup(model, MuP(base_width=16, base_head_dim=16))
    groups = by_name(mup_groups(model, lr=0.02))
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))
    assert len(groups["hidden"]["params"]) == 14
    assert len(groups["vectors"]["params"]) == {"mistral": 4, "qwen2": 10, "qwen3": 8}[kind]


def deep_mup() -> Any:
    """All of muP's parts at once."""
    model = make()
    apply_mup(model, MuP(base_width=16, base_head_dim=4, base_layers=1, input_multiplier=3.0, output_multiplier=2.0))
    return model


def test_it_survives_saving_and_loading(tmp_path: Path) -> None:
    model = deep_mup()
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"call restore_mup\(model\) first"):
        mup_groups(loaded, lr=0.1)
    with pytest.raises(ConfigError, match=r"has muP already.*call restore_mup\(model\)"):
        apply_mup(loaded, MuP(base_width=16, base_head_dim=4))
    assert restore_mup(loaded).base_layers == 1
    assert torch.equal(logits_of(loaded.eval()), logits_of(model.eval()))
    with pytest.raises(ConfigError, match="has its muP multipliers already"):
        restore_mup(loaded)
    ours, theirs = (by_name(mup_groups(m, lr=0.1, weight_decay=0.1)) for m in (loaded, model))
    for name, group in ours.items():
        assert (group["lr"], group["weight_decay"]) == (theirs[name]["lr"], theirs[name]["weight_decay"])


def test_it_survives_a_copy() -> None:
    model = deep_mup()
    twin = copy.deepcopy(model)
    assert torch.equal(logits_of(twin), logits_of(model))
    train(twin, torch.optim.AdamW(mup_groups(twin, lr=0.01)), 1)
    assert not torch.equal(logits_of(twin), logits_of(model))


def test_the_config_of_another_model_is_left_alone() -> None:
    config = make().config
    first, second = transformers.LlamaForCausalLM(config), transformers.LlamaForCausalLM(config)
    apply_mup(first, MuP(base_width=16, base_head_dim=4))
    assert first.model.layers[0].self_attn.config.mup == first.config.mup
    with pytest.raises(ConfigError, match="the model has no muP"):
        mup_groups(second, lr=0.1)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss_of(model).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_gradient_checkpointing_changes_nothing() -> None:
    model = deep_mup()
    expected = gradients(model)
    # The name since transformers 5.24, and the one before.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    model.train()
    assert model.model.layers[0].gradient_checkpointing
    found = gradients(model)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile uses what torch deprecates
def test_a_compiled_model_computes_the_same() -> None:
    model = deep_mup()
    expected = gradients(model)
    compiled = torch.compile(model, fullgraph=True)
    assert {g["name"]: g["lr"] for g in mup_groups(compiled, lr=0.1)} == {
        g["name"]: g["lr"] for g in mup_groups(model, lr=0.1)
    }
    model.zero_grad()
    loss_of(compiled).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_a_graph_without_breaks_has_the_multipliers() -> None:
    """What the compiler sees, without the compiler's own part, which is slow."""
    model = deep_mup()
    expected = logits_of(model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(logits_of(compiled), expected)


@pytest.mark.parametrize("tied", [False, True])
def test_as_granite_it_needs_no_thalweg(tied: bool, tmp_path: Path) -> None:
    model = make(tie_word_embeddings=tied)
    apply_mup(model, MuP(base_width=16, base_head_dim=4, base_layers=1, input_multiplier=3.0, output_multiplier=2.0))
    before = torch.get_rng_state()
    as_granite(model).save_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.model_type == "granite"
    torch.testing.assert_close(logits_of(loaded), logits_of(model.eval()), rtol=1e-5, atol=1e-6)


def test_only_a_llama_can_be_a_granite() -> None:
    model = make("qwen2")
    apply_mup(model, MuP(base_width=16, base_head_dim=4))
    with pytest.raises(ConfigError, match="model_type = 'qwen2'"):
        as_granite(model)


def test_what_is_not_llama_like_is_refused() -> None:
    mup = MuP(base_width=16, base_head_dim=4)
    with pytest.raises(ConfigError, match="model_type = 'olmo2' is not known to be Llama-like"):
        apply_mup(make("olmo2"), mup)
    with pytest.raises(ConfigError, match="LlamaModel has no read-out"):
        apply_mup(make().model, mup)
    with pytest.raises(ConfigError, match=r"call apply_mup\(model"):
        restore_mup(make())
    with pytest.raises(ConfigError, match="both scale with depth"):
        apply_mup(make(), MuP(base_width=16, base_head_dim=4, base_layers=1), shrink_residual_init=True)


def test_a_parameter_without_a_rule_is_named_and_nothing_is_changed() -> None:
    model = make()
    model.model.layers[0].mlp.router = torch.nn.Linear(64, 4)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ConfigError, match=r"no rule for parameter 'model.layers.0.mlp.router.weight' of shape \[4, 64\]"
    ):
        apply_mup(model, MuP(base_width=16, base_head_dim=4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert getattr(model.config, "mup", None) is None


def test_an_unknown_stored_setting_is_refused() -> None:
    model = deep_mup()
    model.config.mup["base_widht"] = 3
    with pytest.raises(ConfigError, match="Did you mean 'base_width'"):
        mup_groups(model, lr=0.1)
