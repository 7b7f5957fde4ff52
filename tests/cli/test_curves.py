"""`thalweg curves` on a store with two runs, one of which is a fork."""

import json
import math
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from thalweg.cli.curves import curves
from thalweg.errors import ConfigError, StoreError
from thalweg.track.store import Store

APP = typer.Typer()
APP.command("curves")(curves)


@pytest.fixture
def location(tmp_path: Path) -> str:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        for study, unit in (("s", "steps"), ("t", "tokens")):
            store.create_study(study, {"unit": unit})
        first = store.create_run("s", hyperparameters={}, horizon=200, until=200, seed=0, origin="hand")
        with store.writer(first.id) as writer:
            for position in range(1, 151):
                loss = 1 + 2 * math.exp(-position / 30) + 0.01 * math.sin(7.0 * position)
                writer.log(position, {"train/loss": loss + 4.0 * (position == 120)})
        fields = {"hyperparameters": {}, "horizon": 200, "until": 200, "seed": 0, "origin": "hand"}
        child = store.create_run("s", parent=first.id, fork_position=150, **fields)
        with store.writer(child.id) as writer:
            for position in range(151, 201):
                writer.log(
                    position, {"train/loss": math.nan if position > 190 else 1.0 + 0.01 * math.sin(7.0 * position)}
                )
        other = store.create_run("t", **fields)
        with store.writer(other.id) as writer:
            writer.log(1, {"train/loss": 1.0})
        store.create_run("t", **fields)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(APP, list(arguments), catch_exceptions=False)


def test_what_a_person_sees(location: str, tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    shown = run("s-1", "--store", location, "--out", str(picture))
    assert shown.exit_code == 0
    assert "s-0 > s-1: loss" in shown.output
    assert "s-1 (s-0, forked at 150 into s-1)" in shown.output
    words = " ".join(shown.output.split())
    assert "note: The training loss spikes from 1.0" in words
    assert "at 120 steps and is back by 121 steps" in words
    assert "problem: The training loss is not a finite number at 191 steps (10 values in all): the run has" in words
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert max(map(len, shown.output.splitlines())) <= 100


def test_what_a_script_reads(location: str) -> None:
    answer = json.loads(run("s-0", "s-1", "--store", location, "--json").output)
    assert answer["out"] is None
    first, second = answer["runs"]
    assert (first["run"], first["lineage"], first["forks"]) == ("s-0", ["s-0"], [])
    assert (second["lineage"], second["forks"]) == (["s-0", "s-1"], [150])
    assert [(f["kind"], f["position"]) for f in first["findings"]] == [("spike", 120)]
    assert [(f["kind"], f["position"], f["severity"]) for f in second["findings"]] == [
        ("spike", 120, "note"),
        ("divergence", 191, "problem"),
    ]
    assert second["points"] == {"training": 190}


def test_a_calm_run(location: str) -> None:
    assert "Nothing stands out." in run("t-0", "--store", location).output


def test_what_cannot_be_shown(location: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run t-1 has no loss curve: it logged nothing.*train/loss"):
        run("t-1", "--store", location)
    with pytest.raises(ConfigError, match=r"different units.*s-0 in steps, t-0 in tokens"):
        run("s-0", "t-0", "--store", location)
    with pytest.raises(StoreError, match="s-7"):
        run("s-7", "--store", location)
    with pytest.raises(ConfigError, match=r"\.txt: a chart is written as"):
        run("s-0", "--store", location, "--out", str(tmp_path / "x.txt"))
