"""Learning-rate races: which rates, whose neighbours, and what a race costs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hand_made import run
from virtual_workers import Outcome, simulate

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import Problem, strategy
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Metric, Run, Start, Tree


def make_problem(space: dict[str, Any], **options: Any) -> Problem:
    return Problem(
        space=Space.parse(space), **{"metric": Metric("loss", "min"), "horizon": lambda _: 900, "seed": 0, **options}
    )


def points(problem: Problem, count: int = 4, *runs: Run, **options: Any) -> list[Hyperparameters]:
    race = strategy("lr_race", options, problem)
    actions = race.decide(Tree.of(runs), free_slots=count, left=Left({}))
    return [action.hyperparameters for action in actions if isinstance(action, Start)]


def raced(dimension: dict[str, Any], name: str = "lr", **options: Any) -> list[Any]:
    return sorted(point[name] for point in points(make_problem({name: dimension}), **options))


def test_four_rates_around_a_prior() -> None:
    """A factor of sqrt(10) apart, the prior in the middle."""
    expected = [1e-3 * 10**exponent for exponent in (-0.75, -0.25, 0.25, 0.75)]
    assert raced({"log": [1e-6, 1.0], "prior": 1e-3}) == pytest.approx(expected)
    assert raced({"linear": [0.0, 1.0], "prior": 1e-2}) == pytest.approx([10 * rate for rate in expected])


def test_rates_are_moved_into_the_range_as_one() -> None:
    assert raced({"log": [1e-6, 1e-3], "prior": 1e-3}) == pytest.approx([10**e for e in (-4.5, -4.0, -3.5, -3.0)])
    assert raced({"log": [1e-3, 1.0], "prior": 2e-3}) == pytest.approx([10**e for e in (-3.0, -2.5, -2.0, -1.5)])
    # A range of one decade: a third of one apart.
    assert raced({"log": [1e-3, 1e-2], "prior": 2e-3}) == pytest.approx([10**e for e in (-3, -8 / 3, -7 / 3, -2)])


def test_rates_without_a_prior_are_the_middles_of_the_quarters() -> None:
    assert raced({"log": [1e-4, 1.0]}) == pytest.approx([10**e for e in (-3.5, -2.5, -1.5, -0.5)])
    assert raced({"linear": [0.0, 8.0]}) == pytest.approx([1.0, 3.0, 5.0, 7.0])


def test_a_prior_that_has_no_ratios() -> None:
    """A sixth of the range apart, around 0."""
    assert raced({"linear": [-6.0, 6.0], "prior": 0.0}, name="shift") == pytest.approx([-3.0, -1.0, 1.0, 3.0])


def test_whole_numbers_and_choices() -> None:
    assert raced({"integer": [1, 1000], "log": True, "prior": 30}, name="n") == [5, 17, 53, 169]
    options = points(make_problem({"optimizer": {"choice": ["sgd", "adam", "lion"], "prior": "lion"}}), count=3)
    assert [point["optimizer"] for point in options] == ["lion", "sgd", "adam"]


REST = {
    "lr": {"log": [1e-5, 1e-1], "prior": 1e-3},
    "weight_decay": {"log": [1e-4, 1.0]},
    "dropout": {"linear": [0.0, 0.4], "prior": 0.1},
    "batch_size": {"choice": [8, 16, 32]},
    "optimizer": {"choice": ["adamw", "lion"]},
    "momentum": {"linear": [0.8, 1.0], "when": {"optimizer": "lion"}},
    "warmup": 0.05,
}


def test_everything_else_is_at_its_prior_or_in_the_middle() -> None:
    for point in points(make_problem(REST)):
        assert point["optimizer"] == "adamw"
        numbers = {name: value for name, value in point.items() if name not in ("lr", "optimizer")}
        assert numbers == pytest.approx({"weight_decay": 1e-2, "dropout": 0.1, "batch_size": 16, "warmup": 0.05})


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"x": {"log": [1, 9]}, "learning_rate": {"linear": [0, 1]}, "lr": {"linear": [0, 1]}}, "lr"),
        ({"x": {"log": [1, 9]}, "learning_rate": {"linear": [0, 1]}}, "learning_rate"),
        ({"a": {"linear": [0, 1]}, "x": {"log": [1, 9]}}, "x"),
        ({"c": {"choice": [1, 2]}, "a": {"linear": [0, 1]}}, "a"),
        ({"c": {"choice": [1, 2, 3, 4]}, "d": {"choice": ["a", "b"]}}, "c"),
    ],
)
def test_what_is_raced(names: dict[str, Any], found: str) -> None:
    four = points(make_problem(names))
    varied = {name for name in four[0] if len({point[name] for point in four}) > 1}
    assert varied == {found}


def test_what_is_raced_may_be_said() -> None:
    four = points(make_problem(REST), dimension="weight_decay")
    assert sorted(p["weight_decay"] for p in four) == pytest.approx([10**e for e in (-3.5, -2.5, -1.5, -0.5)])
    assert {p["lr"] for p in four} == {1e-3}
    with pytest.raises(ConfigError, match=r"dimension = 'weight-decay' is not searched. Did you mean 'weight_decay'"):
        strategy("lr_race", {"dimension": "weight-decay"}, make_problem(REST))
    with pytest.raises(ConfigError, match="dimension = 'warmup' is not searched"):
        strategy("lr_race", {"dimension": "warmup"}, make_problem(REST))
    with pytest.raises(ConfigError, match="unknown option 'sampler'"):
        strategy("lr_race", {"sampler": "tpe"}, make_problem(REST))


def test_what_exists_under_a_condition_is_raced_under_it() -> None:
    four = points(make_problem(REST), dimension="momentum")
    assert {p["optimizer"] for p in four} == {"lion"}
    assert sorted(p["momentum"] for p in four) == pytest.approx([0.825, 0.875, 0.925, 0.975])


def bowl(hyperparameters: Hyperparameters, fraction: float) -> float:
    lr = hyperparameters["lr"]
    assert isinstance(lr, float)
    return abs(math.log10(lr) + 2.7) + 1 - fraction


SPACE = {"lr": {"log": [1e-6, 1.0], "prior": 1e-3}}


def test_a_race_costs_two_whole_runs() -> None:
    """Four to a quarter, two on to a half, one on to the end: 1 + 1/2 + 1/2. The best of the four rates wins."""
    problem = make_problem(SPACE)
    outcome = simulate(strategy("lr_race", {}, problem), problem, bowl, runs=4)
    assert outcome.work == 2 * 900
    (winner,) = outcome.finished()
    assert winner.hyperparameters["lr"] == pytest.approx(1e-3 * 10**0.25)  # 10^-2.75, the nearest to 10^-2.7
    assert strategy("lr_race", {}, problem).share == 0.5


def test_later_races_are_held_around_the_winner() -> None:
    problem = make_problem(SPACE)
    outcome = simulate(strategy("lr_race", {}, problem), problem, bowl, runs=40)
    assert outcome.work == 10 * 2 * 900
    exponents = [math.log10(r.hyperparameters["lr"]) for r in outcome.tree]  # type: ignore[arg-type]
    # A standard deviation of a quarter of a decade, and less later.
    assert all(abs(exponent + 2.7) < 1.0 for exponent in exponents[4:])
    assert min(abs(exponent + 2.7) for exponent in exponents) < 0.02
    early, late = exponents[4:12], exponents[-8:]
    assert sum(abs(e + 2.7) for e in late) < sum(abs(e + 2.7) for e in early)


def test_the_first_neighbour_differs_in_the_rate_alone() -> None:
    problem = make_problem(REST)

    def loss(hyperparameters: Hyperparameters, fraction: float) -> float:
        return bowl(hyperparameters, fraction) + abs(float(hyperparameters["dropout"]) - 0.3)

    outcome: Outcome = simulate(strategy("lr_race", {}, problem), problem, loss, runs=24)
    runs = list(outcome.tree)
    for first in range(4, 24, 4):
        before = [r for r in runs[:first] if r.status == "finished"]
        incumbent = min(before, key=lambda r: (loss(r.hyperparameters, 1.0), r.number)).hyperparameters
        neighbour = runs[first].hyperparameters
        assert {n for n in neighbour if neighbour[n] != incumbent[n]} == {"lr"}
    assert len({r.hyperparameters["dropout"] for r in runs}) > 3


def test_hand_made_runs_and_the_baseline_may_be_the_incumbent() -> None:
    problem = make_problem(SPACE)
    first = [run(i, float(5 + i), hyperparameters={"lr": 10.0**-i}) for i in range(4)]
    for origin in ("hand", "baseline"):
        better = run(4, 1.0, 1.0, 1.0, origin=origin, hyperparameters={"lr": 1e-5})
        outside = run(5, 0.1, 0.1, 0.1, origin=origin, hyperparameters={"lr": 50.0})
        (point,) = points(problem, 3, *first, better, outside)[-1:]
        assert abs(math.log10(float(point["lr"])) + 5) < 1.0


def test_what_is_not_feasible_is_replaced() -> None:
    problem = make_problem(SPACE, is_feasible=lambda hyperparameters: hyperparameters["lr"] < 1e-3)
    rates = [float(point["lr"]) for point in points(problem)]
    assert len(set(rates)) == 4
    assert all(rate < 1e-3 for rate in rates)


def test_a_wrong_prior_is_left_behind() -> None:
    """30 times off: the races walk to the best rate."""
    problem = make_problem({"lr": {"log": [1e-6, 1.0], "prior": 6e-5}})
    outcome = simulate(strategy("lr_race", {}, problem), problem, bowl, runs=40)
    best = min(outcome.finished(), key=lambda r: bowl(r.hyperparameters, 1.0))
    assert abs(math.log10(float(best.hyperparameters["lr"])) + 2.7) < 0.1
