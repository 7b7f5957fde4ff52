"""The training loop of one run.

All that a step depends on is in the checkpoint or follows from the run: a run goes on as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

from thalweg.errors import ConfigError, RunInterrupted
from thalweg.train import checkpoint
from thalweg.train.evaluate import Meter, Pass, evaluate, free_memory, is_out_of_memory, padded_flops
from thalweg.train.hyperparameters import FineTuneHyperparameters
from thalweg.train.metrics import Outcomes, summarize
from thalweg.train.model import attach_lora, copy_for_run, set_dropout, trainable
from thalweg.train.order import boundary_before, crosses_evaluation, epoch_order, rows_of_step
from thalweg.train.sizes import Sizes, measure
from thalweg.train.tokens import Batch, Rows, TokenizedSplit
from thalweg.train.update import Update
from thalweg.trainer import ActiveRun, Diverged


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What all runs of a worker share. No run changes any of it."""

    rows: Rows
    base: Any
    """The model as it was loaded."""
    new_modules: list[str]
    """Those that it has no weights for: a new classification head."""
    how: Pass
    adapter: str | None
    micro_batch: int
    evaluations_per_epoch: int
    clip_components: Mapping[str, str]
    monitor_every: int


def build(work: Workplace, settings: FineTuneHyperparameters, seed: int) -> Any:
    """A run's model as it is at position 0; it leaves torch's generator where the run begins to draw from it."""
    checkpoint.seed_everything(seed)
    model = copy_for_run(work.base, work.new_modules, share_weights=work.adapter is not None)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    if work.adapter is not None:
        r, alpha, dropout = settings.lora_r, settings.lora_alpha, settings.lora_dropout
        model = attach_lora(model, work.how.task, r=r, alpha=alpha, dropout=dropout)
    return model.to(work.how.device).train()


def load_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put a checkpoint's weights into a run's model.

    Raises:
        ConfigError: they are another model's, or of an adapter of another rank.
    """
    own = trainable(model)
    for name, parameter in own.items():
        if name not in weights or weights[name].shape != parameter.shape:
            raise ConfigError(
                f"the checkpoint has no {name!r} of shape {list(parameter.shape)}: a fork cannot change the model,"
                " the adapter, or lora_r"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


class FineTuneLoop:
    """One call's training of one run, from `run.start` to the step boundary at or after `run.until`."""

    def __init__(self, run: ActiveRun, work: Workplace, settings: FineTuneHyperparameters) -> None:
        self._run = run
        self._work = work
        self._settings = settings
        self._meter = Meter(run.spend)
        self._micro_batch = work.micro_batch
        self._position = self._saved_at = run.start
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)
        self._model = build(work, settings, run.seed)
        self._sizes: Sizes = measure(self._model)
        self._update = Update(
            self._model,
            settings,
            run.horizon,
            components=work.clip_components,
            monitor_every=work.monitor_every,
        )
        decay_start = settings.decay_start(run.horizon)
        self._stable_end = (
            None if decay_start is None else boundary_before(decay_start, settings.batch_size, len(work.rows.train))
        )
        self._evaluation_due = self._restore()
        self._rng = checkpoint.capture_rng()
        self._meter.enter("setup")

    def train(self) -> None:
        """Train, save, evaluate, report.

        Raises:
            Diverged, RunInterrupted: see `Trainer.train`.
        """
        until = min(self._run.until, self._run.horizon)
        while self._position < until:
            if self._evaluation_due:
                self._log_validation()
            if self._position > self._saved_at and (self._position == self._stable_end or self._run.checkpoint_due()):
                self._save()
            before = self._position
            self._step()
            every = self._work.evaluations_per_epoch
            num_rows = len(self._work.rows.train)
            self._evaluation_due = crosses_evaluation(before, self._position, num_rows, every)
        # The evaluation that is due here is the report, so no checkpoint from here on asks for it.
        self._evaluation_due = False
        if self._position > self._saved_at:
            self._save()
        self._run.report(self._position, **self._validate())

    def _restore(self) -> bool:
        """Load the checkpoint at `run.start`, if there is one; whether the evaluation there is still to be done."""
        state = self._run.restore()
        if state is None:
            return False
        load_weights(self._model, state["model"])
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

    def _step(self) -> None:
        rows = self._next_rows()
        loss = self._accumulate(rows)
        seen = self._update.step(loss, self._position, self._position // self._settings.batch_size)
        self._position += len(rows)
        self._rng = checkpoint.capture_rng()
        self._run.log(self._position, **seen)
        self._meter.enter("train")

    def _next_rows(self) -> np.ndarray[Any, Any]:
        num_rows = len(self._work.rows.train)
        epoch = self._position // num_rows
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._run.seed, epoch, num_rows)
        return rows_of_step(self._order, self._position, self._settings.batch_size)

    def _accumulate(self, rows: np.ndarray[Any, Any]) -> torch.Tensor:
        """Gradients of the step's mean loss, micro-batch by micro-batch; with half of it where memory is short."""
        while True:
            try:
                return self._backward(rows)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._micro_batch == 1:
                    raise
            # After the handler, which keeps the failed step's tensors alive.
            self._update.drop_gradients()
            self._micro_batch = free_memory(min(self._micro_batch, len(rows)))
            checkpoint.restore_rng(self._rng)

    def _backward(self, rows: np.ndarray[Any, Any]) -> torch.Tensor:
        train = self._work.rows.train
        batches = [train.batch(rows[i : i + self._micro_batch]) for i in range(0, len(rows), self._micro_batch)]
        num_targets = sum(batch.num_targets for batch in batches)
        total = torch.zeros((), dtype=torch.float64)
        for batch in batches:
            if self._run.should_stop():
                self._interrupt("train")
            losses_B, _ = self._work.how.losses(self._model, batch)
            loss = losses_B.sum() / num_targets
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            self._count(batch, backward=True)
            if self._meter.due:
                self._meter.enter("train")
        return total

    def _count(self, batch: Batch, *, backward: bool) -> None:
        flops = padded_flops(batch, self._sizes, backward=backward)
        self._meter.add(samples=len(batch.labels), tokens=batch.num_tokens, flops=flops)

    def _log_validation(self) -> None:
        metrics = self._validate()
        self._run.log(self._position, **{f"validation/{name}": value for name, value in metrics.items()})
        self._evaluation_due = False

    def _validate(self) -> dict[str, float]:
        metrics = summarize(self._evaluate(self._work.rows.validation))
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"at position {self._position} the validation loss is {metrics['loss']:g}")
        return metrics

    def _evaluate(self, split: TokenizedSplit) -> Outcomes:
        def each_batch(batch: Batch) -> None:
            self._count(batch, backward=False)
            if self._run.should_stop():
                self._interrupt("evaluate")
            if self._meter.due:
                self._meter.enter("evaluate")

        how, micro_batch = self._work.how, self._micro_batch
        outcomes = evaluate(self._model, split, how, micro_batch=micro_batch, each_batch=each_batch)
        self._meter.enter("evaluate")
        return outcomes

    def _interrupt(self, kind: Any) -> NoReturn:
        self._meter.enter(kind)
        self._update.drop_gradients()
        if self._position > self._saved_at:
            self._save()
        raise RunInterrupted
