"""Running a model over rows: losses, and what a split's evaluation is made of.

Shapes: B rows, S tokens, V classes or vocabulary.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from thalweg.budget import Cost, SpendKind
from thalweg.train.data import Task
from thalweg.train.metrics import Outcomes
from thalweg.train.sizes import Sizes
from thalweg.train.tokens import IGNORED, Batch, TokenizedSplit

Spend = Callable[[SpendKind, Cost], None]


class Meter:
    """Collects work until it is entered into the ledger, with the time since the last entry."""

    def __init__(self, spend: Spend) -> None:
        self._spend = spend
        self._cost = Cost()
        self._since = time.perf_counter()

    def add(self, *, samples: int, tokens: int, flops: float) -> None:
        self._cost += Cost(samples=samples, tokens=tokens, flops=flops)

    @property
    def due(self) -> bool:
        """A second has passed since the last entry."""
        return time.perf_counter() - self._since >= 1.0

    def enter(self, kind: SpendKind) -> None:
        now = time.perf_counter()
        seconds = now - self._since
        self._spend(kind, dataclasses.replace(self._cost, seconds=seconds, device_seconds=seconds))
        self._cost = Cost()
        self._since = now

    def skip(self) -> None:
        """Leave out the time since the last entry: somebody else accounts for it."""
        self._since = time.perf_counter()


@dataclass(frozen=True, kw_only=True)
class Pass:
    """How a model is run: on what, in which precision."""

    task: Task
    device: torch.device
    bf16: bool
    """Matrix products in bfloat16, by autocast."""

    def losses(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Each row's loss summed over its targets (B) in float32, and the logits (B, V) or (B, S, V)."""
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        logits = logits.float()
        if self.task == "classification":
            return functional.cross_entropy(logits, batch.labels, reduction="none"), logits
        # What stands at a token predicts the one after it.
        targets = batch.labels[:, 1:]
        losses = functional.cross_entropy(
            logits[:, :-1].reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED, reduction="none"
        )
        return losses.view(targets.shape).sum(dim=1), logits


def evaluate(
    model: Any, split: TokenizedSplit, how: Pass, *, micro_batch: int, each_batch: Callable[[Batch], None]
) -> Outcomes:
    """Run a split through the model, without touching any random generator.

    Args:
        each_batch: called after each batch; what it raises ends the evaluation.
    """
    was_training = model.training
    model.eval()
    try:
        return _outcomes(model, split, how, micro_batch, each_batch)
    finally:
        model.train(was_training)


def _outcomes(
    model: Any, split: TokenizedSplit, how: Pass, micro_batch: int, each_batch: Callable[[Batch], None]
) -> Outcomes:
    # Rows of like length together need little padding; the longest come first, to run out of memory early.
    order = np.argsort(-split.lengths, kind="stable")
    losses = np.zeros(len(split))
    num_targets = np.ones(len(split), dtype=np.int64)
    predictions = np.zeros(len(split), dtype=np.int64)
    first = 0
    while first < len(split):
        rows = order[first : first + micro_batch]
        batch = split.batch(rows)
        try:
            with torch.no_grad():
                losses_B, logits = how.losses(model, batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(rows) == 1:
                raise
            micro_batch = free_memory(len(rows))
            continue
        losses[rows] = losses_B.double().cpu().numpy()
        if how.task == "classification":
            predictions[rows] = logits.argmax(dim=1).cpu().numpy()
        else:
            num_targets[rows] = (batch.labels[:, 1:] != IGNORED).sum(dim=1).numpy()
        each_batch(batch)
        first += len(rows)
    if split.labels is None:
        return Outcomes(losses=losses, num_targets=num_targets)
    num_classes = int(logits.shape[-1])
    return Outcomes(
        losses=losses, num_targets=num_targets, predictions=predictions, labels=split.labels, num_classes=num_classes
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once might fit. torch has a type for CUDA's allocator only, not for the CPU's."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return "out of memory" in message or "can't allocate memory" in message or "not enough memory" in message


def free_memory(num_rows: int) -> int:
    """Give cached blocks back, and say how many rows to try next: half."""
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()
    return max(1, num_rows // 2)


def padded_flops(batch: Batch, sizes: Sizes, *, backward: bool) -> float:
    """FLOPs of one batch, padding included."""
    length = batch.input_ids.shape[1]
    per_token = sizes.train_flops_per_token(length) if backward else sizes.evaluate_flops_per_token(length)
    return batch.num_tokens * per_token


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch says this of the processor in functions that begin with an underscore only.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
