"""Aim, a local repository: a whole dictionary in one `track`.

In a training loop its tracking thread is on, as its documentation has it for fast loops.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from aim import Repo, Run
from aim.sdk import repo
from aim.sdk.configs import AIM_ENABLE_TRACKING_THREAD
from aim.storage.context import Context
from workload import METRIC, NUM_LATEST, Logging, hyperparameters, latest

PACKAGES = ["aim"]

_QUIET = {"system_tracking_interval": None, "log_system_params": False, "capture_terminal_logs": False}


def prepare(folder: Path) -> None:
    """Make the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    Repo.from_path(str(folder), init=True)


def open_run(folder: Path, name: str, *, bulk: bool) -> Logging:
    """A run that is open for logging; `bulk`: without its thread, which adds work and drops calls if it lags."""
    if bulk:
        os.environ.pop(AIM_ENABLE_TRACKING_THREAD, None)
    else:
        # Read when it is imported, which has happened; so the queue is made the way that it would have been.
        os.environ[AIM_ENABLE_TRACKING_THREAD] = "1"
        Repo.tracking_queue = repo._get_tracking_queue()
    run = Run(repo=str(folder), **_QUIET)
    run.name = name

    def log(step: int, metrics: Mapping[str, float]) -> None:
        run.track(dict(metrics), step=step)

    def finish() -> None:
        if not bulk:
            Repo.tracking_queue._queue.join()
        run.close()

    return Logging(log, finish)


def index(folder: Path) -> None:
    """What `aim storage reindex` does, or its server where one runs: without it other processes see no run."""
    Repo.from_path(str(folder))._recreate_index()


def read(folder: Path) -> Sequence[object]:
    """All values of the one run's series, as a NumPy array: the fastest way that it has."""
    _, (values, *_) = _metric(folder).data.numpy()
    return values


def reduce(folder: Path, num: int) -> Sequence[object]:
    """The first of the values in the order of a hash of their steps: a random sample, which reads nothing else."""
    _, (values, *_) = _metric(folder).data.sample(num).numpy()
    return values


def create_runs(folder: Path, num: int, deadline: float) -> int:
    """As many runs as there is time for."""
    for number in range(num):
        if time.monotonic() > deadline:
            return number
        run = Run(repo=str(folder), **_QUIET)
        run.name = f"run {number}"
        run["hparams"] = hyperparameters(number)
        run.track(latest(number), step=1)
        run.close()
    return num


def list_runs(folder: Path) -> int:
    """All runs with hyperparameters and last values."""
    num = 0
    repository = Repo.from_path(str(folder))
    for name in repository.list_all_runs():
        run = repository.get_run(name)
        assert len(run.get("hparams")) == 3
        last = run.collect_sequence_info(("metric",))
        assert len(last["metric"]) == NUM_LATEST
        num += 1
    return num


def _metric(folder: Path):  # type: ignore[no-untyped-def]
    repository = Repo.from_path(str(folder))
    (name,) = repository.list_all_runs()
    return repository.get_run(name).get_metric(METRIC, Context({}))
