"""`thalweg check-mup` as a user has it, on widths small enough to be quick."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from thalweg.cli.check_mup import check_mup
from thalweg.errors import ConfigError
from thalweg.optim import coordinate_check
from thalweg.optim.coordinate_check import MODULES, CoordinateCheck

SMALL = "--widths 32,64,256 --layers 1 --steps 2 --seeds 1"
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def thalweg(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Gives the exit code and stdout."""
    torch.set_num_threads(1)
    monkeypatch.setenv("COLUMNS", "80")
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("check-mup")(check_mup)

    def run(line: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, line.split(), catch_exceptions=False)
        return result.exit_code, result.stdout

    return run


@pytest.fixture
def break_mup(monkeypatch: pytest.MonkeyPatch) -> None:
    """One learning rate for all, whatever the width."""
    right = CoordinateCheck.mup

    def wrong(self: CoordinateCheck, width: int) -> Any:
        model, groups = right(self, width)
        return model, [{**group, "lr": self.lr} for group in groups]

    monkeypatch.setattr(coordinate_check.CoordinateCheck, "mup", wrong)


def test_it_prints_a_table_a_chart_and_a_verdict(thalweg: Command, tmp_path: Path) -> None:
    picture = tmp_path / "check.png"
    code, out = thalweg(f"{SMALL} --out {picture}")
    assert code == 0
    for word in (*MODULES, "standard", "flat", "Change of the residual stream after 2 steps", "muP is right"):
        assert word in out, word
    assert "FAILED" not in out
    assert max(map(len, out.splitlines()[:15])) <= 80
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_is_one_object(thalweg: Command) -> None:
    code, out = thalweg(f"{SMALL} --json")
    found = json.loads(out)
    assert code == 0
    assert (found["passed"], found["standard_grows"], found["out"]) == (True, True, None)
    assert found["check"]["widths"] == [32, 64, 256]
    assert [finding["module"] for finding in found["findings"]] == list(MODULES)
    assert len(found["mup"]["slopes"]["size"]["q_proj"]) == 3
    assert found["mup"]["slopes"]["size"]["q_proj"][0] is None


@pytest.mark.usefixtures("break_mup")
def test_a_broken_mup_gives_exit_code_1_and_says_where(thalweg: Command, tmp_path: Path) -> None:
    code, out = thalweg(f"{SMALL.replace('steps 2', 'steps 3')} --out {tmp_path / 'check.html'}")
    assert code == 1
    assert "failed: up_proj: its" in out
    assert "look at the learning rate of the matrices in the blocks" in out
    assert "muP is broken" in out
    assert "Change of activations after 3 steps, muP parametrisation" in (tmp_path / "check.html").read_text()
    code, out = thalweg(f"{SMALL.replace('steps 2', 'steps 3')} --json")
    assert code == 1
    assert json.loads(out)["passed"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--widths 64,x", "--widths '64,x' must be whole numbers"),
        ("--widths 64", "three or more"),
        ("--widths 12,64,256", "width 12 must be a multiple of 8"),
        ("--lr -1", "lr = -1.0 must be a positive number"),
        ("--steps 0", "steps = 0 must be 1 or more"),
    ],
)
def test_bad_options_are_refused(thalweg: Command, options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        thalweg(options)


@pytest.mark.slow
def test_the_defaults_pass(thalweg: Command) -> None:
    code, out = thalweg("--json")
    found = json.loads(out)
    assert (code, found["passed"], found["standard_grows"]) == (0, True, True)
    assert max(abs(finding["slope"]) for finding in found["findings"]) < 0.15
