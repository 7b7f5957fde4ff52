"""`thalweg runs`, `show`, `curves`, `note`, `delete`, `copy`, `sync` and `check` on runs of a person's own scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import thalweg
from thalweg.cli.app import app
from thalweg.errors import StoreError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    options: dict[str, Any] = {"store": path, "system_seconds": 0, "code": False}
    with thalweg.init("p", name="one\x1b[31m", hyperparameters={"lr": 0.1, "layers": [1, 2]}, **options) as run:
        for step in range(10):
            run.log({"loss": 1.0 / (step + 1)}, step=step + 0.5)
    with thalweg.init("p", fork_of=run, at=4.5, hyperparameters={"lr": 0.2}, tags=["x"], **options) as fork:
        fork.log({"loss": 0.25}, step=6)
    return path


def call(place: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--store", str(place)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_runs_are_listed(place: Path) -> None:
    table = call(place, "runs")
    assert "p-1" in table
    assert "p-0 at 4.5" in table
    # A name cannot colour the terminal.
    assert "\x1b" not in table
    listed = json.loads(call(place, "runs", "p", "--json"))["p"]
    assert [(run["id"], run["step"], run["fork_step"]) for run in listed] == [("p-0", 9.5, 0), ("p-1", 6, 4.5)]
    assert listed[1]["latest"] == {"loss": [6, 0.25]}


def test_a_run_is_shown(place: Path) -> None:
    call(place, "note", "p-1", "better")
    shown = call(place, "show", "p-1")
    for text in ("lr 0.2, layers [1, 2]", "p-0 > p-1", "better", "last loss", "0.25 at 6"):
        assert text in shown
    found = json.loads(call(place, "show", "p-1", "--json"))
    assert found["lineage"] == ["p-0", "p-1"]
    assert found["metrics"] == ["loss"]
    assert found["notes"][0]["text"] == "better"


def test_curves_have_steps_and_not_positions(place: Path) -> None:
    (report,) = json.loads(call(place, "curves", "p-1", "--json"))["runs"]
    assert (report["lineage"], report["forks"]) == (["p-0", "p-1"], [4.5])
    # Five inherited points, at 0.5 to 4.5, and one of its own.
    assert report["points"] == {"training": 6}


def test_a_run_with_forks_is_deleted_only_where_they_keep_a_copy(place: Path) -> None:
    with pytest.raises(StoreError, match=r"has children \(p-1\)"):
        call(place, "delete", "p-0")
    assert call(place, "delete", "p-0", "--keep-children") == "deleted p-0; p-1 kept what they had from it\n"
    with thalweg.Store.open(place) as store:
        found = store.series("p-1", "loss")
        assert (found.positions / 10**6).tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 6.0]
        assert found.runs == ("p-1",)
        assert [row.id for row in store.run_rows("p")] == ["p-1"]


def test_a_store_is_copied_and_checked(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder" / "copy.db"
    assert str(copy) in call(place, "copy", str(copy))
    with thalweg.Store.open(place) as one, thalweg.Store.open(copy) as other:
        assert one.run_rows("p") == other.run_rows("p")
    with pytest.raises(StoreError, match=r"exists; name a file that is not there yet"):
        call(place, "copy", str(copy))
    assert call(copy, "check") == "nothing is wrong\n"
    assert call(copy, "sync") == "there are no spools to bring in\n"


def test_a_narrow_terminal_cuts_no_number_short(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"store": place, "system_seconds": 0, "code": False}
    with thalweg.init("p", name="a name that is long " * 5, hyperparameters={"x" * 60: 1.0}, **options) as run:
        run.log({"loss": 0.12345, "validation/accuracy": 0.67891}, step=1)
    monkeypatch.setenv("COLUMNS", "80")
    table = call(place, "runs")
    assert "0.1235" in table
    assert "0.6789" in table
