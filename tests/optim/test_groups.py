"""Parameter groups against those of Hugging Face's Trainer, and the choices that it does not give."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

from thalweg.errors import ConfigError
from thalweg.optim.groups import parameter_groups

SMALL = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def llama(*, tied: bool = False) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, tie_word_embeddings=tied))


def bert() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL))


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2))


def qwen3() -> Any:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SMALL, head_dim=8, num_key_value_heads=1))


def t5() -> Any:
    config = transformers.T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    return transformers.T5ForConditionalGeneration(config)


def lora() -> Any:
    config = peft.LoraConfig(r=2, target_modules="all-linear", modules_to_save=["classifier"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return peft.get_peft_model(bert(), config)


def names_by_decay(groups: list[dict[str, Any]]) -> dict[float, list[str]]:
    assert len({group["weight_decay"] for group in groups}) == len(groups)
    return {group["weight_decay"]: group["param_names"] for group in groups}


@pytest.mark.parametrize(
    "make",
    [llama, lambda: llama(tied=True), bert, gpt2, qwen3, t5, lora],
    ids=["llama", "tied", "bert", "gpt2", "qwen3", "t5", "lora"],
)
def test_the_groups_of_hugging_face(make: Callable[[], Any]) -> None:
    model = make()
    theirs = set(transformers.Trainer.get_decay_parameter_names(None, model))
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = names_by_decay(parameter_groups(model, weight_decay=0.1))
    assert found[0.1] == [name for name in trainable if name in theirs]
    # A LoRA adapter has no norms; here a classifier with a bias is trained beside it.
    assert found[0.0] == [name for name in trainable if name not in theirs]


@pytest.mark.parametrize("make", [lambda: llama(tied=True), gpt2, lora])
@pytest.mark.parametrize("convention", ["hugging_face", "matrices"])
@pytest.mark.parametrize("decay_embeddings", [True, False])
def test_each_trainable_parameter_is_in_one_group_with_its_name(
    make: Callable[[], Any], convention: Any, decay_embeddings: bool
) -> None:
    model = make()
    groups = parameter_groups(model, weight_decay=0.1, decay_embeddings=decay_embeddings, convention=convention)
    by_name = {n: p for group in groups for n, p in zip(group["param_names"], group["params"], strict=True)}
    assert sum(len(group["params"]) for group in groups) == len(by_name)
    expected = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert by_name.keys() == expected.keys()
    assert all(by_name[name] is expected[name] for name in expected)


def test_a_tied_output_layer_is_an_embedding() -> None:
    tied = names_by_decay(parameter_groups(llama(tied=True), weight_decay=0.1, decay_embeddings=False))
    assert "model.embed_tokens.weight" in tied[0.0]
    assert not any("lm_head" in name for names in tied.values() for name in names)
    untied = names_by_decay(parameter_groups(llama(), weight_decay=0.1, decay_embeddings=False))
    assert "model.embed_tokens.weight" in untied[0.0]
    assert "lm_head.weight" in untied[0.1]


def test_position_embeddings_are_embeddings() -> None:
    found = names_by_decay(parameter_groups(gpt2(), weight_decay=0.1, decay_embeddings=False))
    assert {"transformer.wte.weight", "transformer.wpe.weight"} <= set(found[0.0])
    found = names_by_decay(parameter_groups(gpt2(), weight_decay=0.1))
    assert {"transformer.wte.weight", "transformer.wpe.weight"} <= set(found[0.1])


class Odd(nn.Module):
    """Norms that no name tells, and a bias of two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.first = nn.RMSNorm(4)
        self.second = nn.GroupNorm(2, 4)
        self.third = nn.BatchNorm1d(4)
        self.relative_bias = nn.Parameter(torch.zeros(2, 4))


def test_norms_are_known_by_their_class() -> None:
    found = names_by_decay(parameter_groups(Odd(), weight_decay=0.1))
    assert found[0.1] == ["linear.weight"]


def test_matrices_decay_as_in_nanogpt() -> None:
    model = Odd()
    found = names_by_decay(parameter_groups(model, weight_decay=0.1, convention="matrices"))
    assert found[0.1] == ["relative_bias", "linear.weight"]
    model = gpt2()
    found = names_by_decay(parameter_groups(model, weight_decay=0.1, convention="matrices"))
    assert found[0.1] == [name for name, p in model.named_parameters() if p.dim() >= 2]


def test_only_some_parameters() -> None:
    found = parameter_groups(Odd(), weight_decay=0.1, names={"linear.bias", "first.weight"})
    assert found[0]["param_names"] == ["linear.bias", "first.weight"]
    assert [group["weight_decay"] for group in found] == [0.0]


def test_an_optimiser_takes_them_and_keeps_the_names() -> None:
    optimizer = torch.optim.AdamW(parameter_groups(Odd(), weight_decay=0.1), lr=1e-3)
    state = optimizer.state_dict()["param_groups"]
    assert state[0]["param_names"] == ["linear.weight"]
    assert "first.weight" in state[1]["param_names"]
    assert [group["weight_decay"] for group in state] == [0.1, 0.0]


@pytest.mark.parametrize("weight_decay", [-0.1, math.nan, math.inf])
def test_a_weight_decay_out_of_range(weight_decay: float) -> None:
    with pytest.raises(ConfigError, match=f"weight_decay = {weight_decay} must be"):
        parameter_groups(Odd(), weight_decay=weight_decay)


def test_nothing_to_train() -> None:
    with pytest.raises(ConfigError, match="Odd has no trainable parameter"):
        parameter_groups(Odd().requires_grad_(False), weight_decay=0.1)
    with pytest.raises(ConfigError, match="no parameter is left"):
        parameter_groups(Odd(), weight_decay=0.1, names=[])


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"'linear.weights' is not .* Did you mean 'linear.weight'\?"):
        parameter_groups(Odd(), weight_decay=0.1, names=["linear.weights"])
    model = Odd()
    model.linear.bias.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"'linear.bias' is not a trainable parameter"):
        parameter_groups(model, weight_decay=0.1, names=["linear.bias"])
    with pytest.raises(ConfigError, match=r"convention 'matrixes'. Did you mean 'matrices'\?"):
        parameter_groups(model, weight_decay=0.1, convention="matrixes")  # type: ignore[arg-type]
