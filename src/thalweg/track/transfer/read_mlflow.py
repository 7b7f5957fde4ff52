"""MLflow: a folder of runs (`mlruns`), an SQLite file (`mlflow.db`) or another database by its URL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from thalweg.errors import ConfigError
from thalweg.track.transfer.incoming import Outline, Record, Skipped
from thalweg.track.transfer.mlflow_run import artifacts, run_record, series_records
from thalweg.track.transfer.read_mlflow_folder import read_mlflow_folder

_PAGE = 1000


def read_mlflow(location: str) -> Iterator[Record]:
    """A run for each active run of each active experiment.

    Args:
        location: a folder, a file, or a URL such as sqlite:///mlflow.db or postgresql://user@host/mlflow.
    Raises:
        ConfigError: the package mlflow is missing, or there is no MLflow store that it can read.
    """
    path = _path(location)
    if path is not None and path.is_dir():
        yield from read_mlflow_folder(path)
        return
    if path is not None:
        _check_file(location, path)
    client = _client(location, location if path is None else f"sqlite:///{path.resolve()}")
    yield from _read_database(client)


def _path(location: str) -> Path | None:
    """The folder or file that is meant, or None for another URL."""
    if location.startswith("sqlite:///"):
        return Path(location.removeprefix("sqlite:///"))
    if location.startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    return None if "://" in location else Path(location)


def _check_file(location: str, path: Path) -> None:
    """Look before MLflow does: it would make what is not there."""
    if not path.is_file():
        raise ConfigError(f"{location!r} does not exist; name an 'mlruns' folder, an 'mlflow.db' file or a URL")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{location!r} is no SQLite file that can be read: {error}") from error
    if not {"experiments", "runs", "metrics"} <= names:
        raise ConfigError(f"{location!r} is an SQLite file, but not MLflow's: it has no table of runs")


def _client(location: str, uri: str) -> Any:
    # MLflow must not send word of an import to anyone.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise ConfigError("reading an MLflow database needs its package: pip install 'thalweg[import]'") from error
    try:
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise ConfigError(f"MLflow cannot open {location!r}: {error}") from error
    return client


def _pages(page: Callable[[str | None], Any]) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        part = page(token)
        found += part
        token = part.token
        if not token:
            return found


def _runs(client: Any, experiment_id: str) -> list[Any]:
    from mlflow.entities import ViewType

    return _pages(
        lambda token: client.search_runs(
            [experiment_id],
            run_view_type=ViewType.ALL,
            max_results=_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
    )


def _read_database(client: Any) -> Iterator[Record]:
    experiments = _pages(lambda token: client.search_experiments(page_token=token, max_results=_PAGE))
    runs = {experiment.experiment_id: _runs(client, experiment.experiment_id) for experiment in experiments}
    yield Outline(num_runs=sum(len(found) for found in runs.values()))
    for experiment in sorted(experiments, key=lambda experiment: int(experiment.experiment_id)):
        num_deleted = 0
        for run in runs[experiment.experiment_id]:
            if run.info.lifecycle_stage == "deleted":
                num_deleted += 1
                continue
            yield from _read_run(client, experiment.name, run)
        if num_deleted:
            yield Skipped(place=f"experiment {experiment.name!r}", reason=f"{num_deleted:,} deleted runs")


def _read_run(client: Any, experiment: str, run: Any) -> Iterator[Record]:
    names = ("run_id", "run_name", "status", "start_time", "end_time", "artifact_uri")
    info = {name: getattr(run.info, name) for name in names}
    datasets = run.inputs.dataset_inputs if run.inputs is not None else ()
    info |= {f"dataset/{given.dataset.name}": given.dataset.digest for given in datasets}
    yield run_record(experiment, info, run.data.params, run.data.tags, artifacts(info["artifact_uri"]))
    for metric in sorted(run.data.metrics):
        history = client.get_metric_history(info["run_id"], metric)
        points = [(point.step, point.timestamp, point.value) for point in history]
        yield from series_records(info["run_id"], metric, points)
