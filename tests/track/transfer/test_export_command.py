"""`thalweg export`, as people and scripts call it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner, Result

from thalweg.cli.export_runs import export
from thalweg.errors import ConfigError, StoreError
from thalweg.track.records import NewRun
from thalweg.track.store import Store

APP = typer.Typer()
APP.command("export")(export)


@pytest.fixture
def location(tmp_path: Path) -> str:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        store.create_project("p")
        store.track_run("p", NewRun(uid="a"))
        store.track_run("p", NewRun(uid="b", parent="a", fork_position=0))
        for metric in ("loss", "acc"):
            at = np.arange(600, dtype=np.int64)
            store.import_points("p-0", metric, at * 10**6, at, at / 2)
        store.add_note("p-0", "a note", "me")
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(APP, list(arguments), catch_exceptions=False)


def test_what_a_person_sees(location: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    shown = run("p", "--to", "csv", "--out", out, "--store", location)
    assert shown.exit_code == 0
    # Each metric has 600 points, and the fork at step 0 inherits one of each.
    assert shown.stdout.splitlines() == [
        f"2 runs and 1,202 points of 2 metrics of p are in {out}/points.csv, {out}/runs.csv",
        "  notes stay in the store: 1",
        "  saved files and checkpoints stay where they are",
    ]


def test_what_a_script_reads(location: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    options = ("--runs", "p-1", "--runs", "p-0", "--metrics", "lo*", "--own", "--json", "--store", location)
    shown = run("p", "--to", "parquet", "--out", out, *options)
    assert json.loads(shown.stdout) == {
        "project": "p",
        "to": "parquet",
        "out": [f"{out}/points.parquet", f"{out}/runs.parquet"],
        "runs": 2,
        "points": 600,
        "metrics": ["loss"],
        "left_out": ["notes stay in the store: 1", "saved files and checkpoints stay where they are"],
    }
    assert pl.read_parquet(f"{out}/runs.parquet")["id"].to_list() == ["p-1", "p-0"]


def test_tensorboard(location: str, tmp_path: Path) -> None:
    options = ("--multiply-steps", "10", "--json", "--store", location)
    answer = json.loads(run("p", "--to", "tensorboard", "--out", str(tmp_path / "out"), *options).stdout)
    assert "steps are multiplied by 10" in answer["left_out"]
    assert len(list((tmp_path / "out").glob("p-*/events.out.tfevents.*"))) == 2


def test_what_cannot_work(location: str, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"), "--store", location)
    assert run("p", "--to", "excel", *out).exit_code == 2
    with pytest.raises(ConfigError, match=r"--multiply-steps 10 is not for csv, which keeps every step as it is"):
        run("p", "--to", "csv", "--multiply-steps", "10", *out)
    with pytest.raises(StoreError, match=r"unknown .*'q'"):
        run("q", "--to", "csv", *out)
    with pytest.raises(ConfigError, match="project 'p' has no run 'p-7'"):
        run("p", "--to", "csv", "--runs", "p-7", *out)
    with pytest.raises(ConfigError, match="no run here has a metric that matches 'los'"):
        run("p", "--to", "csv", "--metrics", "los", *out)
    assert not list((tmp_path / "out").glob("*.csv*"))
