"""Strategies in a study file that cannot work: one clear error, exit code 2, nothing trained, no store made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from thalweg.cli import main
from thalweg.track.store import Store

TRAIN = """
from pathlib import Path

class Nothing:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

def train(run):
    Path("trained").touch()
    run.restore(nothing=Nothing())
    for position in run.positions():
        pass
    return 1.0
"""

STUDY = """
[study]
name = "s"
metric = "min loss"
workers = 1
[budget]
runs = 3
[strategy]
name = "random"
[space]
x = { linear = [0.0, 2.0] }
size = { integer = [1, 4] }
[trainer]
kind = "function"
file = "train.py"
horizon = 20
"""

NAME = 'name = "random"'
CASES = {
    "unknown strategy": (NAME, 'name = "halvin"', "unknown strategy 'halvin'. Did you mean 'halving'?"),
    "unknown option": (NAME, 'name = "pbt"\npopulatoin = 8', "unknown option 'populatoin'. Did you mean 'population'?"),
    "unknown sampler": (NAME, 'name = "halving"\nsampler = "tpee"', "unknown strategy.sampler 'tpee'"),
    "wrong type": (NAME, 'name = "two_stage"\ntop_k = "five"', "strategy.top_k = 'five' must be a whole number"),
    "rungs out of order": (
        NAME,
        'name = "halving"\nrungs = [0.5, 0.25, 1]',
        "strategy.rungs = [0.5, 0.25, 1] must rise from each rung to the next",
    ),
    "k larger than N": (
        NAME,
        'name = "two_stage"\nnum_configs = 8\ntop_k = 9',
        "strategy.top_k = 9 must be at most num_configs = 8",
    ),
    "population of one": (NAME, 'name = "pbt"\npopulation = 1', "strategy.population = 1 must be at least 2"),
    "mutation of nothing": (NAME, 'name = "pb2"\nmutate = ["y"]', "strategy.mutate: unknown hyperparameter 'y'"),
    "no trunk": (NAME, 'name = "halving"\ntrunk = true', "there is no trunk to branch from"),
    "prior outside its range": ("[0.0, 2.0] }", "[0.0, 2.0], prior = 3.0 }", "space.x.prior = 3.0"),
    "raced and not searched": (NAME, 'name = "lr_race"\ndimension = "lr"', "strategy.dimension = 'lr' is not searched"),
    "grid too large": (NAME, 'name = "grid"\nresolution = 40000', "gives a grid of up to 160,000 points"),
}


def tune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["thalweg", "tune", "study.toml"])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


def write(folder: Path, study: str) -> None:
    (folder / "train.py").write_text(TRAIN)
    (folder / "study.toml").write_text(study)


@pytest.mark.parametrize("case", CASES)
def test_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    old, new, message = CASES[case]
    assert STUDY.count(old) == 1
    write(tmp_path, STUDY.replace(old, new))
    monkeypatch.chdir(tmp_path)
    code, out, err = tune(monkeypatch, capsys)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) <= 4
    assert "Traceback" not in err
    assert not (tmp_path / "trained").exists()
    assert not (tmp_path / ".thalweg" / "store.db").exists()


def test_a_grid_with_fewer_points_than_the_budget_ends_with_its_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The study file itself works; and a space of one point is trained once, whatever the budget."""
    study = STUDY.replace(NAME, 'name = "grid"').replace("x = { linear = [0.0, 2.0] }", "x = 1.0")
    write(tmp_path, study.replace("{ integer = [1, 4] }", "{ choice = [3] }"))
    monkeypatch.chdir(tmp_path)
    code, _, err = tune(monkeypatch, capsys)
    assert code == 0, err
    with Store.open(tmp_path / ".thalweg" / "store.db") as store:
        assert [(run.hyperparameters, run.status) for run in store.read_tree("s")] == [
            ({"x": 1.0, "size": 3}, "finished")
        ]
