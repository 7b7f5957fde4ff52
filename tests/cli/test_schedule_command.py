"""`thalweg schedule`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from thalweg.cli.schedule import app
from thalweg.errors import ConfigError
from thalweg.schedules import preset, presets, run_schedule_names, to_toml, wsd

Command = Callable[..., str]


@pytest.fixture
def schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in an empty folder and gives its output; a ConfigError comes through, as to `main`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return run


def shown(output: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(output)["schedules"]
    return found


def test_the_list_has_every_name(schedule: Command) -> None:
    printed = schedule("list")
    for name in run_schedule_names():
        assert name in printed
    found = json.loads(schedule("list", "--json"))
    assert [*found["schedules"], *(entry["name"] for entry in found["presets"])] == run_schedule_names()
    assert {entry["name"]: entry["peak"] for entry in found["presets"]} == {p.name: p.peak for p in presets()}


@pytest.mark.parametrize("name", run_schedule_names())
def test_every_name_is_drawn(name: str, schedule: Command) -> None:
    printed = schedule("show", name)
    assert name in printed
    assert "│" in printed
    if name in {found.name for found in presets()}:
        assert preset(name).source.split()[0] in printed
        assert "learning rate" in printed


def test_positions_and_rates(schedule: Command) -> None:
    rows = [line.split() for line in schedule("show", "wsd", "--set", "decay=0.4").splitlines()]
    assert [row for row in rows if row[:1] == ["600"]][-1] == ["600", "1"]
    assert ["800", "0.5"] in rows
    assert ["1,000", "0"] in rows


def test_several_in_one_chart(schedule: Command, tmp_path: Path) -> None:
    printed = schedule("show", "wsd", "cosine", "bloom-176b", "--set", "warmup=0.05", "--out", "all.svg")
    assert "Chart: all.svg" in printed
    picture = (tmp_path / "all.svg").read_text()
    for label in ("wsd (warmup = 0.05)", "cosine (warmup = 0.05)", "bloom-176b"):
        assert f"<!-- {label} -->" in picture
    found = shown(schedule("show", "wsd", "cosine", "bloom-176b", "--json"))
    assert [entry["horizon"] for entry in found] == [1000, 1000, 1000]
    # BLOOM's is at its peak after 183,105 of 220,000,000 samples, so between the first two of 1,001 points.
    assert found[2]["multipliers"][1] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("ending", ["png", "html"])
def test_pictures(ending: str, schedule: Command, tmp_path: Path) -> None:
    schedule("show", "cyclic_wsd", "--out", f"picture.{ending}")
    begin = (tmp_path / f"picture.{ending}").read_bytes()[:15]
    assert begin.startswith(b"\x89PNG" if ending == "png" else b"<!doctype html>")


def test_json_of_a_published_run(schedule: Command) -> None:
    (found,) = shown(schedule("show", "bloom-176b", "--json"))
    assert found["unit"] == "samples"
    assert found["horizon"] == found["positions"][-1] == 220_000_000
    assert found["learning_rates"][-1] == pytest.approx(6e-6)
    assert found["schedule"] == {"kind": "cosine", "warmup": 183_105, "horizon": 200_000_000, "floor": 0.1}
    assert len(found["positions"]) == len(found["multipliers"]) == len(found["learning_rates"])
    (short,) = shown(schedule("show", "bloom-176b", "--horizon", "2200", "--json"))
    assert short["multipliers"] == pytest.approx(found["multipliers"])
    assert short["positions"][-1] == 2200


def test_a_file_with_a_schedule_alone(schedule: Command, tmp_path: Path) -> None:
    own = wsd(warmup=10, stable=70, decay=20)
    (tmp_path / "own.toml").write_text(to_toml(own))
    (found,) = shown(schedule("show", "own.toml", "--horizon", "100", "--json"))
    assert found["multipliers"] == [own(position) for position in found["positions"]]
    with pytest.raises(ConfigError, match="give --horizon"):
        schedule("show", "own.toml")


def test_a_file_like_a_presets(schedule: Command, tmp_path: Path) -> None:
    text = (
        'name = "mine"\nunit = "tokens"\npeak = 1e-3\nlength = 5_000_000\nsource = "notes"\n'
        '[schedule]\nkind = "linear"\nhorizon = 5_000_000\n'
    )
    (tmp_path / "mine.toml").write_text(text)
    printed = schedule("show", "mine.toml")
    assert "mine.toml: notes" in printed
    assert ["2,500,000", "0.5", "0.0005"] in [line.split() for line in printed.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cosin"], "unknown schedule 'cosin'. Did you mean 'cosine'"),
        (["lost.toml"], "lost.toml does not exist"),
        (["bad.toml"], "bad.toml: kind = 'linaer' is unknown"),
        (["binary.toml"], "binary.toml cannot be read"),
        (["wsd", "--horizon", "0"], "horizon = 0"),
        (["bloom-176b", "--horizon", "nan"], "horizon = nan"),
        (["wsd", "--set", "decay"], "'decay' must be NAME=VALUE"),
        (["wsd", "--set", "decy=0.1"], "unknown name 'decy'. Did you mean 'decay'"),
        (["wsd", "--set", "decay_form=sqrt"], "Did you mean '1-sqrt'"),
        (["wsd", "--set", "decay=long"], "decay = long must be a finite number"),
        (["wsd", "--set", "horizon=10"], "unknown name 'horizon'"),
        (["wsd", "--out", "picture.gif"], "picture.gif"),
    ],
)
def test_refused(arguments: list[str], message: str, schedule: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('kind = "linaer"')
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=message):
        schedule("show", *arguments)
