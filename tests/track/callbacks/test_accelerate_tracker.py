from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

import thalweg
from thalweg.track.callbacks.accelerate_tracker import ThalwegTracker
from thalweg.track.store import Store

QUIET = {"system_seconds": 0, "code": False}


@pytest.fixture(autouse=True)
def _no_shared_state() -> Iterator[None]:
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()


def test_an_accelerator_logs_into_a_run(store: Store, curve: Callable[..., Any]) -> None:
    accelerator = Accelerator(cpu=True, log_with=ThalwegTracker("demo", tags=["x"], **QUIET))
    accelerator.init_trackers("ignored", config={"lr": 0.1, "model": {"layers": 2}})
    for step in range(3):
        accelerator.log({"loss": torch.tensor(1.0 / (step + 1)), "text": "not kept"}, step=step)
    run = accelerator.get_tracker("thalweg", unwrap=True)
    assert run.id == "demo-0"
    accelerator.end_training()

    (row,) = store.run_rows("demo")
    assert row.status == "finished"
    assert row.tags == ("x",)
    assert dict(row.hyperparameters) == {"lr": 0.1, "model/layers": 2}
    assert curve("demo-0", "loss") == pytest.approx({0: 1.0, 1: 1 / 2, 2: 1 / 3})
    assert store.metrics("demo-0") == ["loss"]


def test_a_given_run_is_not_ended(store: Store) -> None:
    with thalweg.init("demo", **QUIET) as run:
        accelerator = Accelerator(cpu=True, log_with=ThalwegTracker(run))
        accelerator.init_trackers("ignored")
        accelerator.log({"loss": 1}, step=0)
        accelerator.end_training()
        assert store.run_rows("demo")[0].status == "running"
        run.log({"loss": 2}, step=1)
    assert store.series("demo-0", "loss").values.tolist() == [1, 2]
    assert store.run_rows("demo")[0].status == "finished"


def test_other_processes_make_no_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = Accelerator(cpu=True, log_with=ThalwegTracker("demo", **QUIET))
    monkeypatch.setattr(PartialState, "is_main_process", False)
    monkeypatch.setattr(PartialState, "use_distributed", True)
    accelerator.init_trackers("ignored", config={"lr": 1})
    accelerator.log({"loss": 1}, step=0)
    accelerator.end_training()
    assert store.studies() == []
