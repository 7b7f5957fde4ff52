"""`thalweg import`: the command as it is called, and what the writing does whatever the source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from thalweg.cli.import_runs import app
from thalweg.errors import ConfigError, StoreError
from thalweg.track.store import Store
from thalweg.track.transfer.bring_in import bring_in
from thalweg.track.transfer.incoming import IncomingNote, IncomingRun, IncomingSeries, Record, Skipped, flat, series_of

LINES = "1700000000000 0.5 1\n1700000001000 nan 2\n1700000002000 0.25 2\nbad\n"


@pytest.fixture
def mlruns(tmp_path: Path) -> Path:
    """An MLflow folder, by hand: an experiment with a run with a metric."""
    run = tmp_path / "mlruns" / "1" / "abc123"
    (run / "metrics").mkdir(parents=True)
    (run / "params").mkdir()
    (run.parent / "meta.yaml").write_text("name: demo\nexperiment_id: '1'\n")
    (run / "meta.yaml").write_text("run_name: one\nstatus: 3\nstart_time: 1700000000000\nend_time: 1700000009000\n")
    (run / "params" / "lr").write_text("0.1")
    (run / "metrics" / "loss").write_text(LINES)
    return tmp_path / "mlruns"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "folder" / "store.db") as opened:
        yield opened


def series(steps: list[int], values: list[float], *, decimals: int = 0, metric: str = "loss") -> IncomingSeries:
    found, _ = series_of("r", metric, steps, [0] * len(steps), values, decimals=decimals)
    assert found is not None
    return found


def run(uid: str = "test:1", **fields: object) -> IncomingRun:
    return IncomingRun(project="p", uid=uid, **fields)  # type: ignore[arg-type]


def test_the_command_says_what_came_in(mlruns: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "s.db")
    done = CliRunner().invoke(app, ["mlflow", str(mlruns), "--store", store])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "demo: 1 runs, 1 new, 0 updated, 0 unchanged"
    assert lines[1] == "2 new points and 0 new files; 1 were replaced by later ones at the same step"
    assert f"  {mlruns / '1' / 'abc123' / 'metrics' / 'loss'}, line 4: not a point: 'bad'" in lines
    assert lines[-1] == f"See: thalweg runs demo --store {store}"
    again = CliRunner().invoke(app, ["mlflow", str(mlruns), "--store", store])
    assert again.stdout.splitlines()[:2] == [
        "demo: 1 runs, 0 new, 0 updated, 1 unchanged",
        "0 new points and 0 new files; 1 were replaced by later ones at the same step",
    ]


def test_the_command_answers_in_json(mlruns: Path, tmp_path: Path) -> None:
    options = ["--store", str(tmp_path / "s.db"), "--project", "other", "--json"]
    done = CliRunner().invoke(app, ["mlflow", str(mlruns), *options])
    answer = json.loads(done.stdout)
    assert answer["projects"] == {"other": {"new": ["other-0"], "updated": [], "unchanged": []}}
    assert answer["num_points"] == 2
    assert answer["skipped"][0]["reason"] == "not a point: 'bad'"


@pytest.mark.parametrize("source", ["neptune", "tensorboard", "mlflow", "wandb"])
def test_a_source_that_is_not_there_makes_no_store(source: str, tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    done = CliRunner().invoke(app, [source, str(tmp_path / "nothing"), "--store", str(store)])
    assert isinstance(done.exception, ConfigError)
    assert "nothing" in str(done.exception)
    assert not store.exists()


def test_a_study_takes_no_runs_in(store: Store) -> None:
    store.create_study("imdb", {})
    with pytest.raises((ConfigError, StoreError), match="imdb"):
        bring_in(store, [run()], project="imdb")


def test_what_a_person_changed_in_the_store_stays(store: Store) -> None:
    source = [run(name="theirs", tags=("a", ""), hyperparameters={"lr": 1}, notes=(IncomingNote(text="n"),))]
    bring_in(store, source)
    store.rename("p-0", "mine")
    store.set_tags("p-0", ["a", "b"])
    store.set_hyperparameters("p-0", {"lr": 2})
    assert bring_in(store, source).projects["p"].unchanged == ["p-0"]
    details = store.run_details("p-0")
    assert (details.row.name, details.row.tags, details.row.hyperparameters) == ("mine", ("a", "b"), {"lr": 2})
    assert [note.text for note in details.notes] == ["n"]


def test_one_run_that_cannot_be_entered_does_not_stop_the_others(store: Store) -> None:
    records: list[Record] = [
        run("test:bad", parent="test:good", fork_step=0.1234567, name="bad"),
        series([1], [1.0]),
        run("test:good"),
        series([1], [2.0]),
        series([1], [2.0], metric=""),
    ]
    summary = bring_in(store, records)
    assert summary.projects["p"].new == ["p-0"]
    assert store.series("p-0", "loss").values.tolist() == [2.0]
    assert [skipped.place for skipped in summary.skipped] == ["run bad (test:bad)", "run test:good, metric ''"]


def test_runs_that_are_forks_of_each_other_end_nowhere_else(store: Store) -> None:
    records = [run(f"test:{i}", parent=f"test:{1 - i}", fork_step=1) for i in (0, 1)]
    bring_in(store, records)
    assert sum(row.parent is not None for row in store.run_rows("p")) == 1
    assert store.series("p-1", "loss").positions.tolist() == []


STEPS = st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1)
VALUES = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=30, deadline=None)
@given(
    points=st.lists(st.tuples(STEPS, VALUES), min_size=1, max_size=12),
    decimals=st.sampled_from([0, 6]),
    of_project=st.sampled_from([0, 3, 6]),
)
def test_each_point_is_in_the_store_exactly_or_said(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[int, float]], decimals: int, of_project: int
) -> None:
    location = tmp_path_factory.mktemp("exact") / "store.db"
    found, skipped = series_of("r", "loss", [at for at, _ in points], [7] * len(points), [v for _, v in points])
    records: list[Record] = [run()]
    if found is not None:
        records.append(
            IncomingSeries(
                metric="loss", steps=found.steps, times_ms=found.times_ms, values=found.values, decimals=decimals
            )
        )
    # With fractions: what each step is worth, and which fit.
    exact: dict[int, float] = {}
    num_lost = 0
    for step, value in points:
        place = Fraction(step, 10**decimals) * 10**of_project
        if place.denominator == 1 and 0 <= place < 2**63:
            exact[int(place)] = value
        else:
            num_lost += 1
    with Store.open(location) as store:
        store.create_project("p", decimals=of_project)
        for num_new in (len(exact), 0):
            summary = bring_in(store, records)
            assert summary.num_points == num_new
            said = [int(entry.reason.split(" ")[0]) for entry in [*summary.skipped, *([skipped] if skipped else [])]]
            assert sum(said) == num_lost
            curve = store.series("p-0", "loss")
            assert curve.positions.tolist() == sorted(exact)
            expected = np.array([exact[place] for place in sorted(exact)], np.float64)
            assert curve.values.tobytes() == expected.tobytes()


def test_nested_tables_become_flat() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "": 3}) == {"a/b/c": 1, "a/d": [1, {"e": 2}], "": 3}


def test_negative_steps_are_said_in_the_steps_of_the_source() -> None:
    found, skipped = series_of("r", "loss", [-1_500_000, 2], [0, 0], [1.0, 2.0], decimals=6)
    assert found is not None
    assert found.steps.tolist() == [2]
    assert skipped == Skipped(place="run r, metric 'loss'", reason="1 points at negative steps, down to -1.5")
