"""Studies in virtual time: the clock, the trainer, the store in memory, and that all is as in a real study."""

import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg
from thalweg.budget import Budget
from thalweg.errors import ConfigError
from thalweg.execute.executor import Done, Task
from thalweg.execute.simulated import Planned, SimulatedExecutor, SimulatedTrainer, VirtualClock
from thalweg.loop import StudyFailed
from thalweg.search.strategy import Earlier
from thalweg.simulation import Simulation, simulate
from thalweg.space import Hyperparameters
from thalweg.track.store import Store
from thalweg.tree import Fork, Metric, Run

SPACE = {"lr": thalweg.log(1e-5, 1e-1), "batch_size": thalweg.choice([8, 16])}
HALVING = {"name": "halving", "sampler": "random", "eta": 3, "num_rungs": 3}


def bowl(hyperparameters: Hyperparameters, fraction: float) -> float:
    return (math.log10(float(hyperparameters["lr"])) + 3) ** 2 + 1 / (1 + 9 * fraction)


class Recorded:
    """Tasks of given lengths; what was recorded, and when."""

    def __init__(self, clock: VirtualClock, seconds: Mapping[str, float]) -> None:
        self.clock, self.seconds = clock, seconds
        self.done: list[tuple[float, str, float | None]] = []

    def plan(self, task: Task, stop_after_seconds: float | None) -> Planned:
        def record() -> None:
            self.done.append((self.clock.seconds, task.run, stop_after_seconds))

        return Planned(self.seconds[task.run], record)


def test_two_workers_carry_out_three_tasks() -> None:
    """a takes 5 s and b 2 s from 0; c takes 2 s from 2, where b ends: so b, c, a at 2, 4, 5."""
    clock = VirtualClock()
    work = Recorded(clock, {"a": 5.0, "b": 2.0, "c": 2.0})
    executor = SimulatedExecutor(work, num_workers=2, clock=clock)
    executor.submit(Task("a"))
    executor.submit(Task("b"))
    assert executor.free_slots == 0
    assert executor.wait(0.25) == [Done(Task("b"))]
    executor.submit(Task("c"))
    assert executor.wait(0.25) == [Done(Task("c"))]
    assert executor.wait(0.25) == [Done(Task("a"))]
    assert executor.wait(0.25) == []
    assert work.done == [(2.0, "b", None), (4.0, "c", None), (5.0, "a", None)]


def test_tasks_that_end_together_are_done_together_in_the_order_of_their_beginnings() -> None:
    clock = VirtualClock(10.0)
    executor = SimulatedExecutor(Recorded(clock, {"x": 3.0, "a": 3.0}), num_workers=3, clock=clock)
    executor.submit(Task("x"))
    executor.submit(Task("a"))
    assert executor.wait(0.25) == [Done(Task("x")), Done(Task("a"))]
    assert clock() == 13.0


def test_a_task_that_is_stopped_ends_now() -> None:
    clock = VirtualClock()
    work = Recorded(clock, {"a": 5.0, "b": 2.0})
    executor = SimulatedExecutor(work, num_workers=2, clock=clock)
    executor.submit(Task("a"))
    executor.submit(Task("b"))
    executor.wait(0.25)
    executor.stop("a")
    assert executor.wait(0.25) == [Done(Task("a"))]
    assert work.done == [(2.0, "b", None), (2.0, "a", 2.0)]


def test_the_clock_stops_at_a_deadline_once() -> None:
    clock = VirtualClock()
    executor = SimulatedExecutor(Recorded(clock, {"a": 5.0}), num_workers=1, clock=clock, deadline_seconds=3.0)
    executor.submit(Task("a"))
    assert executor.wait(0.25) == []
    assert clock() == pytest.approx(3.0)
    assert executor.wait(0.25) == [Done(Task("a"))]
    assert clock() == 5.0


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_makespan_of_equal_runs(workers: int) -> None:
    """7 runs of 100 positions, half a second each."""
    trainer = SimulatedTrainer.of_points(bowl, seconds_per_position=0.5)
    result = simulate(trainer, space=SPACE, metric="loss", budget="7 runs", strategy="random", workers=workers)
    assert len(result.tree) == 7
    assert result.makespan_seconds == pytest.approx(50.0 * math.ceil(7 / workers))
    assert result.ledger.total().device_seconds == pytest.approx(350.0)


def test_halving_by_hand() -> None:
    """9 runs to 11 of 100, the best 3 to 33, the best of them to the end: 9 * 11 + 3 * 22 + 67 positions."""
    losses = iter(range(9))
    order: dict[float, int] = {}

    def ranked(hyperparameters: Hyperparameters, fraction: float) -> float:
        return order.setdefault(float(hyperparameters["lr"]), next(losses, 99)) - fraction

    result = simulate(ranked, space=SPACE, metric="loss", budget="9 runs", strategy=HALVING)
    assert result.makespan_seconds == 9 * 11 + 3 * 22 + 67
    assert [run.position for run in result.tree][:3] == [100, 33, 33]
    assert result.best_value == -1.0
    assert [report.position for report in result.tree["simulated-0"].reports] == [11, 33, 100]


def test_trace_by_hand() -> None:
    """Two workers; 1 s a position; runs of 10 positions that report every 5; losses fall by 1 with each report."""
    starts = {8: 10.0, 16: 20.0}
    trainer = SimulatedTrainer.of_curve(
        lambda h, position, seed: starts[int(h["batch_size"])] - position / 5, horizon_positions=10, report_every=5
    )
    space = {"batch_size": thalweg.choice([8, 16]), "lr": 0.1}
    result = simulate(trainer, space=space, metric="loss", budget="5 runs", strategy="grid", workers=2)
    found = [(p.seconds, p.spent.seconds, p.num_roots, p.value, p.best, p.best_finished) for p in result.trace]
    assert found == [
        (5.0, 5.0, 1, 9.0, 9.0, None),
        (5.0, 10.0, 2, 19.0, 9.0, None),
        (10.0, 15.0, 2, 8.0, 8.0, 8.0),
        (10.0, 20.0, 2, 18.0, 8.0, 8.0),
    ]
    assert result.makespan_seconds == 10.0


def test_a_higher_value_is_better_where_it_is_to_be_maximised() -> None:
    result = simulate(
        lambda h, x: -bowl(h, x), space=SPACE, metric="accuracy", budget="6 runs", strategy="random", seed=4
    )
    values = [run.reports[-1].metrics["accuracy"] for run in result.tree]
    assert result.best_value == max(values) == result.trace[-1].best == result.trace[-1].best_finished


@settings(max_examples=25, deadline=None)
@given(
    budget=st.sampled_from(
        ["7 runs", "1000 samples", "730 samples, 5 runs", "55500 flops", "900 seconds", "1234 device-seconds"]
    ),
    strategy=st.sampled_from(["random", HALVING]),
    workers=st.integers(1, 4),
    seed=st.integers(0, 9),
    step=st.sampled_from([1, 7]),
)
def test_no_budget_is_exceeded_and_the_ledger_adds_up(
    budget: str, strategy: Any, workers: int, seed: int, step: int
) -> None:
    """Runs cost 0.5 or 2 s a position by their batch size, 50 FLOPs, and each evaluation a second."""
    trainer = SimulatedTrainer.of_points(
        bowl,
        unit="samples",
        step_length=step,
        seconds_per_position=lambda h: 0.5 if h["batch_size"] == 8 else 2.0,
        flops_per_position=50.0,
        evaluation_seconds=1.0,
    )
    result = simulate(trainer, space=SPACE, metric="loss", budget=budget, strategy=strategy, workers=workers, seed=seed)
    limits, total = Budget.parse(budget).limits(), result.ledger.total()
    used = {**vars(total), "runs": len(result.tree), "seconds": result.makespan_seconds}
    assert all(used[name] <= limit * (1 + 1e-6) for name, limit in limits.items())
    assert len(result.tree) > 0
    by_kind = result.ledger.by_kind()
    assert by_kind["train"].samples == sum(run.position for run in result.tree)
    assert by_kind["train"].flops == 50 * by_kind["train"].samples
    assert by_kind["evaluate"].seconds == sum(len(run.reports) for run in result.tree)
    assert by_kind["repeated"].seconds == 0
    per_position = {8: 0.5, 16: 2.0}
    trained = sum(run.position * per_position[int(run.hyperparameters["batch_size"])] for run in result.tree)
    assert by_kind["train"].seconds == pytest.approx(trained)
    assert total.device_seconds <= workers * result.makespan_seconds * (1 + 1e-9)
    if result.trace:
        assert result.trace[-1].spent.samples <= total.samples


def test_no_run_begins_that_a_budget_of_time_has_no_room_for() -> None:
    """Runs of 100 s: 250 s have room for two, and a third would not end."""
    result = simulate(bowl, space=SPACE, metric="loss", budget="250 seconds", strategy="random")
    assert [(run.status, run.position) for run in result.tree] == [("finished", 100), ("finished", 100)]


def test_an_interrupted_run_stands_at_its_last_step() -> None:
    """A run of which nobody knew how long it would take: the budget ends it after 30 s, at step 28 of 7 each."""

    class Slow(SimulatedTrainer):
        def cost(self, hyperparameters: Hyperparameters, start: int, until: int) -> Any:
            return thalweg.budget.Cost()

    trainer = Slow.of_points(bowl, step_length=7)
    result = simulate(trainer, space=SPACE, metric="loss", budget="30 seconds", strategy="random", workers=2)
    assert [(run.status, run.position, run.reports) for run in result.tree] == [("interrupted", 28, ())] * 2
    assert result.ledger.total().seconds == 56
    assert result.makespan_seconds == pytest.approx(30.0)


def test_runs_that_fail_and_diverge() -> None:
    def broken(hyperparameters: Hyperparameters, fraction: float) -> float:
        number = round(-math.log10(float(hyperparameters["lr"])) * 1000) % 3
        if number == 0:
            raise RuntimeError(f"out of memory with {hyperparameters['lr']}")
        return math.nan if number == 1 else 1.0

    result = simulate(broken, space=SPACE, metric="loss", budget="12 runs", strategy="random")
    statuses = {run.status for run in result.tree}
    assert statuses == {"failed", "diverged", "finished"}
    failed = next(run for run in result.tree if run.status == "failed")
    assert "out of memory" in str(failed.error)
    assert failed.reports == ()
    assert result.best_value == 1.0


def test_objectives_stopping_rules_and_earlier_results_are_those_of_a_study() -> None:
    """The fifth of runs that get worse from the first on is the fourth without improvement. All are given as to
    `tune`."""
    seen: list[float] = []

    def worse(hyperparameters: Hyperparameters, fraction: float) -> dict[str, float]:
        key = float(hyperparameters["lr"])
        seen.extend([key] * (key not in seen))
        return {"loss": float(seen.index(key)), "latency": 1.0}

    options: dict[str, Any] = {"space": SPACE, "metric": "loss", "budget": "9 runs", "strategy": "random"}
    assert len(simulate(worse, **options, stopping={"max_runs_without_improvement": 4}).tree) == 5
    several = simulate(worse, **options, objectives=["min latency"])
    assert several.study.objectives == (Metric("latency", "min"),)
    assert all(run.reports[-1].metrics["latency"] == 1.0 for run in several.tree)
    best = {"lr": 1e-3, "batch_size": 8}
    earlier = Earlier("before", ((best, 0.1), ({"lr": 0.1, "batch_size": 16}, 9.0)))
    assert simulate(worse, **options, earlier=[earlier]).study.earlier == (earlier,)


def test_runs_that_all_fail_alike_end_the_study_as_in_production() -> None:
    def broken(hyperparameters: Hyperparameters, fraction: float) -> float:
        raise RuntimeError("no such column")

    with pytest.raises(StudyFailed, match="no such column"):
        simulate(broken, space=SPACE, metric="loss", budget="12 runs", strategy="random")


def test_the_path_tells_which_hyperparameters_held_from_where() -> None:
    """A loss that falls by lr per position: a fork at 40 with ten times the rate falls by 40 * 0.01 + 60 * 0.1."""

    def integral(path: Any, position: int, seed: int) -> float:
        ends = [begin for begin, _ in path[1:]] + [position]
        return -sum((end - begin) * h["lr"] for (begin, h), end in zip(path, ends, strict=True))

    result = simulate_with_fork(SimulatedTrainer(integral))
    root, fork = result.tree["simulated-0"], result.tree["simulated-1"]
    assert root.reports[-1].metrics["loss"] == pytest.approx(-40 * 0.01)
    assert fork.reports[-1].metrics["loss"] == pytest.approx(-(40 * 0.01 + 60 * 0.1))
    assert (fork.position, fork.status, fork.parent) == (100, "finished", "simulated-0")
    assert result.ledger.of("simulated-1").seconds == 60


def test_a_state_goes_on_in_a_fork_and_is_not_shared() -> None:
    """The same by a toy that changes its state in place; the parent goes on as if there had been no fork."""

    def step(state: Any, hyperparameters: Hyperparameters, position: int, seed: int) -> tuple[Any, float]:
        state = state or {"fallen": 0.0, "steps": []}
        state["fallen"] += hyperparameters["lr"]
        state["steps"].append(position)
        return state, -state["fallen"] if state["steps"] == list(range(1, position + 1)) else math.inf

    result = simulate_with_fork(SimulatedTrainer(step=step), then_continue=True)
    root, fork = result.tree["simulated-0"], result.tree["simulated-1"]
    assert fork.reports[-1].metrics["loss"] == pytest.approx(-(40 * 0.01 + 60 * 0.1))
    assert root.reports[-1].metrics["loss"] == pytest.approx(-100 * 0.01)


class ForkOnce:
    """Starts a root to 40, forks it there with ten times its learning rate, and may continue it then."""

    share, num_roots = 1.0, 1

    def __init__(self, then_continue: bool) -> None:
        self._then_continue = then_continue

    def decide(self, tree: Any, *, free_slots: int, left: Any) -> list[Any]:
        if len(tree) == 0:
            return [thalweg.tree.Start({"lr": 0.01}, 40, "test")]
        if tree.active():
            return []
        if len(tree) == 1:
            return [Fork("simulated-0", 40, {"lr": 0.1}, 100, "test")]
        if self._then_continue and tree["simulated-0"].status == "paused":
            return [thalweg.tree.Continue("simulated-0", 100, "test")]
        return []


def simulate_with_fork(trainer: SimulatedTrainer, *, then_continue: bool = False) -> Simulation:
    from unittest.mock import patch

    with patch("thalweg.study.build_strategy", lambda *_, **__: ForkOnce(then_continue)):
        return simulate(
            trainer, space={"lr": thalweg.log(1e-3, 1.0)}, metric="loss", budget="1 runs", strategy="random"
        )


def test_a_run_of_wsd_is_branched_from_its_trunk() -> None:
    """Production's halving over trunks: a branch is a fork at the end of the stable phase of the smaller horizon."""

    def curve(path: Any, position: int, seed: int) -> float:
        hyperparameters = path[-1][1]
        is_decayed = position >= hyperparameters.get("horizon", 90)
        return (math.log10(hyperparameters["lr"]) + 3) ** 2 + 1 / position - (0.5 if is_decayed else 0.0)

    trainer = SimulatedTrainer(curve, horizon_positions=90, horizon_name="horizon", stable_share=0.8)
    strategy = {**HALVING, "trunk": True}
    result = simulate(trainer, space={"lr": thalweg.log(1e-5, 1e-1)}, metric="loss", budget="9 runs", strategy=strategy)
    forks = [run for run in result.tree if run.parent is not None]
    assert {(run.fork_position, run.horizon) for run in forks} == {(8, 10), (24, 30)}
    assert all(run.status == "finished" for run in forks)
    assert result.best is not None
    assert result.best.horizon == 90


def test_of_seed_and_noise() -> None:
    trainer = SimulatedTrainer.of_curve(lambda h, position, seed: seed + position / 1000)
    result = simulate(trainer, space=SPACE, metric="loss", budget="1 runs", strategy="random", seed=17)
    assert result.best_value == pytest.approx(17.1)


def test_options_reach_the_study() -> None:
    result = simulate(
        lambda h, x: {"loss": bowl(h, x), "cost": 1.0},
        space=SPACE,
        metric="loss",
        budget="5 runs",
        strategy="random",
        baseline={"lr": 1e-3, "batch_size": 8},
        feasible=lambda h: h["batch_size"] == 8,
        objectives=(Metric.parse("min cost"),),
        earlier=(Earlier("before", (({"lr": 1e-3, "batch_size": 8}, 1.0),)),),
    )
    assert result.tree["simulated-0"].origin == "baseline"
    assert {run.hyperparameters["batch_size"] for run in result.tree} == {8}
    assert result.tree["simulated-1"].reports[-1].metrics["cost"] == 1.0


@pytest.mark.parametrize("strategy", ["random", HALVING])
def test_the_same_study_in_memory_in_a_file_and_by_real_workers(strategy: Any, tmp_path: Path) -> None:
    """Equal trees, reports included; and between memory and file equal ledgers."""
    options: dict[str, Any] = {
        "space": SPACE, "metric": "loss", "budget": "6 runs", "strategy": strategy, "seed": 5, "name": "same",
    }  # fmt: skip
    memory = simulate(bowl, **options)
    file = simulate(bowl, **options, store=tmp_path / "simulated.db")
    assert file.tree == memory.tree
    assert file.ledger == memory.ledger

    def train(run: Any) -> None:
        run.restore(nothing=_Nothing())
        for _ in run.positions():
            pass
        run.report(loss=bowl(run.hyperparameters, run.until / run.horizon))

    real = thalweg.tune(train, **options, horizon=100, workers=1, store=tmp_path / "real.db", progress=False)
    assert real.tree == memory.tree


class _Nothing:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


def test_a_simulated_trainer_works_in_real_workers(tmp_path: Path) -> None:
    trainer = SimulatedTrainer.of_points(bowl, report_every=50)
    options: dict[str, Any] = {"space": SPACE, "metric": "loss", "budget": "4 runs", "strategy": HALVING, "name": "s"}
    real = thalweg.tune(trainer, **options, workers=1, store=tmp_path / "real.db", progress=False)
    assert real.tree == simulate(trainer, **options).tree


KILLED = """
    import math, os
    from thalweg.simulation import simulate

    num_evaluations = 0

    def bowl(hyperparameters, fraction):
        global num_evaluations
        num_evaluations += 1
        if num_evaluations == int(os.environ["KILL_AT"]):
            os._exit(9)
        return (math.log10(hyperparameters["lr"]) + 3) ** 2 + 1 / (1 + 9 * fraction)

    result = simulate(
        bowl, space={"lr": {"log": [1e-5, 1e-1]}}, metric="loss", budget="5 runs", seed=1,
        strategy={"name": "halving", "sampler": "random"}, store="store.db",
    )
    for run in result.tree:
        print(run.id, run.status, run.position, dict(run.hyperparameters), run.reports)
    print(result.makespan_seconds, result.ledger.total())
"""


def test_a_killed_simulation_goes_on_to_the_same_tree(tmp_path: Path) -> None:
    outputs = []
    for name, kills in (("whole", [0]), ("killed", [4, 0])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "study.py").write_text(textwrap.dedent(KILLED))
        for kill_at in kills:
            process = subprocess.run(
                [sys.executable, "study.py"],
                cwd=folder,
                capture_output=True,
                text=True,
                env={**os.environ, "KILL_AT": str(kill_at)},
            )
            assert process.returncode == (9 if kill_at else 0), process.stderr
            with Store.open(folder / "store.db") as store:
                statuses = [run.status for run in store.read_tree("simulated")]
            assert ("running" in statuses) == bool(kill_at)
        outputs.append(process.stdout)
    assert outputs[0] == outputs[1] != ""


def test_it_can_be_looked_at_as_any_other_study(tmp_path: Path) -> None:
    from thalweg.report.page import write_report

    simulate(bowl, space=SPACE, metric="loss", budget="4 runs", strategy="random", store=tmp_path / "s.db")
    with Store.open(tmp_path / "s.db", read_only=True) as store:
        page = write_report(store, "simulated", tmp_path / "report.html")
        assert store.series("simulated-0", "validation/loss").positions.tolist() == [100]
    assert "simulated-0" in page.read_text()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimulatedTrainer(), "either a curve or a step"),
        (lambda: SimulatedTrainer.of_points(bowl, horizon_positions=0), "horizon = 0"),
        (lambda: SimulatedTrainer.of_points(bowl, step_length=0), "step_length = 0"),
        (lambda: SimulatedTrainer.of_points(bowl, step_length=4, report_every=6), "report_every = 6"),
        (lambda: SimulatedTrainer.of_points(bowl, stable_share=1.0), "stable_share = 1"),
        (lambda: SimulatedTrainer.of_points(bowl, unit="words"), "unit = 'words'"),
        (lambda: simulate(SimulatedTrainer.of_points(bowl), horizon=3, **_STUDY), "this trainer knows its own"),
        (lambda: simulate(bowl, **{**_STUDY, "workers": 0}), "workers = 0"),
        (lambda: simulate(SimulatedTrainer.of_points(bowl, seconds_per_position=-1), **_STUDY), "-1 per position"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


_STUDY: dict[str, Any] = {"space": SPACE, "metric": "loss", "budget": "2 runs", "strategy": "random"}


def test_thousands_of_studies_are_light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread, file or database is made for a study in memory."""
    import threading

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a study in memory needs none")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(Store, "open", refuse)
    runs: list[Run] = []
    for seed in range(20):
        result = simulate(bowl, space=SPACE, metric="loss", budget="10 runs", strategy="random", seed=seed)
        runs += result.tree
    assert len(runs) == 200
    assert len({run.hyperparameters["lr"] for run in runs}) == 200
