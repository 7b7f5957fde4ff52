"""Studies from end to end, with functions as trainers: the loop, resume, failures, requests made by hand, budgets."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import thalweg
from thalweg.errors import ConfigError
from thalweg.loop import StudyFailed
from thalweg.track.store import Store
from thalweg.train.function import FunctionRun, FunctionTrainer
from thalweg.tree import Fork, Run, Stop

SPACE = {"x": thalweg.linear(-2.0, 2.0), "kind": thalweg.choice(["a", "b"])}


def bowl(run: FunctionRun) -> dict[str, float]:
    """Best at x = 1 and kind a."""
    x, kind = run.hyperparameters["x"], run.hyperparameters["kind"]
    return {"score": -((float(x) - 1) ** 2) - (kind == "b")}


def walk(run: FunctionRun) -> None:
    """A loop with state, whose curve depends on all the steps before."""
    state = run.restore(counter=Counter())
    total = state.setdefault("total", 0.0)
    for position in run.positions():
        state["total"] = total = total * 0.9 + float(run.hyperparameters["x"]) / position
        run.log(position, total=total)
    run.report(score=total)


class Counter:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


def tune(function: Any, tmp_path: Path, **options: Any) -> thalweg.Result:
    defaults = {
        "space": SPACE, "metric": "max score", "budget": "6 runs", "strategy": "random", "name": "study",
        "store": tmp_path / "store.db", "progress": False, "workers": 1,
    }  # fmt: skip
    return thalweg.tune(function, **{**defaults, **options})


def shape(run: Run) -> tuple[Any, ...]:
    """All about a run that has to be equal in two equal studies."""
    return (run.id, run.parent, run.fork_position, dict(run.hyperparameters), run.status, run.position, run.reports)


def test_the_best_of_a_simple_function_is_found(tmp_path: Path) -> None:
    result = tune(bowl, tmp_path, budget="20 runs", strategy="tpe", workers=2)
    assert len(result.tree) == 20
    assert {run.status for run in result.tree} == {"finished"}
    assert result.best_hyperparameters["kind"] == "a"
    assert abs(result.best_hyperparameters["x"] - 1) < 0.5
    assert result.best_value == max(run.reports[-1].metrics["score"] for run in result.tree)


@pytest.mark.parametrize("strategy", ["tpe", {"name": "halving", "sampler": "tpe"}])
def test_the_same_study_run_serially_twice_is_the_same_tree(tmp_path: Path, strategy: Any) -> None:
    first, second = (
        tune(walk, tmp_path / name, strategy=strategy, horizon=18, budget="7 runs") for name in ("one", "two")
    )
    assert [shape(run) for run in first.tree] == [shape(run) for run in second.tree]


def test_halving_brings_a_few_runs_far_and_trains_nothing_twice(tmp_path: Path) -> None:
    result = tune(walk, tmp_path, strategy={"name": "halving", "sampler": "random"}, horizon=90, budget="9 runs")
    assert sorted(run.position for run in result.tree)[:5] == [10] * 5
    assert max(run.position for run in result.tree) == 90
    assert result.ledger.by_kind()["repeated"].seconds == 0
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        for run in result.tree:
            series = store.series(run.id, "total")
            assert series.positions.tolist() == list(range(1, run.position + 1))


def test_the_same_call_again_changes_nothing(tmp_path: Path) -> None:
    first = tune(bowl, tmp_path)
    again = tune(bowl, tmp_path)
    assert [shape(run) for run in first.tree] == [shape(run) for run in again.tree]


def test_another_study_of_the_same_name_is_refused_with_what_changed(tmp_path: Path) -> None:
    tune(bowl, tmp_path)
    with pytest.raises(ConfigError, match=r"'study' exists in this store with other settings") as caught:
        tune(bowl, tmp_path, space={**SPACE, "x": thalweg.linear(-2.0, 3.0)}, seed=1)
    message = str(caught.value)
    assert "space.x.linear: was [-2.0, 2.0], is now [-2.0, 3.0]" in message
    assert "seed: was 0, is now 1" in message
    assert "kind" not in message


def test_the_baseline_is_trained_first_and_whole(tmp_path: Path) -> None:
    options = {"strategy": {"name": "halving", "sampler": "random"}, "horizon": 9}
    result = tune(walk, tmp_path, baseline={"x": 1.5, "kind": "a"}, **options)
    first = next(iter(result.tree))
    assert (first.origin, first.position, dict(first.hyperparameters)) == ("baseline", 9, {"x": 1.5, "kind": "a"})


def test_an_exception_fails_its_run_and_the_study_goes_on(tmp_path: Path) -> None:
    def touchy(run: FunctionRun) -> float:
        if run.hyperparameters["kind"] == "b":
            raise ValueError(f"cannot use {run.id}")
        return 1.0

    result = tune(touchy, tmp_path, budget="8 runs")
    statuses = {run.hyperparameters["kind"]: run.status for run in result.tree}
    assert statuses == {"a": "finished", "b": "failed"}
    failed = next(run for run in result.tree if run.status == "failed")
    assert failed.error is not None
    assert "Traceback" in failed.error
    assert f"ValueError: cannot use {failed.id}" in failed.error


def test_the_same_error_three_times_in_a_row_ends_the_study(tmp_path: Path) -> None:
    def broken(run: FunctionRun) -> float:
        raise ValueError("no such column: txet")

    with pytest.raises(StudyFailed, match=r"3 runs in a row .*(?s:.*)no such column: txet"):
        tune(broken, tmp_path, budget="10 runs")
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        assert [run.status for run in store.read_tree("study")] == ["failed"] * 3


def test_a_loss_that_is_no_number_ends_its_run_as_diverged(tmp_path: Path) -> None:
    def explode(run: FunctionRun) -> float:
        for position in run.positions():
            run.log(position, loss=math.nan if position == 2 and run.hyperparameters["kind"] == "b" else 1.0)
        return 1.0

    result = tune(explode, tmp_path, horizon=3, budget="8 runs")
    for run in result.tree:
        expected = ("diverged", 2) if run.hyperparameters["kind"] == "b" else ("finished", 3)
        assert (run.status, run.position) == expected
    assert result.best is not None
    assert result.best.status == "finished"


def test_a_metric_that_is_no_number_ends_its_run_as_diverged(tmp_path: Path) -> None:
    result = tune(lambda run: math.nan, tmp_path, budget="2 runs")
    assert [run.status for run in result.tree] == ["diverged"] * 2
    assert result.best is None
    with pytest.raises(ConfigError, match="has no finished run"):
        _ = result.best_hyperparameters


def test_a_function_that_reports_something_else_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StudyFailed, match="the study's metric is 'score', but the run reported accuracy"):
        tune(lambda run: {"accuracy": 1.0}, tmp_path)


def test_a_worker_that_dies_costs_one_run_at_most(tmp_path: Path) -> None:
    def deadly(run: FunctionRun) -> float:
        if run.hyperparameters["kind"] == "b" and run.id == "study-1":
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    space = {"x": thalweg.linear(0.0, 1.0), "kind": "b"}
    result = tune(deadly, tmp_path, space=space, budget="4 runs")
    assert [run.status for run in result.tree] == ["finished", "failed", "finished", "finished"]
    error = result.tree["study-1"].error
    assert error is not None
    assert "SIGKILL" in error


def test_workers_that_cannot_start_end_the_study(tmp_path: Path) -> None:
    class Broken(FunctionTrainer):
        def setup(self) -> None:
            raise FileNotFoundError("no model here")

    with pytest.raises(StudyFailed, match=r"no worker could be started:(?s:.*)no model here"):
        tune(Broken(bowl), tmp_path, workers=2)


def test_a_worker_that_dies_in_the_test_leaves_its_run_finished(tmp_path: Path) -> None:
    class Deadly(FunctionTrainer):
        def test(self, run: Any) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

    result = tune(Deadly(bowl), tmp_path, budget="2 runs")
    assert [run.status for run in result.tree] == ["finished"] * 2


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("0 runs", "runs = 0 must be"),
        ("5 samples", "samples = 5 is too small for a single run: the least is 10"),
    ],
)
def test_a_budget_that_is_too_small_is_refused(tmp_path: Path, budget: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(walk, tmp_path, budget=budget, horizon=10, unit="samples")
    assert not (tmp_path / "store.db").exists() or not Store.open(tmp_path / "store.db").read_tree("study")


def test_a_budget_in_samples_is_kept_to(tmp_path: Path) -> None:
    result = tune(walk, tmp_path, budget="95 samples", horizon=30, unit="samples", workers=2)
    assert result.ledger.total().samples == 90
    assert [run.status for run in result.tree] == ["finished"] * 3


def test_halving_keeps_enough_of_its_budget_for_one_run_to_finish(tmp_path: Path) -> None:
    strategy = {"name": "halving", "sampler": "random"}
    result = tune(walk, tmp_path, budget="200 samples", horizon=90, unit="samples", strategy=strategy)
    assert result.best is not None
    assert result.best.position == 90
    assert result.ledger.total().samples <= 200


def test_a_budget_in_time_interrupts_what_runs(tmp_path: Path) -> None:
    def slow(run: FunctionRun) -> float:
        run.restore(counter=Counter())
        for position in run.positions():
            time.sleep(0.02)
            run.log(position, total=0.0)
        return 1.0

    started = time.monotonic()
    result = tune(slow, tmp_path, budget="4 s", horizon=10_000)
    assert time.monotonic() - started < 15
    (run,) = result.tree
    assert run.status == "interrupted"
    assert 0 < run.position < 10_000
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        assert store.checkpoints(run.id)[-1].position == run.position


SCRIPT = """
import sys, time
from pathlib import Path
import thalweg

class Counter:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

def slow(run):
    state = run.restore(counter=Counter())
    total = state.get("total", 0.0)
    for position in run.positions():
        time.sleep(0.005)
        total = total * 0.9 + float(run.hyperparameters["x"]) / position
        state["total"] = total
        run.log(position, total=total)
    return {"score": total}

print("ready", flush=True)
result = thalweg.tune(
    slow, space={"x": thalweg.linear(-2.0, 2.0)}, metric="max score", budget="3 runs", strategy="random", name="study",
    store=Path(sys.argv[1]) / "store.db", horizon=300, workers=1, progress=False, checkpoint_seconds=0.3,
)
print("done", flush=True)
"""


def launch(folder: Path) -> "subprocess.Popen[bytes]":
    # No __main__ guard in the script: thalweg does not import it again.
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    with (folder / "output").open("a") as output:
        return subprocess.Popen([sys.executable, script, folder], stdout=output, stderr=output)


def complete(folder: Path) -> None:
    assert launch(folder).wait(60) == 0, (folder / "output").read_text()


def curves(folder: Path) -> dict[str, Any]:
    with Store.open(folder / "store.db", read_only=True) as store:
        assert store.check_integrity() == []
        found = {}
        for run in store.read_tree("study"):
            series = store.series(run.id, "total")
            found[run.id] = (shape(run), series.positions.tolist(), series.values.tolist())
        return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_any_way_and_started_again_equals_uninterrupted(tmp_path: Path, number: signal.Signals) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    complete(whole)
    process = launch(broken)
    wait_for_positions(broken, 400)
    asked = time.monotonic()
    process.send_signal(number)
    process.wait(20)
    assert time.monotonic() - asked < 5
    complete(broken)
    assert curves(broken) == curves(whole)


def wait_for_positions(folder: Path, positions: int) -> None:
    """Until the first run is done and the second is well on its way."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.1)
        # Until the study has made its store, there is none to open.
        with suppress(thalweg.StoreError), Store.open(folder / "store.db", read_only=True) as store:
            runs = list(store.read_tree("study"))
            if sum(len(store.series(run.id, "total").positions) for run in runs) >= positions:
                return
    raise AssertionError("the study did not get there")


def test_repeated_work_is_in_the_ledger_to_the_sample(tmp_path: Path) -> None:
    marker = tmp_path / "died"

    def once_deadly(run: FunctionRun) -> float:
        run.restore(counter=Counter())
        for position in run.positions():
            time.sleep(0.01)
            run.log(position, total=0.0)
            if position == 60 and not marker.exists():
                marker.touch()
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    result = tune(once_deadly, tmp_path, budget="1 run", horizon=100, unit="samples", checkpoint_seconds=0.25)
    kinds = result.ledger.by_kind()
    # The 60th step was logged, but the worker died before it was entered into the ledger.
    assert 99 <= kinds["train"].samples <= 100
    assert 1 <= kinds["repeated"].samples < 60
    assert result.tree["study-0"].status == "finished"


def test_requests_made_by_hand_are_carried_out(tmp_path: Path) -> None:
    options = {"horizon": 20, "strategy": {"name": "halving", "sampler": "random"}, "keep_checkpoints": "all"}
    first = tune(walk, tmp_path, **options)
    assert first.best is not None
    with Store.open(tmp_path / "store.db") as store:
        at = store.checkpoints(first.best.id)[0].position
        paused = next(run for run in first.tree if run.status == "paused")
        store.add_request("study", Fork(first.best.id, at, {"x": -1.0}, 2**62))
        store.add_request("study", Stop(paused.id))
        store.add_request("study", Fork(first.best.id, 3, {}, 2**62))
    again = tune(walk, tmp_path, **options)
    child = again.tree["study-6"]
    assert (child.parent, child.fork_position, child.hyperparameters["x"]) == (first.best.id, at, -1.0)
    assert (child.status, child.position, child.origin) == ("finished", 20, "hand")
    assert again.tree[paused.id].status == "stopped"
    assert len(again.tree) == 7  # the fork at a position without a checkpoint was refused


def test_a_fork_without_a_change_equals_its_parents_continuation(tmp_path: Path) -> None:
    options = {"horizon": 30, "strategy": {"name": "halving", "sampler": "random"}, "keep_checkpoints": "all"}
    first = tune(walk, tmp_path, **options)
    assert first.best is not None
    with Store.open(tmp_path / "store.db") as store:
        at = store.checkpoints(first.best.id)[0].position
        store.add_request("study", Fork(first.best.id, at, {}, 2**62))
    child = tune(walk, tmp_path, **options).tree["study-6"]
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        parents, childs = store.series(first.best.id, "total"), store.series(child.id, "total")
        assert len(store.series(child.id, "total", inherited=False).positions) == 30 - at
    assert childs.values.tolist() == parents.values.tolist()
    assert child.reports[-1] == first.best.reports[-1]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    options = {"horizon": 27, "strategy": {"name": "halving", "sampler": "random"}, "keep_checkpoints": "all"}
    whole = tune(walk, tmp_path / "whole", budget="9 runs", **options)
    tune(walk, tmp_path / "broken", budget="3 runs", **options)
    with Store.open(tmp_path / "broken" / "store.db") as store:
        damaged = 0
        for run in store.read_tree("study"):
            for record in store.checkpoints(run.id)[-1:]:
                if run.status == "paused":
                    damaged += 1
                    file = Path(record.folder) / "state.json"
                    file.write_bytes(file.read_bytes()[:-20])
        assert damaged
        record = store.study("study")
        store.update_study("study", {**record.config, "budget": {"runs": 9}})
    broken = tune(walk, tmp_path / "broken", budget="9 runs", **options)
    assert [shape(run)[:4] for run in broken.tree] == [shape(run)[:4] for run in whole.tree]
    assert {run.status for run in broken.tree} <= {"finished", "paused"}


def test_two_loops_cannot_run_one_study(tmp_path: Path) -> None:
    tune(bowl, tmp_path)
    with (
        Store.open(tmp_path / "store.db") as store,
        store.open_session("study"),
        pytest.raises(thalweg.StoreError, match=f"{os.getpid()}"),
    ):
        tune(bowl, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "tpee"}, r"unknown strategy 'tpee'. Did you mean 'tpe'"),
        ({"strategy": {"name": "halving", "eta": 1}}, r"strategy\.eta = 1 must be at least 2"),
        ({"strategy": {"name": "halving", "etta": 3}}, r"unknown option 'etta'. Did you mean 'eta'"),
        ({"metric": "score"}, r"'score': it is not known whether more is better"),
        ({"space": {}}, "nothing to search"),
        ({"space": {"x": {"log": [0.0, 1.0]}}}, "low must be above zero"),
        ({"space": {"x": {"linear": [2.0, 1.0]}}}, "inverted"),
        ({"baseline": {"y": 1}}, "baseline: unknown hyperparameter 'y'"),
        ({"name": "../up"}, r"study\.name = '../up'"),
        ({"workers": 0}, "workers = 0"),
        ({"budget": "20 parsecs"}, "unknown unit 'parsecs'"),
        ({"unit": "epochs"}, "unit = 'epochs'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(bowl, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_result_prints_its_summary_and_writes_its_report(tmp_path: Path) -> None:
    result = tune(bowl, tmp_path)
    assert result.best is not None
    assert result.best.id in str(result)
    page = result.report(tmp_path / "report.html").read_text()
    assert "<html" in page
    assert json.dumps(result.best.id)[1:-1] in page


@pytest.mark.parametrize("num_runs", [1, 3])
def test_no_run_more_than_the_budget_has(tmp_path: Path, num_runs: int) -> None:
    """Two workers ask at once."""
    result = thalweg.tune(
        lambda run: 1.0, space={"x": {"linear": [0, 1]}}, metric="loss", budget=f"{num_runs} runs", strategy="random",
        name="few", store=tmp_path / "store.db", progress=False, workers=2,
    )  # fmt: skip
    assert len(result.tree) == num_runs


def reports_too_seldom(run: thalweg.FunctionRun) -> None:
    run.restore()
    for position in run.positions():
        run.log(position, loss=1.0)
        if position % 10 == 0:
            run.report(accuracy=0.5)


def test_a_function_that_does_not_report_where_runs_are_compared_is_told_so(tmp_path: Path) -> None:
    # The first rung of 100 steps lies at 11: a run without a result there would wait there for ever.
    with pytest.raises(StudyFailed, match=r"last at 9, but was trained to 11.*at the end, after the last position"):
        thalweg.tune(
            reports_too_seldom,
            space={"lr": thalweg.log(1e-4, 1e-1)},
            metric="accuracy",
            strategy={"name": "halving", "sampler": "random"},
            budget="6 runs",
            horizon=100,
            store=tmp_path / "store.db",
            progress=False,
            workers=1,
        )
