"""muP: learning rates, found on a narrow and shallow model, that hold for a wide and deep one.

For Llama-like models of transformers and for Adam. `apply_mup` scales the initialisation and the forward pass of a
model that was just made, `mup_groups` its learning rates, weight decay and epsilon.

With m = width / base width and L = layers / base layers:

| parameters | initial variance | learning rate | weight decay | forward pass |
|---|---|---|---|---|
| embedding | as it is | lr | wd | output x `input_multiplier` |
| matrices of the blocks | / m | lr L^(alpha-1) / m | wd m | outputs of o_proj, down_proj x L^-alpha |
| norms and biases of the blocks | as it is | lr L^(alpha-1) | 0 | |
| last norm | as it is | lr | 0 | |
| read-out | as it is | lr | wd | logits x `output_multiplier` / m |
| attention | | | | scores x sqrt(base head size) / head size |

Adam's epsilon goes with the gradients, which fall as 1/m everywhere and as L^-alpha in the blocks. All factors are 1
for the base model, so that it is the plain model bit for bit.

Sources: Yang et al. 2022 (Tensor Programs V), arXiv:2203.03466, in the form of EleutherAI/nanoGPT-mup; for depth, and
epsilon, Dey et al. 2025 (CompleteP), arXiv:2505.01618; for the decay, Wang and Aitchison 2024, arXiv:2405.13698.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import torch

from thalweg.errors import ConfigError, nearest

_BLOCK = re.compile(r"(?:^|\.)layers\.\d+\.")
# Those whose blocks are residual + branch(norm(residual)): where a norm follows the branch, as in OLMo 2 and Gemma 2,
# it would undo a multiplier, and Granite and MiniCPM have multipliers of their own.
_LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")
_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_BRANCH_ENDS = ("o_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Multipliers:
    """What a model's settings are multiplied by, relative to its base. All 1 at the base."""

    residual: float
    """Of what each attention and each feed-forward part adds to the residual stream."""
    hidden_lr: float
    """Of the learning rate of the matrices in the blocks."""
    vector_lr: float
    """Of the learning rate of the norms and biases in the blocks."""
    epsilon: float
    """Of Adam's epsilon in the blocks."""
    outer_epsilon: float
    """Of Adam's epsilon for the embedding, the last norm and the read-out."""
    weight_decay: float
    """Of the decay of the matrices in the blocks, which keeps learning rate times decay as it is in width."""
    hidden_variance: float
    """Of the initial variance of the matrices in the blocks."""
    logits: float
    """Of the logits."""


def multipliers(width: float, depth: float = 1.0, *, alpha: float = 1.0) -> Multipliers:
    """muP in width and CompleteP in depth.

    Args:
        width: the model's width by its base's.
        depth: the model's layers by its base's.
        alpha: how fast the residual branches shrink with depth, in [0.5, 1]: 1 is CompleteP, 0.5 depth-muP.
    Raises:
        ConfigError: a ratio is not positive, or alpha is outside [0.5, 1].
    Source: Dey et al. 2025, arXiv:2505.01618, table 1. At depth 1 it is muP for Adam.

    >>> found = multipliers(4, 8)
    >>> found.residual, found.hidden_lr, found.vector_lr, found.epsilon, found.weight_decay, found.hidden_variance
    (0.125, 0.25, 1.0, 0.03125, 4.0, 0.25)
    """
    for name, ratio in (("width", width), ("depth", depth)):
        if not (ratio > 0 and math.isfinite(ratio)):
            raise ConfigError(f"muP: {name} = {ratio}, the ratio to the base model, must be a positive number")
    _check_alpha(alpha)
    return Multipliers(
        residual=depth**-alpha,
        hidden_lr=depth ** (alpha - 1) / width,
        vector_lr=depth ** (alpha - 1),
        epsilon=depth**-alpha / width,
        outer_epsilon=1 / width,
        weight_decay=float(width),
        hidden_variance=1 / width,
        logits=1 / width,
    )


@dataclass(frozen=True, kw_only=True)
class MuP:
    """The base model, on which learning rates were or will be tuned, and the multipliers tuned with them."""

    base_width: int
    """Hidden size of the base model. The feed-forward size is taken to grow in proportion."""
    base_head_dim: int
    """Head size of the base model; the model's own where widths grow by the number of heads."""
    base_layers: int | None = None
    """Layers of the base model, for transfer in depth; None leaves depth alone."""
    alpha: float = 1.0
    """How fast residual branches shrink with depth, in [0.5, 1]; without `base_layers` it says nothing."""
    input_multiplier: float = 1.0
    """Of the embeddings in the forward pass, at every width."""
    output_multiplier: float = 1.0
    """Of the logits, at every width; they are divided by the width ratio as well."""

    def __post_init__(self) -> None:
        for name in ("base_width", "base_head_dim", "base_layers"):
            value = getattr(self, name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if not is_count and not (name == "base_layers" and value is None):
                raise ConfigError(f"muP: {name} = {value!r} must be a whole number above 0")
        for name in ("input_multiplier", "output_multiplier"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"muP: {name} = {value} must be a positive number")
        _check_alpha(self.alpha)

    def multipliers_for(self, model: Any) -> Multipliers:
        """The multipliers of a model, by its own width and depth."""
        config = model.config
        depth = 1.0 if self.base_layers is None else config.num_hidden_layers / self.base_layers
        return multipliers(config.hidden_size / self.base_width, depth, alpha=self.alpha)


def _check_alpha(alpha: float) -> None:
    if not 0.5 <= alpha <= 1:
        raise ConfigError(f"muP: alpha = {alpha} must be in [0.5, 1]: 1 is CompleteP, 0.5 is depth-muP")


def apply_mup(
    model: Any,
    mup: MuP,
    *,
    shrink_residual_init: bool = False,
    zero_readout: bool = False,
    zero_query: bool = False,
) -> None:
    """Make a new model a muP model, in place: its initialisation and its forward pass.

    The settings are kept in `model.config.mup`, and so in what `save_pretrained` writes; a model that was loaded has
    its multipliers again after `restore_mup`. `mup_groups` gives its optimizer's groups. Tied embeddings work: both
    ends share one initialisation and one learning rate here, and the width is in the multiplier of the logits.

    Args:
        model: a Llama-like model with its initialisation as transformers has set it, not a trained one.
        shrink_residual_init: also divide the initial variance of o_proj and down_proj by twice the number of layers,
            as GPT-2 did; not together with `base_layers`, which has its own rule for depth.
        zero_readout: begin with logits of 0, which removes the noise of the read-out that differs by width; not for
            tied embeddings.
        zero_query: begin with attention that is even over all tokens, for the same reason.
    Raises:
        ConfigError: the model is not Llama-like or has muP already, or options exclude each other.
    """
    if getattr(model.config, "mup", None) is not None:
        raise ConfigError(
            "the model's config has muP already. To give a loaded model its multipliers call restore_mup(model); to"
            " begin anew, make the model from a config with mup = None"
        )
    readout = _check_model(model)
    embedding = model.get_input_embeddings()
    if zero_readout and readout.weight is embedding.weight:
        raise ConfigError(
            "zero_readout = True would zero the embeddings too, since they are tied to the read-out: untie them"
            " (tie_word_embeddings = False), or leave it out"
        )
    if shrink_residual_init and mup.base_layers is not None:
        raise ConfigError(
            "shrink_residual_init = True and base_layers both scale with depth: CompleteP, by base_layers, does so in"
            " the forward pass; choose one"
        )
    scale = math.sqrt(mup.multipliers_for(model).hidden_variance)
    branch_scale = 1 / math.sqrt(2 * model.config.num_hidden_layers) if shrink_residual_init else 1.0
    with torch.no_grad():
        for name, module in _block_matrices(model):
            module.weight.mul_(scale * branch_scale if name.endswith(_BRANCH_ENDS) else scale)
            if zero_query and name.endswith("q_proj"):
                module.weight.zero_()
        if zero_readout:
            readout.weight.zero_()
    _give_own_config(model)
    model.config.mup = dataclasses.asdict(mup)
    _set_forward(model, mup)


def _give_own_config(model: Any) -> None:
    """So that another model made from the same config object is not taken for one with muP."""
    shared, own = model.config, copy.deepcopy(model.config)
    for module in model.modules():
        if getattr(module, "config", None) is shared:
            module.config = own


def restore_mup(model: Any) -> MuP:
    """Give a model that `from_pretrained` has loaded its forward multipliers again; weights are left as they are.

    Raises:
        ConfigError: the model was not saved with muP, or has its multipliers already.
    """
    mup = _settings_of(model)
    if getattr(model, "_has_mup_forward", False):
        raise ConfigError("the model has its muP multipliers already: restore_mup is for a model that was just loaded")
    _check_model(model)
    _set_forward(model, mup)
    return mup


def mup_groups(
    model: Any,
    *,
    lr: float,
    weight_decay: float = 0.0,
    epsilon: float = 1e-8,
    scale_weight_decay: bool = True,
    decay_embeddings: bool = True,
) -> list[dict[str, Any]]:
    """Parameter groups for Adam or AdamW of a model that has muP.

    Each group has its name, `params`, `param_names`, `lr`, `weight_decay` and `eps`. A schedule multiplies each group's
    own learning rate, as `ScheduledLR` does. Frozen parameters are left out.

    Args:
        lr, weight_decay, epsilon: as tuned on the base model.
        scale_weight_decay: multiply the decay of the blocks' matrices by the width ratio, so that learning rate times
            decay stays. False for a decay that does not go with the learning rate ("independent").
        decay_embeddings: whether the embedding and the read-out decay.
    Raises:
        ConfigError: the model has no muP, or a parameter that muP's rules here say nothing about, an adapter's say.
    """
    found = _settings_of(model).multipliers_for(model)
    if not getattr(model, "_has_mup_forward", False):
        raise ConfigError("the model was loaded without its muP multipliers: call restore_mup(model) first")
    outer_decay = weight_decay if decay_embeddings else 0.0
    hidden_decay = weight_decay * (found.weight_decay if scale_weight_decay else 1.0)
    outer_epsilon, inner_epsilon = epsilon * found.outer_epsilon, epsilon * found.epsilon
    settings = {
        "embedding": {"lr": lr, "weight_decay": outer_decay, "eps": outer_epsilon},
        "hidden": {"lr": lr * found.hidden_lr, "weight_decay": hidden_decay, "eps": inner_epsilon},
        "vectors": {"lr": lr * found.vector_lr, "weight_decay": 0.0, "eps": inner_epsilon},
        "last norm": {"lr": lr, "weight_decay": 0.0, "eps": outer_epsilon},
        "readout": {"lr": lr, "weight_decay": outer_decay, "eps": outer_epsilon},
    }
    groups: dict[str, dict[str, Any]] = {
        name: {"name": name, "params": [], "param_names": [], **setting} for name, setting in settings.items()
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = groups[_role(model, name, parameter)]
            group["params"].append(parameter)
            group["param_names"].append(name)
    return [group for group in groups.values() if group["params"]]


Role = Literal["embedding", "hidden", "vectors", "last norm", "readout"]


def _role(model: Any, name: str, parameter: torch.nn.Parameter) -> Role:
    # Tied weights come up once, under the embedding's name.
    if parameter is model.get_input_embeddings().weight:
        return "embedding"
    if parameter is model.get_output_embeddings().weight:
        return "readout"
    module, _, kind = name.rpartition(".")
    is_in_block = _BLOCK.search(name) is not None
    if is_in_block and parameter.dim() == 2 and kind == "weight" and module.endswith(_MATRICES):
        return "hidden"
    if parameter.dim() == 1:
        return "vectors" if is_in_block else "last norm"
    raise ConfigError(
        f"muP has no rule for parameter {name!r} of shape {list(parameter.shape)}: it knows the embedding, the"
        f" read-out, norms, biases, and in the blocks {', '.join(_MATRICES)}"
    )


def _settings_of(model: Any) -> MuP:
    stored = getattr(model.config, "mup", None)
    if stored is None:
        raise ConfigError("the model has no muP: call apply_mup(model, MuP(base_width=..., base_head_dim=...)) first")
    known = [field.name for field in dataclasses.fields(MuP)]
    for name in stored:
        if name not in known:
            raise ConfigError(f"the model's config has an unknown muP setting {name!r}. {nearest(name, known)}")
    return MuP(**stored)


def _check_model(model: Any) -> Any:
    """The read-out; what muP needs of the model is there."""
    kind = getattr(model.config, "model_type", None)
    if kind not in _LLAMA_LIKE:
        raise ConfigError(
            f"muP: model_type = {kind!r} is not known to be Llama-like. {nearest(str(kind), _LLAMA_LIKE)}"
        )
    readout = model.get_output_embeddings()
    if readout is None:
        raise ConfigError(
            f"muP: {type(model).__name__} has no read-out over the vocabulary; give a causal model, a LlamaForCausalLM"
        )
    for name, parameter in model.named_parameters():
        _role(model, name, parameter)
    return readout


def _block_matrices(model: Any) -> list[tuple[str, Any]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and _BLOCK.search(name) and name.endswith(_MATRICES)
    ]


def _attentions(model: Any) -> list[Any]:
    return [m for m in model.modules() if hasattr(m, "q_proj") and hasattr(m, "scaling") and hasattr(m, "head_dim")]


@dataclass(frozen=True)
class _ScaleOutput:
    """A forward hook. An object of a class, unlike a closure, can be copied and pickled with its model."""

    factor: float

    def __call__(self, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output * self.factor


@dataclass(frozen=True)
class _ScaleInput:
    """A forward hook before the module: the read-out's input is far smaller than the logits."""

    factor: float

    def __call__(self, module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0] * self.factor, *inputs[1:])


def _set_forward(model: Any, mup: MuP) -> None:
    found = mup.multipliers_for(model)
    for attention in _attentions(model):
        # 1/sqrt(head size) where the head size is the base's, and falling as 1/head size from there.
        attention.scaling = attention.scaling * math.sqrt(mup.base_head_dim / attention.head_dim)
    # No hook for a factor of 1, so that the base model is the plain one in speed too.
    if mup.input_multiplier != 1:
        model.get_input_embeddings().register_forward_hook(_ScaleOutput(mup.input_multiplier))
    if mup.output_multiplier * found.logits != 1:
        model.get_output_embeddings().register_forward_pre_hook(_ScaleInput(mup.output_multiplier * found.logits))
    if found.residual != 1:
        for name, module in _block_matrices(model):
            if name.endswith(_BRANCH_ENDS):
                module.register_forward_hook(_ScaleOutput(found.residual))
    model._has_mup_forward = True


def as_granite(model: Any) -> Any:
    """The same model as a `GraniteForCausalLM`, a Llama whose config has these multipliers, to be used anywhere.

    What `save_pretrained` writes of it computes the same wherever transformers loads it, without `restore_mup`. The
    weights are copied.

    Raises:
        ConfigError: the model has no muP, or is no Llama.
    """
    import transformers

    mup = _settings_of(model)
    kind = model.config.model_type
    if kind != "llama":
        raise ConfigError(f"as_granite: model_type = {kind!r}; a Llama is what Granite computes")
    found = mup.multipliers_for(model)
    kept = model.config.to_dict()
    for name in ("model_type", "architectures", "mup", "transformers_version"):
        kept.pop(name, None)
    config = transformers.GraniteConfig(
        **kept,
        embedding_multiplier=mup.input_multiplier,
        residual_multiplier=found.residual,
        logits_scaling=1 / (mup.output_multiplier * found.logits),
        attention_multiplier=_attentions(model)[0].scaling,
    )
    # A new model draws its initialisation, which no run's random numbers shall depend on.
    with torch.random.fork_rng(devices=[]):
        granite = transformers.GraniteForCausalLM(config).to(model.device, model.dtype)
    granite.load_state_dict(model.state_dict())
    return granite.train(model.training)
