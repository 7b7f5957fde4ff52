"""The same points written by other trackers, each in its fastest documented way.

Each function returns the seconds from the first point until all of them are on disk. What comes before, such as
creating databases and runs, is not counted for any of them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import mlflow
from mlflow.entities import Metric
from tensorboard.summary import Writer

Calls = Sequence[tuple[int, Mapping[str, float]]]
"""(position, metrics) of each log call."""

_BATCH = 1000
"""MLflow takes at most so many metrics in a `log_batch`; the plain table commits as many rows at a time."""


def write_mlflow(calls: Calls, folder: Path) -> float:
    """`log_batch`, always full, into a local SQLite store."""
    logging.disable(logging.INFO)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    run_id = client.create_run(client.create_experiment("benchmark", str(folder / "artifacts"))).info.run_id
    start = time.perf_counter()
    batch: list[Metric] = []
    for position, metrics in calls:
        now = time.time_ns() // 1_000_000
        for name, value in metrics.items():
            batch.append(Metric(name, value, now, position))
            if len(batch) == _BATCH:
                client.log_batch(run_id, metrics=batch)
                batch = []
    if batch:
        client.log_batch(run_id, metrics=batch)
    seconds = time.perf_counter() - start
    client.set_terminated(run_id)
    return seconds


def write_trackio(calls: Calls, folder: Path) -> float:
    """`log` of a local run; its thread writes to SQLite, `finish` waits for it."""
    trackio = _trackio(folder)
    # It prints where its dashboard is.
    with contextlib.redirect_stdout(io.StringIO()):
        run = trackio.init(project=folder.name, name="benchmark", embed=False, auto_log_gpu=False, auto_log_cpu=False)
        start = time.perf_counter()
        for position, metrics in calls:
            run.log(dict(metrics), step=position)
        run.finish()
        return time.perf_counter() - start


def write_trackio_bulk(calls: Calls, folder: Path) -> float:
    """What trackio's thread calls, called directly, 1,000 log calls at a time: no queue and no waiting."""
    _trackio(folder)
    from trackio.sqlite_storage import SQLiteStorage

    steps, metrics = [position for position, _ in calls], [dict(metrics) for _, metrics in calls]
    start = time.perf_counter()
    for i in range(0, len(calls), _BATCH):
        SQLiteStorage.bulk_log(f"{folder.name}-bulk", "benchmark", metrics[i : i + _BATCH], steps[i : i + _BATCH])
    return time.perf_counter() - start


def write_tensorboard(calls: Calls, folder: Path) -> float:
    """TensorBoard's own scalar writer, which torch's SummaryWriter puts a layer on."""
    writer = Writer(str(folder / "tensorboard"))
    start = time.perf_counter()
    for position, metrics in calls:
        for name, value in metrics.items():
            writer.add_scalar(name, value, position)
    writer.close()
    return time.perf_counter() - start


def write_rows(calls: Calls, folder: Path) -> float:
    """A table with a row for each point, in WAL mode, committed every 1,000 rows."""
    database = sqlite3.connect(folder / "rows.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("CREATE TABLE point (run INT, metric TEXT, step INT, time REAL, value REAL)")
    database.execute("CREATE INDEX point_by_metric ON point (run, metric, step)")
    start = time.perf_counter()
    rows: list[tuple[int, str, int, float, float]] = []
    for position, metrics in calls:
        now = time.time()
        rows += [(1, name, position, now, value) for name, value in metrics.items()]
        if len(rows) >= _BATCH:
            database.executemany("INSERT INTO point VALUES (?, ?, ?, ?, ?)", rows)
            database.commit()
            rows = []
    database.executemany("INSERT INTO point VALUES (?, ?, ?, ?, ?)", rows)
    database.commit()
    seconds = time.perf_counter() - start
    database.close()
    return seconds


PEERS: dict[str, Callable[[Calls, Path], float]] = {
    "mlflow": write_mlflow,
    "trackio": write_trackio,
    "trackio, its storage alone": write_trackio_bulk,
    "tensorboard": write_tensorboard,
    "sqlite rows": write_rows,
}


def _trackio(folder: Path):  # type: ignore[no-untyped-def]
    # It reads its folder's name once, when it is imported.
    os.environ.setdefault("TRACKIO_DIR", str(folder.parent / "trackio"))
    import trackio

    return trackio
