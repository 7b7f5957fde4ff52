"""Which parameters decay: an optimiser's parameter groups."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, Literal

from torch import nn

from thalweg.errors import ConfigError, nearest

Convention = Literal["hugging_face", "matrices"]
"""Whose rule says what a norm or a bias is.

hugging_face: by name and by class, as `transformers.Trainer` does; also norms that only their class tells.
matrices: all tensors of two or more dimensions decay and no others, as nanoGPT does.
"""

# As transformers.Trainer has it (get_decay_parameter_names).
_NORM_OR_BIAS = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
_NORM_CLASS = re.compile(r"norm(?:\dd)?$")  # LlamaRMSNorm, GroupNorm, BatchNorm1d


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    decay_embeddings: bool = True,
    names: Collection[str] | None = None,
    convention: Convention = "hugging_face",
) -> list[dict[str, Any]]:
    """Split a model's trainable parameters into those that decay and those that do not.

    Norms and biases never decay. A parameter that two modules share counts once, under its first name; an output layer
    that is tied to the embedding is an embedding here. Adapters are parameters like any other: their matrices decay.

    Args:
        weight_decay: of the first group.
        decay_embeddings: whether token and position embeddings decay. Hugging Face and nanoGPT decay them, OLMo 2 and
            Levanter do not.
        names: only these of the trainable parameters; None is all.
        convention: whose rule says what a norm or a bias is.
    Returns:
        One or two groups for any torch optimiser, each with `params`, `param_names` and `weight_decay`, in the order of
        the model; a group without parameters is left out.
    Raises:
        ConfigError: nothing is trainable, a name is not a trainable parameter's, or the weight decay is not a number of
            at least 0.
    """
    if not 0 <= weight_decay < float("inf"):
        raise ConfigError(f"weight_decay = {weight_decay} must be a number of at least 0")
    if convention not in ("hugging_face", "matrices"):
        raise ConfigError(f"unknown convention {convention!r}. {nearest(convention, ['hugging_face', 'matrices'])}")
    trainable = _chosen(model, names)
    kept = _norms_and_biases(model) if convention == "hugging_face" else _vectors(model)
    if not decay_embeddings:
        kept |= _embeddings(model)
    groups = []
    for decays in (True, False):
        members = {name: p for name, p in trainable.items() if (id(p) not in kept) == decays}
        if members:
            decay = weight_decay if decays else 0.0
            groups.append({"params": [*members.values()], "param_names": [*members], "weight_decay": decay})
    return groups


def _chosen(model: nn.Module, names: Collection[str] | None) -> dict[str, nn.Parameter]:
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ConfigError(f"{type(model).__name__} has no trainable parameter: all have requires_grad = False")
    if names is None:
        return trainable
    for name in names:
        if name not in trainable:
            close = nearest(name, trainable) if len(trainable) <= 20 else f"There are {len(trainable)}."
            raise ConfigError(f"names: {name!r} is not a trainable parameter of {type(model).__name__}. {close}")
    if not names:
        raise ConfigError("names: no parameter is left to train; None means all")
    return {name: p for name, p in trainable.items() if name in set(names)}


def _owned(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Each parameter with the module that holds it, once for every module that does."""
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield module, f"{path}.{name}" if path else name, parameter


def _norms_and_biases(model: nn.Module) -> set[int]:
    return {
        id(parameter)
        for module, name, parameter in _owned(model)
        if isinstance(module, nn.LayerNorm)
        or _NORM_CLASS.search(type(module).__name__.lower())
        or _NORM_OR_BIAS.search(name.lower())
    }


def _vectors(model: nn.Module) -> set[int]:
    return {id(parameter) for parameter in model.parameters() if parameter.dim() < 2}


def _embeddings(model: nn.Module) -> set[int]:
    return {id(parameter) for module, _, parameter in _owned(model) if isinstance(module, nn.Embedding)}
