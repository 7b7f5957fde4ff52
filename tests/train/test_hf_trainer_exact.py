"""A Hugging Face Trainer's run that is stopped, paused or forked is bit for bit what it would have been."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from thalweg.errors import RunInterrupted
from thalweg.train.hf_trainer import HFTrainer

_spec = importlib.util.spec_from_file_location("hf_makers", Path(__file__).with_name("hf_makers.py"))
assert _spec is not None
assert _spec.loader is not None
hf_makers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hf_makers)

# Warnings of libraries about each other.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing", "ignore:.gradient_checkpointing")

HYPERPARAMETERS = {"lr": 3e-3, "weight_decay": 0.1}
HORIZON = {"accumulation": 12, "grpo": 12}
QUICK = ["full", "lora", "accumulation", "masked", "sft"]
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("dpo", "grpo")]
STEPS = 21
"""26 rows in batches of 4 are 7 steps; 3 epochs."""


@pytest.fixture(scope="module")
def makers(bert: Path, llama: Path, reviews: Path) -> Mapping[str, Callable[[], Any]]:
    return {
        "full": lambda: hf_makers.classifier(bert, reviews),
        "lora": lambda: hf_makers.classifier(bert, reviews, lora=True, arguments_={"eval_strategy": "epoch"}),
        "accumulation": lambda: hf_makers.classifier(bert, reviews, arguments_={"gradient_accumulation_steps": 2}),
        "masked": lambda: hf_makers.masked(bert, reviews),
        "sft": lambda: hf_makers.sft(llama, reviews),
        "dpo": lambda: hf_makers.dpo(llama, reviews),
        "grpo": lambda: hf_makers.grpo(llama, reviews),
    }


@pytest.fixture(scope="module")
def whole(makers: Any, fake_run: Any) -> Callable[[str], Any]:
    """The uninterrupted run."""
    HFTrainer(dict).setup()
    runs: dict[str, Any] = {}

    def of(kind: str) -> Any:
        if kind not in runs:
            runs[kind] = trained(makers, fake_run, kind, due=lambda: True)
        return runs[kind]

    return of


def trained(makers: Any, fake_run: Any, kind: str, *, due: Any = None, **options: Any) -> Any:
    run = fake_run(HYPERPARAMETERS, horizon=HORIZON.get(kind, STEPS), **options)
    if due is not None:
        run.due = due
    with contextlib.suppress(RunInterrupted):
        HFTrainer(makers[kind]()).train([run])
    return run


def without_timing(state: Any) -> Any:
    """TRL keeps how long its last steps took among the metrics that it will log."""
    if isinstance(state, Mapping):
        return {k: without_timing(v) for k, v in state.items() if "time" not in str(k)}
    return [without_timing(item) for item in state] if isinstance(state, list | tuple) else state


@pytest.mark.parametrize("kind", [*QUICK, *SLOW])
def test_stopping_changes_nothing(makers: Any, whole: Any, fake_run: Any, as_plain: Any, kind: str) -> None:
    expected = whole(kind)
    for stop_at in (7, 15, 26) if kind != "grpo" else (6, 9, 14):
        stopped = trained(makers, fake_run, kind, stop_at=stop_at)
        assert not stopped.reports
        position = max(stopped.states)
        rest = trained(makers, fake_run, kind, start=position, state=stopped.states[position], due=lambda: True)
        rest.assert_continues(expected, lambda state: without_timing(as_plain(state)))
        assert stopped.points | rest.points == expected.points


@pytest.mark.parametrize("kind", [*QUICK, *SLOW])
def test_pausing_and_forking_without_a_change_change_nothing(
    makers: Any, whole: Any, fake_run: Any, as_plain: Any, kind: str
) -> None:
    """A pause has an evaluation that the uninterrupted run has not; 7 and 14 are where epochs end."""
    expected = whole(kind)
    for until in (4, 7) if kind != "grpo" else (5, 8):
        parent = trained(makers, fake_run, kind, until=until)
        assert list(parent.reports) == [until]
        assert without_timing(as_plain(parent.states[until])) == without_timing(as_plain(expected.states[until]))
        child = trained(makers, fake_run, kind, start=until, state=parent.states[until], due=lambda: True)
        child.assert_continues(expected, lambda state: without_timing(as_plain(state)))
        assert parent.points | child.points == expected.points


@pytest.mark.parametrize("kind", ["accumulation", "lora"])
def test_every_possible_interruption(makers: Any, whole: Any, fake_run: Any, as_plain: Any, kind: str) -> None:
    """Stopped again and again, within steps and evaluations, the run still ends the same."""
    points: dict[Any, float] = {}
    position, state = 0, None
    for num_calls in range(60):
        run = trained(makers, fake_run, kind, start=position, state=state, stop_at=4 + num_calls % 4)
        points |= run.points
        position = max(run.states, default=position)
        state = run.states.get(position, state)
        if run.reports:
            break
    assert num_calls > 4
    assert run.reports == whole(kind).reports
    assert points == whole(kind).points
    assert as_plain(state) == as_plain(whole(kind).states[position])


def test_an_interrupted_evaluation_is_done_again_and_no_step_is(makers: Any, fake_run: Any) -> None:
    run = trained(makers, fake_run, "lora")
    stopped = trained(makers, fake_run, "lora", stop_at=run.num_asked)
    assert stopped.events[-1] == ("save", STEPS)
    rest = trained(makers, fake_run, "lora", start=STEPS, state=stopped.states[STEPS])
    assert rest.curve("validation/loss").keys() == {STEPS}
    assert not rest.curve("train/lr")
    assert rest.reports == run.reports
