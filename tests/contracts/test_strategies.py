"""What every strategy keeps, with every sampler. A new one is held to this by its line in the tables alone."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtual_workers import shuffled, simulate

from thalweg.budget import Left
from thalweg.search import SAMPLERS, STRATEGIES, Problem, Strategy, strategy
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Metric, Run, Start, Tree

CASES = [(name, {}) for name in STRATEGIES if name in SAMPLERS]
CASES += [(name, {"sampler": sampler}) for name in STRATEGIES if name not in SAMPLERS for sampler in SAMPLERS]

every_strategy = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=["-".join([name, *options.values()]) for name, options in CASES]
)

SPACE = Space.parse(
    {
        "lr": {"log": [1e-5, 1e-1], "prior": 1e-3},
        "dropout": {"linear": [0.0, 0.5]},
        "batch_size": {"choice": [8, 16, 32]},
        "epochs": {"integer": [1, 3]},
        "adapter": {"choice": ["none", "lora"]},
        "rank": {"integer": [2, 64], "log": True, "when": {"adapter": "lora"}},
        "warmup": 0.1,
    }
)


def horizon(hyperparameters: Hyperparameters) -> int:
    epochs = hyperparameters.get("epochs", 2)
    assert isinstance(epochs, int)
    return 900 * epochs


def make_problem(space: Space = SPACE, seed: int = 0) -> Problem:
    return Problem(space=space, metric=Metric("accuracy", "max"), horizon=horizon, seed=seed)


def make(name: str, options: dict[str, str], problem: Problem) -> Strategy:
    return strategy(name, options, problem)


def number(hyperparameters: Hyperparameters) -> float:
    """A number in [0, 1) from any hyperparameters, the same in every process."""
    return random.Random(repr(sorted(hyperparameters.items()))).random()


def bowl(hyperparameters: Hyperparameters, fraction: float) -> float:
    lr = hyperparameters["lr"]
    assert isinstance(lr, float)
    return (math.log10(lr) + 3) ** 2 + 1 - fraction


_values = st.one_of(st.integers(-5, 5), st.booleans(), st.text("abc", max_size=2), st.sampled_from([0.5, 1.0]))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Any mixture of dimensions, some of which exist under a condition only."""
    spec: dict[str, object] = {}
    options = draw(st.lists(_values, min_size=1, max_size=4, unique_by=lambda v: (type(v), v)))
    spec["kind"] = {"choice": options}
    for i in range(draw(st.integers(0, 3))):
        low = draw(st.integers(1, 50))
        high = low + draw(st.integers(1, 50))
        dimension: dict[str, object] = draw(
            st.sampled_from(
                [
                    {"log": [low * 1e-6, high * 1e-6]},
                    {"linear": [-float(high), float(low)]},
                    {"integer": [low, high]},
                    {"integer": [low, high], "log": True},
                    {"choice": ["a", "b", True, 1, 1.0]},
                ]
            )
        )
        when = {"when": {"kind": draw(st.sampled_from(options))}} if draw(st.booleans()) else {}
        spec[f"x{i}"] = {**dimension, **when}
    if draw(st.booleans()):
        spec["fixed"] = draw(_values)
    return Space.parse(spec)


@every_strategy
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(space=spaces(), seed=st.integers(0, 2**40), workers=st.integers(1, 3), fault=st.sampled_from([0.0, 0.4, 1.0]))
def test_keeps_its_contract_on_any_space(
    name: str, options: dict[str, str], space: Space, seed: int, workers: int, fault: float
) -> None:
    """`simulate` checks each decision: in the space, within slots and budget, pure, and it ends."""
    problem = make_problem(space, seed)

    def objective(hyperparameters: Hyperparameters, fraction: float) -> float:
        draw = number(hyperparameters)
        if draw < fault / 2:
            raise ArithmeticError("out of memory")
        return math.nan if draw < fault else draw - fraction

    outcome = simulate(
        make(name, options, problem),
        problem,
        objective,
        runs=9,
        workers=workers,
        step=7,
        remake=lambda: make(name, options, problem),
    )
    assert len(outcome.tree) == 9 or name == "grid" or options.get("sampler") == "grid"


@every_strategy
def test_a_used_instance_decides_as_a_new_one(name: str, options: dict[str, str]) -> None:
    problem = make_problem()
    simulate(
        make(name, options, problem), problem, bowl, runs=14, workers=3, remake=lambda: make(name, options, problem)
    )


@every_strategy
def test_the_same_seed_gives_the_same_study_and_another_seed_another(name: str, options: dict[str, str]) -> None:
    points = []
    for seed in (1, 1, 2):
        problem = make_problem(seed=seed)
        outcome = simulate(make(name, options, problem), problem, bowl, runs=5)
        points.append([action for action in outcome.actions if isinstance(action, Start)])
    assert points[0] == points[1] != points[2]


@every_strategy
@pytest.mark.parametrize("outcome", ["fail", "diverge"])
def test_ends_where_every_run_goes_wrong(name: str, options: dict[str, str], outcome: str) -> None:
    def objective(*_: object) -> float:
        if outcome == "fail":
            raise ArithmeticError("out of memory")
        return math.nan

    problem = make_problem()
    tree = simulate(make(name, options, problem), problem, objective, runs=7, workers=2).tree
    assert len(tree) == 7
    assert {run.status for run in tree} == {"failed" if outcome == "fail" else "diverged"}


@every_strategy
def test_a_study_that_is_complete_stays_complete(name: str, options: dict[str, str]) -> None:
    problem = make_problem()
    tree = simulate(make(name, options, problem), problem, bowl, runs=6).tree
    assert any(run.status == "finished" for run in tree)
    for free in (1, 4):
        assert make(name, options, problem).decide(tree, free_slots=free, left=Left({"runs": 0.0})) == []


@every_strategy
def test_proposes_nothing_without_a_free_worker(name: str, options: dict[str, str]) -> None:
    problem = make_problem()
    assert make(name, options, problem).decide(Tree(), free_slots=0, left=Left({})) == []


@every_strategy
def test_does_not_propose_what_is_pending(name: str, options: dict[str, str]) -> None:
    """Six workers begin at once, and none of them gets what another has."""
    problem = make_problem()
    actions = make(name, options, problem).decide(Tree(), free_slots=6, left=Left({}))
    points = [dict(action.hyperparameters) for action in actions if isinstance(action, Start)]
    assert len(points) == 6
    assert all(point not in points[:i] for i, point in enumerate(points))


@every_strategy
def test_waits_for_active_runs_once_the_runs_are_used_up(name: str, options: dict[str, str]) -> None:
    problem = make_problem()
    point = {"lr": 1e-3, "dropout": 0.1, "batch_size": 8, "epochs": 1, "adapter": "none", "warmup": 0.1}
    tree = Tree.of(
        Run(id=f"s-{i}", number=i, hyperparameters=point, horizon=900, until=100, status=status, origin=name)
        for i, status in enumerate(("running", "pending", "interrupted"))
    )
    assert make(name, options, problem).decide(tree, free_slots=2, left=Left({"runs": 0.0})) == []


@every_strategy
def test_knows_runs_of_others(name: str, options: dict[str, str]) -> None:
    """A baseline outside the space, and a fork made by hand, do no harm and shift no sequence."""
    problem = make_problem()
    fresh = make(name, options, problem).decide(Tree(), free_slots=1, left=Left({}))
    outside = {"lr": 5.0, "batch_size": 64}
    tree = Tree.of(
        [
            Run(
                id="s-0", number=0, hyperparameters=outside, horizon=900, until=900, status="failed", origin="baseline"
            ),
            Run(id="s-1", number=1, hyperparameters=outside, horizon=900, until=900, parent="s-0", status="paused"),
        ]
    )
    assert make(name, options, problem).decide(tree, free_slots=1, left=Left({})) == fresh
    problem = make_problem()
    simulate(make(name, options, problem), problem, bowl, runs=9, workers=2, tree=shuffled(tree, 0))
