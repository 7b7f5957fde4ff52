"""A whole study of a Hugging Face Trainer, in worker processes: halving pauses and continues its runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import cloudpickle
import pytest

import thalweg
from thalweg.track.store import Store
from thalweg.train.hf_trainer import HFTrainer

_spec = importlib.util.spec_from_file_location("hf_makers", Path(__file__).with_name("hf_makers.py"))
assert _spec is not None
assert _spec.loader is not None
hf_makers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hf_makers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing")
def test_a_study_searches_lora_ranks_too(
    bert: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hf_makers", hf_makers)
    cloudpickle.register_pickle_by_value(hf_makers)
    space = {"lr": thalweg.log(1e-4, 1e-2), "lora_r": thalweg.integer(1, 8), "epochs": thalweg.integer(2, 3)}
    result = thalweg.tune(
        HFTrainer(hf_makers.classifier(bert, reviews, lora=True)),
        space=space,
        metric="accuracy",
        budget="4 runs",
        strategy={"name": "halving", "eta": 2},
        name="trainers",
        store=tmp_path / "store.db",
        progress=False,
        workers=1,
    )
    finished = [run for run in result.tree if run.status == "finished"]
    assert finished
    for run in finished:
        assert run.position == run.horizon == 7 * run.hyperparameters["epochs"]
    assert {run.status for run in result.tree} <= {"finished", "paused", "stopped"}
    assert 0.0 <= result.best_value <= 1.0
    assert result.ledger.by_kind()["train"].samples > 0
    assert not result.ledger.by_kind()["repeated"].device_seconds
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        assert store.read_run(finished[0].id).error is None
