"""How much memory a run will need, before it is run.

    weights        4 bytes a parameter, and 2 more for a copy in bfloat16 where matrices are multiplied in that
    gradients      4 bytes a trained parameter
    Adam           8 bytes a trained parameter: two moments
    activations    what each layer keeps for the backward pass, per token of a micro-batch
    attention      one share per token, token attended to and head, where dropout keeps attention from being fused
    logits         of a language model: 4 bytes for each of the logits, their logarithms and the gradients of both

The program itself, with torch and the tokenised data, comes on top: about half a gigabyte in each worker.
Source: the formulas of Rajbhandari et al. 2020, arXiv:1910.02054 (weights, gradients, moments), with all in float32,
and of Korthikanti et al. 2022, arXiv:2205.05198 (activations), here counted over the model's own layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_FLOAT = 4
_HALF = 2
_MIXED = 3.5
"""Bytes of an activation with matrices in bfloat16: norms and residuals stay in float32, and conversions are kept."""
_BETWEEN = 1.3
"""What lies between the layers, such as residual sums and dropout's masks, and passes through: measured."""
_LOGIT_COPIES = 4
_FIRST_USE = 40_000_000
"""What torch's libraries set aside when they are first used: measured on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a model's memory is made of."""

    num_parameters: int
    num_trained: int
    largest_parameter: int
    """Numbers in the largest tensor: the optimiser's step holds two more of its size."""
    activations_per_token: int
    """Numbers that the layers keep for the backward pass: each one's input and output."""
    num_attention_maps: int
    """Layers times heads."""
    vocabulary: int
    """Logits per token that a loss is computed on; 0 for a classifier, whose logits are too few to count."""
    has_dropout: bool
    """Whether attention has a dropout, as the model is configured."""


def footprint(model: Any, *, is_causal: bool) -> Footprint:
    """Count a model; one without memory (`meta`) will do."""
    parameters = {id(p): p for p in model.parameters()}.values()
    config = model.config.get_text_config()
    vocabulary = int(config.vocab_size)
    activations = 0
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        weight = own.get("weight")
        if weight is None or "Embedding" in type(module).__name__:
            continue
        if weight.dim() == 1:  # a norm keeps its input and what it made of it
            activations += 2 * weight.numel()
        elif weight.dim() == 2 and vocabulary not in weight.shape:
            activations += sum(weight.shape)
    dropouts = [value for name, value in vars(config).items() if _is_attention_dropout(name)]
    return Footprint(
        num_parameters=sum(p.numel() for p in parameters),
        num_trained=sum(p.numel() for p in parameters if p.requires_grad),
        largest_parameter=max((p.numel() for p in parameters if p.requires_grad), default=0),
        activations_per_token=activations,
        num_attention_maps=config.num_hidden_layers * config.num_attention_heads,
        vocabulary=vocabulary if is_causal else 0,
        has_dropout=any(isinstance(value, float) and value > 0 for value in dropouts),
    )


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What goes through a model at once."""

    rows: int
    length: int
    """Tokens of the longest row."""
    is_accumulated: bool
    """Whether a step takes several of them, so that gradients are held through a forward pass."""
    held_out_rows: int
    """In an evaluation."""
    held_out_length: int


def predict_memory(size: Footprint, batches: Batches, *, copies: int, bf16: bool, dropout: bool) -> int:
    """The most bytes that a run holds at a time, the program itself left out.

    Measured against the peak of the process on a CPU, in float32 and bfloat16, the prediction was between 0.85 and
    1.45 of the truth for MiniLM (22.7M parameters, whole and with LoRA) and Llamas of 0.3M and 6.6M parameters; a test
    holds it to a factor of 1.6. On a GPU it was not measured, and the allocator's fragments come on top.

    Args:
        size: of the model, adapter included.
        batches: of training and of evaluation.
        copies: of the weights: 2 where a worker keeps the model as it was loaded beside the run's own.
        bf16: whether matrices are multiplied in bfloat16.
        dropout: whether attention has a dropout and runs where that keeps it from being fused: on a CPU.
    """
    number = _MIXED if bf16 else _FLOAT
    tokens = batches.rows * batches.length
    weights = copies * _FLOAT * size.num_parameters + (_HALF * size.num_parameters if bf16 else 0)
    moments, gradients = 2 * _FLOAT * size.num_trained, _FLOAT * size.num_trained
    activations = tokens * number * size.activations_per_token
    if dropout:  # the shares, those that dropout left, and which
        activations += tokens * batches.length * size.num_attention_maps * (2 * number + 1)
    logits = tokens * size.vocabulary * (_LOGIT_COPIES * _FLOAT + (_HALF if bf16 else 0))
    training = _BETWEEN * activations + logits + (gradients if batches.is_accumulated else 0)
    stepping = gradients + 2 * _FLOAT * size.largest_parameter
    # An evaluation keeps nothing for a backward pass: only what is at work now counts.
    evaluating = batches.held_out_rows * batches.held_out_length * size.vocabulary * _FLOAT * _LOGIT_COPIES
    return round(_FIRST_USE + weights + moments + max(training, stepping, evaluating))


def _is_attention_dropout(name: str) -> bool:
    return name in ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
