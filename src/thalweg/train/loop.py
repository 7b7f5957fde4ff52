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
from transformers.trainer_pt_utils import get_parameter_names

from thalweg.errors import ConfigError, RunInterrupted
from thalweg.schedules import SCHEDULES, Schedule
from thalweg.train import checkpoint
from thalweg.train.evaluate import Meter, Pass, evaluate, free_memory, is_out_of_memory, padded_flops
from thalweg.train.hyperparameters import FineTuneHyperparameters
from thalweg.train.metrics import Outcomes, summarize
from thalweg.train.model import attach_lora, copy_for_run, set_dropout, trainable
from thalweg.train.sizes import Sizes, measure
from thalweg.train.tokens import Batch, Rows, TokenizedSplit
from thalweg.trainer import ActiveRun, Diverged

# As transformers.Trainer has it (get_decay_parameter_names).
_NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


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
    schedule: str
    micro_batch: int
    evaluations_per_epoch: int


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


def epoch_order(seed: int, epoch: int, num_rows: int) -> np.ndarray[Any, Any]:
    """The order in which an epoch goes through the training rows."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def rows_of_step(order: np.ndarray[Any, Any], position: int, batch_size: int) -> np.ndarray[Any, Any]:
    """The rows of the step that begins at a position of an epoch with this order; an epoch's last step may be small."""
    offset = position % len(order)
    return order[offset : offset + batch_size]


def crosses_evaluation(before: int, after: int, num_rows: int, evaluations_per_epoch: int) -> bool:
    """Whether an evaluation is due at `after`, the step boundary that follows `before`."""
    return after * evaluations_per_epoch // num_rows > before * evaluations_per_epoch // num_rows


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
        self._parameters = trainable(self._model)
        self._optimizer = _adamw(self._model, self._parameters, settings)
        self._schedule = _schedule(work.schedule, settings, run.horizon)
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
            if self._position > self._saved_at and self._run.checkpoint_due():
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
        # Only the moments come from the checkpoint: learning rate and the like are this run's own, even after a fork.
        index = {id(p): i for i, p in enumerate(p for g in self._optimizer.param_groups for p in g["params"])}
        moments = {index[id(p)]: state["optimizer"][n] for n, p in self._parameters.items() if n in state["optimizer"]}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        checkpoint.restore_rng(state["rng"])
        return bool(state["evaluation_due"])

    def _save(self) -> None:
        """Write the state of the last step boundary, wherever in the next step or in an evaluation this is called."""
        moments = {n: self._optimizer.state[p] for n, p in self._parameters.items() if p in self._optimizer.state}
        state = {
            "model": {name: parameter.detach() for name, parameter in self._parameters.items()},
            "optimizer": moments,
            "rng": self._rng,
            "evaluation_due": self._evaluation_due,
        }
        self._run.save(self._position, state)
        self._saved_at = self._position
        self._meter.skip()  # the worker enters what a checkpoint takes

    def _step(self) -> None:
        rows = self._next_rows()
        loss = self._accumulate(rows)
        parameters = list(self._parameters.values())
        limit = self._settings.clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(f"at position {self._position} the training loss is {loss:g}, its gradient's norm {norm:g}")
        lr = self._settings.lr * self._schedule(self._position)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._position += len(rows)
        self._rng = checkpoint.capture_rng()
        self._run.log(self._position, **{"train/loss": loss, "train/gradient_norm": norm, "train/lr": lr})
        self._meter.enter("train")

    def _next_rows(self) -> np.ndarray[Any, Any]:
        num_rows = len(self._work.rows.train)
        epoch = self._position // num_rows
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._run.seed, epoch, num_rows)
        return rows_of_step(self._order, self._position, self._settings.batch_size)

    def _accumulate(self, rows: np.ndarray[Any, Any]) -> float:
        """Gradients of the step's mean loss, micro-batch by micro-batch; with half of it where memory is short."""
        while True:
            try:
                return self._backward(rows)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._micro_batch == 1:
                    raise
            # After the handler, which keeps the failed step's tensors alive.
            self._optimizer.zero_grad(set_to_none=True)
            self._micro_batch = free_memory(min(self._micro_batch, len(rows)))
            checkpoint.restore_rng(self._rng)

    def _backward(self, rows: np.ndarray[Any, Any]) -> float:
        train = self._work.rows.train
        batches = [train.batch(rows[i : i + self._micro_batch]) for i in range(0, len(rows), self._micro_batch)]
        num_targets = sum(batch.num_targets for batch in batches)
        total = 0.0
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
        self._optimizer.zero_grad(set_to_none=True)
        if self._position > self._saved_at:
            self._save()
        raise RunInterrupted


def _adamw(
    model: Any, parameters: Mapping[str, torch.nn.Parameter], settings: FineTuneHyperparameters
) -> torch.optim.AdamW:
    names: list[str] = get_parameter_names(model, [torch.nn.LayerNorm], _NO_DECAY)  # type: ignore[no-untyped-call]
    decayed = set(names)
    groups = [
        {"params": [p for name, p in parameters.items() if name in decayed], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in parameters.items() if name not in decayed], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    filled = [group for group in groups if group["params"]]
    return torch.optim.AdamW(filled, lr=settings.lr, betas=betas, eps=settings.epsilon, fused=True)


def _schedule(name: str, settings: FineTuneHyperparameters, horizon: int) -> Schedule:
    lengths = {"warmup": settings.warmup_fraction * horizon} | ({"horizon": horizon} if name == "linear" else {})
    return SCHEDULES[name](**lengths)
