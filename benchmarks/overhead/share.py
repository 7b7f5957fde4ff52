"""What the study loop and the store take beside a run that trains for a minute.

The function computes 20 ms at a time, as its thread's own CPU clock has it, and logs 10 metrics after each; 3,000
times. Whatever else the worker's process uses (logging, the writer's thread with its commits and compaction, progress)
and all that the loop's process uses meanwhile (the loop, the store and, in a second study, the live display) is counted
as CPU time, from the function's first step until half a second after the run's end. Besides, the wall time that the
function spends between its computations, of which the same function without thalweg takes some too.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from thalweg.budget import Budget
from thalweg.space import Space
from thalweg.study import Study, run_study
from thalweg.track.store import Store
from thalweg.train.function import FunctionTrainer
from thalweg.tree import Metric

STEP_SECONDS = 0.02
METRICS = [f"train/metric_{i}" for i in range(10)]


class BareRun:
    """The function's run without thalweg: it counts positions and lets go of what is logged."""

    def __init__(self, num_steps: int) -> None:
        self.hyperparameters = {"x": 0.5}
        self.num_steps = num_steps

    def positions(self) -> Iterator[int]:
        yield from range(1, self.num_steps + 1)

    def log(self, position: int, /, **metrics: float) -> None: ...


def train(run: Any, notes: Path) -> dict[str, float]:
    """Compute and log; write down what the computing itself took."""
    matrix_NN = np.random.default_rng(0).normal(size=(64, 64))
    own_cpu = own_wall = 0.0
    wall = time.perf_counter()
    cpu = time.process_time()
    began = time.time()
    for position in run.positions():
        piece_cpu, piece_wall = time.thread_time(), time.perf_counter()
        until = piece_cpu + STEP_SECONDS
        while (now := time.thread_time()) < until:
            matrix_NN @ matrix_NN
        own_cpu += now - piece_cpu
        own_wall += time.perf_counter() - piece_wall
        run.log(position, **dict.fromkeys(METRICS, position * 0.5))
    facts = {
        "began": began,
        "stopped": time.time(),
        "cpu": time.process_time() - cpu,
        "own_cpu": own_cpu,
        "own_wall": own_wall,
        "wall": time.perf_counter() - wall,
    }
    notes.write_text(json.dumps(facts))
    return {"score": float(run.hyperparameters["x"])}


def bare(folder: Path, num_steps: int) -> dict[str, Any]:
    """The function by itself: seconds a step, and percent of the wall time between its computations."""
    notes = folder / "bare.json"
    train(BareRun(num_steps), notes)
    found = json.loads(notes.read_text())
    return {
        "bare_wall_between_computations_percent": 100 * (found["wall"] - found["own_wall"]) / found["wall"],
        "bare_computing_ms_a_step": 1e3 * found["own_wall"] / num_steps,
    }


def share(folder: Path, num_steps: int, *, display: bool) -> dict[str, Any]:
    """Percent of the run's wall time: CPU of the loop's process, CPU of the worker beyond the function, and both.

    Args:
        display: draw the live display, as on a terminal.
    """
    notes = folder / "notes.json"
    study = Study(
        name="share",
        space=Space.parse({"x": {"linear": [0.0, 1.0]}}),
        metric=Metric.parse("max score"),
        trainer=FunctionTrainer(lambda run: train(run, notes), horizon=num_steps),
        budget=Budget.parse("1 run"),
        strategy={"name": "random"},
        workers=1,
    )
    samples = Samples()
    with samples, open(os.devnull, "w") as nowhere:
        # A terminal as far as rich can tell.
        console = Console(file=nowhere, force_terminal=True, width=120)
        run_study(study, folder / "store.db", console=console, quiet=not display)
    with Store.open(folder / "store.db", read_only=True) as store:
        ended = store.run_times("share-0").ended
        assert len(store.series("share-0", METRICS[0]).positions) == num_steps
    assert ended is not None
    ours = json.loads(notes.read_text())
    wall = ours["wall"]
    loop_percent = 100 * samples.between(ours["began"], ended + 0.5) / wall
    # What follows the function (the last commit, compaction) is counted as if it had been computing all the time.
    worker_percent = 100 * (ours["cpu"] - ours["own_cpu"] + ended - ours["stopped"]) / wall
    return {
        "run_seconds": wall,
        "loop_cpu_percent": loop_percent,
        "worker_cpu_beyond_the_function_percent": worker_percent,
        "total_cpu_percent": loop_percent + worker_percent,
        "wall_between_computations_percent": 100 * (wall - ours["own_wall"]) / wall,
        "computing_ms_a_step": 1e3 * ours["own_wall"] / num_steps,
    }


@dataclass
class Samples:
    """CPU seconds of this process, looked at four times a second; that is counted too."""

    taken: list[tuple[float, float]] = field(default_factory=list)
    """(time, CPU seconds)"""
    _closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Samples:
        # Now, as the worker may begin within the thread's first wait.
        self.taken.append((time.time(), time.process_time()))
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._thread.join()

    def between(self, began: float, ended: float) -> float:
        """CPU seconds."""
        before = max(cpu for when, cpu in self.taken if when <= began)
        return max(cpu for when, cpu in self.taken if when <= ended) - before

    def _work(self) -> None:
        while not self._closing.wait(0.25):
            self.taken.append((time.time(), time.process_time()))
