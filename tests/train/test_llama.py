"""Shapes: counts known from published models, transformers' own count, and shapes that do not work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from thalweg.train import llama
from thalweg.train.llama import ModelShape
from thalweg.train.sizes import measure


@pytest.mark.parametrize(
    ("layers", "width", "heads", "kv_heads", "feed_forward", "tied", "vocabulary", "count"),
    [
        (32, 4096, 32, 32, 11008, False, 32000, 6_738_415_616),
        (80, 8192, 64, 8, 28672, False, 32000, 68_976_648_192),
        (16, 2048, 32, 8, 8192, True, 128256, 1_235_814_400),
        (30, 576, 9, 3, 1536, True, 49152, 134_515_008),
        (22, 2048, 32, 4, 5632, False, 32000, 1_100_048_384),
    ],
    ids=["Llama-2-7B", "Llama-2-70B", "Llama-3.2-1B", "SmolLM2-135M", "TinyLlama-1.1B"],
)
def test_published_counts(
    layers: int, width: int, heads: int, kv_heads: int, feed_forward: int, tied: bool, vocabulary: int, count: int
) -> None:
    sizes: dict[str, Any] = {"layers": layers, "width": width, "heads": heads, "kv_heads": kv_heads}
    made = ModelShape(context=64, feed_forward=feed_forward, tied=tied, **sizes)
    assert made.num_parameters(vocabulary) == count
    assert measure(llama.skeleton(made.config(vocabulary=vocabulary))).num_parameters == count


@pytest.mark.parametrize("width", [4096, 5120, 6656, 8192])
def test_the_feed_forward_follows_llamas_rule(width: int) -> None:
    # With a multiple of 256 Llama's are 11008, 13824, 17920 and 22016; a multiple of 32 is at most 224 below.
    llamas = {4096: 11008, 5120: 13824, 6656: 17920, 8192: 22016}[width]
    ours = ModelShape(width=width, layers=1, heads=32, context=8).feed_forward_width
    assert ours % 32 == 0
    assert 8 * width / 3 - 1 < ours <= llamas < ours + 256


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(1, 3),
    head_width=st.sampled_from([2, 4, 8]),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    vocabulary=st.integers(1, 40),
    tied=st.booleans(),
)
def test_the_count_is_the_models(
    layers: int, head_width: int, kv_heads: int, groups: int, vocabulary: int, tied: bool
) -> None:
    heads = kv_heads * groups
    options: dict[str, Any] = {"layers": layers, "width": heads * head_width, "heads": heads, "kv_heads": kv_heads}
    shape = ModelShape(context=8, tied=tied, **options)
    model = llama.skeleton(shape.config(vocabulary=vocabulary))
    assert sum(p.numel() for p in model.parameters()) == shape.num_parameters(vocabulary)
    outside = sum(
        p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name and "lm_head" not in name
    )
    assert outside == shape.num_non_embedding()


def test_the_config_is_what_was_asked_for() -> None:
    shape = ModelShape(layers=2, width=16, heads=4, kv_heads=2, context=32, feed_forward=24, rope_theta=500.0)
    config = shape.config(vocabulary=300, end_of_text=7)
    assert (config.vocab_size, config.max_position_embeddings, config.num_key_value_heads) == (300, 32, 2)
    assert config.rope_parameters["rope_theta"] == 500.0
    assert config.eos_token_id == 7
    assert llama.build(config).model.rotary_emb.inv_freq[1] == pytest.approx(500.0**-0.5)


def test_the_seed_decides_the_weights() -> None:
    config = ModelShape(layers=1, width=8, heads=2, context=8).config(vocabulary=20)
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        weights.append(llama.build(config).model.layers[0].mlp.up_proj.weight)
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    assert float(weights[0].detach().std()) == pytest.approx(0.02, rel=0.15)  # Llama's initialisation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "heads = 5 does not divide width = 24; 1, 2, 3, 4, 6, 12 would"),
        ({"heads": 8}, "must be an even number wide"),
        ({"kv_heads": 4}, "kv_heads = 4 does not divide heads = 6; 1, 2, 3, 6 would"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"context": 0}, "greater than or equal to 1"),
        ({"depth": 2}, "depth"),
        ({"rope_theta": 0.0}, "greater than 1"),
    ],
)
def test_shapes_that_do_not_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelShape(**{"layers": 1, "width": 24, "heads": 6, "context": 8, **changes})
