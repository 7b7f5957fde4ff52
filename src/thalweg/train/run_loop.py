"""What the training loops have in common: checkpoints, evaluations, interruptions, and the way through a run.

All that a step depends on is in the checkpoint or follows from the run: a run goes on as if it had never stopped.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NoReturn

import torch

from thalweg.budget import SpendKind
from thalweg.errors import ConfigError, RunInterrupted
from thalweg.train import checkpoint
from thalweg.train.evaluate import Meter, free_memory, is_out_of_memory
from thalweg.train.update import Update
from thalweg.trainer import ActiveRun, Diverged


def load_weights(own: Mapping[str, torch.nn.Parameter], weights: Mapping[str, torch.Tensor]) -> None:
    """Put a checkpoint's weights into a model's trainable parameters.

    Raises:
        ConfigError: they are another model's, or of an adapter of another rank.
    """
    for name, parameter in own.items():
        if name not in weights or weights[name].shape != parameter.shape:
            there = f"has shape {list(weights[name].shape)}" if name in weights else "is missing"
            raise ConfigError(
                f"the checkpoint's {name!r} {there}, the model's has {list(parameter.shape)}: a fork cannot change the"
                " model, the adapter, or lora_r"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


class RunLoop(ABC):
    """One call's training of one run, from `run.start` to the step boundary at or after `run.until`.

    Args:
        run: what is trained.
        update: its optimiser.
        meter: counts the work since the loop was begun.
        micro_batch: most rows that go through the model at once; halved where memory is short.
        decay_start: before the step that passes it a checkpoint is written in any case; see `Trainer.stable_end`.
    """

    def __init__(
        self, run: ActiveRun, update: Update, meter: Meter, *, micro_batch: int, decay_start: float | None
    ) -> None:
        self._run = run
        self._update = update
        self._meter = meter
        self._micro_batch = micro_batch
        self._decay_start = decay_start
        self._position = self._saved_at = run.start
        self._evaluation_due = self._restore()
        self._rng = checkpoint.capture_rng()
        self._meter.enter("setup")

    @abstractmethod
    def _backward(self) -> torch.Tensor:
        """Accumulate the gradients of the step that begins here, micro-batch by micro-batch; its mean loss, 0-d.

        Calls `_between_batches` before each.
        """

    @abstractmethod
    def _step_length(self) -> tuple[int, int]:
        """Positions and rows of the step that begins here."""

    @abstractmethod
    def _step_number(self) -> int:
        """Of the step that begins here, from 0."""

    @abstractmethod
    def _crosses_evaluation(self, before: int) -> bool:
        """Whether an evaluation is due here, after the step that began at `before`."""

    @abstractmethod
    def _evaluate(self) -> dict[str, float]:
        """Metrics on the validation split, `loss` among them. Calls `_between_batches` after each batch."""

    def _extra_points(self) -> dict[str, float]:
        """What else to log after a step."""
        return {}

    def _pause_over(self) -> None:  # noqa: B027 - only some need it
        """Something else than training has taken time."""

    def train(self) -> None:
        """Train, save, evaluate, report.

        Raises:
            Diverged, RunInterrupted: see `Trainer.train`.
        """
        until = min(self._run.until, self._run.horizon)
        while self._position < until:
            if self._evaluation_due:
                self._log_validation()
            if self._position > self._saved_at and (self._at_stable_end() or self._run.checkpoint_due()):
                self._save()
            before = self._position
            self._step()
            self._evaluation_due = self._crosses_evaluation(before)
        # The evaluation that is due here is the report, so no checkpoint from here on asks for it.
        self._evaluation_due = False
        if self._position > self._saved_at:
            self._save()
        self._run.report(self._position, **self._validate())

    def _at_stable_end(self) -> bool:
        start = self._decay_start
        return start is not None and self._position <= start < self._position + self._step_length()[0]

    def _restore(self) -> bool:
        """Load the checkpoint at `run.start`, if there is one; whether the evaluation there is still to be done."""
        state = self._run.restore()
        if state is None:
            return False
        load_weights(self._update.parameters, state["model"])
        self._update.load_moments(state["optimizer"])
        checkpoint.restore_rng(state["rng"])
        return bool(state["evaluation_due"])

    def _save(self) -> None:
        """Write the state of the last step boundary, wherever in the next step or in an evaluation this is called."""
        state = {
            "model": {name: parameter.detach() for name, parameter in self._update.parameters.items()},
            "optimizer": self._update.moments(),
            "rng": self._rng,
            "evaluation_due": self._evaluation_due,
        }
        self._run.save(self._position, state)
        self._saved_at = self._position
        self._meter.skip()  # the worker enters what a checkpoint takes
        self._pause_over()

    def _step(self) -> None:
        loss = self._accumulate()
        seen = self._update.step(loss, self._position, self._step_number())
        self._position += self._step_length()[0]
        self._rng = checkpoint.capture_rng()
        self._run.log(self._position, **seen, **self._extra_points())
        self._meter.enter("train")

    def _accumulate(self) -> torch.Tensor:
        """The step's gradients; with half of the micro-batch where memory is short."""
        while True:
            try:
                return self._backward()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._micro_batch == 1:
                    raise
            # After the handler, which keeps the failed step's tensors alive.
            self._update.drop_gradients()
            self._micro_batch = free_memory(min(self._micro_batch, self._step_length()[1]))
            checkpoint.restore_rng(self._rng)

    def _log_validation(self) -> None:
        metrics = self._validate()
        self._run.log(self._position, **{f"validation/{name}": value for name, value in metrics.items()})
        self._evaluation_due = False

    def _validate(self) -> dict[str, float]:
        metrics = self._evaluate()
        self._meter.enter("evaluate")
        self._pause_over()
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"at position {self._position} the validation loss is {metrics['loss']:g}")
        return metrics

    def _between_batches(self, kind: SpendKind) -> None:
        """Enter what is due into the ledger, and leave where the run is asked to stop."""
        if self._run.should_stop():
            self._interrupt(kind)
        if self._meter.due:
            self._meter.enter(kind)

    def _interrupt(self, kind: SpendKind) -> NoReturn:
        self._meter.enter(kind)
        self._update.drop_gradients()
        if self._position > self._saved_at:
            self._save()
        raise RunInterrupted
