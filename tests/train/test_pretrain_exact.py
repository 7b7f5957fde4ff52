"""A pre-training run that is stopped, forked, or trained after another one is bit for bit what it would have been."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg.errors import ConfigError, RunInterrupted
from thalweg.train import checkpoint, pretrain_loop
from thalweg.train.corpus import Corpus
from thalweg.train.llama import ModelShape
from thalweg.train.pretrain import Pretrain

STEP = 7 * 8
HORIZON = 40 * STEP
HYPERPARAMETERS = {
    "lr": 0.01,
    "batch_size": 7,
    "tokens": HORIZON,
    "schedule": "wsd",
    "warmup": 0.1,
    "decay": 0.3,
    "clip_by": "component",
}
"""A step takes 7 sequences of 8 tokens, in micro-batches of 3. The text has 1,881 tokens: an epoch ends on the way."""

EXACT = ("fp32", "bf16")


@pytest.fixture(scope="module", autouse=True)
def _no_speed() -> Iterator[None]:
    """Throughput is not the same twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain_loop, "_SPEED_SECONDS", math.inf)
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    rng = np.random.default_rng(0)
    words = ["the", "cat", "dog", "sat", "ran", "on", "mat", "and", "hat"]
    path.write_text("\n".join(f"{i} {' '.join(rng.choice(words, size=12))}" for i in range(80)))
    return path


def describe(precision: str, text: str, cache: str) -> Pretrain:
    shape = ModelShape(layers=2, width=16, heads=4, kv_heads=2, vocabulary=270, context=8)
    data = Corpus(train=text, separator="\n", cache=cache)
    options: dict[str, Any] = {"micro_batch": 3, "monitor_every": 4, "validation_tokens": 64}
    return Pretrain(model=shape, data=data, precision=precision, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def make(text: Path, cache: str) -> Callable[[str], Pretrain]:
    made: dict[str, Pretrain] = {}

    def trainer(precision: str = "fp32") -> Pretrain:
        if precision not in made:
            made[precision] = describe(precision, str(text), cache)
            made[precision].setup()
        return made[precision]

    return trainer


@pytest.fixture(scope="module")
def whole(make: Any, fake_run: Any) -> Callable[[str], Any]:
    """The uninterrupted run, with a checkpoint at every step."""
    runs: dict[str, Any] = {}

    def of(precision: str = "fp32") -> Any:
        if precision not in runs:
            run = runs[precision] = fake_run(HYPERPARAMETERS, horizon=HORIZON)
            run.due = lambda: True
            make(precision).train([run])
        return runs[precision]

    return of


@pytest.mark.parametrize("precision", EXACT)
@pytest.mark.parametrize("stop_at", [1, 2, 3, 8, 31, 32, 60, 101])
def test_stopping_anywhere_changes_nothing(
    make: Any, whole: Any, fake_run: Any, as_plain: Any, precision: str, stop_at: int
) -> None:
    """`stop_at` 1 to 3 are micro-batches of the first step, the others are within later ones or in an evaluation."""
    stopped = fake_run(HYPERPARAMETERS, horizon=HORIZON, stop_at=stop_at)
    with pytest.raises(RunInterrupted):
        make(precision).train([stopped])
    position = max(stopped.states, default=0)
    assert (position == 0) == (stop_at <= 3)
    assert not stopped.reports
    rest = fake_run(HYPERPARAMETERS, horizon=HORIZON, start=position, state=stopped.states.get(position))
    rest.due = lambda: True
    make(precision).train([rest])
    rest.assert_continues(whole(precision), as_plain)
    assert stopped.points | rest.points == whole(precision).points


def test_every_possible_interruption(make: Any, whole: Any, fake_run: Any, as_plain: Any) -> None:
    """Stopped again and again, after the k-th question each time, the run still ends the same."""
    points: dict[Any, float] = {}
    position, state = 0, None
    for num_calls in range(200):
        run = fake_run(HYPERPARAMETERS, horizon=HORIZON, start=position, state=state, stop_at=4 + num_calls % 5)
        with contextlib.suppress(RunInterrupted):
            make().train([run])
        points |= run.points
        position = max(run.states, default=position)
        state = run.states.get(position, state)
        if run.reports:
            break
    assert num_calls > 15
    assert run.reports == whole().reports
    assert points == whole().points
    assert as_plain(state) == as_plain(whole().states[HORIZON])


def test_the_run_that_is_compared_with_crosses_an_epoch_and_evaluates(make: Any, whole: Any) -> None:
    trained = make()._loaded().tokens.train
    assert len(trained) + 2 * STEP < HORIZON
    assert len(whole().curve("validation/loss")) == 3
    assert len(whole().curve("adam_effective_lr")) == 10
    assert 28 * STEP in whole().states  # where the decay begins


def test_an_interrupted_evaluation_is_done_again_and_no_step_is(make: Any, fake_run: Any) -> None:
    run = fake_run(HYPERPARAMETERS, horizon=HORIZON)
    make().train([run])
    stopped = fake_run(HYPERPARAMETERS, horizon=HORIZON, stop_at=run.num_asked)
    with pytest.raises(RunInterrupted):
        make().train([stopped])
    assert stopped.events[-1] == ("save", HORIZON)
    rest = fake_run(HYPERPARAMETERS, horizon=HORIZON, start=HORIZON, state=stopped.states[HORIZON])
    make().train([rest])
    assert rest.events == [("report", HORIZON)]
    assert rest.reports == run.reports


@pytest.mark.parametrize("precision", EXACT)
def test_a_fork_without_a_change_is_the_parents_continuation(
    make: Any, whole: Any, fake_run: Any, as_plain: Any, precision: str
) -> None:
    parent = fake_run(HYPERPARAMETERS, horizon=HORIZON, until=5 * STEP - 3)
    make(precision).train([parent])
    (position,) = parent.reports
    assert position == 5 * STEP
    child = fake_run(HYPERPARAMETERS, horizon=HORIZON, start=position, state=parent.states[position])
    child.due = lambda: True
    make(precision).train([child])
    child.assert_continues(whole(precision), as_plain)


def test_runs_do_not_depend_on_what_ran_before(make: Any, fake_run: Any, as_plain: Any, text: Path, cache: str) -> None:
    def run_b(trainer: Pretrain) -> Any:
        run = fake_run(HYPERPARAMETERS | {"tokens": 10 * STEP}, horizon=10 * STEP, seed=5)
        trainer.train([run])
        return run

    used = make()
    used.train([fake_run(HYPERPARAMETERS | {"lr": 1.0}, horizon=HORIZON, until=3 * STEP, seed=9)])
    used.probe()
    fresh = describe("fp32", str(text), cache)
    fresh.setup()
    after, alone = run_b(used), run_b(fresh)
    assert after.points == alone.points
    assert after.reports == alone.reports
    assert as_plain(after.states) == as_plain(alone.states)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 1e-3},
        {"batch_size": 5},
        {"weight_decay": 0.5},
        {"weight_decay_kind": "l2"},
        {"clip": 0.001},
        {"beta1": 0.5},
        {"tokens": 2 * HORIZON},
        {"schedule": "linear"},
        {"decay": 0.7},
    ],
)
def test_what_a_fork_changes_is_in_force(make: Any, whole: Any, fake_run: Any, change: dict[str, Any]) -> None:
    """The state of the parent is loaded first, then the changes are applied."""
    changed: dict[str, Any] = {**HYPERPARAMETERS, **change}
    horizon, start = changed["tokens"], 10 * STEP
    until = start + 5 * changed["batch_size"] * 8
    state = whole().states[start]
    child = fake_run(changed, horizon=horizon, until=until, start=start, state=state)
    make().train([child])
    warmup, decay = 0.1 * horizon, changed["decay"] * horizon
    for position, lr in child.curve("train/lr").items():
        at = position - changed["batch_size"] * 8
        if changed["schedule"] == "linear":
            share = (horizon - at) / (horizon - warmup)
        else:
            share = min(1.0, (horizon - at) / decay)
        assert lr == pytest.approx(changed["lr"] * share)
    assert min(child.curve("train/lr")) == start + changed["batch_size"] * 8
    losses = child.curve("train/loss")
    if "batch_size" in change:
        # 560 tokens are no multiple of 40-token steps of 5 sequences from 0, and need not be.
        assert list(losses) == [start + 40 * i for i in range(1, 6)]
        return
    first = start + STEP
    assert losses[first] == whole().curve("train/loss")[first]  # before the change could act
    unchanged = whole().states[until]["model"]
    assert any(not child.states[until]["model"][name].equal(unchanged[name]) for name in unchanged) == (
        change != {"tokens": 2 * HORIZON}  # both are at their peak
    )


def test_a_fork_cannot_change_the_model(make: Any, whole: Any, fake_run: Any, text: Path, cache: str) -> None:
    other = describe("fp32", str(text), cache)
    other = other.model_copy(update={"model": ModelShape(layers=2, width=24, heads=4, vocabulary=270, context=8)})
    other.setup()
    child = fake_run(HYPERPARAMETERS, horizon=HORIZON, start=STEP, state=whole().states[STEP])
    with pytest.raises(ConfigError, match="a fork cannot change the model"):
        other.train([child])


@pytest.mark.slow
def test_continuing_in_a_new_process(
    make: Any, whole: Any, fake_run: Any, as_plain: Any, tmp_path: Path, text: Path, cache: str
) -> None:
    stopped = fake_run(HYPERPARAMETERS, horizon=HORIZON, stop_at=40)
    with pytest.raises(RunInterrupted):
        make().train([stopped])
    position = max(stopped.states)
    digest, _ = checkpoint.write(tmp_path / "before", stopped.states[position])
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
from thalweg.train import checkpoint, pretrain_loop
pretrain_loop._SPEED_SECONDS = float("inf")
torch.set_num_threads(1)
trainer = tests.describe("fp32", {str(text)!r}, {cache!r})
trainer.setup()
state = checkpoint.read(pathlib.Path({str(tmp_path / "before")!r}), {digest!r})
run = fakes.FakeRun(tests.HYPERPARAMETERS, horizon={HORIZON}, start={position}, state=state)
trainer.train([run])
digest, _ = checkpoint.write(pathlib.Path({str(tmp_path / "after")!r}), run.states[{HORIZON}])
points = [[name, at, value] for (name, at), value in run.points.items()]
print(json.dumps({{"digest": digest, "points": points, "report": run.reports[{HORIZON}]}}))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    result = json.loads(ran.stdout)
    assert result["report"] == whole().reports[HORIZON]
    assert {(name, at): value for name, at, value in result["points"]} == {
        key: value for key, value in whole().points.items() if key[1] > position
    }
    after = checkpoint.read(tmp_path / "after", result["digest"])
    assert as_plain(after) == as_plain(whole().states[HORIZON])
