"""Rungs on shortened schedules: a root per rung, recognised by its hyperparameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hand_made import Script
from virtual_workers import Outcome, simulate

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import Problem, Strategy, strategy
from thalweg.search.halving import Halving
from thalweg.search.successive_halving import SuccessiveHalving
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Continue, Metric, Report, Run, Start, Tree

SPACE = Space.parse({"x": {"linear": [0.0, 1.0]}, "tokens": 900, "warmup": 0.1})


def horizon(hyperparameters: Hyperparameters) -> int:
    tokens = hyperparameters["tokens"]
    assert isinstance(tokens, int)
    return tokens


def shortened(hyperparameters: Hyperparameters, budget: int) -> Hyperparameters:
    """As a trainer extends a run: its warm-up becomes a length, which a shorter run does not need."""
    return {"tokens": budget, "warmup": 90}


PROBLEM = Problem(space=SPACE, metric=Metric("loss", "min"), horizon=horizon, seed=0, shortened=shortened)


class Points(Script):
    def propose(self, observations: Any, pending: Any, index: int) -> Hyperparameters | None:
        point = super().propose(observations, pending, index)
        return None if point is None else SPACE.complete(point)


def halving(script: Points | None = None, **options: Any) -> Halving:
    return Halving(PROBLEM, script or Points(), "tested", shortened=True, **options)


def root(number: int, x: float, tokens: int, loss: float | None, **changes: Any) -> Run:
    """A root of this length, finished where it has a loss."""
    fields: Mapping[str, Any] = {
        "hyperparameters": point(x, tokens),
        "horizon": tokens,
        "until": tokens,
        "position": tokens if loss is not None else 0,
        "status": "finished" if loss is not None else "running",
        "reports": () if loss is None else (Report(tokens, {"loss": loss}),),
        "origin": "tested",
    }
    return Run(id=f"s-{number}", number=number, **(fields | changes))


def point(x: float, tokens: int) -> Hyperparameters:
    return {"x": x, "tokens": tokens, "warmup": 0.1}


def decide(strategy: Strategy, *runs: Run, free: int = 1, left: Left | None = None) -> list[Any]:
    return list(strategy.decide(Tree.of(runs), free_slots=free, left=left or Left({})))


def test_a_root_is_a_whole_run_of_the_rungs_budget() -> None:
    """Only what the horizon needs is changed: the warm-up remains a tenth."""
    assert decide(halving()) == [Start(point(0.0, 100), 100, "tested")]


def test_promotion_begins_a_root_of_the_next_budget() -> None:
    three = [root(i, i / 100, 100, loss) for i, loss in enumerate([3.0, 1.0, 2.0])]
    assert decide(halving(), *three) == [Start(point(0.01, 300), 300, "tested")]
    promoted = root(3, 0.01, 300, None)
    assert decide(halving(), *three, promoted) == [Start(point(0.03, 100), 100, "tested")]


def test_the_last_rung_is_the_configuration_itself() -> None:
    nine = [root(i, i / 100, 100, float(i)) for i in range(9)]
    three = [root(9 + i, i / 100, 300, float(i)) for i in range(3)]
    assert decide(halving(), *nine, *three) == [Start(point(0.0, 900), 900, "tested")]


def test_a_configuration_is_known_by_its_hyperparameters() -> None:
    """The sampler counts configurations, and learns what a whole run of each would be."""
    script = Points()
    nine = [root(i, i / 100, 100, float(i)) for i in range(9)]
    four = [root(9 + i, i / 100, 300, 10.0 + i) for i in range(4)]
    done = root(13, 0.0, 900, 20.0)
    (action,) = decide(halving(script), *nine, *four, done)
    assert action == Start(point(0.09, 100), 100, "tested")
    assert [(dict(seen.hyperparameters), seen.loss) for seen in script.told[0][0]] == [
        ({"x": i / 100, "tokens": 900, "warmup": 0.1}, 10.0 + i) for i in range(4)
    ]


def test_equal_configurations_are_kept_apart() -> None:
    """A sampler may propose a point twice: two configurations, and a promotion goes on with the better one."""
    same = [root(0, 0.5, 100, 2.0), root(1, 0.5, 100, 1.0), root(2, 0.5, 100, 3.0)]
    assert decide(halving(), *same) == [Start(point(0.5, 300), 300, "tested")]
    assert decide(halving(), *same, root(3, 0.5, 300, 1.0)) == [Start(point(0.03, 100), 100, "tested")]


@pytest.mark.parametrize("status", ["failed", "stopped", "diverged"])
def test_a_configuration_that_is_lost_higher_up_gives_its_place_away(status: str) -> None:
    nine = [root(i, i / 100, 100, float(i)) for i in range(9)]
    lost = root(9, 0.0, 300, None, status=status)
    others = [root(10, 0.01, 300, 1.0), root(11, 0.02, 300, 2.0)]
    strategy = SuccessiveHalving(PROBLEM, Points(), "tested", shortened=True)
    assert decide(strategy, *nine, lost, *others) == [Start(point(0.03, 300), 300, "tested")]


def test_runs_of_others() -> None:
    """A whole run by hand is compared at the horizon; one of another length nowhere; no sequence is shifted."""
    by_hand = [root(0, 0.7, 900, 0.1, origin="hand"), root(1, 0.8, 123, 0.1, origin="hand")]
    baseline = root(2, 0.9, 900, 0.1, origin="baseline", hyperparameters={"tokens": 900, "batch_size": 4})
    assert decide(halving(), *by_hand, baseline) == [Start(point(0.0, 100), 100, "tested")]


def test_one_of_the_budgets_runs_is_kept_for_the_horizon() -> None:
    two = [root(0, 0.0, 100, 2.0), root(1, 0.01, 100, 1.0)]
    assert decide(halving(), *two, left=Left({"runs": 2.0})) == [Start(point(0.02, 100), 100, "tested")]
    assert decide(halving(), *two, left=Left({"runs": 1.0})) == [Start(point(0.01, 900), 900, "tested")]
    assert decide(halving(), *two, left=Left({"runs": 0.0})) == []
    assert decide(halving(), left=Left({"runs": 1.0})) == [Start(point(0.0, 900), 900, "tested")]


def test_a_whole_runs_time_is_kept_for_the_horizon() -> None:
    """1/9 more and 1.15 of a whole run are 1.26."""
    two = [root(0, 0.0, 100, 2.0), root(1, 0.01, 100, 1.0)]
    ends = {room: decide(halving(), *two, left=Left({"seconds": 60.0}, room))[0].until for room in (1.3, 1.2, 1.0)}
    assert ends == {1.3: 100, 1.2: 900, 1.0: 900}
    done = root(2, 0.02, 900, 0.5)
    # Once there is a whole run, nothing is kept any more.
    assert decide(halving(), *two, done, left=Left({"seconds": 60.0}, 0.2))[0].until == 100


def test_the_price() -> None:
    """1/9 + 1/3 / 3 + 1 / 9 for each configuration, 1 + 1/3 + 1/9 roots: beside 7/27 with continuing, 9/7 as much."""
    each = 1 / 9 + 1 / 9 + 1 / 9
    assert math.isclose(halving().share, each / (13 / 9))
    assert math.isclose(each / (7 / 27), 9 / 7)
    assert halving(max_roots=9).num_roots == 13


@pytest.mark.parametrize("name", ["halving", "asha", "successive_halving", "hyperband", "bohb", "lr_race"])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("runs", [1, 2, 14, 40])
def test_whole_studies(name: str, workers: int, runs: int) -> None:
    """Every root runs to its own horizon, none goes on, the budget's runs count roots, and one is whole."""
    outcome = whole_study(name, workers, runs)
    assert not any(isinstance(action, Continue) for action in outcome.actions)
    assert len(outcome.tree) <= runs
    assert any(r.status == "finished" and r.horizon == 900 for r in outcome.tree)
    assert {r.horizon for r in outcome.tree} <= {100, 225, 300, 450, 900}


def whole_study(name: str, workers: int, runs: int) -> Outcome:
    def make() -> Strategy:
        sampler = {"sampler": "random"} if name not in ("bohb", "lr_race") else {}
        return strategy(name, {**sampler, "shortened": True}, PROBLEM)

    def loss(hyperparameters: Hyperparameters, fraction: float) -> float:
        x = hyperparameters["x"]
        assert isinstance(x, float)
        return abs(x - 0.3) - fraction

    return simulate(make(), PROBLEM, loss, runs=runs, workers=workers, step=7, remake=make)


def test_what_cannot_be_shortened_is_refused() -> None:
    with pytest.raises(ConfigError, match="shortened = true: the trainer does not know how"):
        strategy("halving", {"shortened": True}, dataclasses.replace(PROBLEM, shortened=lambda *_: None))
    searched = Space.parse({"x": {"linear": [0.0, 1.0]}, "tokens": {"integer": [900, 950]}})
    with pytest.raises(ConfigError, match=r"shortens runs by their tokens, which is searched; fix it .*tokens = 9\d\d"):
        strategy("hyperband", {"shortened": True}, dataclasses.replace(PROBLEM, space=searched))
