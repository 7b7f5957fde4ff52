"""Thalweg itself, measured the same way: `thalweg.init`, `log`, `finish`."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import commit_waits
import numpy as np
from workload import METRIC, NUM_LATEST, Logging, hyperparameters, latest

import thalweg
from thalweg.track.records import NewRun
from thalweg.track.store import Store

PACKAGES = ["thalweg"]

EXACT = True
"""Its reduction has the exact extremes of all points."""


def prepare(folder: Path) -> None:
    """Make the store."""
    Store.open(store_file(folder)).close()


def open_run(folder: Path, name: str, *, bulk: bool) -> Logging:
    """A run that is open for logging; one way serves both purposes."""
    run = thalweg.init("benchmark", name=name, store=store_file(folder), system_seconds=0, code=False)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        run.log(metrics, step=step)

    return Logging(log, run.finish)


def read(folder: Path) -> Sequence[object]:
    """All points of the one run's series: positions, times and values."""
    store = _opened(store_file(folder))
    return store.series(_only_run(store), METRIC).values  # type: ignore[return-value]


def reduce(folder: Path, num: int) -> Sequence[object]:
    """The exact extremes of buckets."""
    store = _opened(store_file(folder))
    return store.reduced(_only_run(store), METRIC, num_buckets=num)  # type: ignore[return-value]


def create_runs(folder: Path, num: int, deadline: float) -> int:
    """As its importers make them."""
    with Store.open(store_file(folder)) as store:
        store.create_project("benchmark")
        now = int(time.time() * 1000)
        for number in range(num):
            if time.monotonic() > deadline:
                return number
            new = NewRun(
                uid=f"uid-{number}",
                name=f"run {number}",
                hyperparameters=hyperparameters(number),
                status="finished",
                started=now / 1000,
                ended=now / 1000,
            )
            run_id, _ = store.track_run("benchmark", new)
            for metric, value in latest(number).items():
                store.import_points(run_id, metric, np.array([1_000_000]), np.array([now]), np.array([value]))
    return num


def list_runs(folder: Path) -> int:
    """All runs with hyperparameters and last values."""
    rows = _opened(store_file(folder)).run_rows("benchmark")
    assert all(len(row.hyperparameters) == 3 and len(row.latest) == NUM_LATEST for row in rows)
    return len(rows)


watch_commits = commit_waits.watch


def store_file(folder: Path) -> Path:
    """Where the store is."""
    return folder / "store.db"


@functools.cache
def _opened(path: Path) -> Store:
    # Once, as a server has it open; those trackers that have a client keep it open, too.
    return Store.open(path)


def _only_run(store: Store) -> str:
    return store.run_rows("benchmark")[0].id
