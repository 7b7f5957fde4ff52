"""The loop that pre-trains one run.

All that a step depends on is in the checkpoint or follows from the run: a run goes on as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch

from thalweg.budget import SpendKind
from thalweg.errors import ConfigError, RunInterrupted
from thalweg.optim.clipping import Clipper, NonFiniteGradient
from thalweg.optim.groups import parameter_groups
from thalweg.optim.monitor import Monitor
from thalweg.optim.weight_decay import adam
from thalweg.train import checkpoint, llama
from thalweg.train.evaluate import Meter, free_memory, is_out_of_memory
from thalweg.train.held_out import HeldOut, Precision
from thalweg.train.hyperparameters import PretrainHyperparameters
from thalweg.train.sizes import Sizes
from thalweg.train.token_files import CorpusTokens
from thalweg.train.windows import Windows, crosses
from thalweg.trainer import ActiveRun, Diverged

_SPEED_SECONDS = 1.0
"""Least time over which throughput is measured."""


@dataclass(frozen=True, kw_only=True)
class PretrainWorkplace:
    """What all runs of a worker share."""

    tokens: CorpusTokens
    validation: HeldOut
    config: Any
    """The model's `LlamaConfig`."""
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
    fresh = llama.build(work.config).to(work.how.device).train()
    return fresh if work.compiled is None else work.compiled.take(fresh)


def load_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        ConfigError: they are those of a model of another shape.
    """
    own = dict(model.named_parameters())
    for name, parameter in own.items():
        if name not in weights or weights[name].shape != parameter.shape:
            shape = list(weights[name].shape) if name in weights else "none"
            raise ConfigError(
                f"the checkpoint's {name!r} has shape {shape}, the model's {list(parameter.shape)}: it belongs to a"
                " model of another shape"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


class PretrainLoop:
    """One call's training of one run, from `run.start` to the step boundary at or after `run.until`."""

    def __init__(self, run: ActiveRun, work: PretrainWorkplace, settings: PretrainHyperparameters) -> None:
        self._run = run
        self._work = work
        self._settings = settings
        self._meter = Meter(run.spend)
        self._micro_batch = work.micro_batch
        self._position = self._saved_at = run.start
        self._step_tokens = settings.batch_size * work.context
        self._windows = Windows(work.tokens.train.ids, context=work.context, seed=run.seed)
        self._model = build(work, run.seed)
        self._forward = self._model if work.compiled is None else work.compiled.forward
        self._parameters: dict[str, torch.nn.Parameter] = dict(self._model.named_parameters())
        self._optimizer = _optimizer(self._model, settings, work)
        self._clipper = _clipper(self._parameters, settings, work)
        every = work.monitor_every
        self._monitor = Monitor(self._optimizer, self._parameters, every=every) if every else None
        self._schedule = settings.schedule_for(run.horizon)
        self._decay_start = settings.decay_start(run.horizon)
        self._evaluation_due = self._restore()
        self._rng = checkpoint.capture_rng()
        self._meter.enter("setup")
        self._speed = _Speed(work, self._position)

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
            self._evaluation_due = crosses(before, self._position, self._run.horizon, self._work.evaluations)
        # The evaluation that is due here is the report, so no checkpoint from here on asks for it.
        self._evaluation_due = False
        if self._position > self._saved_at:
            self._save()
        self._run.report(self._position, **self._validate())

    def _at_stable_end(self) -> bool:
        """Whether the next step is the first that the final decay touches: from here the run can be extended."""
        start = self._decay_start
        return start is not None and self._position <= start < self._position + self._step_tokens

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
        self._speed.restart(self._position)

    def _step(self) -> None:
        loss_sum = self._accumulate()
        lr = self._settings.lr * self._schedule(self._position)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        step_number = self._position // self._step_tokens
        if self._monitor is not None:
            self._monitor.before_step(step_number)
        try:
            norm = float(self._clipper.clip())
        except NonFiniteGradient as error:
            raise Diverged(f"at position {self._position} {error}, the training loss is {float(loss_sum):g}") from None
        loss = float(loss_sum)
        if not math.isfinite(loss):
            raise Diverged(f"at position {self._position} the training loss is {loss:g}")
        self._optimizer.step()
        seen = {} if self._monitor is None else self._monitor.after_step(step_number)
        self._optimizer.zero_grad(set_to_none=True)
        self._position += self._step_tokens
        self._rng = checkpoint.capture_rng()
        seen |= {"train/loss": loss, "train/gradient_norm": norm, "train/lr": lr}
        self._run.log(self._position, **seen, **self._speed.measured(self._position))
        self._meter.enter("train")

    def _accumulate(self) -> torch.Tensor:
        """Gradients of the step's mean loss, micro-batch by micro-batch; with half of it where memory is short."""
        while True:
            try:
                return self._backward()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._micro_batch == 1:
                    raise
            # After the handler, which keeps the failed step's tensors alive.
            self._optimizer.zero_grad(set_to_none=True)
            self._micro_batch = free_memory(min(self._micro_batch, self._settings.batch_size))
            checkpoint.restore_rng(self._rng)

    def _backward(self) -> torch.Tensor:
        first, batch_size = self._position // self._work.context, self._settings.batch_size
        total = torch.zeros((), device=self._work.how.device)
        for done in range(0, batch_size, self._micro_batch):
            if self._run.should_stop():
                self._interrupt("train")
            count = min(self._micro_batch, batch_size - done)
            inputs, targets = self._windows.batch(first + done, count)
            inputs_BC, targets_BC = self._work.how.to_device(inputs), self._work.how.to_device(targets)
            loss = self._work.how.mean_loss(self._forward, inputs_BC, targets_BC) * (count / batch_size)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            self._count(count, backward=True)
            if self._meter.due:
                self._meter.enter("train")
        return total

    def _count(self, num_sequences: int, *, backward: bool) -> None:
        sizes, context = self._work.sizes, self._work.context
        per_token = sizes.train_flops_per_token(context) if backward else sizes.evaluate_flops_per_token(context)
        num_tokens = num_sequences * context
        self._meter.add(samples=num_sequences, tokens=num_tokens, flops=num_tokens * per_token)

    def _log_validation(self) -> None:
        metrics = self._validate()
        self._run.log(self._position, **{f"validation/{name}": value for name, value in metrics.items()})
        self._evaluation_due = False

    def _validate(self) -> dict[str, float]:
        def each_batch(num_sequences: int) -> None:
            self._count(num_sequences, backward=False)
            if self._run.should_stop():
                self._interrupt("evaluate")
            if self._meter.due:
                self._meter.enter("evaluate")

        held_out = self._work.validation
        outcomes = held_out.losses(self._model, self._work.how, micro_batch=self._micro_batch, each_batch=each_batch)
        self._meter.enter("evaluate")
        self._speed.restart(self._position)
        metrics = held_out.summarize(outcomes)
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"at position {self._position} the validation loss is {metrics['loss']:g}")
        return metrics

    def _interrupt(self, kind: SpendKind) -> NoReturn:
        self._meter.enter(kind)
        self._optimizer.zero_grad(set_to_none=True)
        if self._position > self._saved_at:
            self._save()
        raise RunInterrupted


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


def _optimizer(model: Any, settings: PretrainHyperparameters, work: PretrainWorkplace) -> torch.optim.Optimizer:
    groups = parameter_groups(model, weight_decay=settings.weight_decay, decay_embeddings=work.decay_embeddings)
    return adam(
        groups,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        epsilon=settings.epsilon,
        weight_decay_kind=settings.weight_decay_kind,  # type: ignore[arg-type]  # parse has checked it
    )


def _clipper(
    parameters: Mapping[str, torch.nn.Parameter], settings: PretrainHyperparameters, work: PretrainWorkplace
) -> Clipper:
    by: Any = settings.clip_by
    components = work.clip_components if by == "component" else None
    return Clipper(parameters, by=by, threshold=settings.clip or None, components=components)
