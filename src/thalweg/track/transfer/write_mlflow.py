"""A project as an MLflow experiment: a run for each run, in an SQLite file or at any tracking URI.

A run is known by its tag `thalweg.uid`: exporting twice adds only the points, hyperparameters and tags that are not
there yet. Its parent is its parent in MLflow too, and the points that it inherits are among its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import posixpath
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import ConfigError, StoreError
from thalweg.track.positions import to_step
from thalweg.track.query_arrow import need
from thalweg.track.query_columns import as_text
from thalweg.track.query_points import ChosenRun, Curve, read_curves
from thalweg.track.records import RunRow
from thalweg.track.transfer.write_selection import (
    Exported,
    Progress,
    Selection,
    check_steps,
    left_behind,
    whole_steps_of,
)

_FORM = "MLflow"

# What one call of MLflow takes.
_METRICS_PER_CALL = 1000
_ENTRIES_PER_CALL = 100
_KEY_CHARACTERS = 250
_TEXT_CHARACTERS = 5000
_GREATEST = float(np.finfo(np.float64).max)

_STATUS = {
    "pending": "SCHEDULED",
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "interrupted": "KILLED",
}
"""What MLflow calls it; all else has failed."""


_SCALE_TAG = "thalweg.step_scale"


@dataclass
class _Changes:
    """What could not be taken over as it is."""

    num_infinite: int = 0
    num_shortened: int = 0
    renamed: set[str] = field(default_factory=set)
    different: list[str] = field(default_factory=list)

    def key(self, name: str) -> str:
        """A name as MLflow's, noted where it is another."""
        key = mlflow_key(name)
        if key != name:
            self.renamed.add(name)
        return key

    def text(self, text: str) -> str:
        """A text as MLflow's, noted where it is shorter."""
        self.num_shortened += len(text) > _TEXT_CHARACTERS
        return text[:_TEXT_CHARACTERS]

    def sentences(self, multiply: int) -> list[str]:
        """What is to be said of it."""
        found = [f"steps are multiplied by {multiply:,}"] if multiply > 1 else []
        if self.num_infinite:
            found.append(f"infinite values become {_GREATEST:.4g} or its negative in MLflow: {self.num_infinite:,}")
        if self.renamed:
            some = ", ".join(f"{name!r} is {mlflow_key(name)!r}" for name in sorted(self.renamed)[:3])
            found.append(f"names that MLflow does not allow are changed: {len(self.renamed):,} ({some})")
        if self.num_shortened:
            found.append(
                f"texts of more than {_TEXT_CHARACTERS:,} characters are cut for MLflow: {self.num_shortened:,}"
            )
        if self.different:
            some = ", ".join(self.different[:3])
            found.append(f"changed hyperparameters keep their old value in MLflow: {len(self.different):,} ({some})")
        return found


def write_mlflow(selection: Selection, out: str | Path, progress: Progress, *, multiply: int = 1) -> Exported:
    """Write an experiment of the project's name.

    Args:
        out: a tracking URI; an SQLite file (.db); or a folder, for an mlflow.db in it.
        multiply: what every step is multiplied with, for projects whose steps are no whole numbers.
    Raises:
        ConfigError: MLflow is missing, a step is no whole number, something else is at `out`, or no run has a metric
            that was asked for.
        StoreError: MLflow refuses something.
    """
    need("--to mlflow", "mlflow")
    check_steps(selection, _FORM, multiply)
    uri, artifacts = tracking_uri(out)
    if uri.startswith("sqlite:"):
        # MLflow's smaller package has all but this.
        need("--to mlflow with an SQLite file", "mlflow", "alembic")
    exported, changes = Exported(), _Changes()
    with _explained(uri):
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, selection.project, artifacts)
        there = _known_runs(client, experiment)
        for done, run in enumerate(parents_first(selection.runs)):
            progress(done)
            target = there.get(identity(run.row)) or _create(client, experiment, run, multiply)
            there[identity(run.row)] = target
            known = client.get_run(target).data
            _check_scale(run, known.tags.get(_SCALE_TAG, "1"), multiply)
            _write_hyperparameters(client, target, run, known.params, changes)
            _write_tags(client, target, _tags(selection, run, there), known.tags, changes)
            for curve in read_curves(selection.store, run, selection.metrics, inherited=selection.inherited):
                exported.points += _write_curve(client, target, curve, multiply, known.metrics, changes)
                exported.metrics.add(curve.metric)
            _write_status(client, target, run)
            exported.runs += 1
        progress(len(selection.runs))
    exported.files = [uri]
    exported.left_out = left_behind(selection, *changes.sentences(multiply), notes_too=False)
    return exported


def tracking_uri(out: str | Path) -> tuple[str, str | None]:
    """Where MLflow keeps its runs, and their files: the latter is None where that is not ours to say.

    Raises:
        ConfigError: a file or folder that holds something else.
    """
    if "://" in str(out) or str(out) == "databricks":
        return str(out), None
    path = Path(out).expanduser().absolute()
    if path.suffix not in (".db", ".sqlite", ".sqlite3"):
        if path.is_file():
            raise ConfigError(f"--out {path} is a file; name an SQLite file (.db), a folder or a tracking URI")
        database = path / "mlflow.db"
        if path.is_dir() and any(path.iterdir()) and not database.exists():
            raise ConfigError(
                f"--out {path} holds something else than an mlflow.db; name a new folder, an SQLite file (.db) or a"
                " tracking URI"
            )
        path = database
    if path.exists():
        _check_database(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path}", (path.parent / "mlartifacts").as_uri()


def _check_database(path: Path) -> None:
    # MLflow would add its tables to any database, a store of ours among them.
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise ConfigError(f"--out {path} is no SQLite file: {error}. Name another place") from error
    if tables and "experiments" not in tables:
        some = ", ".join(sorted(tables)[:3])
        raise ConfigError(f"--out {path} is the database of something else (it has tables {some}); name another place")


def parents_first(runs: Iterable[ChosenRun]) -> list[ChosenRun]:
    """Runs in an order in which each comes after its parent."""
    waiting = {run.row.id: run for run in runs}
    ordered = []
    while waiting:
        path = [next(iter(waiting))]
        while (parent := waiting[path[-1]].row.parent) is not None and parent in waiting:
            path.append(parent)
        ordered += [waiting.pop(run_id) for run_id in reversed(path)]
    return ordered


def mlflow_key(name: str) -> str:
    """A name as MLflow allows it: itself, or one made of it that no other name becomes.

    >>> mlflow_key("train/loss"), mlflow_key("loss, 'raw'")
    ('train/loss', 'loss_ _raw_-9ec1cec2')
    """
    plain = re.fullmatch(r"[/\w.\- :]+", name) and len(name) <= _KEY_CHARACTERS
    # MLflow takes a name for a path in some stores.
    if plain and posixpath.normpath(name) == name and name != "." and not name.startswith(("/", "..")):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return re.sub(r"[^\w\- ]", "_", name)[:100] + f"-{digest}"


def identity(row: RunRow) -> str:
    """What a run is known by in MLflow, whose experiments may get runs of many stores.

    A study's run has no uid of its own, and another store may hold one of the same id: the time tells them apart.
    """
    return f"{row.id} of {row.created!r}" if row.uid == row.id else row.uid


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if found.lifecycle_stage != "active":
        raise ConfigError(
            f"MLflow's experiment {name!r} is deleted; restore it (mlflow experiments restore), or name another place"
        )
    return str(found.experiment_id)


def _known_runs(client: Any, experiment: str) -> dict[str, str]:
    """uid -> MLflow's id, of the runs that an earlier export has made."""
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        found |= {run.data.tags["thalweg.uid"]: run.info.run_id for run in page if "thalweg.uid" in run.data.tags}
        token = page.token
        if not token:
            return found


def _create(client: Any, experiment: str, run: ChosenRun, multiply: int) -> str:
    row = run.row
    made = client.create_run(
        experiment,
        start_time=round((row.started or row.created) * 1000),
        tags={"thalweg.uid": identity(row), _SCALE_TAG: str(multiply)},
        run_name=row.name or row.id,
    )
    return str(made.info.run_id)


def _check_scale(run: ChosenRun, before: str, multiply: int) -> None:
    if before != str(multiply):
        raise ConfigError(
            f"run {run.row.id} is in MLflow with steps multiplied by {before}: export it with --multiply-steps {before}"
        )


def _write_hyperparameters(
    client: Any, target: str, run: ChosenRun, known: Mapping[str, str], changes: _Changes
) -> None:
    from mlflow.entities import Param

    params = []
    for name, value in run.row.hyperparameters.items():
        key, text = changes.key(name), changes.text(as_text(value))
        if key not in known:
            params.append(Param(key, text))
        elif known[key] != text:
            changes.different.append(f"{name} of {run.row.id}")
    for start in range(0, len(params), _ENTRIES_PER_CALL):
        client.log_batch(target, params=params[start : start + _ENTRIES_PER_CALL])


def _tags(selection: Selection, run: ChosenRun, there: Mapping[str, str]) -> dict[str, str]:
    row = run.row
    tags = {
        "mlflow.runName": row.name or row.id,
        "thalweg.run": row.id,
        "thalweg.status": row.status,
        "thalweg.unit": run.unit,
        "thalweg.tags": json.dumps(row.tags, ensure_ascii=False),
    }
    if row.parent is not None:
        parent = identity(selection.store.run_details(row.parent).row)
        tags |= {"thalweg.parent": row.parent, "thalweg.parent_uid": parent}
        if parent in there:
            tags["mlflow.parentRunId"] = there[parent]
    if row.waiting_parent is not None:
        tags["thalweg.parent_uid"] = row.waiting_parent
    if "thalweg.parent_uid" in tags:
        tags["thalweg.fork_step"] = str(to_step(row.fork_position, run.decimals))
    if row.error is not None:
        tags["thalweg.error"] = row.error
    if row.num_notes:
        tags["mlflow.note.content"] = "\n\n".join(note.text for note in selection.store.run_details(row.id).notes)
    return tags


def _write_tags(client: Any, target: str, tags: Mapping[str, str], known: Mapping[str, str], changes: _Changes) -> None:
    from mlflow.entities import RunTag

    texts = {name: changes.text(text) for name, text in tags.items()}
    new = [RunTag(name, text) for name, text in texts.items() if known.get(name) != text]
    if new:
        client.log_batch(target, tags=new)


def _write_curve(
    client: Any, target: str, curve: Curve, multiply: int, known: Mapping[str, float], changes: _Changes
) -> int:
    """Add the points that are not there; returns how many."""
    from mlflow.entities import Metric

    key = changes.key(curve.metric)
    changes.num_infinite += int(np.isinf(curve.values).sum())
    # As MLflow's databases have them: without infinities and negative zero.
    values = (np.clip(curve.values, -_GREATEST, _GREATEST) + 0.0).tolist()
    points = zip(whole_steps_of(curve, _FORM, multiply).tolist(), curve.times_ms.tolist(), values, strict=True)
    # NaN is no number that equals itself, but its text does.
    there = set()
    if key in known:
        there = {(p.step, p.timestamp, repr(p.value)) for p in client.get_metric_history(target, key)}
    new = [Metric(key, value, time, step) for step, time, value in points if (step, time, repr(value)) not in there]
    for start in range(0, len(new), _METRICS_PER_CALL):
        client.log_batch(target, metrics=new[start : start + _METRICS_PER_CALL])
    return len(new)


def _write_status(client: Any, target: str, run: ChosenRun) -> None:
    status = _STATUS.get(run.row.status, "FAILED")
    if run.row.ended is not None:
        client.set_terminated(target, status, round(run.row.ended * 1000))
    else:
        client.update_run(target, status=status)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Puts MLflow's errors into words, and keeps its talk about its tables off the terminal."""
    from mlflow.exceptions import MlflowException

    loggers = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    except MlflowException as error:
        raise StoreError(f"MLflow at {uri}: {error}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
