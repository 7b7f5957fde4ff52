"""What people ask of a study from elsewhere: to restart a run, to pause and go on; and who asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import thalweg
from thalweg import asked
from thalweg.cli.app import app
from thalweg.errors import ConfigError, StoreError
from thalweg.track.store import Store
from thalweg.train.function import FunctionRun
from thalweg.tree import Pause, Restart, Stop, Unpause


class Counter:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


def walk(run: FunctionRun) -> None:
    """A loop whose curve depends on all the steps before; at 20 it fails while a file says so, and it can be slow."""
    folder = Path(str(run.hyperparameters["folder"]))
    state = run.restore(counter=Counter())
    total = state.setdefault("total", 0.0)
    for position in run.positions():
        if position == 20 and (folder / "broken").exists():
            raise ValueError("a bad batch")
        if (folder / "slow").exists():
            time.sleep(0.3)
        state["total"] = total = total * 0.9 + 1 / position
        run.log(position, total=total)
    run.report(score=total)


def tune(folder: Path, **options: Any) -> thalweg.Result:
    defaults = {
        "space": {"folder": thalweg.choice([str(folder)]), "x": thalweg.linear(0.0, 1.0)},
        "metric": "max score", "budget": "3 runs", "name": "study", "horizon": 27,
        "strategy": {"name": "halving", "sampler": "random"}, "keep_checkpoints": "all",
        "store": folder / "store.db", "progress": False, "workers": 1,
    }  # fmt: skip
    return thalweg.tune(walk, **{**defaults, **options})


def curve(folder: Path, run: str) -> list[float]:
    with Store.open(folder / "store.db", read_only=True) as store:
        assert store.check_integrity() == []
        found = store.series(run, "total")
        assert found.positions.tolist() == list(range(1, len(found) + 1))
        return [float(value) for value in found.values]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_run_is_restarted_from_an_earlier_checkpoint_and_ends_as_before(tmp_path: Path) -> None:
    best = tune(tmp_path).best
    assert best is not None
    before = curve(tmp_path, best.id)
    with Store.open(tmp_path / "store.db") as store:
        run = store.read_run(best.id)
        assert asked.restart_points(store, run) == [0, 3, 9, 27]
        for at, message in [(5, "no checkpoint there. It has: 0, 3, 9, 27"), (27, "ends at 27")]:
            with pytest.raises(ConfigError, match=message):
                asked.restart(store, best.id, at)
        rewound = asked.restart(store, best.id, 9)
        assert (rewound.status, rewound.position, rewound.until) == ("interrupted", 9, 27)
        assert len(store.series(best.id, "total")) == 9
    again = tune(tmp_path)
    assert again.tree[best.id].status == "finished"
    assert curve(tmp_path, best.id) == before
    assert again.tree[best.id].reports == best.reports
    # What is trained again is counted as such.
    assert again.ledger.spent[best.id]["repeated"].seconds > 0


def test_a_failed_run_is_restarted_by_the_command(tmp_path: Path) -> None:
    whole = tune(tmp_path / "whole")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "broken").touch()
    failed = next(run for run in tune(broken).tree if run.status == "failed")
    (broken / "broken").unlink()
    store = str(broken / "store.db")
    arguments = ["restart", failed.id, "--from", "9", "--store", store]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert f"{failed.id} is back at 9 (it was at 19); thalweg resume study --store {store}" in shown.output
    assert tune(broken).tree[failed.id].status == "finished"
    assert curve(broken, failed.id) == curve(tmp_path / "whole", whole.best.id)  # type: ignore[union-attr]


def test_a_running_study_pauses_goes_on_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    study = threading.Thread(target=tune, args=(tmp_path,), kwargs={"strategy": "random", "budget": "1 runs"})
    study.start()
    wait_until((tmp_path / "store.db").exists)
    with Store.open(tmp_path / "store.db") as store:
        wait_until(lambda: bool(store.studies()) and len(store.read_tree("study")) == 1)
        wait_until(lambda: len(store.series("study-0", "total")) >= 3)
        store.add_request("study", Restart("study-0", 0), "ada")
        store.add_request("study", Pause(), "ada")
        wait_until(lambda: store.read_run("study-0").status == "interrupted")
        reached = len(store.series("study-0", "total"))
        time.sleep(0.5)
        assert len(store.series("study-0", "total")) == reached < 27
        assert store.is_paused("study")
        # While it is paused it listens.
        store.add_request("study", Stop("study-9"), None)
        wait_until(lambda: not store.pending_requests("study"))
        (tmp_path / "slow").unlink()
        store.add_request("study", Unpause(), "grace")
        study.join(30)
        assert not study.is_alive()
        assert store.read_run("study-0").status == "finished"
        answered = [(type(r.ask).__name__, r.author, str(r.outcome)) for r in reversed(store.requests("study"))]
    assert answered[0] == ("Restart", "ada", "refused: study-0 is being trained: stop it first")
    assert answered[1] == ("Pause", "ada", "done")
    assert answered[2][:2] == ("Stop", None)
    assert answered[2][2].startswith("refused")
    assert answered[3] == ("Unpause", "grace", "done")
    assert len(curve(tmp_path, "study-0")) == 27


def test_pausing_by_the_command(tmp_path: Path) -> None:
    tune(tmp_path)
    store = ["--store", str(tmp_path / "store.db")]
    shown = CliRunner().invoke(app, ["pause", "study", *store], catch_exceptions=False)
    assert shown.output == "'study' is paused; it is not running now\n"
    shown = CliRunner().invoke(app, ["unpause", "study", "--json", *store], catch_exceptions=False)
    assert json.loads(shown.output) == {"study": "study", "paused": False, "running": False}


def test_what_is_for_studies_is_refused_for_tracked_runs(tmp_path: Path) -> None:
    run = thalweg.init("p", store=tmp_path / "store.db", system_seconds=0, code=False)
    run.finish()
    store = ["--store", str(tmp_path / "store.db")]
    for arguments, message in [
        (["restart", "p-0", "--from", "3"], "thalweg.init('p', run='p-0', at=3) rewinds it"),
        (["fork", "p-0"], "thalweg.init(..., fork_of='p-0', at=STEP)"),
        (["extend", "p-0", "--to", "9"], "thalweg.init(..., fork_of='p-0', at=STEP)"),
        (["pause", "p"], "p is a project"),
        (["stop", "p-0"], "has already finished"),
    ]:
        with pytest.raises(ConfigError) as refused:
            CliRunner().invoke(app, [*arguments, *store], catch_exceptions=False)
        assert message in str(refused.value)
    with pytest.raises(StoreError, match="p is a project of runs that your own scripts track"):
        CliRunner().invoke(app, ["report", "p", *store], catch_exceptions=False)
