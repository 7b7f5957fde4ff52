"""Pre-training of Llama-like language models from scratch."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from thalweg.budget import Cost
from thalweg.errors import ConfigError, RunInterrupted, nearest
from thalweg.space import Choice, Hyperparameters, Space
from thalweg.train.corpus import Corpus
from thalweg.train.hyperparameters import PretrainHyperparameters, check_schedules
from thalweg.train.llama import ModelShape, MuPBase
from thalweg.train.windows import num_windows
from thalweg.trainer import ActiveRun, Estimate
from thalweg.tree import Unit

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg.train.held_out import HeldOut, Precision
    from thalweg.train.memory import Footprint
    from thalweg.train.pretrain_loop import PretrainWorkplace
    from thalweg.train.sizes import Sizes
    from thalweg.train.token_files import CorpusTokens

# torch and transformers take seconds to import: only the methods that need them import the modules that do.

_METRICS = ("loss", "perplexity", "bits_per_byte")

_BF16_FROM = 500_000
"""Parameters without the embedding from which bfloat16 is the faster one on a CPU (measured between 0.2 and 1M)."""

_PEAK_FLOPS: Mapping[str, float] = {"A100": 312e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12}
"""Dense bfloat16 FLOPs per second by a part of the device's name, the first that fits. Source: NVIDIA's data sheets."""


class Pretrain(BaseModel):
    """Trains a decoder from random weights. A `thalweg.trainer.Trainer`; its positions are tokens.

    Hyperparameters and their defaults are in `PretrainHyperparameters`. A run's horizon is its `tokens`; a step takes
    `batch_size` sequences of `model.context` tokens, so that a run ends at the first step boundary at or after it. Each
    epoch is a permutation of the training text's sequences, decided by the run's seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: ModelShape
    """The decoder's shape."""
    mup: MuPBase | None = None
    """Transfer learning rates from another width and depth by muP. None: the standard parametrisation."""
    data: Corpus
    """Text to train, choose and test on."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`bf16`: autocast over float32 weights. `auto`: that, where it is the faster one on this device."""
    micro_batch: int = Field(16, ge=1)
    """Most sequences that go through the model at once; it changes memory and speed, not what a step is."""
    evaluations: int = Field(4, ge=0)
    """Points of the validation curve over a run's horizon, beside the evaluation at the end of each call."""
    validation_tokens: int | None = Field(100_000, ge=1)
    """Tokens of the validation split that an evaluation uses. None: all."""
    test_tokens: int | None = Field(400_000, ge=1)
    """Tokens of the test split that the final evaluation uses. None: all."""
    decay_embeddings: bool = True
    """Whether weight decay acts on the token embedding."""
    clip_components: Mapping[str, str] = Field(default_factory=dict)
    """Components that `clip_by = "component"` clips together: name -> regular expression on parameter names, such as
    `{ query = "q_proj" }`. A parameter that none matches is a component of its own."""
    monitor_every: int = Field(0, ge=0)
    """Steps between measurements of gradient norms, update ratios and effective learning rates; 0: none."""
    compile: bool = False
    """Compile the model with torch.compile: 13 to 30 s once in each worker, then up to 1.5 times the speed of small
    models."""
    peak_flops: float | None = Field(None, gt=0)
    """FLOPs per second that the device can do at most, to log the share that is used (`train/mfu`). None: known for
    some GPUs in bfloat16, else nothing is logged."""

    # What a process has loaded. It stays there, but for the folder: see __getstate__.
    _folder: Path | None = PrivateAttr(None)
    _tokens: CorpusTokens | None = PrivateAttr(None)
    _work: PretrainWorkplace | None = PrivateAttr(None)
    _sizes: Sizes | None = PrivateAttr(None)
    _footprint: Footprint | None = PrivateAttr(None)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        kept = {"_folder": self._folder, "_tokens": None, "_work": None, "_sizes": None, "_footprint": None}
        return state | {"__pydantic_private__": kept}

    @property
    def unit(self) -> Unit:
        return "tokens"

    @property
    def preload(self) -> Sequence[str]:
        return ("torch", "transformers", "thalweg.train.pretrain_loop", "transformers.models.llama.modeling_llama")

    def check(self, space: Space, metric: str) -> None:
        """Refuse what cannot work: the space, the metric, the data, the model. Tokenises the text if need be.

        Raises:
            ConfigError: naming the field, the value, and what would work.
        """
        for module in ("torch", "transformers", "tokenizers", "datasets"):
            if importlib.util.find_spec(module) is None:
                raise ConfigError(f"pre-training needs {module}: pip install 'thalweg[train]'")
        PretrainHyperparameters.check_space(space)
        check_schedules(space, PretrainHyperparameters.parse, self.horizon)
        if metric not in _METRICS:
            raise ConfigError(f"metric = {metric!r}: pre-training does not report it. {nearest(metric, _METRICS)}")
        tokens = self._open()
        self._vocabulary()
        for name in ("train", "validation", "test"):
            length = len(getattr(tokens, name))
            if length <= self.model.context and (length or name != "test"):
                raise ConfigError(
                    f"model.context = {self.model.context}: the {name} split has {length:,} tokens, and needs at least"
                    f" one more than the context; shorten it to at most {max(1, length - 1):,}, or give more text"
                )
        self._check_batch_sizes(space)
        if self.clip_components:
            from thalweg.optim.clipping import match_components
            from thalweg.train.llama import skeleton

            match_components(dict(skeleton(self._config()).named_parameters()), self.clip_components)

    def describe(self) -> Mapping[str, Any]:
        """The configuration, a digest of all tokens, and what the splits came to."""
        tokens = self._open()
        config = self.model_dump(mode="json")
        del config["data"]["cache"]  # where it is kept changes nothing
        splits = {"train": len(tokens.train), "validation": len(tokens.validation), "test": len(tokens.test)}
        return {"kind": "pretrain"} | config | {"fingerprint": tokens.digest, "num_tokens": splits}

    def facts(self) -> Mapping[str, str]:
        """The model with its size, and the data, for the plan."""
        tokens, shape = self._open(), self.model
        kind = f"tokens of {self.data.tokenizer}" if self.data.tokenizer else "tokens of a BPE trained on it"
        dropped = f"; {tokens.num_duplicates:,} duplicates dropped" if tokens.num_duplicates else ""
        dropped += f"; {tokens.num_blank:,} blank documents dropped" if tokens.num_blank else ""
        return {
            "model": f"a Llama of {shape.layers} layers, width {shape.width}, context {shape.context}:"
            f" {shape.num_parameters(self._vocabulary()):,} parameters, {shape.num_non_embedding():,} without the"
            f" embedding, {self._vocabulary():,} {kind}",
            "data": f"{len(tokens.train):,} tokens ({tokens.train.num_bytes / 1e6:.1f} MB) to train on,"
            f" {len(tokens.validation):,} to choose by, {len(tokens.test):,} held back for the end{dropped}",
        }

    def horizon(self, hyperparameters: Hyperparameters) -> int:
        """The hyperparameter `tokens`."""
        return PretrainHyperparameters.parse(hyperparameters).tokens

    def cost(self, hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
        """Sequences, tokens and FLOPs of training, its evaluations included; exact."""
        from thalweg.train.held_out import num_sequences

        settings = PretrainHyperparameters.parse(hyperparameters)
        context, sizes = self.model.context, self._measure()
        step = settings.batch_size * context
        num_steps = max(0, -(-(min(until, settings.tokens) - start) // step))
        # At each boundary but the last, whose evaluation is the report.
        parts = (start + step * np.arange(max(1, num_steps))) * self.evaluations // settings.tokens
        num_evaluations = 1 + int(np.count_nonzero(np.diff(parts)))
        num_validation = num_sequences(len(self._open().validation), context=context, max_tokens=self.validation_tokens)
        trained, evaluated = num_steps * settings.batch_size, num_evaluations * num_validation
        flops = trained * sizes.train_flops_per_token(context) + evaluated * sizes.evaluate_flops_per_token(context)
        return Cost(samples=trained + evaluated, tokens=(trained + evaluated) * context, flops=flops * context)

    def stable_end(self, hyperparameters: Hyperparameters) -> int | None:
        """See `Trainer.stable_end`."""
        settings = PretrainHyperparameters.parse(hyperparameters)
        step = settings.batch_size * self.model.context
        if settings.is_cyclic:
            return -(-settings.tokens // step) * step
        start = settings.decay_start(settings.tokens)
        return None if start is None else int(start // step) * step

    def extended(self, hyperparameters: Hyperparameters, horizon: int) -> Hyperparameters:
        """`tokens`, and a warm-up that is a share of the old horizon as so many tokens."""
        settings = PretrainHyperparameters.parse(hyperparameters)
        return settings.extended(hyperparameters, settings.tokens, horizon)

    def fixed_at_start(self, names: Iterable[str]) -> Mapping[str, str]:
        """See `Trainer.fixed_at_start`."""
        return PretrainHyperparameters.fixed_at_start(names)

    def memory_bytes(self, hyperparameters: Hyperparameters) -> int | None:
        """Weights, gradients, moments, activations and logits; see `thalweg.train.memory`."""
        from thalweg.train.held_out import num_sequences
        from thalweg.train.memory import Batches, predict_memory

        batch_size, context = PretrainHyperparameters.parse(hyperparameters).batch_size, self.model.context
        num_validation = num_sequences(len(self._open().validation), context=context, max_tokens=self.validation_tokens)
        batches = Batches(
            rows=min(batch_size, self.micro_batch),
            length=context,
            is_accumulated=batch_size > self.micro_batch,
            held_out_rows=min(num_validation, self.micro_batch),
            held_out_length=context,
        )
        copies, bf16 = 2 if self.compile else 1, self._precision().bf16
        return predict_memory(self._count(), batches, copies=copies, bf16=bf16, dropout=False)

    def setup(self) -> None:
        """Map the tokens, and make ready what runs share in this process."""
        import torch

        from thalweg.train.held_out import HeldOut
        from thalweg.train.pretrain_loop import CompiledModel, PretrainWorkplace, build

        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        tokens, how = self._open(), self._precision()
        validation = HeldOut.of(
            tokens, tokens.validation, context=self.model.context, max_tokens=self.validation_tokens
        )
        options: dict[str, Any] = {
            "tokens": tokens,
            "validation": validation,
            "config": self._config(),
            "mup": None if self.mup is None else self.mup.settings(self.model),
            "sizes": self._measure(),
            "context": self.model.context,
            "how": how,
            "micro_batch": self.micro_batch,
            "evaluations": self.evaluations,
            "decay_embeddings": self.decay_embeddings,
            "clip_components": self.clip_components,
            "monitor_every": self.monitor_every,
            "peak_flops": self.peak_flops or known_peak_flops(how),
        }
        self._work = PretrainWorkplace(**options)
        if self.compile:
            compiled = CompiledModel(build(self._work, seed=0))
            self._work = PretrainWorkplace(**options, compiled=compiled)

    def probe(self) -> float | None:
        """FLOPs per second of a micro-batch's forward and backward pass, the second of two."""
        from thalweg.train import checkpoint
        from thalweg.train.pretrain_loop import build
        from thalweg.train.windows import Windows

        work = self._loaded()
        before = checkpoint.capture_rng()
        model = build(work, seed=0)
        forward = model if work.compiled is None else work.compiled.forward
        windows = Windows(work.tokens.train.ids, context=work.context, seed=0)
        inputs, targets = windows.batch(0, min(self.micro_batch, windows.num_windows))
        seconds = 0.0
        for _ in range(2):
            started = time.perf_counter()
            loss = work.how.mean_loss(forward, work.how.to_device(inputs), work.how.to_device(targets))
            loss.backward()  # type: ignore[no-untyped-call]
            float(loss.detach())
            if work.how.device.type == "cuda":
                import torch

                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        checkpoint.restore_rng(before)
        return inputs.size * work.sizes.train_flops_per_token(work.context) / seconds

    def train(self, runs: Sequence[ActiveRun]) -> None:
        """Carry one run on to its `until`: train, save, evaluate, report.

        Raises:
            Diverged: the loss or the gradient is not finite.
            RunInterrupted: the run was asked to stop, and its checkpoint is written.
        """
        from thalweg.train.pretrain_loop import PretrainLoop

        for run in runs:
            PretrainLoop(run, self._loaded(), PretrainHyperparameters.parse(run.hyperparameters)).train()

    def test(self, run: ActiveRun) -> Mapping[str, Estimate]:
        """Evaluate the checkpoint at `run.start` on the test split; empty where there is none."""
        from thalweg.train.evaluate import Meter
        from thalweg.train.pretrain_loop import build
        from thalweg.train.run_loop import load_weights

        work, held_out = self._loaded(), self._held_out("test")
        if not len(held_out):
            return {}
        meter = Meter(run.spend)
        model = build(work, run.seed)
        if (state := run.restore()) is not None:
            load_weights(dict(model.named_parameters()), state["model"])
        flops_per_token = work.sizes.evaluate_flops_per_token(work.context)

        def each_batch(num_sequences: int) -> None:
            num_tokens = num_sequences * work.context
            meter.add(samples=num_sequences, tokens=num_tokens, flops=num_tokens * flops_per_token)
            if run.should_stop():
                meter.enter("evaluate")
                raise RunInterrupted
            if meter.due:
                meter.enter("evaluate")

        outcomes = held_out.losses(model, work.how, micro_batch=self.micro_batch, each_batch=each_batch)
        meter.enter("evaluate")
        return held_out.estimates(outcomes)

    def evaluate_weights(
        self,
        weights: Mapping[str, Tensor],
        *,
        hyperparameters: Hyperparameters,
        split: Literal["train", "validation", "test"] = "validation",
    ) -> dict[str, float]:
        """Evaluate any weights of this model's shape, such as those between two checkpoints. Needs `setup`.

        Args:
            weights: as under `model` in a checkpoint's state.
            hyperparameters: the run's; the model's shape does not depend on them.
        Returns:
            Loss, perplexity and bits per byte; on the training split, on as many tokens as on the validation split.
        Raises:
            ConfigError: weights of another shape, or a split that is empty.
        """
        from thalweg.train.pretrain_loop import build
        from thalweg.train.run_loop import load_weights

        work, held_out = self._loaded(), self._held_out(split)
        if not len(held_out):
            raise ConfigError(f"split = {split!r}: the data has none")
        model = build(work, seed=0)
        load_weights(dict(model.named_parameters()), weights)
        outcomes = held_out.losses(model, work.how, micro_batch=self.micro_batch, each_batch=lambda _: None)
        return held_out.summarize(outcomes)

    def _check_batch_sizes(self, space: Space) -> None:
        num_sequences = num_windows(len(self._open().train), self.model.context)
        for name in space.names:
            if name != PretrainHyperparameters.spelled({name: 0}, "batch_size"):
                continue
            dimension = space.dimensions.get(name)
            if dimension is None:
                values: tuple[Any, ...] = (space.fixed[name],)
            else:
                values = dimension.options if isinstance(dimension, Choice) else (dimension.high,)
            if (largest := max(values)) > num_sequences:
                raise ConfigError(
                    f"{name} = {largest}: a single step would take more than all of the training text, which has"
                    f" {num_sequences} sequences of {self.model.context} tokens; use at most {num_sequences}"
                )

    def _open(self) -> CorpusTokens:
        from thalweg.train.token_files import open_tokens, prepare

        if self._tokens is None:
            try:
                if self._folder is None:
                    raise FileNotFoundError
                self._tokens = open_tokens(self._folder)
            except FileNotFoundError:
                self._folder = prepare(self.data, self.model.vocabulary)
                self._tokens = open_tokens(self._folder)
        return self._tokens

    def _vocabulary(self) -> int:
        known, wanted = self._open().vocabulary, self.model.vocabulary
        if wanted is not None and wanted < known:
            raise ConfigError(
                f"model.vocabulary = {wanted}: the tokenizer {self.data.tokenizer!r} knows {known}; set at least that"
                " many, or leave it out"
            )
        return known if wanted is None else wanted

    def _config(self) -> Any:
        return self.model.config(vocabulary=self._vocabulary())

    def _loaded(self) -> PretrainWorkplace:
        assert self._work is not None, "setup() comes first"
        return self._work

    def _held_out(self, split: Literal["train", "validation", "test"]) -> HeldOut:
        from thalweg.train.held_out import HeldOut

        if split == "validation":
            return self._loaded().validation
        tokens = self._open()
        max_tokens = self.test_tokens if split == "test" else self.validation_tokens
        return HeldOut.of(tokens, getattr(tokens, split), context=self.model.context, max_tokens=max_tokens)

    def _measure(self) -> Sizes:
        if self._sizes is None:
            from thalweg.train.llama import skeleton
            from thalweg.train.sizes import measure

            self._sizes = measure(skeleton(self._config()))
        return self._sizes

    def _count(self) -> Footprint:
        if self._footprint is None:
            from thalweg.train.llama import skeleton
            from thalweg.train.memory import footprint

            self._footprint = footprint(skeleton(self._config()), is_causal=True)
        return self._footprint

    def _precision(self) -> Precision:
        import torch

        from thalweg.train.evaluate import has_bf16
        from thalweg.train.held_out import Precision

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        large = device.type != "cpu" or self.model.num_non_embedding() >= _BF16_FROM
        bf16 = self.precision == "bf16" or (self.precision == "auto" and large and has_bf16(device))
        return Precision(device=device, bf16=bf16)


def known_peak_flops(how: Precision) -> float | None:
    """What the device can do at most; None where that is not known."""
    import torch

    if how.device.type != "cuda" or not how.bf16:
        return None
    name = torch.cuda.get_device_name(how.device)
    return next((flops for part, flops in _PEAK_FLOPS.items() if part in name), None)
