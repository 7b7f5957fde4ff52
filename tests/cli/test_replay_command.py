"""`thalweg replay` as a user has it, on a function that adds its hyperparameter at each step: exact by hand."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from thalweg.cli import main
from thalweg.track.store import Store

WALK = """
class Nothing:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

def walk(run):
    state = run.restore(nothing=Nothing())
    total = state.get("total", 0.0)
    for position in run.positions():
        total += float(run.hyperparameters["x"])
        state["total"] = total
    return total
"""

STUDY = """
[study]
name = "s"
metric = "min loss"
workers = 1
[budget]
runs = 2
[strategy]
name = "pbt"
population = 2
[space]
x = { linear = [0.0, 2.0] }
[trainer]
kind = "function"
file = "walk.py"
function = "walk"
horizon = 20
"""

Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def thalweg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    (tmp_path / "walk.py").write_text(WALK)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["thalweg", *shlex.split(line)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def lineage(thalweg: Command, tmp_path: Path) -> str:
    """A run whose rate was 1 up to 10 and 0.5 from there: the study is entered without being trained."""
    from thalweg.cli import study_file
    from thalweg.study import enter

    study, location = study_file.read(tmp_path / "study.toml")
    Path(location).parent.mkdir(parents=True, exist_ok=True)
    with Store.open(location) as store:
        enter(study, store)
        root = store.create_run("s", hyperparameters={"x": 1.0}, horizon=20, until=10, seed=0, origin="pbt")
        store.update_run(root.id, status="stopped", position=10)
        fork = store.create_run(
            "s",
            hyperparameters={"x": 0.5},
            horizon=20,
            until=20,
            seed=0,
            origin="pbt",
            parent=root.id,
            fork_position=10,
        )
        store.update_run(fork.id, status="finished", position=20)
    return fork.id


def test_a_schedule_is_shown_drawn_and_exported_without_training(
    thalweg: Command, lineage: str, tmp_path: Path
) -> None:
    code, out, err = thalweg(f"replay {lineage} --show --export s.toml --chart s.png")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["s-1:", "s-0", ">", "s-1;", "2", "stretches"] in lines
    assert ["from", "to", "(steps)", "x"] in lines
    assert ["0", "10", "1"] in lines
    assert ["10", "20", "0.5"] in lines
    exported = tomllib.loads((tmp_path / "s.toml").read_text())
    assert [each["hyperparameters"] for each in exported["stretches"]] == [{"x": 1.0}, {"x": 0.5}]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = thalweg(f"replay {lineage} --show --json")
    assert json.loads(out)["stretches"][1] == {"start": 10, "end": 20, "hyperparameters": {"x": 0.5}}
    assert json.loads(out)["replay"] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--export s.csv", ".toml or .json"),
        ("--chart s.gif", ".png, .svg, .html"),
        ("--chart none/s.png", "there is no folder"),
    ],
)
def test_refuses_files_that_it_cannot_write(thalweg: Command, lineage: str, options: str, words: str) -> None:
    code, _, err = thalweg(f"replay {lineage} --show {options}")
    assert code == 2
    assert words in err


def test_refuses_a_run_that_is_not_there(thalweg: Command, lineage: str) -> None:
    code, _, err = thalweg("replay s-9 --show")
    assert code == 2
    assert "s-9" in err


@pytest.mark.slow
def test_the_schedule_is_trained_again(thalweg: Command, lineage: str) -> None:
    code, out, err = thalweg(f"replay {lineage}")
    assert (code, err) == (0, "")
    assert "s-3 replays s-1 with the same seed: loss 15 at 20" in out  # 10 x 1 + 10 x 0.5
