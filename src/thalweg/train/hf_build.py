"""Building a Hugging Face Trainer for one run, and letting go of it: what it would do beside training is kept off."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

import torch
import transformers
from accelerate.state import GradientState
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from thalweg.errors import ConfigError
from thalweg.space import Hyperparameters
from thalweg.train import checkpoint
from thalweg.train.hf_data import num_rows_of
from thalweg.train.hf_steps import Length, shown

Seen = WeakSet[torch.nn.Module]
"""Modules of earlier runs' models that something still holds."""

_REFUSED = {
    "load_best_model_at_end": "a run is compared by its last evaluation and goes on from its last step, so leave it"
    " out; EarlyStoppingCallback works without it, where metric_for_best_model is given",
    "push_to_hub": "a search would push every run; push the best one when it has ended",
    "auto_find_batch_size": "a run's batch size and number of steps would change on the way; search the batch size, or"
    " use gradient_accumulation_steps",
    "deepspeed": "a run is trained by one process",
    "fsdp": "a run is trained by one process",
    "ignore_data_skip": "a run that goes on would see other data",
    "enable_jit_checkpoint": "thalweg writes the checkpoints",
}


@contextlib.contextmanager
def built(
    make_trainer: Callable[[Hyperparameters], Any], hyperparameters: Hyperparameters, *, seed: int, seen: Seen
) -> Iterator[Any]:
    """A run's Trainer, in a folder of its own that goes with it.

    Args:
        seen: what earlier runs' models were made of; this one's is added.
    Raises:
        ConfigError: it is no Trainer, cannot be trained as a run, or its model has been trained by another run.
    """
    checkpoint.seed_everything(seed)
    with tempfile.TemporaryDirectory(prefix="thalweg-") as folder:
        with _own_settings(seed, folder):
            made = make_trainer(hyperparameters)
        if not isinstance(made, transformers.Trainer):
            raise ConfigError(
                f"make_trainer returned a {type(made).__name__}: it must return a transformers.Trainer, or a trainer"
                " of TRL"
            )
        trainer: Any = made
        _check(trainer, folder, seen)
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        try:
            yield trainer
        finally:
            seen.update(trainer.model.modules())
            GradientState._reset_state()  # it knows the data loaders that a stopped run did not get to the end of


def settle() -> None:
    """Take what a process has loaded until now out of what `collect` looks through: it stays, and is much."""
    gc.collect()
    gc.freeze()


def collect() -> None:
    """Free what ended runs have left: a Trainer is full of reference cycles, which hold its model."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def length_of(trainer: Any) -> Length:
    """How many steps a Trainer will make, what they cost, and what it trains."""
    args = trainer.args
    loader = trainer.get_train_dataloader()
    with contextlib.suppress(TypeError):
        num_batches = len(loader)
        values = trainer.set_initial_training_values(args, loader)
        length = Length(
            max_steps=args.max_steps,
            epochs=args.num_train_epochs,
            batch_size=args.per_device_train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            num_batches=num_batches,
            num_rows=_num_rows(trainer, loader, num_batches),
            drop_last=args.dataloader_drop_last,
            flops_per_row=_flops_per_row(trainer, loader),
            facts=_facts(trainer),
        )
        assert length.steps == values[-1], "transformers counts steps in another way than this file"
        return length
    return Length(
        max_steps=args.max_steps,
        epochs=args.num_train_epochs,
        batch_size=args.per_device_train_batch_size,
        accumulation=args.gradient_accumulation_steps,
        num_batches=None,
        flops_per_row=_flops_per_row(trainer, loader),
        facts=_facts(trainer),
    )


def explained(hyperparameters: Hyperparameters, error: Exception) -> ConfigError:
    """An error of the user's own function, told with the hyperparameters that it got."""
    return ConfigError(f"make_trainer failed with {shown(hyperparameters)}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def _own_settings(seed: int, folder: str) -> Iterator[None]:
    """Make every `TrainingArguments` that is built here fit for a run, before anything reads it.

    Afterwards would be too late: a Trainer seeds, makes its folder, logs in and builds adapters while it is made.
    """
    original = TrainingArguments.__post_init__

    def post_init(args: TrainingArguments) -> None:
        for name, why in _REFUSED.items():
            if getattr(args, name, None):
                raise ConfigError(f"{name} = {getattr(args, name)!r} does not work in a study: {why}")
        args.seed = args.data_seed = seed
        args.output_dir = folder
        args.save_strategy = "no"
        args.report_to = "none"
        args.disable_tqdm = True
        args.logging_nan_inf_filter = False  # it would hide that a run has diverged
        args.restore_callback_states_from_checkpoint = False
        args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()
        original(args)  # type: ignore[no-untyped-call]
        args._n_gpu = min(args.n_gpu, 1)

    TrainingArguments.__post_init__ = post_init  # type: ignore[method-assign]
    try:
        yield
    finally:
        TrainingArguments.__post_init__ = original  # type: ignore[method-assign]


def _check(trainer: Any, folder: str, seen: Seen) -> None:
    if trainer.args.output_dir != folder:
        raise ConfigError(
            "the Trainer's arguments were made outside of make_trainer: make TrainingArguments(...) inside of it, as"
            " each run needs its own"
        )
    if trainer.args.world_size > 1:
        raise ConfigError(f"world size {trainer.args.world_size}: a run is trained by one process")
    if trainer.eval_dataset is None and type(trainer).get_eval_dataloader is transformers.Trainer.get_eval_dataloader:
        raise ConfigError("the Trainer has no eval_dataset: give it one, as runs are compared by their evaluation")
    if trainer.train_dataset is None:
        raise ConfigError("the Trainer has no train_dataset: give it one")
    for name, module in trainer.model.named_modules():
        if module in seen and any(parameter.requires_grad for parameter in module.parameters()):
            raise ConfigError(
                f"the model{f' (its {name})' if name else ''} is the same object that an earlier call of make_trainer"
                " returned, so runs would train on what others have trained: build or load it inside of make_trainer"
            )


def _num_rows(trainer: Any, loader: Any, num_batches: int) -> int | None:
    """Rows of an epoch, where the number of batches is what a plain pass over them makes."""
    args = trainer.args
    num_rows = int(trainer.num_examples(loader))
    whole, rest = divmod(num_rows, args.per_device_train_batch_size)
    plain = num_batches == whole + (rest > 0 and not args.dataloader_drop_last)
    return (
        num_rows if plain and type(trainer).get_train_dataloader is transformers.Trainer.get_train_dataloader else None
    )


def _flops_per_row(trainer: Any, loader: Any, num_batches: int = 4) -> float:
    rows, flops = 0, 0.0
    for _, batch in zip(range(num_batches), loader, strict=False):
        rows += num_rows_of(batch)
        flops += trainer.floating_point_ops(batch) if hasattr(batch, "keys") else 0
    return flops / rows if rows else 0.0


def _facts(trainer: Any) -> dict[str, str]:
    parameters = list(trainer.model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    model = getattr(trainer.model, "base_model", trainer.model)
    name = (
        type(getattr(model, "model", model)).__name__
        if hasattr(trainer.model, "peft_config")
        else type(trainer.model).__name__
    )
    share = "all" if trained == total else f"{trained:,}"
    rows = [f"{len(data):,} rows {what}" for data, what in _data(trainer) if hasattr(data, "__len__")]
    return {
        "trainer": type(trainer).__name__,
        "model": f"{name}, {total:,} parameters, {share} trained",
        "data": ", ".join(rows) or "without a length",
    }


def _data(trainer: Any) -> list[tuple[Any, str]]:
    validation = trainer.eval_dataset
    sets = validation.values() if isinstance(validation, dict) else [validation]
    return [(trainer.train_dataset, "to train on"), *((data, "to choose by") for data in sets)]
