"""Fine-tuning of sequence classifiers and causal language models."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from thalweg.budget import Cost
from thalweg.errors import ConfigError, RunInterrupted, nearest
from thalweg.space import Hyperparameters, Space
from thalweg.train.data import Data, SplitName, Task
from thalweg.train.hyperparameters import FineTuneHyperparameters, check_schedules
from thalweg.train.metrics import METRICS, estimates
from thalweg.trainer import ActiveRun, Estimate
from thalweg.tree import Unit

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg.train.evaluate import Pass
    from thalweg.train.finetune_loop import Workplace
    from thalweg.train.memory import Footprint
    from thalweg.train.sizes import Sizes
    from thalweg.train.tokens import Rows

# torch and transformers take seconds to import: only the methods that need them import the modules that do.


class FineTune(BaseModel):
    """Fine-tunes a model on texts. A `thalweg.trainer.Trainer`; its positions are samples.

    Hyperparameters and their defaults are in `FineTuneHyperparameters`. A run's horizon is epochs times training rows;
    each epoch is a permutation of the rows decided by the run's seed, and its last step may be a smaller one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """A hub id, a local folder, `package:NAME/path`, or a GGUF file. Weights are read from safetensors or GGUF only."""
    task: Task = "classification"
    """`classification` of whole texts, or `causal`: to write texts, or completions of prompts."""
    adapter: Literal["lora"] | None = None
    """None trains all weights; `lora` a LoRA adapter on all linear layers, and a classification head."""
    data: Data
    """Rows to train, choose and test on."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`bf16`: autocast over float32 weights. `auto`: that, where the processor has instructions for it."""
    micro_batch: int = Field(16, ge=1)
    """Most rows that go through the model at once; it changes memory and speed, not what a step is."""
    evaluations_per_epoch: int = Field(2, ge=0)
    """Points of the validation curve per epoch, beside the evaluation at the end of each call."""
    clip_components: Mapping[str, str] = Field(default_factory=dict)
    """Components that `clip_by = "component"` clips together: name -> regular expression on parameter names, such as
    `{ query = "q_proj" }`. A parameter that none matches is a component of its own."""
    monitor_every: int = Field(0, ge=0)
    """Steps between measurements of gradient norms, update ratios and effective learning rates; 0: none."""

    # What a process has loaded. It stays there: see __getstate__.
    _rows: Rows | None = PrivateAttr(None)
    _work: Workplace | None = PrivateAttr(None)
    _sizes: dict[int, Sizes] = PrivateAttr(default_factory=dict)
    _footprints: dict[int, Footprint] = PrivateAttr(default_factory=dict)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return state | {"__pydantic_private__": {"_rows": None, "_work": None, "_sizes": {}, "_footprints": {}}}

    @property
    def unit(self) -> Unit:
        return "samples"

    @property
    def preload(self) -> Sequence[str]:
        return ("torch", "transformers", "peft", "pandas", "thalweg.train.finetune_loop", "transformers.modeling_utils")

    def check(self, space: Space, metric: str) -> None:
        """Refuse what cannot work: the space, the metric, the data, the model. Reads and tokenizes the data.

        Raises:
            ConfigError: naming the field, the value, and what would work.
        """
        for module in ("torch", "transformers", "peft", "datasets"):
            if importlib.util.find_spec(module) is None:
                raise ConfigError(f"fine-tuning needs {module}: pip install 'thalweg[train]'")
        FineTuneHyperparameters.check_space(space, without=self._without)
        if metric not in METRICS[self.task]:
            known = nearest(metric, METRICS[self.task])
            raise ConfigError(f"metric = {metric!r}: fine-tuning with task = {self.task!r} does not report it. {known}")
        from thalweg.train.model import locate, set_dropout, skeleton

        locate(self.model)
        rows = self._load_rows()
        check_schedules(space, self._settings, self.horizon)
        if "dropout" in space.names:
            set_dropout(skeleton(self.model, self.task, len(rows.classes)), 0.0)
        self._measure(FineTuneHyperparameters())
        if self.clip_components:
            from thalweg.optim.clipping import match_components
            from thalweg.train.model import trainable

            match_components(trainable(self._skeleton(FineTuneHyperparameters())), self.clip_components)

    def describe(self) -> Mapping[str, Any]:
        """The configuration, the data's fingerprint, and what the splits came to."""
        rows = self._load_rows()
        splits = {"train": len(rows.train), "validation": len(rows.validation), "test": len(rows.test)}
        loaded = {"fingerprint": rows.fingerprint, "rows": splits, "num_duplicates": rows.num_duplicates}
        return {"kind": "finetune"} | self.model_dump(mode="json") | loaded | {"classes": list(rows.classes)}

    def facts(self) -> Mapping[str, str]:
        """The model with its size, and the data, for the plan."""
        rows, sizes = self._load_rows(), self._measure(FineTuneHyperparameters())
        trained = f"a LoRA adapter of {sizes.num_trainable:,}" if self.adapter else "all"
        dropped = f"; {rows.num_duplicates:,} duplicates dropped" if rows.num_duplicates else ""
        return {
            "model": f"{self.model}, {sizes.num_parameters:,} parameters, {trained} trained",
            "data": f"{len(rows.train):,} texts to train on, {len(rows.validation):,} to choose by,"
            f" {len(rows.test):,} held back for the end{dropped}",
        }

    def horizon(self, hyperparameters: Hyperparameters) -> int:
        """Epochs times training rows, rounded, at least 1."""
        settings = self._settings(hyperparameters)
        return max(1, round(settings.epochs * len(self._load_rows().train)))

    def cost(self, hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
        """Samples, tokens (with the padding to be expected) and FLOPs of training, its evaluations included."""
        from thalweg.train.predict import predict_cost

        settings = self._settings(hyperparameters)
        rows = self._load_rows()
        micro_batch = self.micro_batch
        every = self.evaluations_per_epoch
        return predict_cost(
            rows,
            self._measure(settings),
            settings,
            (start, until),
            micro_batch=micro_batch,
            evaluations_per_epoch=every,
        )

    def stable_end(self, hyperparameters: Hyperparameters) -> int | None:
        """See `Trainer.stable_end`."""
        from thalweg.train.order import boundary_after, boundary_before

        settings = self._settings(hyperparameters)
        horizon, num_rows = self.horizon(hyperparameters), len(self._load_rows().train)
        if settings.is_cyclic:
            return boundary_after(horizon, settings.batch_size, num_rows)
        start = settings.decay_start(horizon)
        return None if start is None else boundary_before(start, settings.batch_size, num_rows)

    def extended(self, hyperparameters: Hyperparameters, horizon: int) -> Hyperparameters:
        """Other `epochs`, and the warm-up as a length; see `Trainer.extended`."""
        epochs = horizon / len(self._load_rows().train)
        settings = self._settings(hyperparameters)
        return settings.extended(hyperparameters, self.horizon(hyperparameters), epochs)

    def fixed_at_start(self, names: Iterable[str]) -> Mapping[str, str]:
        """See `Trainer.fixed_at_start`."""
        return FineTuneHyperparameters.fixed_at_start(names)

    def memory_bytes(self, hyperparameters: Hyperparameters) -> int | None:
        """Weights, gradients, moments, activations and logits; see `thalweg.train.memory`."""
        from thalweg.train.memory import Batches, predict_memory

        settings, how, data = self._settings(hyperparameters), self._pass(), self._load_rows()
        size = self._count(settings)
        batches = Batches(
            rows=min(settings.batch_size, self.micro_batch),
            length=int(data.train.lengths.max()),
            is_accumulated=settings.batch_size > self.micro_batch,
            held_out_rows=min(len(data.validation), self.micro_batch),
            held_out_length=int(data.validation.lengths.max(initial=0)),
        )
        has_dropout = size.has_dropout if settings.dropout is None else settings.dropout > 0
        dropout = has_dropout and how.device.type == "cpu"
        return predict_memory(size, batches, copies=1 if self.adapter else 2, bf16=how.bf16, dropout=dropout)

    def evaluate_weights(
        self, weights: Mapping[str, Tensor], *, hyperparameters: Hyperparameters, split: SplitName = "validation"
    ) -> dict[str, float]:
        """Metrics of a model with these weights, such as those between two checkpoints; after `setup`.

        Args:
            weights: a checkpoint's `model`: the trained parameters by name.
            hyperparameters: of the run that they belong to.
        Raises:
            ConfigError: they do not fit the model, or the split is empty.
        """
        from thalweg.train.evaluate import evaluate
        from thalweg.train.finetune_loop import build
        from thalweg.train.metrics import summarize
        from thalweg.train.model import trainable
        from thalweg.train.run_loop import load_weights

        work = self._loaded()
        rows = getattr(work.rows, split)
        if not len(rows):
            raise ConfigError(f"the {split} split is empty")
        model = build(work, self._settings(hyperparameters), seed=0)
        load_weights(trainable(model), weights)
        outcomes = evaluate(model, rows, work.how, micro_batch=self.micro_batch, each_batch=lambda _batch: None)
        return summarize(outcomes)

    def setup(self) -> None:
        """Load the data and the model into this process."""
        import torch

        from thalweg.train.finetune_loop import Workplace
        from thalweg.train.model import load

        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        rows = self._load_rows()
        how = self._pass()
        base, new_modules = load(self.model, self.task, len(rows.classes), rows.train.pad_id)
        if self.adapter is not None:
            base.to(how.device)  # runs share it
        self._work = Workplace(
            rows=rows,
            base=base,
            new_modules=new_modules,
            how=how,
            adapter=self.adapter,
            micro_batch=self.micro_batch,
            evaluations_per_epoch=self.evaluations_per_epoch,
            clip_components=self.clip_components,
            monitor_every=self.monitor_every,
        )

    def probe(self) -> float | None:
        """FLOPs per second of a micro-batch's forward and backward pass, the second of two."""
        from thalweg.train import checkpoint
        from thalweg.train.evaluate import padded_flops
        from thalweg.train.finetune_loop import build
        from thalweg.train.sizes import measure

        work = self._loaded()
        before = checkpoint.capture_rng()
        model = build(work, FineTuneHyperparameters(), seed=0)
        batch = work.rows.train.batch(np.arange(min(self.micro_batch, len(work.rows.train))))
        seconds = 0.0
        for _ in range(2):
            started = time.perf_counter()
            losses_B, _logits = work.how.losses(model, batch)
            losses_B.sum().backward()  # type: ignore[no-untyped-call]
            float(losses_B[0].detach())  # waits for a GPU
            seconds = time.perf_counter() - started
        checkpoint.restore_rng(before)
        return padded_flops(batch, measure(model), backward=True) / seconds

    def train(self, runs: Sequence[ActiveRun]) -> None:
        """Carry one run on to its `until`: train, save, evaluate, report.

        Raises:
            Diverged: the loss or the gradient is not finite.
            RunInterrupted: the run was asked to stop, and its checkpoint is written.
        """
        from thalweg.train.finetune_loop import FineTuneLoop

        for run in runs:
            settings = self._settings(run.hyperparameters)
            FineTuneLoop(run, self._loaded(), settings).train()

    def test(self, run: ActiveRun) -> Mapping[str, Estimate]:
        """Evaluate the checkpoint at `run.start` on the test split; empty where there is none."""
        from thalweg.train.evaluate import Meter, evaluate, padded_flops
        from thalweg.train.finetune_loop import build
        from thalweg.train.model import trainable
        from thalweg.train.run_loop import load_weights
        from thalweg.train.sizes import measure

        work = self._loaded()
        if not len(work.rows.test):
            return {}
        settings = self._settings(run.hyperparameters)
        meter = Meter(run.spend)
        model = build(work, settings, run.seed)
        if (state := run.restore()) is not None:
            load_weights(trainable(model), state["model"])
        sizes = measure(model)

        def each_batch(batch: Any) -> None:
            flops = padded_flops(batch, sizes, backward=False)
            meter.add(samples=len(batch.labels), tokens=batch.num_tokens, flops=flops)
            if run.should_stop():
                meter.enter("evaluate")
                raise RunInterrupted
            if meter.due:
                meter.enter("evaluate")

        outcomes = evaluate(model, work.rows.test, work.how, micro_batch=self.micro_batch, each_batch=each_batch)
        meter.enter("evaluate")
        return estimates(outcomes)

    @property
    def _without(self) -> str | None:
        return None if self.adapter == "lora" else "lora_"

    def _settings(self, hyperparameters: Hyperparameters) -> FineTuneHyperparameters:
        return FineTuneHyperparameters.parse(hyperparameters, without=self._without)

    def _load_rows(self) -> Rows:
        if self._rows is None:
            from thalweg.train.tokens import read_rows

            self._rows = read_rows(self.data, self.task, self.model)
        return self._rows

    def _loaded(self) -> Workplace:
        assert self._work is not None, "setup() comes first"
        return self._work

    def _measure(self, settings: FineTuneHyperparameters) -> Sizes:
        if settings.lora_r not in self._sizes:
            from thalweg.train.sizes import measure

            self._sizes[settings.lora_r] = measure(self._skeleton(settings))
        return self._sizes[settings.lora_r]

    def _count(self, settings: FineTuneHyperparameters) -> Footprint:
        if settings.lora_r not in self._footprints:
            from thalweg.train.memory import footprint

            self._footprints[settings.lora_r] = footprint(self._skeleton(settings), is_causal=self.task == "causal")
        return self._footprints[settings.lora_r]

    def _skeleton(self, settings: FineTuneHyperparameters) -> Any:
        """The model with its adapter, without memory."""
        from thalweg.train.model import attach_lora, skeleton

        model = skeleton(self.model, self.task, len(self._load_rows().classes))
        if self.adapter is not None:
            model = attach_lora(model, self.task, r=settings.lora_r, alpha=1.0, dropout=0.0)
        return model

    def _pass(self) -> Pass:
        import torch

        from thalweg.train.evaluate import Pass, has_bf16

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        bf16 = self.precision == "bf16" or (self.precision == "auto" and has_bf16(device))
        return Pass(task=self.task, device=device, bf16=bf16)
