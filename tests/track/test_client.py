"""Tracking from a person's own script: what `init`, `log`, `save` and forks do while all goes well, and bad inputs."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import thalweg
from thalweg.errors import ConfigError, StoreError
from thalweg.track.store import Store
from thalweg.tree import Stop


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def begin(place: Path, **options: Any) -> thalweg.TrackedRun:
    return thalweg.init("p", store=place, **({"system_seconds": 0, "code": False} | options))


def curve(place: Path, run_id: str, metric: str) -> dict[int, float]:
    with Store.open(place) as store:
        found = store.series(run_id, metric)
        assert store.check_integrity() == []
        return dict(zip(found.positions.tolist(), found.values.tolist(), strict=True))


def test_what_is_logged_is_read_back_with_exact_steps(place: Path) -> None:
    with begin(place) as run:
        run.log({"loss": 2})
        run.log({"loss": np.float32(0.5), "train": {"acc": torch.tensor(0.25)}})
        run.log({"loss": 0.125}, step=Decimal("10.5"))
        run.log({"loss": 8.0})
        run.log({"loss": 1.0}, step=10**12)
    # A million positions a step: half a step is half a million.
    assert curve(place, run.id, "loss") == {
        0: 2.0,
        10**6: 0.5,
        10_500_000: 0.125,
        11_500_000: 8.0,
        10**18: 1.0,
    }
    assert curve(place, run.id, "train/acc") == {10**6: 0.25}
    with Store.open(place) as store:
        (row,) = store.run_rows("p")
        assert (row.status, row.position) == ("finished", 10**18)
        assert dict(row.latest) == {"loss": (10**18, 1.0), "train/acc": (10**6, 0.25)}


def test_a_fork_inherits_up_to_its_step_and_goes_on_after_it(place: Path) -> None:
    with begin(place, hyperparameters={"lr": 0.1, "model": {"depth": 2}}) as parent:
        for step in range(5):
            parent.log({"loss": float(step)}, step=step)
    with begin(place, fork_of=parent, at=2, hyperparameters={"lr": 0.2}) as child:
        assert (child.fork_step, child.last_step) == (2, 2)
        child.log({"loss": 30.0})
        assert child.last_step == 3
    assert curve(place, child.id, "loss") == {0: 0.0, 10**6: 1.0, 2 * 10**6: 2.0, 3 * 10**6: 30.0}
    # What a fork does not change, it has from its parent.
    assert child.hyperparameters == {"lr": 0.2, "model/depth": 2}
    with begin(place, fork_of=child.id) as grandchild:
        assert grandchild.fork_step == 3


def test_a_run_is_gone_on_with_and_rewound(place: Path) -> None:
    with begin(place, run="mine") as run:
        for step in range(4):
            run.log({"loss": float(step)}, step=step)
    with begin(place, run="mine") as again:
        assert (again.id, again.last_step) == (run.id, 3)
        again.log({"loss": 4.0})
    with begin(place, run=run.id, at=1) as rewound:
        assert rewound.last_step == 1
        rewound.log({"loss": 20.0})
    assert curve(place, run.id, "loss") == {0: 0.0, 10**6: 1.0, 2 * 10**6: 20.0}
    with Store.open(place) as store:
        assert [row.id for row in store.run_rows("p")] == [run.id]


def test_a_fork_waits_for_a_parent_that_comes_later(place: Path) -> None:
    with begin(place, fork_of="later", at=1) as child:
        child.log({"loss": 9.0})
    assert curve(place, child.id, "loss") == {2 * 10**6: 9.0}
    with Store.open(place) as store:
        assert store.run_rows("p")[0].waiting_parent == "later"
    with begin(place, run="later") as parent:
        parent.log({"loss": 5.0}, step=1)
        parent.log({"loss": 6.0}, step=2)
    assert curve(place, child.id, "loss") == {10**6: 5.0, 2 * 10**6: 9.0}
    with Store.open(place) as store:
        assert store.run_rows("p")[0].parent == parent.id


def test_two_runs_that_wait_for_each_other_make_no_circle(place: Path) -> None:
    with begin(place, run="a", fork_of="b", at=0) as first:
        first.log({"loss": 1.0})
    with begin(place, run="b", fork_of="a", at=0) as second:
        second.log({"loss": 2.0})
    assert curve(place, second.id, "loss") == {10**6: 2.0}
    assert curve(place, first.id, "loss") == {10**6: 1.0}


def test_the_best_last_step_is_gone_on_from(place: Path) -> None:
    for last in (0.7, 0.9, 0.8):
        with begin(place, hyperparameters={"peak": last}) as run:
            run.log({"accuracy": 0.95}, step=1)
            run.log({"accuracy": last}, step=2)
    with begin(place) as run:
        run.log({"accuracy": float("nan")}, step=3)
    options = {"system_seconds": 0, "code": False}
    with thalweg.continue_best("p", "accuracy", store=place, hyperparameters={"lr": 1.0}, **options) as best:
        assert best.fork_step == 2
        assert best.hyperparameters == {"peak": 0.9, "lr": 1.0}
    with pytest.raises(ConfigError, match=r"no run of 'p' has a last value of 'f1'.*Known: accuracy"):
        thalweg.continue_best("p", "f1", store=place)


def test_files_are_versions_by_step_and_inherited_up_to_the_fork(place: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("one")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "state").write_text("weights")
    with begin(place) as parent:
        parent.log({"loss": 1.0}, step=1)
        first = parent.save(tmp_path / "model.pt")
        assert first.path != tmp_path / "model.pt"
        assert (first.position, first.num_bytes) == (10**6, 3)
        (tmp_path / "model.pt").write_text("three")
        parent.log({"loss": 1.0}, step=3)
        parent.save(tmp_path / "model.pt")
        kept = parent.save(folder, name="resume", copy=False)
        assert (kept.path, kept.copied, kept.num_bytes) == (folder, False, 7)
    with begin(place, fork_of=parent, at=2) as child:
        found = child.saved("model.pt")
        assert found is not None
        assert (found.run, found.path.read_text()) == (parent.id, "one")
        assert child.saved("resume") is None
        (tmp_path / "model.pt").write_text("child's")
        child.log({"loss": 2.0}, step=5)
        child.save(tmp_path / "model.pt")
        newest, before = child.saved("model.pt"), child.saved("model.pt", step=4)
        assert newest is not None
        assert newest.path.read_text() == "child's"
        assert before is not None
        assert before.path.read_text() == "one"
        with pytest.raises(ConfigError, match="there is no file or folder at"):
            child.save(tmp_path / "nothing")
    with Store.open(place) as store:
        store.delete_run(child.id)
        assert not (store.files_folder / child.id).exists()
        assert first.path.exists()


def test_a_rewind_hides_files_as_it_hides_points(place: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with begin(place, run="r") as run:
        run.log({"loss": 1.0}, step=5)
        run.save(tmp_path / "a")
    with begin(place, run="r", at=4) as run:
        assert run.saved("a") is None


def test_tags_notes_names_and_hyperparameters(place: Path) -> None:
    name = "<script>alert('x')</script> / \"q\" 🚀 " + "n" * 1000
    with begin(place, name=name, tags=["a", "b"], notes="first") as run:
        run.add_tags("b", "c")
        run.note("second")
        run.set({"lr": 0.5, "betas": (0.9, 0.95), "module": torch.nn.ReLU, "none": None})
    with Store.open(place) as store:
        details = store.run_details(run.id)
        assert details.row.name == name
        assert details.row.tags == ("a", "b", "c")
        assert [note.text for note in details.notes] == ["first", "second"]
        assert details.row.num_notes == 2
        assert dict(details.row.hyperparameters) == {
            "lr": 0.5,
            "betas": [0.9, 0.95],
            "module": "<class 'torch.nn.modules.activation.ReLU'>",
            "none": None,
        }


def test_the_machine_is_measured_and_not_inherited(place: Path) -> None:
    with begin(place, system_seconds=0.05) as run:
        run.log({"loss": 1.0})
        time.sleep(0.5)
    with begin(place, fork_of=run, at=0) as child:
        child.log({"loss": 2.0})
    with Store.open(place) as store:
        measured = store.series(run.id, "system/process_memory_bytes")
        assert len(measured) >= 2
        assert (measured.values > 1e6).all()
        assert set(store.run_rows("p")[0].latest) == {"loss"}
        assert store.metrics(child.id) == ["loss"]
        assert len(store.series(child.id, "system/process_memory_bytes")) == 0


def test_code_and_environment_are_recorded(place: Path, tmp_path: Path) -> None:
    script = tmp_path / "code" / "train.py"
    script.parent.mkdir()
    script.write_text(f"import thalweg\nthalweg.init('p', store={str(place)!r}, system_seconds=0).finish()\n")

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.check_output(["git", *identity, "-C", str(script.parent), *arguments], text=True).strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    script.write_text(script.read_text() + "# changed\n")
    subprocess.run([sys.executable, str(script), "--lr", "3"], check=True, cwd=tmp_path)
    with Store.open(place) as store:
        facts = store.run_details("p-0").facts
    assert facts["code"]["commit"] == git("rev-parse", "HEAD")
    assert "+# changed" in facts["code"]["diff"]
    assert facts["command"] == ["train.py", "--lr", "3"]
    assert facts["packages"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [(ValueError("bad batch"), "failed", "ValueError: bad batch"), (KeyboardInterrupt(), "stopped", None)],
)
def test_how_a_block_ends_is_how_the_run_ends(place: Path, error: BaseException, status: str, text: str | None) -> None:
    def train() -> None:
        with begin(place) as run:
            run.log({"loss": 1.0})
            raise error

    with pytest.raises(type(error)):
        train()
    with Store.open(place) as store:
        row = store.run_rows("p")[0]
    assert row.status == status
    assert row.error is None if text is None else text in str(row.error)


def test_a_script_that_ends_without_finish_leaves_its_points(place: Path) -> None:
    script = f"""
import thalweg
run = thalweg.init("p", store={str(place)!r}, system_seconds=0, code=False)
for step in range(100):
    run.log({{"loss": step}})
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(curve(place, "p-0", "loss")) == 100
    with Store.open(place) as store:
        assert store.run_rows("p")[0].status == "crashed"


def _log_part(place: Path, rank: int, num: int) -> None:
    with begin(place, run="shared") as run:
        for step in range(num):
            run.log({f"rank {rank}/loss": float(step), "both": float(rank)}, step=step)


def test_many_processes_write_one_run(place: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_log_part, args=(place, rank, 500)) for rank in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with Store.open(place) as store:
        (row,) = store.run_rows("p")
        assert row.status == "finished"
        assert not store.run_times(row.id).live or row.ended is not None
    for rank in range(3):
        assert curve(place, row.id, f"rank {rank}/loss") == {step * 10**6: float(step) for step in range(500)}
    assert set(curve(place, row.id, "both")) == {step * 10**6 for step in range(500)}


def test_a_run_ends_when_the_last_of_its_processes_says_so(place: Path) -> None:
    first, second = begin(place, run="shared"), begin(place, run="shared")
    assert first.id == second.id
    first.finish()
    with Store.open(place) as store:
        assert store.run_rows("p")[0].status == "running"
        second.log({"loss": 1.0})
        second.finish()
        assert store.run_rows("p")[0].status == "finished"
    third, fourth = begin(place, run="shared"), begin(place, run="shared")
    third.finish("failed", "out of memory")
    with Store.open(place) as store:
        # One that went wrong tells on the run at once.
        assert store.run_rows("p")[0].status == "failed"
    fourth.finish()


def test_somebody_asks_a_script_to_stop(place: Path) -> None:
    with begin(place) as run:
        assert not run.should_stop
        with Store.open(place) as store:
            store.add_request("p", Stop(run.id), "ada")
            deadline = time.monotonic() + 10
            while not run.should_stop and time.monotonic() < deadline:
                time.sleep(0.05)
            assert run.should_stop
            (answered,) = store.requests("p")
        assert (answered.author, answered.outcome) == ("ada", "the script was told")


def test_steps_that_are_not_kept_exactly_are_rounded_and_said(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "thalweg"), begin(place) as run:
        for _ in range(3):
            run.log({"loss": 1.0}, step=1 / 3)
        run.log({"loss": 2.0}, step=-1)
        run.log({"loss": 2.0}, step=float("nan"))
        run.log({"loss": 3.0}, step=True)
    assert curve(place, run.id, "loss") == {333333: 1.0}
    assert caplog.text.count("more than the 6 decimals") == 1
    assert caplog.text.count("must be a number from 0 on") == 1


def test_strict_raises_what_cannot_be_recorded(place: Path) -> None:
    with begin(place, strict=True) as run:
        run.log({"loss": 1.0})
        for metrics, step, message in [
            ({"loss": "x"}, None, "loss = 'x' is not one number"),
            ({"": 1.0}, None, "must be a printable string"),
            ({"loss": torch.ones(2)}, None, "is not one number"),
            ([1], None, "must map names to numbers"),
            ({"loss": 1.0}, 1 / 3, "more than the 6 decimals"),
            ({"loss": 1.0}, 10**13, "is too large: with 6 decimals, steps go to 9,223,372,036,854"),
        ]:
            with pytest.raises(ConfigError, match=message):
                run.log(metrics, step=step)  # type: ignore[arg-type]
        with Store.open(place) as store:
            # On the disk when the call returned.
            assert len(store.series(run.id, "loss")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": 3}, "needs fork_of="),
        ({"fork_of": "nobody"}, "say where the fork begins by at="),
        ({"fork_of": "a", "run": "b"}, "needs at="),
        ({"hyperparameters": [1]}, "must map names to values"),
        ({"decimals": 12}, "must be a whole number from 0 to 9"),
        ({"tags": [""]}, "must be a text that is not empty"),
        ({"notes": "  "}, "note '  ' must be a text that is not empty"),
        ({"tags": "abc"}, r"must be a list, such as"),
    ],
)
def test_what_cannot_work_is_refused_at_once(place: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        begin(place, **options)


def test_names_that_are_taken_or_cannot_be(place: Path) -> None:
    with Store.open(place) as store:
        store.create_study("search", {"metric": "max accuracy"})
    with pytest.raises(StoreError, match="'search' is a study"):
        thalweg.init("search", store=place)
    with pytest.raises(ConfigError, match="project name = 'a/b'"):
        thalweg.init("a/b", store=place)
    (place.parent / "other.db").write_text("no database at all")
    with pytest.raises(StoreError, match="is not a store"):
        thalweg.init("p", store=place.parent / "other.db")


def test_a_finished_run_says_so(place: Path) -> None:
    run = begin(place)
    run.finish()
    run.finish()
    assert run.ended
    with pytest.raises(StoreError, match="is closed"):
        run.log({"loss": 1.0})
    with pytest.raises(ConfigError, match="status = 'done'"):
        run.finish("done")  # type: ignore[arg-type]


def test_the_store_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THALWEG_STORE", str(tmp_path / "there.db"))
    thalweg.init("p", system_seconds=0, code=False).finish()
    assert (tmp_path / "there.db").exists()
    monkeypatch.delenv("THALWEG_STORE")
    monkeypatch.chdir(tmp_path)
    thalweg.init("p", system_seconds=0, code=False).finish()
    assert (tmp_path / ".thalweg" / "store.db").exists()


def test_positions_of_another_project_have_other_decimals(place: Path) -> None:
    with begin(place, decimals=0, unit="tokens") as run:
        run.log({"loss": 1.0}, step=15 * 10**12)
    assert curve(place, run.id, "loss") == {15 * 10**12: 1.0}
    with Store.open(place) as store:
        record = store.study("p")
        assert (record.kind, record.unit, record.decimals, record.scale) == ("project", "tokens", 0, 1)


def test_a_thousand_forks_are_one_curve(place: Path) -> None:
    with Store.open(place) as store:
        store.create_project("p", decimals=0)
        parent, expected = None, {}
        for generation in range(1000):
            new = thalweg.track.records.NewRun(
                uid=f"g{generation}", parent=parent, fork_position=10 * generation, status="finished"
            )
            run_id, _ = store.track_run("p", new)
            at = np.arange(10 * generation, 10 * generation + 20)
            store.import_points(run_id, "loss", at, at, np.full(20, float(generation)))
            # Each child inherits its parent's first point only, and overwrites it.
            expected |= {int(place): float(generation) for place in at}
            parent = run_id
        found = store.series(run_id, "loss")
        assert dict(zip(found.positions.tolist(), found.values.tolist(), strict=True)) == expected
        assert len(store.run_details(run_id).lineage) == 1000
    assert os.path.getsize(place) > 0
