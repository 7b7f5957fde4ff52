"""The calls of TensorBoard's writer, compared with what TensorBoard's own makes of them."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import thalweg
from thalweg.track.callbacks.summary_writer import SummaryWriter
from thalweg.track.store import Store

QUIET = {"system_seconds": 0, "code": False}


@pytest.fixture
def peer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils import tensorboard
    return tensorboard.SummaryWriter


def write(writer: Any) -> None:
    for step in range(5):
        writer.add_scalar("loss", 1 / (step + 1), step)
        writer.add_scalar("tensor", torch.tensor(step * 0.5), global_step=step)


def test_scalars_are_those_that_tensorboard_reads_from_its_own_files(
    store: Store, curve: Callable[..., Any], peer: Any, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with SummaryWriter("runs/lr-0.1", **QUIET) as ours:
        write(ours)
    with peer(tmp_path / "tb") as theirs:
        write(theirs)
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    for tag in ("loss", "tensor"):
        expected = {event.step: event.value for event in events.Scalars(tag)}
        # Theirs are kept as float32.
        assert curve("runs-0", tag) == pytest.approx(expected, rel=1e-7)


def test_every_call_of_the_peer_is_there(store: Store, peer: Any) -> None:
    names = {name for name, _ in inspect.getmembers(peer, inspect.isfunction) if not name.startswith("_")}
    with SummaryWriter(**QUIET) as writer:
        assert [name for name in names if not callable(getattr(writer, name, None))] == []
        with pytest.raises(AttributeError, match="add_nothing"):
            writer.add_nothing()


def test_the_arguments_are_those_of_the_peer(peer: Any) -> None:
    for name in ("__init__", "add_scalar", "add_scalars", "add_hparams", "add_text"):
        theirs = list(inspect.signature(getattr(peer, name)).parameters)
        ours = list(inspect.signature(getattr(SummaryWriter, name)).parameters)
        assert ours[: len(theirs)] == theirs, name


def test_the_folder_names_project_and_run(store: Store) -> None:
    with SummaryWriter("experiments/mnist/lr 0.1", **QUIET) as writer:
        assert writer.get_logdir() == writer.log_dir == "experiments/mnist/lr 0.1"
        writer.add_scalar("x", 1, 0)
    (row,) = store.run_rows("mnist")
    assert row.name == "lr 0.1"
    assert row.status == "finished"
    assert not Path("experiments").exists()


def test_without_a_folder_each_writer_has_its_own_run(store: Store) -> None:
    for _ in range(2):
        with SummaryWriter(comment="-big", **QUIET) as writer:
            writer.add_scalar("x", 1, 0)
    rows = store.run_rows("runs")
    assert [row.id for row in rows] == ["runs-0", "runs-1"]
    assert all(row.name is not None and row.name.endswith("-big") for row in rows)


def test_the_same_folder_goes_on_with_the_same_run(store: Store, curve: Callable[..., Any]) -> None:
    for steps in (range(3), range(3, 5)):
        with SummaryWriter("runs/a", **QUIET) as writer:
            for step in steps:
                writer.add_scalar("x", step * 10, step)
    assert [row.id for row in store.run_rows("runs")] == ["runs-0"]
    assert curve("runs-0", "x") == {0: 0, 1: 10, 2: 20, 3: 30, 4: 40}


def test_purging_hides_what_is_written_again(store: Store, curve: Callable[..., Any]) -> None:
    # As it happens: the process that wrote the steps past the last checkpoint is gone.
    crashed = (
        "import os; from thalweg.track.callbacks.summary_writer import SummaryWriter\n"
        "writer = SummaryWriter('runs/a', system_seconds=0, code=False)\n"
        "for step in range(6): writer.add_scalar('x', 1, step)\n"
        "writer.flush(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", crashed]).returncode == 9
    with SummaryWriter("runs/a", purge_step=3, **QUIET) as writer:
        writer.add_scalar("x", 2, 3)
    assert curve("runs-0", "x") == {0: 1, 1: 1, 2: 1, 3: 2}


def test_purging_a_new_run_hides_nothing(store: Store, curve: Callable[..., Any]) -> None:
    with SummaryWriter("runs/a", purge_step=3, **QUIET) as writer:
        writer.add_scalar("x", 2, 3)
    assert curve("runs-0", "x") == {3: 2}


def test_groups_hyperparameters_and_texts(store: Store, curve: Callable[..., Any]) -> None:
    with SummaryWriter("runs/a", **QUIET) as writer:
        writer.add_scalars("loss", {"train": 1.0, "test": 2.0}, 7)
        writer.add_hparams({"lr": 0.1, "betas": [0.9, 0.99]}, {"accuracy": 0.8})
        writer.add_text("sample", "<b>once</b>", 7)
    details = store.run_details("runs-0")
    assert dict(details.row.hyperparameters) == {"lr": 0.1, "betas": [0.9, 0.99]}
    assert [note.text for note in details.notes] == ["sample (step 7): <b>once</b>"]
    assert curve("runs-0", "loss/train") == {7: 1.0}
    assert curve("runs-0", "loss/test") == {7: 2.0}
    assert curve("runs-0", "accuracy") == {7: 0.8}


def test_what_is_not_kept_is_said_once_per_kind(store: Store) -> None:
    with SummaryWriter("runs/a", **QUIET) as writer:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(3):
                writer.add_histogram("weights", torch.ones(4), step)
                writer.add_image("image", torch.ones(3, 2, 2), step)
                writer.add_images("images", torch.ones(1, 3, 2, 2), step)
        writer.add_scalar("x", 1, 0)
    messages = [str(warning.message) for warning in caught]
    assert messages == [
        "thalweg keeps no histograms: add_histogram does nothing",
        "thalweg keeps no images: add_image does nothing",
    ]
    assert store.metrics("runs-0") == ["x"]


def test_a_value_that_is_no_number_is_refused(store: Store) -> None:
    with SummaryWriter("runs/a", **QUIET) as writer, pytest.raises(thalweg.ConfigError, match="loss = 'high'"):
        writer.add_scalar("loss", "high", 0)


def test_after_close_a_writer_goes_on(store: Store, curve: Callable[..., Any]) -> None:
    writer = SummaryWriter("runs/a", **QUIET)
    writer.add_scalar("x", 1, 0)
    writer.close()
    writer.add_scalar("x", 2, 1)
    writer.flush()
    assert store.run_rows("runs")[0].status == "running"
    writer.close()
    assert curve("runs-0", "x") == {0: 1, 1: 2}
    assert store.run_rows("runs")[0].status == "finished"


def test_an_exception_ends_the_run_as_failed(store: Store) -> None:
    def breaks() -> None:
        with SummaryWriter("runs/a", **QUIET) as writer:
            writer.add_scalar("x", 1, 0)
            raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError):
        breaks()
    (row,) = store.run_rows("runs")
    assert row.status == "failed"
    assert row.error is not None
    assert "ZeroDivisionError: no" in row.error


def test_a_given_run_is_written_and_not_ended(store: Store, curve: Callable[..., Any]) -> None:
    with thalweg.init("demo", **QUIET) as run:
        with SummaryWriter(run=run) as writer:
            writer.add_scalar("x", 1, 3)
        run.log({"x": 2}, step=4)
    assert curve("demo-0", "x") == {3: 1, 4: 2}
    assert [row.id for row in store.run_rows("demo")] == ["demo-0"]
