"""The loop that pre-trains one run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from thalweg.optim.mup import MuP, mup_groups
from thalweg.train import checkpoint, llama
from thalweg.train.evaluate import Meter
from thalweg.train.held_out import HeldOut, Precision
from thalweg.train.hyperparameters import PretrainHyperparameters
from thalweg.train.run_loop import RunLoop
from thalweg.train.sizes import Sizes
from thalweg.train.token_files import CorpusTokens
from thalweg.train.update import Update
from thalweg.train.windows import Windows, crosses
from thalweg.trainer import ActiveRun

_SPEED_SECONDS = 1.0
"""Least time over which throughput is measured."""


@dataclass(frozen=True, kw_only=True)
class PretrainWorkplace:
    """What all runs of a worker share."""

    tokens: CorpusTokens
    validation: HeldOut
    config: Any
    """The model's `LlamaConfig`."""
    mup: MuP | None
    sizes: Sizes
    context: int
    how: Precision
    micro_batch: int
    evaluations: int
    decay_embeddings: bool
    clip_components: Mapping[str, str] = field(default_factory=dict)
    monitor_every: int = 0
    peak_flops: float | None = None
    compiled: CompiledModel | None = None


class CompiledModel:
    """One model that all runs of a worker train one after the other, since compiling another takes half a minute."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.forward: Any = torch.compile(model, dynamic=False)

    def take(self, fresh: Any) -> Any:
        """The model, with the weights of a fresh one."""
        self.model.load_state_dict(fresh.state_dict())
        self.model.zero_grad(set_to_none=True)
        return self.model.train()


def build(work: PretrainWorkplace, seed: int) -> Any:
    """A run's model as it is at position 0."""
    checkpoint.seed_everything(seed)
    fresh = llama.build(work.config, work.mup).to(work.how.device).train()
    return fresh if work.compiled is None else work.compiled.take(fresh)


class PretrainLoop(RunLoop):
    """Pre-training: positions are tokens, all steps have the same length."""

    def __init__(self, run: ActiveRun, work: PretrainWorkplace, settings: PretrainHyperparameters) -> None:
        meter = Meter(run.spend)
        self._work = work
        self._batch_size = settings.batch_size
        self._step_tokens = settings.batch_size * work.context
        self._windows = Windows(work.tokens.train.ids, context=work.context, seed=run.seed)
        self._model = build(work, run.seed)
        self._forward = self._model if work.compiled is None else work.compiled.forward
        self._speed = _Speed(work, run.start)
        update = Update(
            self._model,
            settings,
            run.horizon,
            groups=None if work.mup is None else _mup_groups(self._model, settings, work),
            decay_embeddings=work.decay_embeddings,
            components=work.clip_components,
            monitor_every=work.monitor_every,
        )
        super().__init__(
            run, update, meter, micro_batch=work.micro_batch, decay_start=settings.decay_start(run.horizon)
        )
        self._pause_over()

    def _step_length(self) -> tuple[int, int]:
        return self._step_tokens, self._batch_size

    def _step_number(self) -> int:
        return self._position // self._step_tokens

    def _crosses_evaluation(self, before: int) -> bool:
        return crosses(before, self._position, self._run.horizon, self._work.evaluations)

    def _extra_points(self) -> dict[str, float]:
        return self._speed.measured(self._position)

    def _pause_over(self) -> None:
        self._speed.restart(self._position)

    def _backward(self) -> torch.Tensor:
        first, batch_size = self._position // self._work.context, self._batch_size
        total = torch.zeros((), device=self._work.how.device)
        for done in range(0, batch_size, self._micro_batch):
            self._between_batches("train")
            count = min(self._micro_batch, batch_size - done)
            inputs, targets = self._windows.batch(first + done, count)
            inputs_BC, targets_BC = self._work.how.to_device(inputs), self._work.how.to_device(targets)
            loss = self._work.how.mean_loss(self._forward, inputs_BC, targets_BC) * (count / batch_size)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            self._count(count, backward=True)
        return total

    def _count(self, num_sequences: int, *, backward: bool) -> None:
        sizes, context = self._work.sizes, self._work.context
        per_token = sizes.train_flops_per_token(context) if backward else sizes.evaluate_flops_per_token(context)
        num_tokens = num_sequences * context
        self._meter.add(samples=num_sequences, tokens=num_tokens, flops=num_tokens * per_token)

    def _evaluate(self) -> dict[str, float]:
        def each_batch(num_sequences: int) -> None:
            self._count(num_sequences, backward=False)
            self._between_batches("evaluate")

        held_out = self._work.validation
        outcomes = held_out.losses(self._model, self._work.how, micro_batch=self._micro_batch, each_batch=each_batch)
        return held_out.summarize(outcomes)


class _Speed:
    """Throughput of training alone, once a second or, where steps are longer, at each."""

    def __init__(self, work: PretrainWorkplace, position: int) -> None:
        self._flops_per_token = work.sizes.train_flops_per_token(work.context)
        self._peak_flops = work.peak_flops
        self._warm = False
        self.restart(position)

    def restart(self, position: int) -> None:
        """Begin anew, after something else than training."""
        self._since, self._position = time.perf_counter(), position

    def measured(self, position: int) -> dict[str, float]:
        """Points to log; most of the time there are none."""
        seconds = time.perf_counter() - self._since
        if not self._warm:  # the first step may allocate, or compile
            self._warm = True
            self.restart(position)
            return {}
        if seconds < _SPEED_SECONDS:
            return {}
        tokens_per_second = (position - self._position) / seconds
        self.restart(position)
        found = {"train/tokens_per_second": tokens_per_second}
        if self._peak_flops is not None:
            found["train/mfu"] = tokens_per_second * self._flops_per_token / self._peak_flops
        return found


def _mup_groups(model: Any, settings: PretrainHyperparameters, work: PretrainWorkplace) -> list[dict[str, Any]]:
    return mup_groups(
        model,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        epsilon=settings.epsilon,
        scale_weight_decay=settings.weight_decay_kind != "independent",
        decay_embeddings=work.decay_embeddings,
    )
