"""`thalweg lr-range` from a study file to a suggestion, with a loss whose answer is known."""

import json
import math
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from thalweg.cli.lr_range import lr_range
from thalweg.errors import ConfigError, ThalwegError
from thalweg.track.store import Store

APP = typer.Typer()
APP.command("lr-range")(lr_range)

STUDY = """
[study]
metric = "loss"
name = "s"
store = "STORE"

[budget]
runs = 4

[space]
lr = { log = [1e-5, 1e-2] }
scale = { choice = [1.0, 2.0] }
kind = "given"

[baseline]
lr = 1e-3
scale = 2.0

[trainer]
kind = "function"
file = "descend.py"
function = "FUNCTION"
horizon = 200
"""

# Gradient descent on scale x^2 / 2 is steady up to lr = 1 / scale, and blows up beyond 2 / scale.
DESCEND = """
import math

def descend(run):
    hyperparameters = run.hyperparameters
    assert hyperparameters["schedule"] == "lr_range" and hyperparameters["kind"] == "given"
    x = 3.0
    for position in run.positions():
        low = math.log(hyperparameters["floor"])
        lr = hyperparameters["lr"] * math.exp(low * (1 - (position - 1) / run.horizon))
        x -= lr * hyperparameters["scale"] * x
        loss = hyperparameters["scale"] * x * x / 2 + 0.001
        run.log(position, loss=loss if loss < 1e6 else math.inf, lr=lr)
    run.report(loss=loss)

def silent(run):
    return 1.0

def broken(run):
    raise RuntimeError("no data here")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path, "descend")


def write(folder: Path, function: str) -> Path:
    (folder / "descend.py").write_text(DESCEND)
    path = folder / "study.toml"
    path.write_text(STUDY.replace("STORE", str(folder / "store.db")).replace("FUNCTION", function))
    return path


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(APP, list(arguments), catch_exceptions=False)


def test_a_run_that_diverges_gives_a_suggestion(file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "range.html"
    found = json.loads(run(str(file), "--from", "1e-5", "--to", "1000", "--out", str(picture), "--json").output)
    assert (found["study"], found["run"], found["status"]) == ("s-lr-range-1", "s-lr-range-1-0", "diverged")
    # With the baseline's scale of 2 it blows up beyond lr = 1.
    assert 1.0 < found["diverges"] < 5.0
    assert 0.1 < found["minimum"] < 1.2
    assert found["suggestion"] == pytest.approx(found["minimum"] / 10)
    assert found["rates"][0] == pytest.approx(1e-5)
    assert picture.stat().st_size > 1000
    with Store.open(tmp_path / "store.db") as store:
        recorded = store.read_run("s-lr-range-1-0").hyperparameters
        assert recorded == {"lr": 1000.0, "scale": 2.0, "kind": "given", "schedule": "lr_range", "floor": 1e-8}


def test_what_a_person_sees_and_what_is_set(file: Path, tmp_path: Path) -> None:
    shown = run(str(file), "--from", "1e-5", "--to", "0.1", "--set", "scale=1.0")
    assert shown.exit_code == 0
    assert "Suggested learning rate: " in shown.output
    assert "so a test up to a higher one" in " ".join(shown.output.split())
    assert "Run: s-lr-range-1-0" in shown.output
    run(str(file), "--from", "1e-5", "--to", "0.1", "--json")
    with Store.open(tmp_path / "store.db") as store:
        assert [record.name for record in store.studies()] == ["s-lr-range-1", "s-lr-range-2"]
        assert store.read_run("s-lr-range-1-0").hyperparameters["scale"] == 1.0
        assert math.isfinite(store.read_run("s-lr-range-2-0").reports[-1].metrics["loss"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "1", "--to", "0.1"], "--from 1 --to 0.1: the rates must be above 0"),
        (["--from", "0"], "must be above 0"),
        (["--length", "0"], "--length 0 must be at least 1"),
        (["--length", "77"], "a function's runs cannot be extended"),
        (["--set", "scale"], "--set 'scale' must be NAME=VALUE"),
    ],
)
def test_what_cannot_work(file: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(str(file), *arguments)
    with Store.open(tmp_path / "store.db") as store:
        assert store.studies() == []


def test_runs_that_say_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="logged no loss: it is looked for as train/loss, loss"):
        run(str(write(tmp_path, "silent")), "--json")
    with pytest.raises(ThalwegError, match="failed: RuntimeError: no data here; see: thalweg show"):
        run(str(write(tmp_path, "broken")), "--json")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        run(str(tmp_path / "no.toml"))
