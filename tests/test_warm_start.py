"""Studies that begin from what earlier ones found: what is read, what is kept, and what is refused."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

import thalweg
from thalweg import warm_start
from thalweg.budget import Budget
from thalweg.cli import main
from thalweg.errors import ConfigError
from thalweg.search.strategy import Earlier
from thalweg.space import Space
from thalweg.track.store import Store
from thalweg.train.function import FunctionRun
from thalweg.tree import Metric

SPACE = {"x": thalweg.linear(-2.0, 2.0)}


def bowl(run: FunctionRun) -> dict[str, float]:
    """Best at x = 1; without a result below -1.5."""
    x = float(next(iter(run.hyperparameters.values())))
    return {"score": math.nan if x < -1.5 else (x - 1) ** 2}


def tune(tmp_path: Path, name: str, **options: Any) -> thalweg.Result:
    defaults = {
        "space": SPACE, "metric": "min score", "budget": "4 runs", "strategy": "random", "name": name,
        "store": tmp_path / "store.db", "progress": False, "workers": 1,
    }  # fmt: skip
    return thalweg.tune(bowl, **{**defaults, **options})


def gather(tmp_path: Path, references: Any, **options: Any) -> tuple[Earlier, ...]:
    defaults = {"study": "new", "space": Space.parse(SPACE), "metric": Metric("score", "min")}
    return warm_start.gather(references, store=tmp_path / "store.db", **{**defaults, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a study, one without a result, and a project; no test changes it."""
    folder = tmp_path_factory.mktemp("earlier")
    tune(folder, "first", strategy="grid", budget="5 runs", space={"x": thalweg.choice([-2.0, 0.0, 2.0])})
    tune(folder, "nothing", budget="1 run", space={"x": thalweg.linear(-2.0, -1.9)})
    tune(folder, "aliased", budget="1 run", space={"learning_rate": thalweg.log(0.1, 2.0)})
    with Store.open(folder / "store.db") as store:
        store.create_project("tracked")
    return folder


def test_finished_and_diverged_roots_are_read_in_order(folder: Path) -> None:
    (earlier,) = gather(folder, "first")
    assert earlier.name == "first"
    with Store.open(folder / "store.db", read_only=True) as store:
        runs = list(store.read_tree("first"))
    expected = {-2.0: math.inf, 0.0: 1.0, 2.0: 1.0}
    assert [point["x"] for point, _ in earlier.results] == [run.hyperparameters["x"] for run in runs]
    assert {float(point["x"]): loss for point, loss in earlier.results} == expected


def test_names_of_other_libraries_are_understood(folder: Path) -> None:
    (earlier,) = gather(folder, ["aliased"], space=Space.parse({"lr": {"log": [0.1, 1.0]}, "epochs": 3}))
    assert {name for point, _ in earlier.results for name in point} == {"lr"}


def test_what_was_found_is_kept_with_the_study(tmp_path: Path) -> None:
    tune(tmp_path, "first")
    before = tune(tmp_path, "second", warm_start=["first"], budget="2 runs")
    (earlier,) = before.study.earlier
    assert len(earlier.results) == 4
    with Store.open(tmp_path / "store.db") as store:
        kept = store.study("second").config["warm_start"]
        # More is found in the first study meanwhile ...
        record = store.study("first")
        store.update_study("first", {**record.config, "budget": Budget.parse("6 runs").limits()})
    assert warm_start.from_config(kept) == (earlier,)
    tune(tmp_path, "first", budget="6 runs")
    # ... which changes nothing in the second.
    after = tune(tmp_path, "second", warm_start="first", budget="2 runs")
    assert after.study.earlier == before.study.earlier
    assert len(gather(tmp_path, "first")[0].results) == 6
    assert [run.hyperparameters for run in after.tree] == [run.hyperparameters for run in before.tree]

    # It cannot be given other earlier studies any more.
    with pytest.raises(ConfigError, match=r"warm_start: was first \(4 results\), is now nothing"):
        tune(tmp_path, "second", budget="2 runs")


def test_losses_survive_the_store(tmp_path: Path) -> None:
    earlier = (Earlier("a", (({"x": 1, "kind": "b", "flag": True}, 0.1), ({"x": 2.5}, math.inf))), Earlier("b", ()))
    assert warm_start.from_config(json.loads(json.dumps(warm_start.to_config(earlier), allow_nan=False))) == earlier


def test_studies_of_other_stores_are_read(folder: Path, tmp_path: Path) -> None:
    reference = f"{folder / 'store.db'}:first"
    (found,) = gather(tmp_path, reference)
    assert found.name == reference
    assert found.results == gather(folder, "first")[0].results
    assert [earlier.name for earlier in gather(folder, ["first", reference])] == ["first", reference]


@pytest.mark.parametrize(
    ("references", "options", "message"),
    [
        ("frist", {}, "no study 'frist' in .*Did you mean 'first'"),
        ("missing.db:first", {}, "there is no store 'missing.db'"),
        ("new", {}, "'new' is the study itself"),
        ("first,first", {}, "'first' is named twice"),
        ("first,", {}, "must name studies, such as 'imdb'"),
        ("tracked", {}, "no study 'tracked'"),
        ("first", {"metric": Metric("score", "max")}, "has the metric 'min score', this one 'max score'"),
        (
            "first",
            {"space": Space.parse({"lr": thalweg.log(1e-5, 1.0)})},
            "shares no dimension .* It has x; here lr are",
        ),
        ("nothing", {}, "has no finished run with a result to learn from"),
    ],
)
def test_what_cannot_help_is_refused(folder: Path, references: str, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gather(folder, references, **options)


FILE = """
[study]
metric = "min score"
workers = 1

[budget]
runs = 2

[strategy]
name = "random"

[space]
x = { linear = [-1.0, 2.0] }

[trainer]
kind = "function"
file = "train.py"
"""


def test_from_the_command_line_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("def train(run):\n    return {'score': float(run.hyperparameters['x']) ** 2}\n")
    (tmp_path / "first.toml").write_text(FILE)
    (tmp_path / "second.toml").write_text(FILE)
    (tmp_path / "third.toml").write_text(FILE.replace("workers = 1", 'workers = 1\nwarm_start = ["first", "second"]'))

    def thalweg_command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["thalweg", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    assert thalweg_command("tune", "first.toml", "--json") == 0
    assert thalweg_command("tune", "second.toml", "--warm-start", "first", "--json") == 0
    assert thalweg_command("tune", "third.toml", "--json") == 0
    # What was given on the command line is kept for a later session.
    assert thalweg_command("resume", "second", "--budget", "3 runs", "--json") == 0
    with Store.open(".thalweg/store.db") as store:
        assert len(store.read_tree("second")) == 3
        kept = {
            name: [entry["study"] for entry in store.study(name).config.get("warm_start", [])]
            for name in ("first", "second", "third")
        }
    assert kept == {"first": [], "second": ["first"], "third": ["first", "second"]}
    capsys.readouterr()
    assert thalweg_command("tune", "first.toml", "--warm-start", "nowhere") == 2
    assert "no study 'nowhere'" in capsys.readouterr().err
