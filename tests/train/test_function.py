"""Functions as trainers: what a run gives them, and what a fork's changes do to the state that comes back."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from thalweg.budget import Cost, SpendKind
from thalweg.errors import ConfigError, RunInterrupted
from thalweg.space import Space
from thalweg.train.function import FunctionRun, FunctionTrainer
from thalweg.trainer import Diverged

SPACE = Space.parse({"lr": {"log": [1e-5, 1.0]}})


class Active:
    """A run as a worker gives it, in memory. It asks the trainer to stop at position `stop_at`."""

    def __init__(
        self, until: int, *, state: Any = None, start: int = 0, stop_at: int | None = None, **hyper: Any
    ) -> None:
        self.id = "test-0"
        self.hyperparameters = {"lr": 0.1, **hyper}
        self.seed = 7
        self.start, self.until, self.horizon = start, until, 10
        self.stop_at = stop_at
        self.state = state
        self.points: dict[int, Mapping[str, float]] = {}
        self.reports: dict[int, Mapping[str, float]] = {}
        self.saved: dict[int, Any] = {}
        self.spent: dict[SpendKind, Cost] = {}
        self.position = start

    def restore(self) -> Any:
        return self.state

    def log(self, position: int, /, **metrics: float) -> None:
        self.points[position] = metrics
        self.position = position

    def report(self, position: int, /, **metrics: float) -> None:
        self.reports[position] = metrics

    def save(self, position: int, state: Any) -> None:
        import copy

        self.saved[position] = copy.deepcopy(state)

    def checkpoint_due(self) -> bool:
        return False

    def should_stop(self) -> bool:
        return self.position == self.stop_at

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        self.spent[kind] = self.spent.get(kind, Cost()) + cost


def trainer(function: Any, **options: Any) -> FunctionTrainer:
    made = FunctionTrainer(function, **options)
    made.check(SPACE, "score")
    return made


def descend(run: FunctionRun) -> None:
    """Noisy gradient descent on a random quadratic, with momentum: all of model, optimiser and RNG matter."""
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=run.hyperparameters["lr"], momentum=0.9)
    state = run.restore(model=model, optimizer=optimizer)
    state.setdefault("seen", [])
    for position in run.positions():
        loss = ((model(torch.randn(4, 3)) - 1) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state["seen"].append(position)
        run.log(position, loss=loss)
    run.report(score=model.weight.sum())


def test_a_returned_number_or_mapping_is_the_result() -> None:
    for result, reported in ((0.5, {"score": 0.5}), ({"score": 1, "size": 2.0}, {"score": 1.0, "size": 2.0})):
        run = Active(1)
        trainer(lambda run, result=result: result).train([run])
        assert run.reports == {1: reported}


def test_a_result_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="score = 'good' must be a number"):
        trainer(lambda run: "good").train([Active(1)])


def test_positions_points_and_report_are_recorded() -> None:
    run = Active(5)
    trainer(descend, horizon=10).train([run])
    assert list(run.points) == [1, 2, 3, 4, 5]
    assert list(run.reports) == [5]
    assert list(run.saved) == [5]
    assert run.spent["train"].seconds > 0


def test_samples_are_entered_where_positions_count_them() -> None:
    run = Active(5)
    trainer(descend, horizon=10, unit="samples").train([run])
    assert run.spent["train"].samples == 5
    assert trainer(descend, horizon=10, unit="tokens").cost({}, 2, 6) == Cost(tokens=4)


def test_stopped_and_continued_equals_uninterrupted() -> None:
    whole = Active(10)
    trainer(descend, horizon=10).train([whole])
    first = Active(10, stop_at=4)
    with pytest.raises(RunInterrupted):
        trainer(descend, horizon=10).train([first])
    second = Active(10, start=4, state=first.saved[4])
    trainer(descend, horizon=10).train([second])
    assert {**first.points, **second.points} == whole.points
    assert second.reports == whole.reports
    assert second.saved[10]["kept"] == whole.saved[10]["kept"] == {"seen": list(range(1, 11))}


def test_a_changed_learning_rate_holds_after_the_state_is_loaded() -> None:
    seen = []

    def watch(run: FunctionRun) -> float:
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=run.hyperparameters["lr"], weight_decay=0.3)
        run.restore(model=model, optimizer=optimizer)
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]))
        for _ in run.positions():
            pass
        return 0.0

    parent = Active(5)
    trainer(watch, horizon=10).train([parent])
    trainer(watch, horizon=10).train([Active(10, start=5, state=parent.saved[5], lr=0.02)])
    assert seen == [(0.1, 0.3), (0.02, 0.3)]


@pytest.mark.parametrize(("lr", "expected"), [(0.1, 0.05), (0.4, 0.2)])
def test_a_scheduler_goes_on_from_where_it_was_in_proportion_to_the_changed_rate(lr: float, expected: float) -> None:
    seen = []

    def train(run: FunctionRun) -> float:
        weight = torch.nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([weight], lr=run.hyperparameters["lr"])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)
        run.restore(optimizer=optimizer, scheduler=scheduler)
        seen.append(optimizer.param_groups[0]["lr"])
        for _ in run.positions():
            optimizer.step()
            scheduler.step()
        seen.append(optimizer.param_groups[0]["lr"])
        return 0.0

    parent = Active(5)
    trainer(train, horizon=10).train([parent])
    seen.clear()
    trainer(train, horizon=10).train([Active(8, start=5, state=parent.saved[5], lr=lr)])
    # Half of the way down at position 5, two tenths of the peak are left at 8.
    assert seen == pytest.approx([expected, lr * 0.2])


def test_a_loss_that_is_not_finite_diverges() -> None:
    def explode(run: FunctionRun) -> None:
        for position in run.positions():
            run.log(position, **{"train/loss": math.nan if position == 3 else 1.0})

    with pytest.raises(Diverged, match="train/loss at position 3 is nan"):
        trainer(explode, horizon=10).train([Active(10)])


def test_other_metrics_may_be_infinite() -> None:
    run = Active(1)
    trainer(lambda run: [run.log(p, ratio=math.inf) for p in run.positions()] and 1.0).train([run])
    assert run.points == {1: {"ratio": math.inf}}


def test_objects_without_state_are_refused() -> None:
    with pytest.raises(ConfigError, match="tokens is a list, without state_dict"):
        trainer(lambda run: run.restore(tokens=[1])).train([Active(1)])


def test_restoring_other_objects_than_were_saved_is_refused() -> None:
    parent = Active(5)
    trainer(descend, horizon=10).train([parent])
    with pytest.raises(ConfigError, match="holds model, optimizer, but restore was given model"):
        trainer(lambda run: run.restore(model=torch.nn.Linear(3, 1))).train(
            [Active(10, start=5, state=parent.saved[5])]
        )


def test_a_continued_run_must_restore() -> None:
    with pytest.raises(ConfigError, match=r"call run\.restore"):
        trainer(lambda run: list(run.positions())).train([Active(10, start=5, state={})])


@pytest.mark.parametrize("horizon", [0, -3, 2.5, "many"])
def test_a_horizon_must_be_a_whole_number_above_zero(horizon: Any) -> None:
    with pytest.raises(ConfigError, match="whole number above zero"):
        FunctionTrainer(descend, horizon=horizon)
    with pytest.raises(ConfigError, match="whole number above zero"):
        FunctionTrainer(descend, horizon=lambda hyperparameters: horizon).horizon({"lr": 0.1})


def test_the_fingerprint_follows_the_source() -> None:
    assert trainer(descend).describe() == trainer(descend).describe()
    assert trainer(descend).describe() != trainer(lambda run: None).describe()


def test_generators_are_seeded_with_the_runs_seed() -> None:
    import random

    import numpy as np

    drawn = []
    for _ in range(2):
        trainer(lambda run: drawn.append((random.random(), np.random.rand(), float(torch.rand(())))) or 1.0).train(
            [Active(1)]
        )
    assert drawn[0] == drawn[1]
