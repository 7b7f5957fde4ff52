"""trackio, local: `log` appends to a queue, a thread writes it to SQLite, `finish` waits for that."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from workload import Logging, hyperparameters, latest

PACKAGES = ["trackio"]


def prepare(folder: Path) -> None:
    """Its folder's name is read once, when it is imported."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio  # noqa: F401


def open_run(folder: Path, name: str, *, bulk: bool) -> Logging:
    """A run that is open for logging; one way serves both purposes."""
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    run = trackio.init(project="benchmark", name=name, embed=False, auto_log_gpu=False, auto_log_cpu=False)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        run.log(dict(metrics), step=step)

    def finish() -> None:
        run.finish()
        # It gives up after 30 s of waiting, and goes on in its thread.
        while run._local_sender_thread is not None and run._local_sender_thread.is_alive():
            run._local_sender_thread.join()

    return Logging(log, finish)


def read(folder: Path) -> Sequence[object]:
    """All rows of the run, as its dashboard reads them: its API has no call for a curve."""
    return _logs(folder, None)


def reduce(folder: Path, num: int) -> Sequence[object]:
    """Every so many rows, its own reduction for its dashboard."""
    return _logs(folder, num)


def create_runs(folder: Path, num: int, deadline: float) -> int:
    """Straight into its storage, as its import does: a run of its own starts threads and takes far longer."""
    storage = _storage(folder)
    for number in range(num):
        if time.monotonic() > deadline:
            return number
        name = f"run {number}"
        storage.bulk_log("benchmark", name, [latest(number)], [1], config=hyperparameters(number), run_id=name)
    return num


def list_runs(folder: Path) -> int:
    """Runs and their hyperparameters in two calls; it keeps no last values, which take a call for each run."""
    storage = _storage(folder)
    records, configs = storage.get_run_records("benchmark"), storage.get_all_run_configs("benchmark")
    assert len(records) == len(configs)
    return len(records)


def _logs(folder: Path, max_points: int | None) -> Sequence[object]:
    storage = _storage(folder)
    record = storage.get_run_records("benchmark")[0]
    return storage.get_logs("benchmark", record["name"], max_points=max_points, run_id=record["id"])


def _storage(folder: Path):  # type: ignore[no-untyped-def]
    os.environ["TRACKIO_DIR"] = str(folder)
    from trackio.sqlite_storage import SQLiteStorage

    return SQLiteStorage
