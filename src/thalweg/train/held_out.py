"""A language model's loss on text that it is not trained on.

Shapes: B sequences, C tokens of context, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from thalweg.train.evaluate import free_memory, is_out_of_memory
from thalweg.train.metrics import Outcomes, estimates, summarize
from thalweg.train.token_files import CorpusTokens, SplitTokens
from thalweg.train.windows import num_windows
from thalweg.trainer import Estimate

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Where a model runs, and how it multiplies."""

    device: torch.device
    bf16: bool
    """Matrix products in bfloat16, by autocast."""

    def logits(self, model: Any, inputs: torch.Tensor) -> torch.Tensor:
        """float32 (B, C, V), of inputs (B, C)."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits: torch.Tensor = model(input_ids=inputs).logits
        return logits.float()

    def mean_loss(self, model: Any, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Nats per token, 0-d, of inputs and targets (B, C)."""
        logits_BCV = self.logits(model, inputs)
        return functional.cross_entropy(logits_BCV.flatten(0, 1), targets.flatten())

    def to_device(self, ids: _Array) -> torch.Tensor:
        """int64 (B, C), on its way to the device."""
        tensor = torch.from_numpy(np.ascontiguousarray(ids))
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The first tokens of a split, as sequences that do not overlap."""

    inputs: _Array
    """int64 [sequences, context]"""
    targets: _Array
    """int64 [sequences, context]: what follows each token."""
    num_bytes: float
    """Of the text that the targets stand for."""

    def __len__(self) -> int:
        return len(self.inputs)

    @classmethod
    def of(cls, corpus: CorpusTokens, split: SplitTokens, *, context: int, max_tokens: int | None) -> HeldOut:
        """Take as many whole sequences as there are, or as fit into `max_tokens`, but at least one if there is one."""
        count = num_sequences(len(split), context=context, max_tokens=max_tokens)
        ids = split.ids[: count * context + 1].astype(np.int64) if count else np.zeros(1, dtype=np.int64)
        targets = ids[1:].reshape(count, context)
        num_bytes = corpus.bytes_of(split, targets.ravel()) if count else 0.0
        return cls(inputs=ids[:-1].reshape(count, context), targets=targets, num_bytes=num_bytes)

    def losses(self, model: Any, how: Precision, *, micro_batch: int, each_batch: Callable[[int], None]) -> Outcomes:
        """Each sequence's loss, without touching any random generator.

        Args:
            each_batch: called after each batch with its number of sequences; what it raises ends the evaluation.
        """
        was_training = model.training
        model.eval()
        try:
            return self._outcomes(model, how, micro_batch, each_batch)
        finally:
            model.train(was_training)

    def _outcomes(self, model: Any, how: Precision, micro_batch: int, each_batch: Callable[[int], None]) -> Outcomes:
        losses = np.zeros(len(self))
        first = 0
        while first < len(self):
            rows = slice(first, first + micro_batch)
            inputs_BC, targets_BC = how.to_device(self.inputs[rows]), how.to_device(self.targets[rows])
            try:
                with torch.no_grad():
                    logits_BCV = how.logits(model, inputs_BC)
                    each = functional.cross_entropy(logits_BCV.transpose(1, 2), targets_BC, reduction="none")
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(inputs_BC) == 1:
                    raise
                micro_batch = free_memory(len(inputs_BC))
                continue
            losses[rows] = each.sum(dim=1, dtype=torch.float64).cpu().numpy()
            each_batch(len(inputs_BC))
            first += len(inputs_BC)
        return Outcomes(losses=losses, num_targets=np.full(len(self), self.targets.shape[1], dtype=np.int64))

    def summarize(self, outcomes: Outcomes) -> dict[str, float]:
        """The metrics, by name."""
        values = summarize(outcomes)
        return values | {"bits_per_byte": values["loss"] * self._bits_per_byte_per_nat()}

    def estimates(self, outcomes: Outcomes) -> dict[str, Estimate]:
        """The metrics with 95% intervals, over sequences."""
        values = estimates(outcomes)
        loss, scale = values["loss"], self._bits_per_byte_per_nat()
        scaled = dataclasses.replace(loss, value=loss.value * scale, low=loss.low * scale, high=loss.high * scale)
        return values | {"bits_per_byte": scaled}

    def _bits_per_byte_per_nat(self) -> float:
        return self.targets.size / math.log(2) / self.num_bytes


def num_sequences(num_tokens: int, *, context: int, max_tokens: int | None) -> int:
    """Sequences that `HeldOut.of` takes from a split.

    >>> [num_sequences(100, context=10, max_tokens=m) for m in (None, 35, 5)]
    [9, 3, 1]
    """
    whole = num_windows(num_tokens, context)
    return whole if max_tokens is None else min(whole, max(1, max_tokens // context))
