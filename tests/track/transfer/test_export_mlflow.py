"""An MLflow experiment, read by MLflow's own client."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from thalweg.errors import ConfigError, StoreError
from thalweg.track.positions import to_position
from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.track.transfer import write_mlflow as module
from thalweg.track.transfer.write_mlflow import mlflow_key, parents_first, tracking_uri, write_mlflow
from thalweg.track.transfer.write_selection import Exported, select

# MLflow's own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

NOON = 1_700_000_000_000
GREATEST = float(np.finfo(np.float64).max)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def out(empty: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    shutil.copy(empty, folder / "mlflow.db")
    return folder


def add(store: Store, run: str, metric: str, points: dict[Any, float]) -> None:
    positions = np.array([to_position(step, 6) for step in points], np.int64)
    times = NOON + np.arange(len(points), dtype=np.int64)
    store.import_points(run, metric, positions, times, np.array(list(points.values()), float))


@pytest.fixture
def project(store: Store) -> Store:
    """A fork that is numbered before its parent, and its parent."""
    store.create_project("p")
    fields: dict[str, Any] = {"created": 1.0, "started": 2.0}
    settings = {"lr": 1e-3, "model": "tiny", "layers": [1, 2]}
    store.track_run(
        "p", NewRun(uid="b", parent="a", fork_position=1_000_000, status="failed", ended=3.5, error="boom", **fields)
    )
    store.track_run("p", NewRun(uid="a", name="the root", tags=["x"], hyperparameters=settings, **fields))
    add(store, "p-1", "loss", {0: 1.5, 1: math.nan, 2: -0.0})
    add(store, "p-0", "loss", {2: math.inf, 3: 0.1})
    add(store, "p-0", "system/cpu", {"0.000250": 5.0})
    store.add_note("p-1", "a note", "me")
    return store


def export(store: Store, out: Path | str, multiply: int = 1, **options: Any) -> Exported:
    return write_mlflow(select(store, "p", **options), out, lambda done: None, multiply=multiply)


def client(out: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")


def runs(out: Path) -> dict[str, Any]:
    reader = client(out)
    experiment = reader.get_experiment_by_name("p")
    return {run.data.tags["thalweg.run"]: run for run in reader.search_runs([experiment.experiment_id])}


def history(out: Path, run: str, key: str) -> list[tuple[int, int, float]]:
    found = client(out).get_metric_history(runs(out)[run].info.run_id, key)
    return sorted((point.step, point.timestamp, point.value) for point in found)


def test_what_mlflow_reads(project: Store, out: Path) -> None:
    exported = export(project, out)
    assert (exported.runs, exported.points, exported.metrics) == (2, 8, {"loss", "system/cpu"})
    found = runs(out)
    root, child = found["p-1"], found["p-0"]
    assert (root.info.run_name, root.info.start_time, root.info.end_time) == ("the root", 2000, None)
    assert root.data.params == {"lr": "0.001", "model": "tiny", "layers": "[1, 2]"}
    assert (root.data.tags["mlflow.note.content"], root.data.tags["thalweg.tags"]) == ("a note", '["x"]')
    assert (child.info.run_name, child.info.status, child.info.end_time) == ("p-0", "FAILED", 3500)
    assert child.data.tags["mlflow.parentRunId"] == root.info.run_id
    expected = {"thalweg.parent": "p-1", "thalweg.fork_step": "1", "thalweg.error": "boom", "thalweg.status": "failed"}
    assert {name: child.data.tags[name] for name in expected} == expected
    assert repr(history(out, "p-1", "loss")) == repr([(0, NOON, 1.5), (1, NOON + 1, math.nan), (2, NOON + 2, 0.0)])
    # What the fork inherits, then its own; MLflow has no infinity.
    assert repr(history(out, "p-0", "loss")) == repr(
        [(0, NOON, 1.5), (1, NOON + 1, math.nan), (2, NOON, GREATEST), (3, NOON + 1, 0.1)]
    )
    assert history(out, "p-0", "system/cpu") == [(250, NOON, 5.0)]
    assert exported.left_out == [
        "infinite values become 1.798e+308 or its negative in MLflow: 1",
        "saved files and checkpoints stay where they are",
    ]


def test_twice_adds_only_what_is_new(project: Store, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_METRICS_PER_CALL", 2)
    export(project, out)
    before = {run: history(out, run, "loss") for run in ("p-0", "p-1")}
    assert export(project, out).points == 0
    assert repr({run: history(out, run, "loss") for run in ("p-0", "p-1")}) == repr(before)
    add(project, "p-0", "loss", {2: math.inf, 3: 0.1, 4: 7.0})
    project.set_hyperparameters("p-1", {"lr": 1.0, "new": True})
    project.rename("p-1", "renamed")
    again = export(project, out)
    # The new point, and nothing else: those of the same time and value are there already.
    assert again.points == 1
    assert history(out, "p-0", "loss")[-1][::2] == (4, 7.0)
    root = runs(out)["p-1"]
    assert len(runs(out)) == 2
    assert (root.data.params["lr"], root.data.params["new"], root.info.run_name) == ("0.001", "true", "renamed")
    assert "changed hyperparameters keep their old value in MLflow: 1 (lr of p-1)" in again.left_out


def test_names_that_mlflow_does_not_allow(project: Store, out: Path) -> None:
    names = ["a//b", "/a", "../a", "a'b", "😀", "x" * 300, "a b.c-d_e/é:f", ".", "a/./b"]
    for value, name in enumerate(names):
        add(project, "p-1", name, {0: value})
    project.set_hyperparameters("p-1", {"it's": "y" * 7000})
    exported = export(project, out, runs=["p-1"], metrics=names)
    root = runs(out)["p-1"]
    assert root.data.metrics == {mlflow_key(name): float(value) for value, name in enumerate(names)}
    assert len(root.data.metrics) == len(names)
    assert root.data.metrics["a b.c-d_e/é:f"] == 6.0
    assert root.data.params[mlflow_key("it's")] == "y" * 5000
    sentences = " ".join(exported.left_out)
    assert "names that MLflow does not allow are changed: 9 (" in sentences
    assert "texts of more than 5,000 characters are cut for MLflow: 1" in sentences
    assert export(project, out, runs=["p-1"], metrics=names).points == 0


def test_a_parent_that_went_before(project: Store, out: Path) -> None:
    export(project, out, runs=["p-1"])
    export(project, out, runs=["p-0"], inherited=False)
    found = runs(out)
    assert found["p-0"].data.tags["mlflow.parentRunId"] == found["p-1"].info.run_id
    assert [step for step, _, _ in history(out, "p-0", "loss")] == [2, 3]


def test_fractional_steps(project: Store, out: Path) -> None:
    add(project, "p-1", "half", {0.5: 1.0})
    with pytest.raises(ConfigError, match=r"run p-0 has 'half' at step 0\.5, but steps in MLflow are whole numbers"):
        export(project, out)
    assert client(out).get_experiment_by_name("p") is None
    exported = export(project, out, multiply=10)
    assert "steps are multiplied by 10" in exported.left_out
    assert history(out, "p-1", "half") == [(5, NOON, 1.0)]
    assert history(out, "p-0", "system/cpu") == [(250, NOON, 5.0)]
    with pytest.raises(ConfigError, match="in MLflow with steps multiplied by 10: export it with --multiply-steps 10"):
        export(project, out, metrics="loss")


def test_a_deleted_experiment(project: Store, out: Path) -> None:
    reader = client(out)
    reader.delete_experiment(reader.create_experiment("p"))
    with pytest.raises(ConfigError, match="MLflow's experiment 'p' is deleted; restore it"):
        export(project, out)


def test_a_server_that_is_not_there(project: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match=r"MLflow at http://127\.0\.0\.1:9: "):
        export(project, "http://127.0.0.1:9")


def test_places(project: Store, tmp_path: Path) -> None:
    assert tracking_uri("http://host:5000") == ("http://host:5000", None)
    file, artifacts = tracking_uri(tmp_path / "new" / "x.db")
    assert file == f"sqlite:///{tmp_path / 'new' / 'x.db'}"
    assert artifacts == (tmp_path / "new" / "mlartifacts").as_uri()
    assert tracking_uri(tmp_path / "other")[0] == f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "precious").touch()
    with pytest.raises(ConfigError, match=r"theirs holds something else than an mlflow\.db; name a new folder"):
        tracking_uri(tmp_path / "theirs")
    with pytest.raises(ConfigError, match=r"precious is a file; name an SQLite file"):
        tracking_uri(tmp_path / "theirs" / "precious")
    # A store of ours, and a file that is none.
    with pytest.raises(ConfigError, match=r"is the database of something else \(it has tables "):
        tracking_uri(project.location)
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(ConfigError, match=r"text\.db is no SQLite file: .*Name another place"):
        tracking_uri(tmp_path / "text.db")
    sqlite3.connect(tmp_path / "empty.db").close()
    assert tracking_uri(tmp_path / "empty.db")[0].endswith("empty.db")


def test_a_study_of_the_same_name_in_another_store(store: Store, out: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"horizon": 10, "until": 10, "seed": 0, "origin": "random", "hyperparameters": {}}
    with Store.open(tmp_path / "another.db") as another:
        another.create_study("imdb", {})
        for value, opened in ((1.0, store), (2.0, another), (1.0, store)):
            run = opened.read_tree("imdb").runs.get("imdb-0") or opened.create_run("imdb", **fields)
            with opened.writer(run.id) as writer:
                writer.log(5, {"loss": value})
            write_mlflow(select(opened, "imdb"), out, lambda done: None)
    reader = client(out)
    found = reader.search_runs([reader.get_experiment_by_name("imdb").experiment_id])
    assert sorted(run.data.metrics["loss"] for run in found) == [1.0, 2.0]


def test_parents_come_first(store: Store) -> None:
    store.create_project("q")
    # A lineage that was entered from its end on.
    for number in range(30):
        parent = str(number + 1) if number < 29 else None
        store.track_run("q", NewRun(uid=str(number), parent=parent, fork_position=0))
    ordered = [run.row.uid for run in parents_first(select(store, "q").runs)]
    assert ordered == [str(number) for number in reversed(range(30))]


def test_tags_are_json(project: Store, out: Path) -> None:
    project.set_tags("p-1", ['say "x"', "é"])
    export(project, out, runs=["p-1"], metrics="loss")
    assert sorted(json.loads(runs(out)["p-1"].data.tags["thalweg.tags"])) == ['say "x"', "é"]
