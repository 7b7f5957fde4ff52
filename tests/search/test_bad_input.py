"""What a strategy is given that cannot work, or hardly: refused by name before anything is trained, or dealt with."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from virtual_workers import simulate

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import SAMPLERS, STRATEGIES, Problem, strategy, takes_sampler
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Continue, Metric, Report, Run, Start, Tree

SPACE = Space.parse({"lr": {"log": [1e-5, 1e-3]}, "epochs": {"integer": [1, 3]}, "kind": {"choice": ["a", "b"]}})
PROBLEM = Problem(space=SPACE, metric=Metric("loss", "min"), horizon=lambda _: 900, seed=0)

WITH_RUNGS = ("halving", "asha", "successive_halving", "hyperband", "bohb", "lr_race")
POPULATIONS = ("pbt", "pb2")


def fixed(names: Iterable[str]) -> Mapping[str, str]:
    return {name: "the data are ordered once, at the start" for name in names if name == "epochs"}


def refused(name: str, options: Mapping[str, Any], problem: Problem = PROBLEM) -> str:
    with pytest.raises(ConfigError) as error:
        strategy(name, options, problem)
    return str(error.value)


# Refused, by name, with what would work


@pytest.mark.parametrize("name", WITH_RUNGS)
@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        ([0.3, 0.1, 1.0], "strategy.rungs = [0.3, 0.1, 1.0] must rise from each rung to the next"),
        ([0.1, 0.1, 1.0], "strategy.rungs = [0.1, 0.1, 1.0] must rise from each rung to the next"),
        ([0.1, 0.5], "strategy.rungs = [0.1, 0.5] must end at 1, the horizon"),
        ([0.0, 1.0], "strategy.rungs = [0.0, 1.0] must be shares of a run's horizon, above 0 and at most 1"),
        ([0.5, 2.0], "must be shares of a run's horizon"),
        ([math.nan, 1.0], "must be shares of a run's horizon"),
        ([1.0], "must be 2 to 20 shares of a run's horizon"),
        ([], "must be 2 to 20 shares of a run's horizon"),
        ("0.1", "strategy.rungs = '0.1' must be a list of numbers"),
        ([0.1, "1"], "strategy.rungs = [0.1, '1'] must be a list of numbers"),
        (0.1, "strategy.rungs = 0.1 must be a list of numbers"),
    ],
)
def test_rungs_that_are_none(name: str, rungs: Any, message: str) -> None:
    assert message in refused(name, {"rungs": rungs})


@pytest.mark.parametrize(("configs", "k", "at_most"), [(8, 9, 8), (1, 2, 1)])
def test_more_to_continue_than_begin(configs: int, k: int, at_most: int) -> None:
    message = refused("two_stage", {"num_configs": configs, "top_k": k})
    assert f"strategy.top_k = {k} must be at most num_configs = {at_most}" in message


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("population", [1, 0, -3])
def test_a_population_with_nobody_to_copy(name: str, population: int) -> None:
    assert f"strategy.population = {population} must be at least 2" in refused(name, {"population": population})


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_mutation_that_the_trainer_fixes_at_start(name: str) -> None:
    problem = dataclasses.replace(PROBLEM, fixed_at_start=fixed)
    message = refused(name, {"mutate": ["lr", "epochs"]}, problem)
    assert "strategy.mutate: 'epochs' cannot be mutated in the middle of a run" in message
    assert "the data are ordered once, at the start" in message
    assert message.endswith("these can be: lr, kind")
    # Where nothing is named, it is left out; where nothing else is left, that is said.
    actions = strategy(name, {}, problem).decide(Tree(), free_slots=1, left=Left({}))
    assert isinstance(actions[0], Start)
    alone = dataclasses.replace(problem, space=Space.parse({"epochs": {"integer": [1, 3]}}))
    assert "nothing in the space can be mutated in the middle of a run. epochs: the data" in refused(name, {}, alone)


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (["lrr"], "strategy.mutate: unknown hyperparameter 'lrr'. Did you mean 'lr'?"),
        ([], "strategy.mutate = [] names no hyperparameter"),
        ("lr", "strategy.mutate = 'lr' must be a list of strings"),
        ([1], "strategy.mutate = [1] must be a list of strings"),
    ],
)
def test_mutations_of_nothing(name: str, mutate: Any, message: str) -> None:
    assert message in refused(name, {"mutate": mutate})


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"log": [1e-5, 1e-3], "prior": 1e-2}, "space.lr.prior = 0.01"),
        ({"log": [1e-5, 1e-3], "prior": 0}, "space.lr.prior = 0"),
        ({"linear": [0.0, 0.5], "prior": -0.1}, "space.lr.prior = -0.1"),
        ({"integer": [1, 3], "prior": 4}, "space.lr.prior = 4"),
        ({"choice": [8, 16], "prior": 32}, "space.lr.prior = 32"),
        ({"log": [1e-5, 1e-3], "prior": "1e-4"}, "space.lr.prior = '1e-4'"),
        ({"log": [1e-5, 1e-3], "prior": math.nan}, "space.lr.prior = nan"),
    ],
)
def test_priors_outside_their_range(prior: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Space.parse({"lr": prior})


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_option_that_no_strategy_has(name: str) -> None:
    message = refused(name, {"max_rootz": 3})
    assert f"strategy '{name}': unknown option 'max_rootz'" in message


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in SAMPLERS])
def test_a_sampler_that_there_is_not(name: str) -> None:
    message = refused(name, {"sampler": "tpee"})
    if takes_sampler(name):
        assert "unknown strategy.sampler 'tpee'. Did you mean 'tpe'?" in message
    else:
        assert f"strategy '{name}': unknown option 'sampler'" in message


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("two_stage", {"top_k": 2.5}, "strategy.top_k = 2.5 must be a whole number"),
        ("two_stage", {"first_share": 1.0}, "strategy.first_share = 1 must be between 0 and 1"),
        ("two_stage", {"first_share": math.nan}, "strategy.first_share = nan must be between 0 and 1"),
        ("two_stage", {"num_configs": 0}, "strategy.num_configs = 0 must be at least 1"),
        ("pbt", {"population": "8"}, "strategy.population = '8' must be a whole number"),
        ("pbt", {"population": True}, "strategy.population = True must be a whole number"),
        ("pbt", {"interval": 0.0}, "strategy.interval = 0 must be a share of the run"),
        ("pbt", {"interval": math.nan}, "strategy.interval = nan must be a share of the run"),
        ("pbt", {"quantile": 0.6}, "strategy.quantile = 0.6 must be above 0 and at most 0.5"),
        ("pb2", {"selection": "truncate"}, "Did you mean 'truncation'?"),
        ("pb2", {"resample": 1.5}, "strategy.resample = 1.5 must be a probability"),
        ("freeze_thaw", {"step": 1.0}, "strategy.step = 1 must be from 1.1 to 1000"),
        ("freeze_thaw", {"step": math.inf}, "strategy.step = inf must be from 1.1 to 1000"),
        ("freeze_thaw", {"first_share": 0.0}, "strategy.first_share = 0 must be between 0 and 1"),
        ("lr_race", {"dimension": "lrr"}, "strategy.dimension = 'lrr' is not searched. Did you mean 'lr'?"),
        ("bohb", {"random_fraction": 2.0}, "strategy.random_fraction = 2 must be from 0 to 1"),
        ("bohb", {"min_results": 1}, "strategy.min_results = 1 must be at least 2"),
        ("successive_halving", {"num_configs": 1}, "strategy.num_configs = 1 must be at least 2"),
        ("hyperband", {"eta": 1}, "strategy.eta = 1 must be at least 2"),
        ("halving", {"trunk": True, "shortened": True}, "trunk = true and shortened = true exclude each other"),
        ("halving", {"trunk": "yes"}, "strategy.trunk = 'yes' must be true or false"),
        ("halving", {"trunk": True}, "there is no trunk to branch from"),
        ("halving", {"shortened": True}, "the trainer does not know how to give a run another horizon"),
    ],
)
def test_values_out_of_their_range(name: str, options: dict[str, Any], message: str) -> None:
    assert message in refused(name, options)


# Dealt with


@pytest.mark.parametrize("name", [*WITH_RUNGS, "two_stage", "freeze_thaw"])
def test_a_metric_that_is_missing_at_a_rung(name: str) -> None:
    """It is not ranked: the run goes no further while others can, and with nothing else left one goes to the end.

    `two_stage` has an end of its own: without an early score nothing is continued, as nothing says what is best.
    """
    made = strategy(name, {"num_configs": 2, "top_k": 1} if name == "two_stage" else {}, PROBLEM)
    first = made.decide(Tree(), free_slots=1, left=Left({}))[0]
    assert isinstance(first, Start)
    run = Run(
        id="s-0",
        number=0,
        hyperparameters=first.hyperparameters,
        horizon=900,
        until=first.until,
        position=first.until,
        status="paused",
        reports=(Report(first.until, {"other": 0.1}),),
        origin=name,
    )
    after = made.decide(Tree.of([run]), free_slots=1, left=Left({"runs": 5.0}))
    assert [type(action) for action in after] == [Start]
    last = made.decide(Tree.of([run]), free_slots=1, left=Left({"runs": 0.0}))
    if name == "two_stage":
        assert last == []
    else:
        assert [(type(a), a.run) for a in last if isinstance(a, Continue)] == [(Continue, "s-0")]


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_metric_that_is_missing_at_a_mark_lets_the_member_go_on(name: str) -> None:
    made = strategy(name, {"population": 2}, PROBLEM)
    runs = [
        Run(
            id=f"s-{i}",
            number=i,
            hyperparameters={"lr": 1e-4, "epochs": 1 + i, "kind": "a"},
            horizon=900,
            until=90,
            position=90,
            status="paused",
            reports=(Report(90, {"loss": 1.0} if i else {"other": 1.0}),),
            origin=name,
        )
        for i in range(2)
    ]
    actions = made.decide(Tree.of(runs), free_slots=4, left=Left({}))
    assert {(a.run, a.until) for a in actions if isinstance(a, Continue)} == {("s-0", 180), ("s-1", 180)}
    assert len(actions) == 2


def test_a_grid_larger_than_the_budget_is_begun_in_all_its_corners() -> None:
    """The order is shuffled, so that a budget that ends early has seen all of the space."""

    def objective(hyperparameters: Hyperparameters, fraction: float) -> float:
        return 1.0

    space = Space.parse({"lr": {"log": [1e-5, 1e-3]}, "kind": {"choice": ["a", "b"]}})
    problem = dataclasses.replace(PROBLEM, space=space)
    outcome = simulate(strategy("grid", {"resolution": 50}, problem), problem, objective, runs=20)
    assert len(outcome.finished()) == 20
    assert {run.hyperparameters["kind"] for run in outcome.tree} == {"a", "b"}
    rates = [float(str(run.hyperparameters["lr"])) for run in outcome.tree]
    # 20 of 100 points in a random order: all of them below or above the middle has a chance of 1 in 500,000 or so.
    assert min(rates) < 1e-4 < max(rates)


def test_a_grid_too_large_to_be_built_is_refused() -> None:
    assert "gives a grid of up to 180,000 points" in refused("grid", {"resolution": 30_000})
