"""`thalweg landscape` and `thalweg lr-range` on a small model that is really pre-trained."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from thalweg.cli import study_file
from thalweg.cli.landscape import End, _check_same_model, landscape
from thalweg.cli.lr_range import lr_range
from thalweg.errors import ConfigError, StoreError
from thalweg.scaling.schedule_bound import multipliers
from thalweg.schedules import for_run
from thalweg.study import run_study
from thalweg.track.store import Store

APP = typer.Typer()
APP.command("landscape")(landscape)
APP.command("lr-range")(lr_range)

STUDY = """
[study]
metric = "loss"
name = "p"
store = "FOLDER/store.db"
checkpoint_seconds = 0.0
keep_checkpoints = "all"
workers = 1

[budget]
runs = 2

[strategy]
name = "grid"

[space]
lr = { choice = [2e-2, 1e-2] }
batch_size = 8
schedule = "constant"
tokens = 12_800

[trainer]
kind = "pretrain"
evaluations = 2

[trainer.model]
layers = 1
width = 16
heads = 2
vocabulary = 270
context = 16

[trainer.data]
train = "FOLDER/text.txt"
cache = "FOLDER/tokens"
validation = 0.2
test = 0.0
"""


def write_study(folder: Path) -> Path:
    chance = random.Random(0)
    words = ["the", "river", "runs", "down", "a", "valley", "and", "hill", "sides", "rise"]
    lines = [" ".join(chance.choices(words, k=20)) + "." for _ in range(400)]
    (folder / "text.txt").write_text("\n\n".join(lines))
    path = folder / "study.toml"
    path.write_text(STUDY.replace("FOLDER", str(folder)))
    return path


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(APP, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The study file and the store of two runs that were trained at a constant rate."""
    path = write_study(tmp_path_factory.mktemp("trained"))
    study, location = study_file.read(path)
    run_study(study, location, quiet=True)
    return path, location


@pytest.mark.slow
def test_the_line_between_two_checkpoints(trained: tuple[Path, str], tmp_path: Path) -> None:
    _, location = trained
    with Store.open(location) as store:
        first, last = (store.checkpoints("p-0")[i].position for i in (0, -1))
        report = store.read_run("p-0").reports[-1]
    picture = tmp_path / "landscape.svg"
    common = ["--store", location, "--points", "5", "--out", str(picture), "--json"]
    found: dict[str, Any] = json.loads(run("landscape", f"p-0@{first}", "p-0", *common).output)
    assert (found["a"], found["b"]) == (f"p-0@{first}", f"p-0@{last}")
    assert found["alphas"] == [-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    # At B stands the run itself, as its own evaluation had it.
    assert report.position == last
    assert found["losses"][5] == pytest.approx(report.metrics["loss"], rel=1e-5)
    assert found["losses"][1] > found["losses"][5]
    assert found["metric"] == "validation loss"
    assert picture.stat().st_size > 1000


@pytest.mark.slow
def test_two_runs_and_what_a_person_sees(trained: tuple[Path, str]) -> None:
    shown = run("landscape", "p-0", "p-1", "--store", trained[1], "--points", "3", "--beyond", "0", "--split", "train")
    assert shown.exit_code == 0
    assert "A is p-0@" in shown.output
    assert "along the line" in shown.output or "barrier" in shown.output or "all the way" in shown.output


@pytest.mark.slow
def test_what_there_is_no_line_between(trained: tuple[Path, str]) -> None:
    def fails(*arguments: str) -> str:
        with pytest.raises((ConfigError, StoreError)) as raised:
            run("landscape", *arguments, "--store", trained[1])
        return str(raised.value)

    assert "no checkpoint at position 7: it has them at" in fails("p-0@7", "p-0")
    assert "are the same checkpoint" in fails("p-0", "p-0")
    assert "must be a whole number, such as p-0@2000" in fails("p-0@x", "p-0")
    assert "Did you mean 'test'" in fails("p-0", "p-1", "--split", "tests")
    assert "p-9" in fails("p-9", "p-0")
    assert "points = 2" in fails("p-0", "p-1", "--points", "2")


@pytest.mark.slow
def test_a_range_test_of_a_model(trained: tuple[Path, str]) -> None:
    path, location = trained
    found = json.loads(
        run(
            "lr-range", str(path), "--from", "1e-5", "--to", "1", "--length", "6400", "--set", "batch_size=4", "--json"
        ).output
    )
    # 6,400 tokens in steps of 4 sequences of 16 tokens: 100 steps, with the rates that the schedule has.
    schedule = for_run("lr_range", horizon=6400, floor=1e-5)
    assert found["rates"] == pytest.approx(multipliers(schedule, num_steps=100, horizon=6400)[: len(found["rates"])])
    assert len(found["rates"]) > 60
    assert found["steepest"] is not None
    with Store.open(location) as store:
        recorded = store.read_run(found["run"]).hyperparameters
    assert (recorded["tokens"], recorded["batch_size"], recorded["schedule"]) == (6400, 4, "lr_range")


def test_functions_have_no_weights_to_mix(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def train(run):\n    return 1.0\n")
    text = '[study]\nmetric = "loss"\n[budget]\nruns = 1\n[space]\nlr = { log = [1e-3, 1.0] }\n'
    (tmp_path / "f.toml").write_text(text + '[trainer]\nkind = "function"\nfile = "f.py"\n')
    study, _ = study_file.read(tmp_path / "f.toml")
    location = str(tmp_path / "store.db")
    run_study(study, location, quiet=True)
    with pytest.raises(ConfigError, match="FunctionTrainer, cannot evaluate weights"):
        run("landscape", "f-0", "f-0@3", "--store", location)


def test_adapters_of_another_scale_are_other_models() -> None:
    weights = {"lora_A": torch.zeros(2, 2)}
    ends = [End("r", position, {"lora_alpha": alpha}, weights) for position, alpha in ((1, 16), (2, 32), (3, 32))]
    _check_same_model(ends[1], ends[2])
    with pytest.raises(ConfigError, match="r@1 has lora_alpha = 16 and r@2 has 32"):
        _check_same_model(ends[0], ends[1])
    with pytest.raises(ConfigError, match="different shapes"):
        _check_same_model(ends[0], End("q", 1, {"lora_alpha": 16}, {"lora_A": torch.zeros(3, 2)}))
