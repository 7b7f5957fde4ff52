"""A run that is stopped, forked, or trained after another one is bit for bit what it would have been."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from thalweg.errors import ConfigError, RunInterrupted
from thalweg.train import checkpoint
from thalweg.train.data import Data
from thalweg.train.finetune import FineTune

HYPERPARAMETERS = {"lr": 3e-3, "batch_size": 7, "epochs": 2, "weight_decay": 0.1, "warmup": 0.1}
HORIZON = 96
KINDS = ["full classification", "lora classification", "full causal", "lora causal"]

Make = Callable[[str], FineTune]


@pytest.fixture(scope="module")
def make(bert: Path, llama: Path, reviews: Path, pairs: Path) -> Make:
    made: dict[str, FineTune] = {}

    def trainer(kind: str) -> FineTune:
        if kind not in made:
            made[kind] = describe(kind, str(bert), str(llama), str(reviews), str(pairs))
            made[kind].setup()
        return made[kind]

    return trainer


def describe(kind: str, bert: str, llama: str, reviews: str, pairs: str) -> FineTune:
    adapter, task = kind.split()
    options: dict[str, Any] = {"adapter": None if adapter == "full" else "lora", "micro_batch": 3, "precision": "fp32"}
    if task == "classification":
        return FineTune(model=bert, data=Data(train=reviews), **options)
    data = Data(train=pairs, prompt="question", completion="answer")
    return FineTune(model=llama, task="causal", data=data, **options)


def hyperparameters(kind: str, **changes: Any) -> dict[str, Any]:
    lora = {"lora_dropout": 0.1, "lora_r": 4} if "lora" in kind else {}
    return {**HYPERPARAMETERS, **lora, **changes}


@pytest.fixture(scope="module")
def whole(make: Make, fake_run: Any) -> Callable[[str], Any]:
    """The uninterrupted run."""
    runs: dict[str, Any] = {}

    def of(kind: str) -> Any:
        if kind not in runs:
            run = runs[kind] = fake_run(hyperparameters(kind), horizon=HORIZON)
            run.due = lambda: True
            make(kind).train([run])
        return runs[kind]

    return of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop_at", [1, 2, 3, 8, 15, 26])
def test_stopping_anywhere_changes_nothing(
    make: Make, whole: Callable[[str], Any], fake_run: Any, as_plain: Any, kind: str, stop_at: int
) -> None:
    """`stop_at` 1 to 3 are micro-batches of the first step, the others are within later ones or in an evaluation."""
    stopped = fake_run(hyperparameters(kind), horizon=HORIZON, stop_at=stop_at)
    with pytest.raises(RunInterrupted):
        make(kind).train([stopped])
    position = max(stopped.states, default=0)
    assert (position == 0) == (stop_at <= 3)
    state = stopped.states.get(position)
    assert not stopped.reports
    rest = fake_run(hyperparameters(kind), horizon=HORIZON, start=position, state=state)
    rest.due = lambda: True
    make(kind).train([rest])
    rest.assert_continues(whole(kind), as_plain)
    everything = stopped.points | rest.points
    assert everything == whole(kind).points


@pytest.mark.parametrize("kind", KINDS)
def test_every_possible_interruption_of_an_epoch(
    make: Make, whole: Callable[[str], Any], fake_run: Any, as_plain: Any, kind: str
) -> None:
    """Stopped again and again, after the k-th question each time, the run still ends the same."""
    points: dict[Any, float] = {}
    position, state = 0, None
    for num_calls in range(200):
        run = fake_run(hyperparameters(kind), horizon=HORIZON, start=position, state=state, stop_at=4 + num_calls % 5)
        with contextlib.suppress(RunInterrupted):
            make(kind).train([run])
        points |= run.points
        position = max(run.states, default=position)
        state = run.states.get(position, state)
        if run.reports:
            break
    assert num_calls > 8
    assert run.reports == whole(kind).reports
    assert points == whole(kind).points
    assert as_plain(state) == as_plain(whole(kind).states[HORIZON])


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_stopping_changes_nothing_in_bf16(
    bert: Path, reviews: Path, fake_run: Any, as_plain: Any, adapter: Any
) -> None:
    trainer = FineTune(model=str(bert), data=Data(train=str(reviews)), adapter=adapter, precision="bf16", micro_batch=3)
    trainer.setup()
    uninterrupted = fake_run(HYPERPARAMETERS, horizon=HORIZON)
    trainer.train([uninterrupted])
    stopped = fake_run(HYPERPARAMETERS, horizon=HORIZON, stop_at=14)
    with pytest.raises(RunInterrupted):
        trainer.train([stopped])
    position = max(stopped.states)
    rest = fake_run(HYPERPARAMETERS, horizon=HORIZON, start=position, state=stopped.states[position])
    trainer.train([rest])
    assert stopped.points | rest.points == uninterrupted.points
    assert rest.reports == uninterrupted.reports
    assert as_plain(rest.states[HORIZON]) == as_plain(uninterrupted.states[HORIZON])


def test_an_interrupted_evaluation_is_done_again_and_no_step_is(make: Make, fake_run: Any) -> None:
    kind = "full classification"
    run = fake_run(hyperparameters(kind), horizon=HORIZON)
    make(kind).train([run])
    # Two evaluation batches of three rows; the last question of all is asked after the second one.
    stopped = fake_run(hyperparameters(kind), horizon=HORIZON, stop_at=run.num_asked)
    with pytest.raises(RunInterrupted):
        make(kind).train([stopped])
    assert stopped.events[-1] == ("save", HORIZON)
    rest = fake_run(hyperparameters(kind), horizon=HORIZON, start=HORIZON, state=stopped.states[HORIZON])
    make(kind).train([rest])
    assert rest.events == [("report", HORIZON)]
    assert rest.reports == run.reports


@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_without_a_change_is_the_parents_continuation(
    make: Make, whole: Callable[[str], Any], fake_run: Any, as_plain: Any, kind: str
) -> None:
    parent = fake_run(hyperparameters(kind), horizon=HORIZON, until=30)
    make(kind).train([parent])
    (position,) = parent.reports
    assert position == 35  # the first step boundary at or after 30, in steps of 7
    child = fake_run(hyperparameters(kind), horizon=HORIZON, start=position, state=parent.states[position])
    child.due = lambda: True
    make(kind).train([child])
    child.assert_continues(whole(kind), as_plain)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_do_not_depend_on_what_ran_before(
    make: Make, fake_run: Any, as_plain: Any, bert: Path, llama: Path, reviews: Path, pairs: Path, kind: str
) -> None:
    def run_b(trainer: FineTune) -> Any:
        run = fake_run(hyperparameters(kind), horizon=40, seed=5)
        trainer.train([run])
        return run

    used = make(kind)
    changes = {"dropout": 0.5} | ({"lora_r": 2} if "lora" in kind else {})
    used.train([fake_run(hyperparameters(kind, **changes), horizon=30, seed=9)])
    fresh = describe(kind, str(bert), str(llama), str(reviews), str(pairs))
    fresh.setup()
    after, alone = run_b(used), run_b(fresh)
    assert after.points == alone.points
    assert after.reports == alone.reports
    assert as_plain(after.states) == as_plain(alone.states)


CHANGES = [{"lr": 1e-3}, {"weight_decay": 0.5}, {"batch_size": 5}, {"epochs": 4}, {"dropout": 0.4}, {"beta2": 0.9}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_forks_changes_come_after_the_state(make: Make, fake_run: Any, change: Mapping[str, Any]) -> None:
    kind = "full classification"
    parent = fake_run(hyperparameters(kind), horizon=HORIZON, until=35)
    make(kind).train([parent])
    changed = hyperparameters(kind, **change)
    horizon = make(kind).horizon(changed)
    child = fake_run(changed, horizon=horizon, until=50, start=35, state=parent.states[35])
    make(kind).train([child])
    lr = child.curve("train/lr")
    warmup = 0.1 * horizon
    first = min(lr)
    assert first == 35 + changed["batch_size"]
    assert lr[first] == pytest.approx(changed["lr"] * (horizon - 35) / (horizon - warmup))
    if "batch_size" not in change:
        unchanged = fake_run(hyperparameters(kind), horizon=HORIZON, until=50, start=35, state=parent.states[35])
        make(kind).train([unchanged])
        weights, other = (run.states[55]["model"] for run in (child, unchanged))  # 35, 42, an epoch's end 48, 55
        assert any(not weights[name].equal(other[name]) for name in weights)


def test_a_fork_cannot_change_the_rank(make: Make, fake_run: Any) -> None:
    kind = "lora classification"
    parent = fake_run(hyperparameters(kind), horizon=HORIZON, until=7)
    make(kind).train([parent])
    changed = hyperparameters(kind, lora_r=2)
    child = fake_run(changed, horizon=HORIZON, start=7, state=parent.states[7])
    with pytest.raises(ConfigError, match="lora_r"):
        make(kind).train([child])


@pytest.mark.parametrize("kind", ["lora classification", "lora causal"])
def test_a_lora_checkpoint_holds_the_trained_weights_only(whole: Callable[[str], Any], kind: str) -> None:
    names = list(whole(kind).states[HORIZON]["model"])
    assert any("lora_A" in name for name in names)
    assert all("lora_" in name or "classifier" in name for name in names)
    assert any("classifier" in name for name in names) == (kind == "lora classification")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full classification", "lora causal"])
def test_continuing_in_a_new_process(
    make: Make,
    whole: Callable[[str], Any],
    fake_run: Any,
    as_plain: Any,
    tmp_path: Path,
    bert: Path,
    llama: Path,
    reviews: Path,
    pairs: Path,
    kind: str,
) -> None:
    stopped = fake_run(hyperparameters(kind), horizon=HORIZON, stop_at=17)
    with pytest.raises(RunInterrupted):
        make(kind).train([stopped])
    position = max(stopped.states)
    digest, _ = checkpoint.write(tmp_path / "before", stopped.states[position])
    folders = [str(path) for path in (bert, llama, reviews, pairs)]
    program = f"""
import importlib.util, json, pathlib, sys

def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

fakes = load("fakes", {str(Path(__file__).with_name("conftest.py"))!r})
tests = load("tests", {__file__!r})
import torch
from thalweg.train import checkpoint
torch.set_num_threads(1)
trainer = tests.describe({kind!r}, *{folders!r})
trainer.setup()
state = checkpoint.read(pathlib.Path({str(tmp_path / "before")!r}), {digest!r})
hyperparameters = tests.hyperparameters({kind!r})
run = fakes.FakeRun(hyperparameters, horizon={HORIZON}, start={position}, state=state)
trainer.train([run])
digest, _ = checkpoint.write(pathlib.Path({str(tmp_path / "after")!r}), run.states[{HORIZON}])
points = [[name, at, value] for (name, at), value in run.points.items()]
print(json.dumps({{"digest": digest, "points": points, "report": run.reports[{HORIZON}]}}))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    result = json.loads(ran.stdout)
    expected = whole(kind)
    assert result["report"] == expected.reports[HORIZON]
    assert {(name, at): value for name, at, value in result["points"]} == {
        key: value for key, value in expected.points.items() if key[1] > position
    }
    after = checkpoint.read(tmp_path / "after", result["digest"])
    assert as_plain(after) == as_plain(expected.states[HORIZON])
