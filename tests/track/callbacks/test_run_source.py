"""What every callback is told about its run: a project, a run, and what cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import thalweg
from thalweg.errors import ConfigError, StoreError
from thalweg.track.callbacks.accelerate_tracker import ThalwegTracker
from thalweg.track.callbacks.hugging_face import ThalwegCallback
from thalweg.track.callbacks.lightning_logger import ThalwegLogger
from thalweg.track.store import Store

sys.path.insert(0, str(Path(__file__).parent))
from hf_training import trainer

Make = Callable[..., Any]

each = pytest.mark.parametrize("make", [ThalwegCallback, ThalwegLogger, ThalwegTracker])
QUIET = {"system_seconds": 0, "code": False}


@each
def test_neither_project_nor_run_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match=r'needs a project or a run: Thalweg\w+\("my-project"\)'):
        make()


@each
def test_an_id_alone_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="needs a project"):
        make(run="demo-0")


@each
def test_two_projects_are_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="two projects, 'a' and 'b'"):
        make("a", project="b")


@each
def test_a_run_of_another_project_is_refused(make: Make, store: Store) -> None:
    with thalweg.init("mine", **QUIET) as run:
        with pytest.raises(ConfigError, match=r"run mine-0 belongs to 'mine'"):
            make(run=run, project="other")
        with pytest.raises(ConfigError, match="two runs"):
            make(run, run=run)


@each
def test_options_for_a_run_that_is_there_are_refused(make: Make, store: Store) -> None:
    with (
        thalweg.init("mine", **QUIET) as run,
        pytest.raises(ConfigError, match=r"notes, tags belong to thalweg\.init"),
    ):
        make(run, tags=["x"], notes="y")


@each
def test_no_run_is_made_before_it_is_needed(make: Make, store: Store) -> None:
    make("demo", **QUIET)
    assert store.studies() == []


@each
def test_a_run_that_has_ended_is_refused(make: Make, store: Store) -> None:
    with thalweg.init("mine", **QUIET) as run:
        pass
    with pytest.raises(ConfigError, match=r"mine-0 has ended.*run='mine-0'"):
        make(run)


@each
def test_by_its_id_an_ended_run_goes_on(make: Make, store: Store) -> None:
    with thalweg.init("mine", **QUIET) as run:
        pass
    callback = make("mine", run=run.id, **QUIET)
    source = callback._source
    source.live().log({"loss": 1.0}, step=5)
    source.finish()
    assert [row.id for row in store.run_rows("mine")] == ["mine-0"]
    assert store.series("mine-0", "loss").values.tolist() == [1.0]


ENDINGS = """
import sys
from thalweg.track.callbacks.summary_writer import SummaryWriter
writer = SummaryWriter("runs/a", system_seconds=0, code=False)
writer.add_scalar("loss", 0.5, 1)
{end}
"""


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        ("", "finished", None),
        ("raise ZeroDivisionError('by chance')", "failed", "ZeroDivisionError: by chance"),
        ("raise KeyboardInterrupt", "stopped", None),
    ],
)
def test_a_run_ends_with_its_process(store: Store, end: str, status: str, error: str | None) -> None:
    subprocess.run([sys.executable, "-c", ENDINGS.format(end=end)], capture_output=True)
    (row,) = store.run_rows("runs")
    assert row.status == status
    assert (row.error is None) if error is None else (row.error is not None and error in row.error)
    assert store.series(row.id, "loss").values.tolist() == [0.5]


def test_a_store_that_cannot_be_opened_does_not_keep_training_from_its_way(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("THALWEG_STORE", str(tmp_path / "file" / "store.db"))
    monkeypatch.setenv("HOME", str(tmp_path))
    callback = ThalwegCallback("demo", **QUIET)
    assert callback.checkpoint() is None
    teacher = trainer([callback], max_steps=4)
    teacher.train()
    assert teacher.state.global_step == 4
    assert "cannot be opened" in caplog.text
    assert "is not remembered" in caplog.text
    # A run that is to go on is another matter: from the start it would be trained once more, unnoticed.
    with pytest.raises(StoreError):
        ThalwegCallback("demo", fork_of="demo-0", **QUIET).checkpoint()
