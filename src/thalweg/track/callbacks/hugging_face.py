"""A callback for Hugging Face Trainers, TRL's too: `Trainer(..., callbacks=[ThalwegCallback("my-project")])`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from thalweg.errors import ConfigError, StoreError

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ConfigError("ThalwegCallback needs transformers: pip install 'thalweg[train]'") from error

from thalweg.track.callbacks.checkpoints import newest_checkpoint, remember
from thalweg.track.callbacks.hugging_face_settings import apply_changes, hyperparameters_of, settings
from thalweg.track.callbacks.plain_values import numbers_in
from thalweg.track.callbacks.run_source import RunSource
from thalweg.track.client import TrackedRun

_STATE_KEY = "thalweg"
"""Where in a checkpoint's trainer_state.json the settings stand that it was trained with."""

_log = logging.getLogger("thalweg")


class ThalwegCallback(TrainerCallback):
    """Tracks a Trainer: what it logs, its hyperparameters and its checkpoints, on the main process alone.

    Names are those of the other trackers: train/loss, train/learning_rate, eval/accuracy. Checkpoints are remembered
    where they are. A run that somebody asks to stop saves a checkpoint and ends training. The run ends with `train()`;
    an `evaluate()` after it adds to the same run.

    A fork goes on from its parent's checkpoint under its own learning rate:

        callback = ThalwegCallback("my-project", fork_of="my-project-1", at=500)
        trainer = Trainer(model, TrainingArguments(learning_rate=1e-5, ...), ..., callbacks=[callback])
        trainer.train(resume_from_checkpoint=callback.checkpoint())

    The Trainer alone would bring back the parent's, which is part of the optimizer's state. What is put in force again
    where it differs: learning rate, weight decay, betas, epsilon.

    Args:
        target: a project's name, or a TrackedRun, which the callback then does not end.
        run, project: the same by name; `run` may also be the id of a run that goes on.
        options: for `thalweg.init`. A fork without `at` begins at its parent's newest checkpoint.
    Raises:
        ConfigError: neither a project nor a run.
    """

    def __init__(
        self,
        target: str | TrackedRun | None = None,
        *,
        run: str | TrackedRun | None = None,
        project: str | None = None,
        **options: Any,
    ) -> None:
        self._source = RunSource(
            "ThalwegCallback", target, run=run, project=project, options=options, at_checkpoint=True
        )
        self._training = False
        self._stopped = False

    @property
    def run(self) -> TrackedRun:
        """The run, made now where there is none yet; it ends with `train()`. On the main process alone."""
        return self._source.run()

    def checkpoint(self) -> str | None:
        """The folder for `trainer.train(resume_from_checkpoint=...)`, on every process; None where there is none.

        It is the newest of the run's lineage: the run's own, or its parent's at or before the fork.
        """
        found = self._source.checkpoint(main=int(os.environ.get("RANK", "0")) == 0)
        return None if found is None else str(found)

    # What the Trainer calls

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Begin the run. A checkpoint has been loaded by now, if any is."""
        self._put_in_force(args, state, optimizer, lr_scheduler)
        self._training, self._stopped = True, False
        if not state.is_world_process_zero:
            return
        if self._source.own and self._source.ended and state.global_step == 0:
            self._source.renew()  # trained from the start once more: another run
        run = self._source.live()
        if str(args.save_strategy) != "no":
            _check_folder(run, Path(str(args.output_dir)))
        run.set(hyperparameters_of(args, model))

    def _put_in_force(self, args: TrainingArguments, state: TrainerState, optimizer: Any, scheduler: Any) -> None:
        """Set what the checkpoint's state has overwritten, and have the next checkpoints say what is in force."""
        # A dictionary once the state is made, and what trainer_state.json takes.
        stored: Any = state.stateful_callbacks
        before = stored.get(_STATE_KEY, {}).get("attributes")
        if state.global_step > 0 and optimizer is not None:
            if before is None:
                _log.warning(
                    "the checkpoint was written without ThalwegCallback and does not say with which settings: where"
                    " they have changed, the old learning rate and weight decay stay in force"
                )
            else:
                for name, (old, new) in apply_changes(args, before, optimizer, scheduler).items():
                    _log.info("from step %d on: %s = %r instead of %r", state.global_step, name, new, old)
        stored[_STATE_KEY] = {"args": {}, "attributes": settings(args)}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep a point of each number that the Trainer logs."""
        if state.is_world_process_zero and logs:
            self._log(logs, state)
        if self._training and args.world_size > 1:
            # Every process is here at the same step, so that they may agree.
            self._stop_if_asked(args, state, control)

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        """Keep what `predict` has found: test/loss and so on."""
        if state.is_world_process_zero and metrics:
            self._log(metrics, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End training where somebody asks for it."""
        if args.world_size <= 1:
            self._stop_if_asked(args, state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remember where a checkpoint is."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            remember(self._source.live(), folder, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run, where the callback made it."""
        self._training = False
        if state.is_world_process_zero:
            self._source.finish("stopped" if self._stopped else "finished")

    def _log(self, logs: dict[str, Any], state: TrainerState) -> None:
        late = self._source.own and (self._source.ended or not self._source.begun) and not self._training
        points = numbers_in(tracker_names(logs))
        if points:
            self._source.live().log(points, step=state.global_step)
        if late:
            # After training, as an evaluation of its own: the run is open for no longer than that.
            self._source.finish()

    def _stop_if_asked(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        asked = state.is_world_process_zero and self._source.begun and self._source.run().should_stop
        if args.world_size > 1:
            import torch

            flag = torch.tensor(int(asked), device=args.device)
            torch.distributed.broadcast(flag, 0)
            asked = bool(flag.item())
        if asked and not control.should_training_stop:
            self._stopped = True
            control.should_training_stop = True
            control.should_save = str(args.save_strategy) != "no"


def checkpoint_folder(run: TrackedRun) -> str | None:
    """For `trainer.train(resume_from_checkpoint=...)`: the newest checkpoint of the run's lineage, or None."""
    found = newest_checkpoint(run)
    return None if found is None else str(found.path)


def tracker_names(logs: dict[str, Any]) -> dict[str, Any]:
    """A Trainer's names as its other trackers show them.

    >>> tracker_names({"loss": 0.5, "eval_accuracy": 0.9, "test_loss": 0.7})
    {'train/loss': 0.5, 'eval/accuracy': 0.9, 'test/loss': 0.7}
    """
    named: dict[str, Any] = {}
    for name, value in logs.items():
        part, _, rest = name.partition("_")
        named[f"{part}/{rest}" if part in ("eval", "test") and rest else f"train/{name}"] = value
    return named


def _check_folder(run: TrackedRun, output_dir: Path) -> None:
    """A fork that writes into its parent's folder would overwrite the checkpoints that others begin at."""
    try:
        found = newest_checkpoint(run)
    except StoreError:
        return  # without the store nobody can say; that must not keep training from beginning
    if found is not None and found.run != run.id and found.path.parent.resolve() == output_dir.resolve():
        raise ConfigError(
            f"output_dir = {str(output_dir)!r} holds the checkpoints of {found.run}, which this fork would overwrite."
            f" Give it its own: output_dir={str(output_dir.parent / run.id)!r}"
        )
