"""The training data of a Hugging Face Trainer, with random numbers of its own.

Whatever samplers, data sets and collators draw comes from generators that are seeded anew for each epoch and batch.
So a batch is the same one whether those before it were read in this process or skipped, and the model's dropout does
not depend on how far ahead data is read.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers.trainer_pt_utils import find_batch_size

from thalweg.train import checkpoint


class TrainingData:
    """Stands between a Trainer and its training data.

    Args:
        trainer: just built; its data loader and the batches of its steps pass through here from now on.
        seed: of the run.
    """

    def __init__(self, trainer: Any, seed: int) -> None:
        self._trainer = trainer
        self._seed = seed
        self._epoch = -1
        self._begins = False
        self._rng: dict[str, Any] | None = None
        self._costs = {"samples": 0, "tokens": 0, "flops": 0.0}
        self._batches: Any = None
        self.fetched = False
        """Whether this epoch had any batch."""
        self._get_loader = trainer.get_train_dataloader
        self._get_batches = trainer.get_batch_samples
        trainer.get_train_dataloader = self._loader
        trainer.get_batch_samples = self._fetch

    def begin_epoch(self) -> None:
        self._begins, self.fetched = True, False

    def take_costs(self) -> dict[str, Any]:
        """Of the batches since it was last asked."""
        costs, self._costs = self._costs, {"samples": 0, "tokens": 0, "flops": 0.0}
        return costs

    def _loader(self) -> Any:
        loader = self._get_loader()
        self._batches = getattr(loader, "batch_sampler", None)
        if self._batches is not None:
            _seed_each_batch(self._batches)
        return loader

    def _fetch(self, batches: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        training = _without_cuda(checkpoint.capture_rng())
        if self._begins:
            self._begin(self._epoch_now())
        elif self._rng is not None:
            checkpoint.restore_rng(self._rng)
        fetched, num_items = self._get_batches(batches, num_batches, device)
        self._rng = _without_cuda(checkpoint.capture_rng())
        checkpoint.restore_rng(training)
        self.fetched = self.fetched or bool(fetched)
        for batch in fetched:
            named = hasattr(batch, "keys")
            ids = batch.get("input_ids") if named else None
            self._costs["samples"] += num_rows_of(batch)
            self._costs["tokens"] += ids.numel() if isinstance(ids, torch.Tensor) else 0
            self._costs["flops"] += float(self._trainer.floating_point_ops(batch)) if named else 0.0
        return fetched, num_items

    def _epoch_now(self) -> int:
        """Counted, as a callback may end an epoch early; from where a checkpoint begins, by the Trainer's own."""
        self._epoch = int(self._trainer.state.epoch or 0) if self._epoch < 0 else self._epoch + 1
        return self._epoch

    def _begin(self, epoch: int) -> None:
        first, self._begins = self._rng is None, False
        sampler: Any = getattr(self._batches, "sampler", None)
        if self._batches is not None:
            self._batches.seeds = None
        # A sampler that goes on drawing from a generator of its own is where the epochs before have left it.
        if (
            first
            and isinstance(getattr(sampler, "generator", None), torch.Generator)
            and not hasattr(sampler, "set_epoch")
        ):
            for _ in range(epoch):
                deque(sampler, maxlen=0)
        _seed(self._seed, epoch)
        if self._batches is not None:
            self._batches.seeds = (self._seed, epoch)


def _seed_each_batch(batches: Any) -> None:
    """Let a batch sampler seed the generators before it gives a batch, which is before anything of it is read.

    It stays of its type, which accelerate and Trainers look at: it becomes one of a subclass that is made for it.
    """
    kind = type(batches)

    def seeded(self: Any) -> Iterator[Any]:
        for number, batch in enumerate(kind.__iter__(self)):
            if self.seeds is not None:
                _seed(*self.seeds, number)
            yield batch

    batches.__class__ = type(kind.__name__, (kind,), {"__iter__": seeded, "seeds": None})


def _seed(*entropy: int) -> None:
    """Seed the generators that data may draw from: those of a GPU are the model's."""
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


def _without_cuda(rng: dict[str, Any]) -> dict[str, Any]:
    return {name: state for name, state in rng.items() if name != "cuda"}


def num_rows_of(batch: Any) -> int:
    """Rows of a batch as a Trainer's data loader gives it: tensors by name, or a list of rows."""
    if isinstance(batch, list) and batch and isinstance(batch[0], dict):
        return len(batch)
    return find_batch_size(batch) or 0  # type: ignore[no-untyped-call]
