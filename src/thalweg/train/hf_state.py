"""What a Hugging Face Trainer's training depends on, as a checkpoint's state; and how it comes back.

The Trainer's own checkpoints leave out what is between two of its logs, what TRL's trainers keep, and data that draws
random numbers; and they bring back the learning rate and weight decay that a fork has changed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.optim.lr_scheduler import LambdaLR
from transformers.trainer_callback import ExportableState, TrainerState

from thalweg.errors import ConfigError
from thalweg.optim.lr_scheduler import ScheduledLR
from thalweg.train import checkpoint

_NUMBERS = ("_total_loss_scalar", "_globalstep_last_logged", "current_flos")
_OF_TRL = (
    "_metrics",
    "_pending_metrics",
    "_total_train_tokens",
    "_step",
    "_buffered_inputs",
    "entropy_coef",
    "_last_world_entropy",
)
"""What TRL's trainers keep from step to step: what they will log, and the completions that they still train on."""
_TIMING = re.compile(r"(^|_)runtime$|_per_second$|(^|_)step_time$|_preparation_time$")


def is_timing(name: str) -> bool:
    """Whether a metric says how long something took.

    >>> [is_timing(name) for name in ("eval_runtime", "train_steps_per_second", "step_time", "eval_loss")]
    [True, True, True, False]
    """
    return _TIMING.search(name) is not None


def boundary(trainer: Any, *, evaluation_due: bool = False) -> dict[str, Any]:
    """All that goes on changing within a step but the weights and the optimizer's state, as it is between two steps."""
    callbacks = [c for c in trainer.callback_handler.callbacks if isinstance(c, ExportableState)]
    fields = {f.name: getattr(trainer.state, f.name) for f in dataclasses.fields(TrainerState)}
    fields |= {"num_logs": len(trainer.state.log_history), "stateful_callbacks": {}}
    return {
        "rng": checkpoint.capture_rng(),
        "evaluation_due": evaluation_due,
        "trainer": fields,
        "loss": trainer._tr_loss.clone(),
        "numbers": {name: getattr(trainer, name) for name in _NUMBERS},
        "trl": {name: _copied(getattr(trainer, name)) for name in _OF_TRL if hasattr(trainer, name)},
        "callbacks": [[type(c).__name__, c.state().get("attributes", {})] for c in callbacks],
        "buffers": {name: buffer.clone() for name, buffer in _buffers(trainer.model).items()},
    }


def whole(trainer: Any, at: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's state: a boundary with the weights and the optimizer's state, which are still what they were.

    Args:
        built: what `options` said when training began.
    """
    fields = dict(at["trainer"])
    history = fields["log_history"][: fields.pop("num_logs")]
    fields["log_history"] = [{k: v for k, v in entry.items() if not is_timing(k)} for entry in history]
    optimizer = _inner(trainer.optimizer)
    names = _names(trainer)
    scaler = getattr(trainer.accelerator, "scaler", None)
    return {
        **at,
        "trainer": fields,
        "model": {name: p.detach() for name, p in _trained(trainer).items()} | _of_reference(trainer),
        "optimizer": {
            "kind": type(optimizer).__name__,
            "moments": {
                names[id(p)]: dict(optimizer.state[p])
                for g in optimizer.param_groups
                for p in g["params"]
                if p in optimizer.state
            },
            "groups": [_without_parameters(group) for group in optimizer.param_groups],
        },
        "scheduler": dict(trainer.lr_scheduler.state_dict()),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "built": built,
    }


def options(trainer: Any) -> dict[str, Any]:
    """What the optimizer and the scheduler were built with, before anything is loaded into them."""
    return {
        "groups": [_with_peak(_without_parameters(group)) for group in _inner(trainer.optimizer).param_groups],
        "scheduler": dict(trainer.lr_scheduler.state_dict()),
    }


def restore_weights(trainer: Any, state: Mapping[str, Any]) -> None:
    """Put a checkpoint's weights into the Trainer's model.

    Raises:
        ConfigError: they are another model's, or of an adapter of another rank.
    """
    own = dict(trainer.model.named_parameters())
    wanted = {name for name, parameter in own.items() if parameter.requires_grad}
    saved = {name: tensor for name, tensor in state["model"].items() if not name.startswith(_REFERENCE)}
    for name in sorted(wanted | set(saved)):
        if name not in saved or name not in own or saved[name].shape != own[name].shape:
            raise ConfigError(
                f"the checkpoint and the Trainer's model do not both have {name!r} in the same shape: a fork cannot"
                " change the model, or an adapter's rank or its targets"
            )
    buffers = _buffers(trainer.model)
    with torch.no_grad():
        for name, tensor in saved.items():
            own[name].copy_(tensor)
        for name, tensor in state["buffers"].items():
            buffers[name].copy_(tensor)
        if reference := _reference(trainer):
            for name, parameter in reference.named_parameters():
                parameter.copy_(state["model"][_REFERENCE + name])


def restore_trainer_state(trainer: Any, state: Mapping[str, Any], max_steps: int) -> TrainerState:
    """The Trainer's counters and history, with the intervals that its present arguments say."""
    found = TrainerState(**{**state["trainer"], "train_batch_size": trainer._train_batch_size})
    found.compute_steps(trainer.args, max_steps)  # type: ignore[no-untyped-call]
    return found


def restore_optimizer(trainer: Any, state: Mapping[str, Any]) -> None:
    """Load the optimizer and the scheduler; what was built with another value than before keeps the new one.

    Raises:
        ConfigError: the optimizer is another one, or has other parameter groups.
    """
    now, before, saved = options(trainer), state["built"], state["optimizer"]
    optimizer = _inner(trainer.optimizer)
    if type(optimizer).__name__ != saved["kind"] or len(now["groups"]) != len(before["groups"]):
        raise ConfigError(
            f"the checkpoint is of {saved['kind']} with {len(before['groups'])} parameter groups, the Trainer has"
            f" {type(optimizer).__name__} with {len(now['groups'])}: a fork cannot change the optimizer"
        )
    names = _names(trainer)
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    moments = {i: saved["moments"][name] for i, name in enumerate(order) if name in saved["moments"]}
    groups = optimizer.state_dict()["param_groups"]
    for group, current, old, new in zip(groups, saved["groups"], before["groups"], now["groups"], strict=True):
        group.update({key: _changed(current.get(key), old.get(key), value) for key, value in new.items()})
        group.update({key: value for key, value in current.items() if key not in new})
        if "initial_lr" in group:
            group["initial_lr"] = new["lr"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    _restore_scheduler(trainer.lr_scheduler, state["scheduler"], before["scheduler"], now["scheduler"])


def restore_scaler(trainer: Any, state: Mapping[str, Any]) -> None:
    """Of training in float16."""
    if state["scaler"] is not None and trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])


def restore_between(trainer: Any, state: Mapping[str, Any]) -> None:
    """What the Trainer has reset when it began to train: sums since its last log, TRL's own, the callbacks'."""
    trainer._tr_loss = state["loss"].to(trainer.args.device)
    for name, value in state["numbers"].items():
        setattr(trainer, name, value)
    for name, value in state["trl"].items():
        setattr(trainer, name, _filled(getattr(trainer, name, None), send_to_device(value, trainer.args.device)))
    left = [c for c in trainer.callback_handler.callbacks if isinstance(c, ExportableState)]
    for name, attributes in state["callbacks"]:
        callback = next((c for c in left if type(c).__name__ == name), None)
        if callback is not None:
            left.remove(callback)
            for attribute, value in attributes.items():
                setattr(callback, attribute, value)


_REFERENCE = "reference:"


def _reference(trainer: Any) -> Any:
    """A reference model that follows the trained one (TRL's sync_ref_model); else None."""
    return getattr(trainer, "ref_model", None) if getattr(trainer.args, "sync_ref_model", False) else None


def _of_reference(trainer: Any) -> dict[str, torch.Tensor]:
    reference = _reference(trainer)
    return {} if reference is None else {_REFERENCE + n: p.detach() for n, p in reference.named_parameters()}


def _trained(trainer: Any) -> dict[str, torch.nn.Parameter]:
    """Parameters that a step changes, or has changed."""
    optimized = {id(p) for group in _inner(trainer.optimizer).param_groups for p in group["params"]}
    return {n: p for n, p in trainer.model.named_parameters() if p.requires_grad or id(p) in optimized}


def _buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that belong to the model's state, such as a batch norm's running means."""
    names = {name for name, _ in model.named_buffers()}
    if not names:
        return {}
    persistent = names & set(model.state_dict(keep_vars=True))
    return {name: buffer for name, buffer in model.named_buffers() if name in persistent}


def _names(trainer: Any) -> dict[int, str]:
    """Each optimised parameter's name; by its place where it is none of the model's."""
    groups = _inner(trainer.optimizer).param_groups
    names = {id(p): f"#{i}.{j}" for i, group in enumerate(groups) for j, p in enumerate(group["params"])}
    return names | {id(p): name for name, p in trainer.model.named_parameters()}


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer itself, out of accelerate's wrapping."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def _without_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _with_peak(group: dict[str, Any]) -> dict[str, Any]:
    """With the learning rate that the schedule is a multiple of, wherever the schedule stands."""
    return {**group, "lr": group.get("initial_lr", group["lr"])}


def _changed(current: Any, before: Any, now: Any) -> Any:
    """A value after a fork: the current one where it was not changed; else the new one, in the proportion in which the
    current one stands to what it began with (that is a schedule's doing).

    >>> _changed(0.05, 0.1, 0.1), _changed(0.05, 0.1, 0.4), _changed((0.9, 0.99), (0.9, 0.99), (0.8, 0.99))
    (0.05, 0.2, (0.8, 0.99))
    """
    if before == now:
        return current
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (current, before, now))
    return now * (current / before) if numbers and before else now


def _restore_scheduler(
    scheduler: Any, saved: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    if isinstance(scheduler, ScheduledLR):
        scheduler.load_state_dict(dict(saved))
        return
    # A whole number is a length, such as a new horizon: it takes no proportion.
    scheduler.load_state_dict({k: saved.get(k, v) if before.get(k, v) == v else v for k, v in now.items()})
    groups = scheduler.optimizer.param_groups
    if isinstance(scheduler, LambdaLR):
        # Each step's rate is a function of the peak and the step, so a new peak and a new horizon are in force.
        rates = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        for group, (peak, multiplier) in zip(groups, rates, strict=True):
            group["lr"] = peak * multiplier(scheduler.last_epoch)
    scheduler._last_lr = [group["lr"] for group in groups]


def _copied(value: Any) -> Any:
    """Containers anew and tensors as they are: TRL puts new ones in their place."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _filled(current: Any, value: Any) -> Any:
    """A saved value in the kind of container that is there: a dict that makes missing lists must go on doing so."""
    if isinstance(current, dict) and isinstance(value, Mapping):
        filled = {key: _filled(current.get(key), item) for key, item in value.items()}
        current.clear()
        current.update(filled)
        return current
    return value
