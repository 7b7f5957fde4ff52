"""What TrainingArguments say: as hyperparameters to show, and as settings to put in force after a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from thalweg.track.callbacks.plain_values import plain

_ALWAYS = ("learning_rate", "per_device_train_batch_size", "num_train_epochs", "seed")
"""Shown whether they have their defaults or not."""

_NEVER = {
    "accelerator_config", "activation_checkpointing", "bf16_full_eval", "dataloader_num_workers",
    "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "ddp_backend",
    "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters", "ddp_timeout", "debug", "deepspeed",
    "disable_tqdm", "do_eval", "do_predict", "do_train", "eval_accumulation_steps", "eval_delay", "eval_on_start",
    "eval_steps", "eval_strategy", "fp16_full_eval", "fsdp", "fsdp_config", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "hub_always_push", "hub_model_id", "hub_private_repo", "hub_revision",
    "hub_strategy", "hub_token", "include_for_metrics", "include_num_input_tokens_seen", "local_rank", "log_level",
    "log_level_replica", "log_on_each_node", "logging_dir", "logging_first_step", "logging_nan_inf_filter",
    "logging_steps", "logging_strategy", "output_dir", "per_device_eval_batch_size", "prediction_loss_only", "project",
    "push_to_hub", "ray_scope", "remove_unused_columns", "report_to", "restore_callback_states_from_checkpoint",
    "resume_from_checkpoint", "run_name", "save_on_each_node", "save_only_model", "save_steps", "save_strategy",
    "save_total_limit", "skip_memory_metrics", "torch_empty_cache_steps", "trackio_bucket_id", "trackio_space_id",
    "trackio_static_space_id", "use_cpu",
}  # fmt: skip
"""Where it runs, what it shows and where it writes: not what is trained. The token must not be shown at all."""

_MODEL = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "num_labels")

_GROUP_KEYS = {"weight_decay": "weight_decay", "adam_epsilon": "eps"}
"""Arguments of a Trainer that an optimizer keeps in its parameter groups, beside learning rate and betas."""


def hyperparameters_of(args: Any, model: Any) -> dict[str, Any]:
    """What differs from the defaults, always learning rate, batch size, epochs and seed, and the model's shape.

    Args:
        args: TrainingArguments, or a dataclass derived from it, as TRL's.
        model: its config tells type and sizes, as model/hidden_size; a PEFT adapter's as peft/r.
    """
    shown: dict[str, Any] = {}
    for field in dataclasses.fields(args):
        value, default = getattr(args, field.name), _default(field)
        # A default of None that __post_init__ has turned into False or [] was not set by anybody.
        untouched = value is None or value == default or (default is None and not value)
        if field.name in _ALWAYS or (field.name not in _NEVER and not untouched):
            shown[field.name] = value
    return plain(shown) | _model_summary(model)


def settings(args: Any) -> dict[str, float]:
    """What `apply_changes` looks at."""
    return {name: float(getattr(args, name)) for name in ("learning_rate", *_GROUP_KEYS, "adam_beta1", "adam_beta2")}


def apply_changes(
    args: Any, before: Mapping[str, float], optimizer: Any, scheduler: Any
) -> dict[str, tuple[float, float]]:
    """Put settings in force that differ from those which a loaded optimizer state was trained with.

    A parameter group that had another value than the Trainer's own, because its optimizer was made by hand, keeps it;
    a learning rate keeps its ratio to the Trainer's.

    Args:
        args: the new TrainingArguments.
        before: `settings` of the old ones.
        optimizer, scheduler: changed in place.
    Returns:
        What has changed: name -> (old, new).
    """
    now = settings(args)
    changed = {name: (before[name], value) for name, value in now.items() if before.get(name, value) != value}
    for name, key in _GROUP_KEYS.items():
        if name in changed:
            old, new = changed[name]
            for group in optimizer.param_groups:
                if group.get(key) == old:
                    group[key] = new
    if "adam_beta1" in changed or "adam_beta2" in changed:
        old_betas = (before["adam_beta1"], before["adam_beta2"])
        for group in optimizer.param_groups:
            if tuple(group.get("betas", ())) == old_betas:
                group["betas"] = (now["adam_beta1"], now["adam_beta2"])
    if "learning_rate" in changed:
        _set_rate(*changed["learning_rate"], optimizer, getattr(scheduler, "scheduler", scheduler))
    return changed


def _set_rate(old: float, new: float, optimizer: Any, scheduler: Any) -> None:
    def moved(rate: Any) -> float:
        # Exactly the new one where it was exactly the old one: a ratio would be off in the last bit.
        return new if float(rate) == old or old == 0 else float(rate) * new / old

    groups = optimizer.param_groups
    for group in groups:
        if "initial_lr" in group:
            group["initial_lr"] = moved(group["initial_lr"])
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [moved(rate) for rate in scheduler.base_lrs]
    if hasattr(scheduler, "lr_lambdas"):
        rates = [
            base * rule(scheduler.last_epoch)
            for base, rule in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
    else:
        rates = [moved(group["lr"]) for group in groups]
    for group, rate in zip(groups, rates, strict=True):
        if hasattr(group["lr"], "fill_"):
            group["lr"].fill_(rate)  # a tensor: a captured graph goes on reading this one
        else:
            group["lr"] = rate
    if hasattr(scheduler, "_last_lr"):
        scheduler._last_lr = rates


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _model_summary(model: Any) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    config = getattr(model, "config", None)
    for name in _MODEL:
        if isinstance(value := getattr(config, name, None), (str, int)):
            summary[f"model/{name}"] = value
    if name_or_path := getattr(config, "_name_or_path", ""):
        summary["model/name"] = str(name_or_path)
    if callable(count := getattr(model, "num_parameters", None)):
        summary["model/num_parameters"] = int(count())
    for adapter in (getattr(model, "peft_config", None) or {}).values():
        for name in ("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules"):
            if (value := getattr(adapter, name, None)) is not None:
                summary[f"peft/{name}"] = value
    return plain(summary)
