"""GoodSeed, local: `log_metrics` commits at each call; it has no batch over steps and no thread."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import goodseed
from goodseed import server, storage
from workload import METRIC, NUM_LATEST, Logging, hyperparameters, latest

PACKAGES = ["goodseed"]

EXACT = True
"""Its reduction has the extremes of all points."""

_QUIET = {
    "capture_hardware_metrics": False,
    "capture_stdout": False,
    "capture_stderr": False,
    "capture_traceback": False,
    "git_ref": False,
}


def prepare(folder: Path) -> None:
    """A folder, which holds a file for each run."""
    folder.mkdir(parents=True, exist_ok=True)


def open_run(folder: Path, name: str, *, bulk: bool) -> Logging:
    """A run that is open for logging; one way serves both purposes."""
    run = _run(folder, name)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        run.log_metrics(dict(metrics), step=step)

    return Logging(log, run.close)


def read(folder: Path) -> Sequence[object]:
    """All points of the one run's series, as its server reads them."""
    return storage.read_metrics(_file(folder), METRIC)


def reduce(folder: Path, num: int) -> Sequence[object]:
    """Averages and extremes of buckets, made in SQL, as its server makes them."""
    reduced = storage.downsample_metrics(_file(folder), METRIC, num)
    assert reduced["downsampled"]
    return reduced["points"]


def create_runs(folder: Path, num: int, deadline: float) -> int:
    """As many runs as there is time for."""
    for number in range(num):
        if time.monotonic() > deadline:
            return number
        run = _run(folder, f"run-{number}")
        run.log_configs(hyperparameters(number))
        run.log_metrics(latest(number), step=1)
        run.close()
    return num


def list_runs(folder: Path) -> int:
    """All runs with their metrics' names, as its server lists them; values take a call for each run."""
    runs = server._scan_runs(folder / "projects")
    assert all(len(run["metric_paths"]) == NUM_LATEST for run in runs)
    return len(runs)


def _run(folder: Path, name: str) -> goodseed.Run:
    return goodseed.Run(
        project="benchmark", run_id=name, name=name, storage="local", goodseed_home=str(folder), **_QUIET
    )


def _file(folder: Path) -> Path:
    return next((folder / "projects").glob("**/*.sqlite"))
