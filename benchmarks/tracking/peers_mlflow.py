"""MLflow, in a local SQLite store.

`log_batch`, always full, where only the sum counts; in a training loop its asynchronous `log_metrics`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param
from workload import METRIC, Logging, hyperparameters, latest

PACKAGES = ["mlflow"]

_BATCH = 1000
"""The most metrics that one `log_batch` takes."""

logging.disable(logging.INFO)


def prepare(folder: Path) -> None:
    """Make the database: many processes that make it at once fail."""
    folder.mkdir(parents=True, exist_ok=True)
    _client(folder).create_experiment("benchmark", str(folder / "artifacts"))


def open_run(folder: Path, name: str, *, bulk: bool) -> Logging:
    """A run that is open for logging; `bulk`: only the sum of the time counts."""
    client = _client(folder)
    experiment = client.get_experiment_by_name("benchmark")
    assert experiment is not None
    run_id = client.create_run(experiment.experiment_id, run_name=name).info.run_id
    if not bulk:
        mlflow.set_tracking_uri(_uri(folder))

        def log_async(step: int, metrics: Mapping[str, float]) -> None:
            mlflow.log_metrics(dict(metrics), step=step, run_id=run_id, synchronous=False)

        def flush() -> None:
            mlflow.flush_async_logging()
            client.set_terminated(run_id)

        return Logging(log_async, flush)
    batch: list[Metric] = []

    def log(step: int, metrics: Mapping[str, float]) -> None:
        now = time.time_ns() // 1_000_000
        for metric, value in metrics.items():
            batch.append(Metric(metric, value, now, step))
            if len(batch) == _BATCH:
                client.log_batch(run_id, metrics=batch)
                batch.clear()

    def finish() -> None:
        if batch:
            client.log_batch(run_id, metrics=batch)
        client.set_terminated(run_id)

    return Logging(log, finish)


def read(folder: Path) -> Sequence[object]:
    """All points of the one run's series."""
    client = _client(folder)
    return client.get_metric_history(_only_run(client), METRIC)


def reduce(folder: Path, num: int) -> Sequence[object]:
    """Evenly sampled in SQL, as its own pages ask for it."""
    client = _client(folder)
    store = client._tracking_client.store
    return store.get_metric_history_bulk_interval([_only_run(client)], METRIC, num, None, None)


def create_runs(folder: Path, num: int, deadline: float) -> int:
    """As many runs as there is time for."""
    client = _client(folder)
    experiment = client.get_experiment_by_name("benchmark")
    assert experiment is not None
    for number in range(num):
        if time.monotonic() > deadline:
            return number
        run_id = client.create_run(experiment.experiment_id, run_name=f"run {number}").info.run_id
        metrics = [Metric(name, value, 0, 1) for name, value in latest(number).items()]
        params = [Param(name, str(value)) for name, value in hyperparameters(number).items()]
        client.log_batch(run_id, metrics=metrics, params=params)
        client.set_terminated(run_id)
    return num


def list_runs(folder: Path) -> int:
    """All runs with hyperparameters and last values."""
    client = _client(folder)
    found = client.search_runs(_experiment_ids(client), max_results=50_000)
    assert all(len(run.data.params) == 3 and len(run.data.metrics) == 3 for run in found)
    return len(found)


def _client(folder: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=_uri(folder))


def _uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def _experiment_ids(client: mlflow.MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments()]


def _only_run(client: mlflow.MlflowClient) -> str:
    return client.search_runs(_experiment_ids(client))[0].info.run_id
