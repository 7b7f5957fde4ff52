"""The loop that fine-tunes one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thalweg.train import checkpoint
from thalweg.train.evaluate import Meter, Pass, evaluate, padded_flops
from thalweg.train.hyperparameters import FineTuneHyperparameters
from thalweg.train.metrics import summarize
from thalweg.train.model import attach_lora, copy_for_run, set_dropout
from thalweg.train.order import crosses_evaluation, epoch_order, rows_of_step
from thalweg.train.run_loop import RunLoop
from thalweg.train.sizes import Sizes, measure
from thalweg.train.tokens import Batch, Rows
from thalweg.train.update import Update
from thalweg.trainer import ActiveRun


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


class FineTuneLoop(RunLoop):
    """Fine-tuning: positions are samples, an epoch's last step may be a small one."""

    def __init__(self, run: ActiveRun, work: Workplace, settings: FineTuneHyperparameters) -> None:
        meter = Meter(run.spend)
        self._work = work
        self._batch_size = settings.batch_size
        self._num_rows = len(work.rows.train)
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)
        self._model = build(work, settings, run.seed)
        self._sizes: Sizes = measure(self._model)
        update = Update(
            self._model, settings, run.horizon, components=work.clip_components, monitor_every=work.monitor_every
        )
        super().__init__(
            run, update, meter, micro_batch=work.micro_batch, decay_start=settings.decay_start(run.horizon)
        )

    def _step_length(self) -> tuple[int, int]:
        num_rows = min(self._batch_size, self._num_rows - self._position % self._num_rows)
        return num_rows, num_rows

    def _step_number(self) -> int:
        return self._position // self._batch_size

    def _crosses_evaluation(self, before: int) -> bool:
        return crosses_evaluation(before, self._position, self._num_rows, self._work.evaluations_per_epoch)

    def _backward(self) -> torch.Tensor:
        train, rows = self._work.rows.train, self._rows()
        batches = [train.batch(rows[i : i + self._micro_batch]) for i in range(0, len(rows), self._micro_batch)]
        num_targets = sum(batch.num_targets for batch in batches)
        total = torch.zeros((), dtype=torch.float64)
        for batch in batches:
            self._between_batches("train")
            losses_B, _ = self._work.how.losses(self._model, batch)
            loss = losses_B.sum() / num_targets
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            self._count(batch, backward=True)
        return total

    def _rows(self) -> np.ndarray[Any, Any]:
        epoch = self._position // self._num_rows
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._run.seed, epoch, self._num_rows)
        return rows_of_step(self._order, self._position, self._batch_size)

    def _count(self, batch: Batch, *, backward: bool) -> None:
        flops = padded_flops(batch, self._sizes, backward=backward)
        self._meter.add(samples=len(batch.labels), tokens=batch.num_tokens, flops=flops)

    def _evaluate(self) -> dict[str, float]:
        def each_batch(batch: Batch) -> None:
            self._count(batch, backward=False)
            self._between_batches("evaluate")

        work = self._work
        split = work.rows.validation
        return summarize(evaluate(self._model, split, work.how, micro_batch=self._micro_batch, each_batch=each_batch))
