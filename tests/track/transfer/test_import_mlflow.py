"""`thalweg import mlflow`: an SQLite file and a folder, both written by the real MLflow, whole and damaged."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from thalweg.errors import ConfigError
from thalweg.track.store import Store
from thalweg.track.transfer.bring_in import Summary, bring_in
from thalweg.track.transfer.read_mlflow import read_mlflow

# MLflow and what it imports use things of other packages that are being taken away.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SCRIPT = """
import math, sys
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
uri, artifacts = sys.argv[1:]
client = MlflowClient(tracking_uri=uri)
experiment = client.create_experiment("näme/one", artifact_location=artifacts)
outer = client.create_run(experiment, start_time=1700000000000, run_name="outer").info.run_id
values = [(0, 0.5), (20, math.nan), (10, 1e308), (10**12, -0.0)]
metrics = [Metric("loss", value, 1700000001000 + i, step) for i, (step, value) in enumerate(values)]
# One step twice: the newer point counts, whatever its value.
metrics += [Metric("again/näme", 2.0, 1700000002000, 5), Metric("again/näme", 1.0, 1700000003000, 5)]
metrics += [Metric("system/cpu", 10.0, 1700000002000, 0), Metric("system/cpu", 20.0, 1700000012000, 1)]
metrics += [Metric("negative", 1.0, 1700000002000, -3)]
params = [Param("lr", "3e-05"), Param("layers", "12"), Param("tied", "True"), Param("opt", "adam"), Param("id", "007")]
tags = [RunTag("team", "näme"), RunTag("mlflow.note.content", "a note"), RunTag("mlflow.user", "ann")]
client.log_batch(outer, metrics, params, tags)
client.log_text(outer, "kept", "notes/extra.txt")
client.set_terminated(outer, "FAILED", end_time=1700000100000)
inner = client.create_run(experiment, start_time=1700000000500, tags={"mlflow.parentRunId": outer}, run_name="inner")
client.log_metric(inner.info.run_id, "loss", 9.0, timestamp=1700000001000, step=1)
gone = client.create_run(experiment, start_time=1700000000600)
client.delete_run(gone.info.run_id)
"""


def make(place: Path, uri: str) -> None:
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, uri, (place / "kept").as_uri()]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("mlflow-database")
    make(place, f"sqlite:///{place / 'mlflow.db'}")
    return str(place / "mlflow.db")


@pytest.fixture(scope="module")
def written_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mlflow-folder")
    make(place, (place / "mlruns").as_uri())
    return place / "mlruns"


@pytest.fixture
def folder(written_folder: Path, tmp_path: Path) -> Path:
    """A copy, to damage."""
    return Path(shutil.copytree(written_folder, tmp_path / "mlruns"))


@pytest.fixture(params=["folder", pytest.param("database", marks=pytest.mark.slow)])
def location(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store" / "store.db") as opened:
        yield opened


def bring(store: Store, location: str, project: str | None = None) -> Summary:
    return bring_in(store, read_mlflow(location), project=project)


def by_name(store: Store, project: str = "näme-one") -> dict[str | None, str]:
    return {row.name: row.id for row in store.run_rows(project)}


def test_runs_come_in_whole(store: Store, location: str) -> None:
    summary = bring(store, location)
    run = by_name(store)
    assert set(run) == {"outer", "inner"}
    loss = store.series(run["outer"], "loss")
    assert loss.positions.tolist() == [0, 10**7, 2 * 10**7, 10**18]
    assert np.array_equal(loss.values, [0.5, 1e308, math.nan, 0.0], equal_nan=True)
    assert loss.times.tolist() == [1700000001.0, 1700000001.002, 1700000001.001, 1700000001.003]
    details = store.run_details(run["outer"])
    assert details.row.hyperparameters == {"lr": 3e-5, "layers": 12, "tied": True, "opt": "adam", "id": "007"}
    assert (details.row.status, details.row.tags) == ("failed", ("team=näme",))
    assert (details.row.created, details.row.ended) == (1_700_000_000.0, 1_700_000_100.0)
    assert [(note.text, note.author) for note in details.notes] == [("a note", "ann")]
    assert details.facts["mlflow/experiment"] == "näme/one"
    reasons = {skipped.reason for skipped in summary.skipped}
    assert reasons == {"1 deleted runs", "1 points at negative steps, down to -3"}
    assert store.check_integrity() == []


def test_the_newest_point_of_a_step_counts(store: Store, location: str) -> None:
    summary = bring(store, location)
    again = store.series(by_name(store)["outer"], "again/näme")
    assert (again.positions.tolist(), again.values.tolist()) == ([5_000_000], [1.0])
    assert summary.num_replaced == 1


def test_the_machine_is_told_by_time(store: Store, location: str) -> None:
    bring(store, location)
    curve = store.series(by_name(store)["outer"], "system/cpu")
    assert curve.positions.tolist() == [2000, 12_000]


def test_a_nested_run_is_no_fork(store: Store, location: str) -> None:
    bring(store, location)
    inner = store.run_details(by_name(store)["inner"])
    outer = store.run_details(by_name(store)["outer"])
    assert inner.row.parent is None
    assert inner.row.tags == (f"parent={outer.row.uid.removeprefix('mlflow:')}",)
    assert inner.row.status == "crashed"
    assert store.series(inner.row.id, "loss").values.tolist() == [9.0]


def test_artifacts_are_remembered_where_they_are(store: Store, location: str) -> None:
    bring(store, location)
    [file] = store.files(by_name(store)["outer"])
    assert (file.name, file.copied, file.path.read_text()) == ("notes/extra.txt", False, "kept")


def test_the_same_again_changes_nothing(store: Store, location: str) -> None:
    bring(store, location)
    before = store.run_rows("näme-one")
    again = bring(store, location)
    assert len(again.projects["näme-one"].unchanged) == 2
    assert (again.num_points, again.num_files) == (0, 0)
    assert store.run_rows("näme-one") == before


def test_reading_leaves_the_source_as_it_was(store: Store, location: str) -> None:
    place = Path(location)

    def content() -> dict[str, bytes]:
        files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files}

    before = content()
    bring(store, location)
    assert content() == before
    assert os.environ.get("MLFLOW_ALLOW_FILE_STORE") is None


# Folders that are damaged.


def run_folder(folder: Path, name: str) -> Path:
    return next(path.parents[1] for path in folder.rglob("tags/mlflow.runName") if path.read_text() == name)


def test_what_has_grown_is_added(store: Store, folder: Path) -> None:
    bring(store, str(folder))
    with (run_folder(folder, "outer") / "metrics" / "loss").open("a") as file:
        file.write("1700000009000 0.25 30\n")
    summary = bring(store, str(folder))
    run = by_name(store)["outer"]
    assert (summary.projects["näme-one"].updated, summary.num_points) == ([run], 1)


def test_a_damaged_line_costs_only_itself(store: Store, folder: Path) -> None:
    metric = run_folder(folder, "outer") / "metrics" / "loss"
    lines = metric.read_text().splitlines()
    lines[1] = "170000"
    # A point that names a dataset.
    lines.append("1700000005000 0.125 40 data 1234abcd")
    metric.write_text("\n".join([*lines, "17000000"]))
    summary = bring(store, str(folder))
    places = [skipped.place for skipped in summary.skipped if "not a point" in skipped.reason]
    assert places == [f"{metric}, line 2", f"{metric}, line 6"]
    loss = store.series(by_name(store)["outer"], "loss")
    assert loss.positions.tolist() == [0, 10**7, 4 * 10**7, 10**18]
    assert loss.values.tolist() == [0.5, 1e308, 0.125, 0.0]


def test_a_run_without_its_description_still_comes_in(store: Store, folder: Path) -> None:
    description = run_folder(folder, "outer") / "meta.yaml"
    description.write_text("status: [")
    (run_folder(folder, "inner") / "meta.yaml").unlink()
    summary = bring(store, str(folder))
    places = {skipped.place for skipped in summary.skipped}
    assert {str(description), str(run_folder(folder, "inner") / "meta.yaml")} <= places
    assert len(store.series(by_name(store)["outer"], "loss")) == 4


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; name an 'mlruns' folder"):
        list(read_mlflow(str(tmp_path / "mlflow.db")))
    with pytest.raises(ConfigError, match="does not exist"):
        list(read_mlflow(f"sqlite:///{tmp_path / 'mlflow.db'}"))
    with pytest.raises(ConfigError, match="is no MLflow folder"):
        list(read_mlflow(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with Store.open(other):
        pass
    with pytest.raises(ConfigError, match="not MLflow's"):
        list(read_mlflow(str(other)))
    (tmp_path / "text.db").write_text("no database at all, but long enough to have a header")
    with pytest.raises(ConfigError, match="no SQLite file that can be read"):
        list(read_mlflow(str(tmp_path / "text.db")))
