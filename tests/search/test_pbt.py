"""Population-based training, on virtual workers."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from population_pool import Pool, Train

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import Problem, Strategy, strategy
from thalweg.search.exploit import Settings
from thalweg.search.perturb import Perturb, moved_float, moved_integer, neighbour
from thalweg.search.population import Population, losses, marks
from thalweg.space import Choice, Float, Hyperparameters, Integer, Space
from thalweg.tree import Continue, Fork, Metric, Report, Run, Start, Status, Stop, Tree

HORIZON = 100
SPACE = Space.parse({"lr": {"log": [1e-4, 1e-1]}, "decay": {"linear": [0.0, 0.5]}, "fixed": 3})
NAMES = pytest.mark.parametrize("name", ["pbt", "pb2"])


def make_problem(space: Space = SPACE, seed: int = 0, **more: Any) -> Problem:
    return Problem(
        **{"space": space, "metric": Metric("loss", "min"), "horizon": lambda _: HORIZON, "seed": seed} | more
    )


def make(problem: Problem, name: str = "pbt", **options: Any) -> Callable[[], Strategy]:
    return lambda: strategy(name, options, problem)


def bowl(state: Any, hyperparameters: Hyperparameters, start: int, until: int) -> tuple[float, float]:
    """Loss falls faster the nearer the learning rate is to a target that falls while the run goes on."""
    lr = float(hyperparameters["lr"])
    loss = 10.0 if state is None else state
    for position in range(start, until):
        loss -= 0.1 * math.exp(-((math.log10(lr) + 2 + position / HORIZON) ** 2))
    return loss, loss


def member(number: int, loss: float | None, position: int = 10, status: Status = "paused", **more: Any) -> Run:
    reports = () if loss is None else (Report(position, {"loss": loss}),)
    fields = {
        "id": f"s-{number}",
        "number": number,
        "hyperparameters": {"lr": 1e-3 * (1 + number / 10), "decay": 0.1, "fixed": 3},
        "horizon": HORIZON,
        "until": position,
        "position": position,
        "status": status,
        "reports": reports,
        "origin": "pbt",
    }
    return Run(**{**fields, **more})


# What is worked by hand


@pytest.mark.parametrize(
    ("num", "quantile", "replaced"), [(8, 0.25, 2), (8, 0.2, 1), (8, 0.5, 4), (3, 0.5, 1), (2, 0.1, 1), (1, 0.5, 0)]
)
def test_how_many_are_replaced(num: int, quantile: float, replaced: int) -> None:
    chosen = Settings(population=8, interval=0.1, selection="truncation", quantile=quantile)
    assert chosen.num_replaced(num) == replaced


def test_marks_are_even_and_end_at_the_horizon() -> None:
    assert marks(1000, 0.25) == (250, 500, 750, 1000)
    assert marks(100, 0.4) == (40, 80, 100)
    assert marks(2, 0.25) == (1, 1, 2, 2)


def test_the_worst_quarter_goes_on_from_the_best_quarter() -> None:
    problem = make_problem()
    tree = Tree.of(member(n, loss) for n, loss in enumerate([3.0, 1.0, 8.0, 4.0, 2.0, 7.0, 5.0, 6.0]))
    actions = strategy("pbt", {}, problem).decide(tree, free_slots=16, left=Left({}))
    stops = {action.run for action in actions if isinstance(action, Stop)}
    forks = [action for action in actions if isinstance(action, Fork)]
    assert stops == {"s-2", "s-5"}
    assert len(forks) == 2
    assert {fork.parent for fork in forks} <= {"s-1", "s-4"}
    for fork in forks:
        assert (fork.at, fork.until) == (10, 20)
        assert set(fork.changes) <= {"lr", "decay"}
    # The others keep their hyperparameters, the winners among them.
    assert {action.run for action in actions if isinstance(action, Continue)} == {f"s-{n}" for n in (0, 1, 3, 4, 6, 7)}


def test_a_fork_comes_before_its_parent_goes_on_and_a_stop_may_follow_in_the_next_turn() -> None:
    problem = make_problem()
    tree = Tree.of(member(n, float(n)) for n in range(4))
    decide = strategy("pbt", {"population": 4}, problem).decide
    (first,) = decide(tree, free_slots=1, left=Left({}))
    assert isinstance(first, Fork)
    assert first.parent == "s-0"
    child = member(4, None, status="running", parent="s-0", fork_position=10, until=20)
    tree.absorb(dataclasses.replace(child, hyperparameters={**tree["s-0"].hyperparameters, **first.changes}))
    (second,) = decide(tree, free_slots=1, left=Left({}))
    assert second == Stop("s-3", "pbt")
    tree.absorb(dataclasses.replace(tree["s-3"], status="stopped"))
    (third,) = decide(tree, free_slots=1, left=Left({}))
    assert isinstance(third, Continue)


def test_equals_are_not_replaced() -> None:
    tree = Tree.of(member(n, 1.0) for n in range(8))
    actions = strategy("pbt", {}, make_problem()).decide(tree, free_slots=8, left=Left({}))
    assert [type(action) for action in actions] == [Continue] * 8


def test_nobody_is_judged_before_half_of_the_results_are_there() -> None:
    waiting = [member(n, None, 0, "running", until=10) for n in range(3, 8)]
    tree = Tree.of([*(member(n, float(n)) for n in range(3)), *waiting])
    decide = strategy("pbt", {}, make_problem()).decide
    assert all(isinstance(action, Continue) for action in decide(tree, free_slots=3, left=Left({})))
    tree.absorb(member(3, 9.0))
    assert any(isinstance(action, Fork) for action in decide(tree, free_slots=4, left=Left({})))


def test_a_loser_waits_for_a_winner_that_is_being_trained_and_goes_on_from_its_next_checkpoint() -> None:
    winner = member(0, 0.0, status="running", until=20)
    others = [member(n, float(n), status="running", until=20) for n in (1, 2)]
    tree = Tree.of([winner, *others, member(3, 9.0)])
    decide = strategy("pbt", {"population": 4}, make_problem()).decide
    assert decide(tree, free_slots=1, left=Left({})) == []
    reports = (*winner.reports, Report(20, {"loss": -1.0}))
    tree.absorb(dataclasses.replace(winner, status="paused", position=20, reports=reports))
    fork, stop, *_ = decide(tree, free_slots=4, left=Left({}))
    assert isinstance(fork, Fork)
    assert (fork.parent, fork.at, fork.until) == ("s-0", 20, 30)
    assert stop == Stop("s-3", "pbt")


def test_a_loser_does_not_wait_for_a_winner_on_its_last_stretch() -> None:
    tree = Tree.of([member(0, 0.0, 90, "running", until=100), *(member(n, float(n), 90) for n in (2, 3))])
    tree.absorb(dataclasses.replace(tree["s-2"], status="running", until=100))
    assert strategy("pbt", {"population": 3}, make_problem()).decide(tree, free_slots=1, left=Left({})) == [
        Continue("s-3", 100, "pbt")
    ]


@pytest.mark.parametrize("status", ["failed", "diverged", "stopped"])
def test_a_lost_member_is_replaced_by_a_fork_of_a_good_one(status: Status) -> None:
    lost = member(3, None, 5, status)
    tree = Tree.of([*(member(n, float(n)) for n in range(3)), lost])
    actions = strategy("pbt", {"population": 4}, make_problem()).decide(tree, free_slots=1, left=Left({}))
    (fork,) = actions
    assert isinstance(fork, Fork)
    assert (fork.parent, fork.at) == ("s-0", 10)


def test_the_furthest_behind_go_first() -> None:
    tree = Tree.of([member(0, 1.0, 20), member(1, 5.0), member(2, 5.0), member(3, 5.0)])
    actions = strategy("pbt", {"population": 4}, make_problem()).decide(tree, free_slots=3, left=Left({}))
    assert [action.run for action in actions if isinstance(action, Continue)] == ["s-1", "s-2", "s-3"]


def test_with_tournaments_a_loser_is_replaced_by_the_one_that_beat_it() -> None:
    problem = make_problem()
    tree = Tree.of(member(n, float(n)) for n in range(8))
    actions = strategy("pbt", {"selection": "tournament"}, problem).decide(tree, free_slots=16, left=Left({}))
    forks = [action for action in actions if isinstance(action, Fork)]
    stops = [action for action in actions if isinstance(action, Stop)]
    assert len(forks) == len(stops) > 2
    for fork, stop in zip(forks, stops, strict=True):
        assert int(fork.parent[2:]) < int(stop.run[2:])
    assert "s-0" not in {stop.run for stop in stops}


# Exploring


@pytest.mark.parametrize(
    ("low", "high", "value", "factor", "expected"),
    [(1, 8, 1, 0.8, 1), (1, 8, 1, 1.2, 2), (0, 8, 0, 1.2, 1), (1, 100, 50, 0.8, 40), (1, 100, 99, 1.2, 100)],
)
def test_whole_numbers_move_by_at_least_one(low: int, high: int, value: int, factor: float, expected: int) -> None:
    assert moved_integer(Integer(low, high), value, factor) == expected


def test_real_numbers_are_multiplied_and_kept_in_range() -> None:
    assert moved_float(Float(1e-5, 1e-1, log=True), 1e-3, 1.2) == pytest.approx(1.2e-3)
    assert moved_float(Float(1e-5, 1.1e-3, log=True), 1e-3, 1.2) == 1.1e-3
    assert moved_float(Float(0.0, 0.5), 0.0, 1.2) == pytest.approx(0.1)  # 20% of the range


def test_ordered_choices_move_to_a_neighbour() -> None:
    sizes = Choice((32, 8, 16))
    assert neighbour(sizes, 16, upwards=True) == 32
    assert neighbour(sizes, 16, upwards=False) == 8
    assert neighbour(sizes, 32, upwards=True) == 16


_dimensions = st.one_of(
    st.builds(lambda low, span: Float(low, low + span), st.floats(-5, 5), st.floats(0.1, 5)),
    st.builds(lambda low, span: Float(low, low * span, log=True), st.floats(1e-6, 1), st.floats(2, 1e4)),
    st.builds(lambda low, span: Integer(low, low + span), st.integers(-5, 5), st.integers(1, 50)),
    st.builds(lambda options: Choice(tuple(options)), st.lists(st.integers(-9, 9), min_size=2, unique=True)),
)


@given(dimension=_dimensions, unit=st.floats(0, 1), seed=st.integers(0, 999))
def test_perturbing_always_moves_and_stays_in_the_space(dimension: Any, unit: float, seed: int) -> None:
    problem = make_problem(Space({"x": dimension}))
    value = dimension.at(unit)
    if isinstance(dimension, Float) and 0 < abs(value) < 1e-9:
        return  # a factor changes nothing that is nearly nothing
    run = member(0, 1.0, hyperparameters={"x": value})
    perturb = Perturb(problem, ["x"], perturb=0.2, resample=0.0)
    changes = perturb(run, Population(problem, Tree(), "pbt", 0.1), [], np.random.default_rng(seed))
    assert changes["x"] != value
    assert dimension.contains(changes["x"])


def test_resampling_draws_from_the_whole_range() -> None:
    problem = make_problem()
    perturb = Perturb(problem, ["lr"], perturb=0.2, resample=1.0)
    population = Population(problem, Tree(), "pbt", 0.1)
    drawn = [perturb(member(0, 1.0), population, [], np.random.default_rng(n))["lr"] for n in range(200)]
    below = sum(float(lr) < 10**-2.5 for lr in drawn)  # the middle of 1e-4 to 1e-1, by the logarithm
    assert 70 < below < 130  # 100 expected, the standard deviation is 7


# What is refused


@NAMES
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"population": 1}, ["population = 1", "at least 2"]),
        ({"interval": 0.0}, ["interval = 0", "0.1"]),
        ({"interval": 1.0}, ["interval = 1"]),
        ({"quantile": 0.6}, ["quantile = 0.6", "0.5"]),
        ({"quantile": 0.0}, ["quantile = 0"]),
        ({"selection": "best"}, ["selection", "tournament", "truncation"]),
        ({"mutate": ["learning"]}, ["unknown hyperparameter 'learning'", "lr"]),
        ({"mutate": []}, ["mutate = []"]),
        ({"mutate": ["fixed"]}, ["'fixed' has a fixed value"]),
        ({"resample": 1.5}, ["resample = 1.5", "probability"]),
        ({"perturb": 1.0}, ["perturb = 1", "0.2"]),
    ],
)
def test_refuses_options_out_of_range(name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        strategy(name, options, make_problem())
    assert all(word in str(refused.value) for word in words)


def test_refuses_to_mutate_what_the_trainer_fixes_at_the_start_with_its_reason() -> None:
    space = Space.parse({"lr": {"log": [1e-4, 1e-1]}, "lora_r": {"integer": [2, 64]}, "epochs": {"integer": [1, 3]}})

    def fixed(names: Any) -> Mapping[str, str]:
        return {name: "it decides the shapes of the adapter's weights" for name in names if name == "lora_r"}

    problem = make_problem(space, fixed_at_start=fixed, horizon=lambda point: 100 * int(point["epochs"]))
    with pytest.raises(ConfigError, match=r"'lora_r' cannot be mutated .*: it decides the shapes .*can be: lr"):
        strategy("pbt", {"mutate": ["lr", "lora_r"]}, problem)
    with pytest.raises(ConfigError, match=r"'epochs' cannot be mutated .*how long a run is"):
        strategy("pbt", {"mutate": ["epochs"]}, problem)
    # By default they are left alone.
    tree = Tree.of(member(n, float(n), hyperparameters={"lr": 1e-3, "lora_r": 4, "epochs": 1}) for n in range(4))
    actions = strategy("pbt", {"population": 4}, problem).decide(tree, free_slots=8, left=Left({}))
    (fork,) = [action for action in actions if isinstance(action, Fork)]
    assert set(fork.changes) == {"lr"}


def test_refuses_a_space_in_which_the_trainer_fixes_everything() -> None:
    space = Space.parse({"lora_r": {"integer": [2, 64]}})
    problem = make_problem(space, fixed_at_start=lambda names: dict.fromkeys(names, "shapes"))
    with pytest.raises(ConfigError, match=r"nothing in the space can be mutated.*lora_r: shapes"):
        strategy("pbt", {}, problem)


def test_what_decides_whether_others_exist_cannot_be_mutated() -> None:
    rank = {"integer": [2, 64], "when": {"adapter": "lora"}}
    space = Space.parse({"adapter": {"choice": ["none", "lora"]}, "lora_alpha": rank, "lr": {"log": [1e-4, 1e-1]}})
    with pytest.raises(ConfigError, match=r"'adapter' cannot be mutated.*lora_alpha exists only under"):
        strategy("pbt", {"mutate": ["adapter"]}, make_problem(space))
    strategy("pbt", {"mutate": ["lora_alpha"]}, make_problem(space))


def test_a_space_of_one_point_is_trained_and_nobody_is_replaced() -> None:
    problem = make_problem(Space.parse({"lr": {"choice": [1e-3]}}))
    pool = Pool(problem, bowl, make(problem, population=2)).grow()
    assert {run.status for run in pool.tree} == {"finished"}
    assert len(pool.tree) == 2


# Whole studies


@NAMES
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**40),
    workers=st.integers(1, 9),
    population=st.integers(2, 6),
    interval=st.sampled_from([0.1, 0.3, 0.5]),
    selection=st.sampled_from(["truncation", "tournament"]),
    fault=st.sampled_from([0.0, 0.1, 1.0]),
    step=st.sampled_from([1, 7]),
)
def test_keeps_its_contract(
    name: str, seed: int, workers: int, population: int, interval: float, selection: str, fault: float, step: int
) -> None:
    def train(state: Any, hyperparameters: Hyperparameters, start: int, until: int) -> tuple[float, float]:
        draw = random.Random(repr((sorted(hyperparameters.items()), until))).random()
        if draw < fault / 2:
            raise ArithmeticError("out of memory")
        after, loss = bowl(state, hyperparameters, start, until)
        return after, math.nan if draw < fault else loss

    problem = make_problem(seed=seed)
    options = {"population": population, "interval": interval, "selection": selection}
    pool = Pool(problem, train, make(problem, name, **options), workers=workers, step=step).grow()
    assert len(pool.tree.roots()) == population
    assert not pool.tree.active()
    assert all(run.status != "paused" for run in pool.tree)
    if fault == 0.0:
        finished = [run for run in pool.tree if run.status == "finished"]
        assert len(finished) == population
        # Never more than the population trains, and nothing is trained twice.
        assert pool.trained <= population * (HORIZON + step * math.ceil(1 / interval))
    if fault == 1.0:
        assert len(pool.tree) == population


@NAMES
def test_finds_a_schedule_that_no_constant_value_equals(name: str) -> None:
    """The best learning rate falls by two decades in a run."""

    def train(state: Any, hyperparameters: Hyperparameters, start: int, until: int) -> tuple[float, float]:
        loss = 10.0 if state is None else state
        for position in range(start, until):
            best = -1.5 - 2 * position / HORIZON
            loss -= 0.1 * math.exp(-((math.log10(float(hyperparameters["lr"])) - best) ** 2))
        return loss, loss

    constants = [train(None, {"lr": 10**exponent}, 0, HORIZON)[1] for exponent in np.linspace(-4, -1, 301)]
    problem = make_problem(Space.parse({"lr": {"log": [1e-4, 1e-1]}}))
    made = make(problem, name, population=8, interval=0.05, perturb=0.4)
    best = Pool(problem, train, made, workers=3).grow().tree.best(problem.metric)
    assert best is not None
    # 0 is the least there is.
    assert best.reports[-1].metrics["loss"] < 0.5 * min(constants)


def test_workers_seldom_wait_where_each_member_has_one() -> None:
    problem = make_problem()
    pool = Pool(problem, bowl, make(problem), workers=8, seconds=lambda run: 1.0 + 0.07 * (run.number % 8)).grow()
    assert sum(isinstance(action, Fork) for action in pool.actions) > 4
    in_step = 10 * 1.49 * 8
    """Worker seconds, were all to wait for the slowest at each of the ten marks."""
    assert pool.busy + pool.idle < in_step


@pytest.mark.parametrize("whole_runs", [1.0, 2.5, 4.0, 8.0, 20.0])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_small_budget_brings_at_least_one_to_its_horizon(whole_runs: float, workers: int) -> None:
    problem = make_problem()
    pool = Pool(problem, bowl, make(problem), workers=workers, whole_runs=whole_runs).grow()
    assert any(run.status == "finished" for run in pool.tree)
    assert pool.trained <= whole_runs * HORIZON * (1 + 1e-9)
    assert len(pool.tree.roots()) == min(8, int(whole_runs))


@NAMES
def test_runs_of_others_are_not_members(name: str) -> None:
    problem = make_problem()
    fresh = strategy(name, {}, problem).decide(Tree(), free_slots=2, left=Left({}))
    tree = Tree.of(
        [
            member(0, 0.1, status="paused", origin="hand"),
            member(1, None, status="failed", origin="baseline"),
            member(2, 0.1, status="finished", origin="replay", parent="s-0", fork_position=5),
        ]
    )
    assert strategy(name, {}, problem).decide(tree, free_slots=2, left=Left({})) == fresh


def test_a_result_without_the_metric_is_no_result() -> None:
    run = member(0, None, 20)
    reports = (Report(10, {"loss": 1.0}), Report(20, {"accuracy": 1.0}))
    assert losses(dataclasses.replace(run, reports=reports), Metric("loss", "min"), 0.1) == {1: 1.0}
    tree = Tree.of(dataclasses.replace(member(n, float(n)), reports=(Report(10, {"other": 1.0}),)) for n in range(4))
    actions = strategy("pbt", {"population": 4}, make_problem()).decide(tree, free_slots=4, left=Left({}))
    assert all(isinstance(action, Continue) for action in actions)


def test_infinite_losses_are_never_copied() -> None:
    tree = Tree.of(member(n, math.inf) for n in range(4))
    actions = strategy("pbt", {"population": 4}, make_problem()).decide(tree, free_slots=8, left=Left({}))
    assert all(isinstance(action, Continue) for action in actions)
    assert len(actions) == 4


def test_infeasible_changes_are_not_tried() -> None:
    problem = make_problem(is_feasible=lambda point: float(point["lr"]) < 1e-2)
    train: Train = bowl
    pool = Pool(problem, train, make(problem, population=6)).grow()
    assert all(float(run.hyperparameters["lr"]) < 1e-2 for run in pool.tree)
    assert any(run.parent for run in pool.tree)


def test_members_begin_at_different_points() -> None:
    actions = strategy("pbt", {"population": 20}, make_problem()).decide(Tree(), free_slots=20, left=Left({}))
    rates = [action.hyperparameters["lr"] for action in actions if isinstance(action, Start)]
    assert len(set(rates)) == 20
