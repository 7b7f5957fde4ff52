"""One run's training by a Hugging Face Trainer, which trains as it always does and is listened to.

Checkpoints are taken where nothing of a step is left to do: after its logs and evaluations, and after an epoch's.
Data draws its random numbers apart from the model, anew for each batch, so that a batch is the same one whether or
not those before it were read in this process.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from thalweg.budget import SpendKind
from thalweg.errors import ConfigError, RunInterrupted
from thalweg.optim.lr_scheduler import use_schedule
from thalweg.schedules import Schedule
from thalweg.train import checkpoint, hf_state
from thalweg.train.evaluate import Meter
from thalweg.train.hf_data import TrainingData
from thalweg.trainer import ActiveRun, Diverged

_NAMES = {"grad_norm": "gradient_norm"}
_LEFT_OUT = {"epoch", "learning_rate", "total_flos", "train_loss"}
"""What is no metric, is logged at every step anyway, or is an average since training was last begun."""


class _Left(BaseException):
    """Leaves the Trainer's loop at a checkpoint. Not an `Exception`, so that nothing on the way out handles it."""


class HFLoop:
    """One call's training of one run, from `run.start` to `run.until`.

    Args:
        trainer: just built; it is used up.
        schedule: horizon -> the learning rate's course; None leaves the Trainer's own.
        stable_end: where a checkpoint is written in any case.
    """

    def __init__(
        self,
        run: ActiveRun,
        trainer: Any,
        *,
        schedule: Callable[[float], Schedule] | None = None,
        stable_end: int | None = None,
    ) -> None:
        self._run = run
        self._trainer = trainer
        self._stable_end = stable_end
        self._until = min(run.until, run.horizon)
        self._meter = Meter(run.spend)
        self._state = run.restore()
        self._saved_at = run.start
        self._boundary: Mapping[str, Any] | None = None
        self._options: Mapping[str, Any] | None = None
        self._metrics: tuple[int, Mapping[str, float]] | None = None
        self._lr = 0.0
        self._evaluating = self._may_stop = self._reporting = False
        self._epoch_ended = False
        self._data = TrainingData(trainer, run.seed)
        if schedule is not None:
            use_schedule(trainer, schedule)
        self._hook()

    def train(self) -> None:
        """Train, save, evaluate, report.

        Raises:
            Diverged, RunInterrupted: see `Trainer.train`.
            ConfigError: the Trainer's length is not the run's, or its checkpoint is another model's.
        """
        state, trainer = self._state, self._trainer
        with tempfile.TemporaryDirectory(prefix="thalweg-") as folder:
            if state is None or not (
                state["ended"] or (self._run.start >= self._until and not state["evaluation_due"])
            ):
                self._train(folder if state is not None else None)
            else:
                hf_state.restore_weights(trainer, state)
                trainer.state = hf_state.restore_trainer_state(trainer, state, self._run.horizon)
                checkpoint.restore_rng(state["rng"])
        self._meter.enter("train")
        self._report()

    def _train(self, folder: str | None) -> None:
        trainer, state = self._trainer, self._state
        if state is not None and folder is not None:
            trainer.args.eval_on_start = False
            path = Path(folder) / "trainer_state.json"
            hf_state.restore_trainer_state(trainer, state, self._run.horizon).save_to_json(str(path))
        checkpoint.seed_everything(self._run.seed)
        self._meter.enter("setup")
        with contextlib.suppress(_Left):
            trainer.train(resume_from_checkpoint=folder)
        # As in the evaluations on the way, which leave the model's type as it is.
        trainer.is_in_train = True

    def _report(self) -> None:
        position = self._trainer.state.global_step
        if self._metrics is None or self._metrics[0] != position:
            self._reporting = self._may_stop = True
            self._metrics = (position, self._trainer.evaluate())
        finite = {}
        for name, value in _numbers(self._metrics[1]).items():
            name = name.removeprefix("eval_")
            if math.isfinite(value):
                finite[name] = value
            elif _is_loss(name):
                raise Diverged(f"at position {position} the validation {name} is {value:g}")
        self._run.report(position, **finite)

    def _hook(self) -> None:
        """Listen to the Trainer, and take its place where it would read and write checkpoints of its own."""
        trainer, state = self._trainer, self._state
        self._log_save_evaluate = trainer._maybe_log_save_evaluate
        self._evaluate = trainer.evaluate
        trainer.add_callback(_Listener(self))
        trainer._maybe_log_save_evaluate = self._after_step
        trainer.evaluate = self._evaluate_apart
        trainer._load_from_checkpoint = lambda *_args, **_kwargs: hf_state.restore_weights(trainer, state or {})
        trainer._load_optimizer_and_scheduler = self._load_optimizer
        trainer._load_scaler = lambda _checkpoint: hf_state.restore_scaler(trainer, state or {})
        trainer._load_rng_state = lambda _checkpoint: checkpoint.restore_rng((state or {})["rng"])

    def _load_optimizer(self, _checkpoint: str | None) -> None:
        if self._state is not None and _checkpoint is not None:
            self._options = hf_state.options(self._trainer)
            hf_state.restore_optimizer(self._trainer, self._state)

    # What the listener passes on

    def begin(self) -> None:
        """Training has been set up, nothing is trained yet."""
        trainer, state, horizon = self._trainer, self._state, self._run.horizon
        if trainer.state.max_steps != horizon:
            raise ConfigError(
                f"the Trainer will make {trainer.state.max_steps} steps, but the run's horizon is {horizon}: the number"
                " of steps depends on the hyperparameters in a way that was not foreseen. Give HFTrainer(make_trainer,"
                " horizon=...), a function of the hyperparameters that gives the number of steps"
            )
        self._options = self._options or hf_state.options(trainer)
        if state is None:
            return
        hf_state.restore_between(trainer, state)
        checkpoint.restore_rng(state["rng"])
        self._boundary = {**hf_state.boundary(trainer, evaluation_due=state["evaluation_due"]), "ended": False}
        if state["evaluation_due"]:
            self._epoch_ended = True  # what an epoch's end brings was done before, but for this
            trainer.control.should_evaluate = True
            metrics = trainer._evaluate(None, None)
            trainer._determine_best_metric(metrics=metrics, trial=None)
            self._end_step()
            if trainer.control.should_training_stop:
                raise _Left

    def begin_epoch(self) -> None:
        self._epoch_ended = False
        self._data.begin_epoch()

    def end_epoch(self) -> None:
        self._epoch_ended = True
        if not self._data.fetched:
            raise ConfigError(
                f"the training data has ended at step {self._trainer.state.global_step} of {self._run.horizon}:"
                " give more of it, or fewer steps"
            )

    def between_micro_batches(self) -> None:
        if self._meter.due:
            self._meter.enter("train")
        if self._run.should_stop():
            self._interrupt("train")

    def before_rate_changes(self) -> None:
        self._lr = self._trainer._get_learning_rate()

    def end_of_step(self) -> None:
        self._meter.add(**self._data.take_costs())
        self._run.log(self._trainer.state.global_step, **{"train/lr": self._lr})
        self._meter.enter("train")

    def log(self, logs: Mapping[str, Any]) -> None:
        position = self._trainer.state.global_step
        if self._reporting:
            return
        values = {}
        for name, value in _numbers(logs).items():
            kind = "validation" if name.startswith("eval_") else "train"
            name = name.removeprefix("eval_")
            values[f"{kind}/{_NAMES.get(name, name)}"] = value
        if values:
            self._run.log(position, **values)
        for name, value in values.items():
            if _is_loss(name) and not math.isfinite(value):
                raise Diverged(f"at position {position} {name} is {value:g}")

    def evaluated_batch(self) -> None:
        if self._meter.due:
            self._meter.enter("evaluate")
        if self._may_stop and self._run.should_stop():
            self._interrupt("evaluate")

    # Steps and evaluations

    def _after_step(self, *args: Any, **kwargs: Any) -> None:
        """After a step, and once more after an epoch's end."""
        self._log_save_evaluate(*args, **kwargs)
        if self._epoch_ended or not self._epoch_ends_here():
            self._end_step()

    def _epoch_ends_here(self) -> bool:
        """Whether the Trainer has an epoch's logs and evaluation to do at this step, after the step's own."""
        control = self._trainer.control
        return (
            control.should_training_stop or control.should_epoch_stop or float(self._trainer.state.epoch).is_integer()
        )

    def _end_step(self) -> None:
        """Nothing of a step is left to do: the place for checkpoints."""
        trainer, run = self._trainer, self._run
        position = trainer.state.global_step
        ended = trainer.control.should_training_stop and position < trainer.state.max_steps
        self._boundary = {**hf_state.boundary(trainer), "ended": ended}
        arrived = position >= self._until
        stop = not arrived and not ended and run.should_stop()
        if arrived or ended or stop or position == self._stable_end or run.checkpoint_due():
            self._save()
        if stop:
            raise RunInterrupted
        if arrived and not trainer.control.should_training_stop:
            raise _Left

    def _evaluate_apart(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, and leave no trace of it in what training draws."""
        if self._evaluating:  # one data set of several
            return self._evaluate(*args, **kwargs)  # type: ignore[no-any-return]
        trainer = self._trainer
        scheduled = trainer.control.should_evaluate and not self._reporting
        if scheduled:
            self._may_stop = self._epoch_ended or not self._epoch_ends_here()
            if trainer.is_in_train:
                self._boundary = {**hf_state.boundary(trainer, evaluation_due=True), "ended": False}
        self._meter.enter("train")
        before = checkpoint.capture_rng()
        self._evaluating = True
        try:
            metrics: dict[str, float] = self._evaluate(*args, **kwargs)
        finally:
            self._evaluating = self._may_stop = False
        checkpoint.restore_rng(before)
        self._meter.enter("evaluate")
        if scheduled:
            self._metrics = (trainer.state.global_step, metrics)
        return metrics

    def _interrupt(self, kind: SpendKind) -> None:
        self._meter.enter(kind)
        if self._boundary is not None and self._boundary["trainer"]["global_step"] > self._saved_at:
            self._save()
        raise RunInterrupted

    def _save(self) -> None:
        assert self._boundary is not None
        assert self._options is not None
        position = self._boundary["trainer"]["global_step"]
        loss = float(self._boundary["loss"])
        if not math.isfinite(loss):
            raise Diverged(f"at position {position} the training loss is {loss:g}")
        self._meter.enter("train")
        self._run.save(position, hf_state.whole(self._trainer, self._boundary, self._options))
        self._saved_at = position
        self._meter.skip()


class _Listener(TrainerCallback):
    """Passes on what the Trainer tells its callbacks; the last of them, so that the user's have had their say."""

    def __init__(self, loop: HFLoop) -> None:
        self._loop = loop

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self._loop.begin()

    def on_epoch_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self._loop.begin_epoch()

    def on_epoch_end(self, *_args: Any, **_kwargs: Any) -> None:
        self._loop.end_epoch()

    def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self._loop.between_micro_batches()

    def on_substep_end(self, *_args: Any, **_kwargs: Any) -> None:
        self._loop.between_micro_batches()

    def on_optimizer_step(self, *_args: Any, **_kwargs: Any) -> None:
        self._loop.before_rate_changes()

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self._loop.end_of_step()

    def on_log(self, *_args: Any, **kwargs: Any) -> None:
        self._loop.log(kwargs["logs"])

    def on_prediction_step(self, *_args: Any, **_kwargs: Any) -> None:
        self._loop.evaluated_batch()


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """The metrics among what a Trainer logs."""
    return {
        name: float(value)
        for name, value in logs.items()
        if isinstance(value, numbers.Real) and name not in _LEFT_OUT and not hf_state.is_timing(name)
    }


def _is_loss(name: str) -> bool:
    return name.rpartition("/")[2].endswith("loss")
