"""TensorBoard: its own scalar writer, which torch's SummaryWriter puts a layer on, and its own event reader."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.summary import Writer
from workload import METRIC, NUM_LATEST, Logging, latest

PACKAGES = ["tensorboard"]


def prepare(folder: Path) -> None:
    """A folder, which holds one of each run."""
    folder.mkdir(parents=True, exist_ok=True)


def open_run(folder: Path, name: str, *, bulk: bool) -> Logging:
    """A run that is open for logging; one way serves both purposes."""
    writer = Writer(str(folder / name))

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for metric, value in metrics.items():
            writer.add_scalar(metric, value, step)

    return Logging(log, writer.close)


def read(folder: Path) -> Sequence[object]:
    """All points of the one run's series. Values are 32-bit."""
    return _scalars(folder, 0)


def reduce(folder: Path, num: int) -> Sequence[object]:
    """A random sample of the points, which its event reader keeps while it reads the file."""
    return _scalars(folder, num)


def create_runs(folder: Path, num: int, deadline: float) -> int:
    """As many runs as there is time for; without hyperparameters, for which it needs a plugin."""
    for number in range(num):
        if time.monotonic() > deadline:
            return number
        writer = Writer(str(folder / f"run {number}"))
        for metric, value in latest(number).items():
            writer.add_scalar(metric, value, 1)
        writer.close()
    return num


def list_runs(folder: Path) -> int:
    """All runs with their metrics' names."""
    found = EventMultiplexer(size_guidance={"scalars": 1})
    found.AddRunsFromDirectory(str(folder))
    found.Reload()
    runs = found.Runs()
    assert all(len(tags["tensors"]) == NUM_LATEST for tags in runs.values())
    return len(runs)


def _scalars(folder: Path, num: int) -> Sequence[object]:
    reader = EventAccumulator(str(folder / "filled"), size_guidance={"tensors": num})
    reader.Reload()
    return list(reader.Tensors(METRIC))
