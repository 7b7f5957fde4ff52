"""Samplers: hand-worked values, distributions, and whether learning helps."""

from __future__ import annotations

import math
import subprocess
import sys
from statistics import fmean, median

import numpy as np
import pytest
from virtual_workers import simulate

from thalweg.search import Observation, Problem, strategy
from thalweg.search.grid import Grid
from thalweg.search.optuna_bridge import Model, gp_sampler
from thalweg.search.random_search import RandomSearch
from thalweg.search.sobol import Sobol
from thalweg.search.startup import in_startup, startup_point
from thalweg.search.tpe import tpe
from thalweg.space import Hyperparameters, Space, Value
from thalweg.tree import Metric


def problem_of(spec: dict[str, object], seed: int = 0) -> Problem:
    return Problem(space=Space.parse(spec), metric=Metric("loss", "min"), horizon=lambda _: 10, seed=seed)


def proposals(sampler: object, count: int) -> list[Hyperparameters]:
    return [sampler.propose([], [], index) for index in range(count)]  # type: ignore[attr-defined]


CONDITIONAL: dict[str, object] = {
    "adapter": {"choice": ["none", "lora"]},
    "rank": {"integer": [2, 64], "log": True, "when": {"adapter": "lora"}},
}


def test_grid_has_every_combination_once_and_then_ends() -> None:
    spec: dict[str, object] = {"lr": {"log": [1e-4, 1e-2]}, "batch": {"choice": [8, 16]}, "wd": 0.1}
    grid = Grid(problem_of(spec))
    assert grid.num_points == 6
    points = proposals(grid, 7)
    assert points[6] is None
    rounded = {(round(math.log10(point["lr"]), 9), point["batch"], point["wd"]) for point in points[:6]}  # type: ignore[arg-type]
    assert rounded == {(lr, batch, 0.1) for lr in (-4.0, -3.0, -2.0) for batch in (8, 16)}


def test_grid_leaves_out_what_does_not_exist() -> None:
    points = proposals(Grid(problem_of(CONDITIONAL), resolution=2), 4)
    assert points.pop() is None
    by_rank = sorted((str(point["adapter"]), point.get("rank")) for point in points)
    assert by_rank == [("lora", 2), ("lora", 64), ("none", None)]


def test_grid_order_depends_on_the_seed() -> None:
    spec: dict[str, object] = {"x": {"integer": [0, 99]}}
    orders = [[p["x"] for p in proposals(Grid(problem_of(spec, seed), resolution=100), 100)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(100))


def test_random_is_uniform_on_each_scale() -> None:
    """Four standard errors: a draw on the wrong scale would put 99% of the rates above the middle."""
    spec: dict[str, object] = {"lr": {"log": [1e-5, 1e-1]}, "x": {"linear": [0.0, 1.0]}, "b": {"choice": [1, 2]}}
    points = proposals(RandomSearch(problem_of(spec)), 400)
    for share in (
        fmean(point["lr"] < 1e-3 for point in points),  # type: ignore[operator]
        fmean(point["x"] < 0.5 for point in points),  # type: ignore[operator]
        fmean(point["b"] == 1 for point in points),
    ):
        assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(400)


def test_sobol_fills_every_eighth_of_each_dimension() -> None:
    """The defining property: of the first 8 points, exactly one lies in each eighth of each axis."""
    spec: dict[str, object] = {
        "lr": {"log": [1e-8, 1.0]},
        "x": {"linear": [0.0, 8.0]},
        "n": {"integer": [1, 8]},
        "c": {"choice": list("abcdefgh")},
    }
    for seed in range(3):
        points = proposals(Sobol(problem_of(spec, seed)), 8)
        assert sorted(math.floor(-math.log10(point["lr"])) for point in points) == list(range(8))  # type: ignore[arg-type]
        assert sorted(math.floor(point["x"]) for point in points) == list(range(8))  # type: ignore[arg-type]
        assert sorted(point["n"] for point in points) == list(range(1, 9))  # type: ignore[type-var]
        assert sorted(point["c"] for point in points) == list("abcdefgh")  # type: ignore[type-var]


def test_sobol_keeps_the_place_of_conditional_dimensions() -> None:
    for point in proposals(Sobol(problem_of(CONDITIONAL)), 16):
        assert ("rank" in point) == (point["adapter"] == "lora")


def test_the_first_start_up_point_is_that_of_the_priors() -> None:
    spec: dict[str, object] = {
        "lr": {"log": [1e-6, 1e-2], "prior": 2e-5},
        "batch": {"choice": [8, 16, 32], "prior": 16},
        "x": {"linear": [0.0, 1.0]},
    }
    firsts = [startup_point(problem_of(spec, seed), 0) for seed in (0, 1)]
    assert [(point["lr"], point["batch"]) for point in firsts] == [(2e-5, 16)] * 2
    assert firsts[0]["x"] != firsts[1]["x"]
    later = [startup_point(problem_of(spec), index)["lr"] for index in range(1, 40)]
    assert 2e-5 not in later
    # A quarter of the logarithmic range to both sides of the prior holds about 68% of a normal, 50% of a uniform draw.
    assert fmean(2e-6 <= lr <= 2e-4 for lr in later) > 0.5  # type: ignore[operator]


@pytest.mark.parametrize(
    ("losses", "index", "expected"),
    [
        ([], 0, True),
        ([1.0, 2.0], 3, True),  # four random roots at first,
        ([1.0, 2.0], 4, False),  # and no more of them although two are still training.
        ([1.0, 2.0, 3.0, 4.0], 0, False),  # Runs of a person's own spare them.
        ([1.0], 20, True),  # One result compares with nothing,
        ([math.inf, math.inf, math.inf, math.inf, math.inf], 20, True),  # and neither do diverged runs alone.
        ([math.inf, math.inf, math.inf, 1.0], 4, False),
    ],
)
def test_start_up_ends_where_there_is_something_to_compare(losses: list[float], index: int, expected: bool) -> None:
    assert in_startup([Observation({"x": 0.5}, loss) for loss in losses], index) is expected


def test_tpe_learns_how_conditional_dimensions_go_together() -> None:
    """With a loss of (a - b)^2, points learned jointly lie near a = b; drawn apart, |a - b| is 1/3 on average."""
    problem = problem_of(
        {
            "kind": {"choice": ["plain", "pair"]},
            "a": {"linear": [0.0, 1.0], "when": {"kind": "pair"}},
            "b": {"linear": [0.0, 1.0], "when": {"kind": "pair"}},
        }
    )
    rng = np.random.default_rng(0)
    points = [problem.space.sample(rng) for _ in range(60)]
    seen = [Observation(p, (p["a"] - p["b"]) ** 2 if "a" in p else 1.0) for p in points]  # type: ignore[operator]
    learned = [tpe(problem).propose(seen, [], 100 + i) for i in range(30)]
    apart = [abs(p["a"] - p["b"]) for p in learned if p and "a" in p]  # type: ignore[operator]
    assert len(apart) > 15
    assert fmean(apart) < 0.2


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_learns_from_outside_points_only_what_it_can_hold(name: str) -> None:
    """Values that the space does not hold, also of the wrong type, are as if they had not been seen."""
    problem = problem_of({"lr": {"log": [1e-5, 1e-1]}, "flag": {"choice": [True, 1, 1.0]}})
    inside: list[Value] = [1e-4, 1e-3, 1e-2]
    seen = [
        Observation({"lr": lr, "flag": flag}, float(i))
        for i, (lr, flag) in enumerate(zip(inside, (True, 1, 1.0), strict=True))
    ]
    outside = [
        Observation({"lr": 5.0, "flag": True}, -1.0),
        Observation({"flag": True}, -2.0),
        Observation({"lr": 1e-3, "flag": 2}, -3.0),
    ]
    method = strategy(name, {}, problem)._sampler  # type: ignore[attr-defined]
    waiting: list[Hyperparameters] = [{"lr": 1e-3, "flag": 2}, {"flag": True}]
    point = method.propose([*outside, *seen], waiting, 6)
    problem.space.check(point)
    # The place in the sequence, not the points left out, decides: their values change nothing.
    harmless = [Observation(o.hyperparameters, o.loss + 7) for o in outside]
    assert method.propose([*harmless, *seen], waiting, 6) == point


def test_a_cache_is_dropped_where_an_earlier_result_comes_in() -> None:
    problem = problem_of({"x": {"linear": [0.0, 1.0]}, "y": {"linear": [0.0, 1.0]}})
    seen = [Observation({"x": i / 10, "y": i / 10}, (i - 3.0) ** 2) for i in range(10)]
    used = tpe(problem)
    for known in (
        seen[:6],
        [*seen[:2], *seen[3:]],
        seen,
        seen[5:],
        [Observation(seen[0].hyperparameters, -9.0), *seen[1:]],
    ):
        assert used.propose(known, [], 20) == tpe(problem).propose(known, [], 20)


def test_does_not_repeat_a_point_while_there_are_others() -> None:
    problem = problem_of({"n": {"integer": [1, 3]}, "c": {"choice": ["a", "b"]}})
    tree = simulate(strategy("tpe", {}, problem), problem, lambda point, _: float(point["n"]), runs=6).tree  # type: ignore[arg-type]
    assert len({tuple(run.hyperparameters.values()) for run in tree}) == 6


def valley(hyperparameters: Hyperparameters, _: float) -> float:
    """Smooth, with its lowest value 0 at lr = 3e-4, dropout = 0.15."""
    lr, dropout = hyperparameters["lr"], hyperparameters["dropout"]
    assert isinstance(lr, float)
    assert isinstance(dropout, float)
    return (math.log10(lr) + 3.5) ** 2 + 20 * (dropout - 0.15) ** 2


@pytest.mark.parametrize(
    ("name", "num_seeds"), [("tpe", 30), pytest.param("gp", 6, marks=pytest.mark.slow)], ids=["tpe", "gp"]
)
def test_learning_beats_random_in_twenty_runs(name: str, num_seeds: int) -> None:
    def best(strategy_name: str, seed: int) -> float:
        problem = problem_of({"lr": {"log": [1e-6, 1e-1]}, "dropout": {"linear": [0.0, 0.5]}}, seed)
        tree = simulate(strategy(strategy_name, {}, problem), problem, valley, runs=20).tree
        return min(valley(run.hyperparameters, 1.0) for run in tree)

    seeds = range(num_seeds)
    learned, drawn = ([best(which, seed) for seed in seeds] for which in (name, "random"))
    assert fmean(learned) < 0.6 * fmean(drawn)
    assert sum(a < b for a, b in zip(learned, drawn, strict=True)) > 0.6 * num_seeds


def test_optuna_is_loaded_only_when_used_and_stays_as_it_was() -> None:
    code = (
        "import sys, thalweg.search; assert not {'optuna', 'scipy', 'torch'} & set(sys.modules);"
        " import thalweg.search.random_search, thalweg.search.halving; assert 'optuna' not in sys.modules;"
        " import thalweg.search.tpe; assert 'optuna' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


QUIET = """
import optuna
from thalweg.budget import Left
from thalweg.search import Observation, Problem, strategy
from thalweg.space import Space
from thalweg.tree import Metric, Report, Run, Tree

spec = {"a": {"choice": ["x", "y"]}, "r": {"integer": [1, 9], "when": {"a": "y"}}, "z": {"linear": [0, 1]}}
space = Space.parse(spec)
problem = Problem(space=space, metric=Metric("loss", "min"), horizon=lambda _: 10, seed=0)
tree = Tree.of(
    Run(id=str(n), number=n, hyperparameters={"a": "y", "r": n + 1, "z": n / 9}, horizon=10, until=10, origin="x",
        status="finished" if n else "diverged", reports=(Report(10, {"loss": float(n)}),))
    for n in range(6)
)
before = optuna.logging.get_verbosity()
for name in ("tpe", "gp"):
    for method in (strategy(name, {}, problem), strategy("halving", {"sampler": name}, problem)):
        assert len(method.decide(tree, free_slots=2, left=Left({}))) == 2
assert optuna.logging.get_verbosity() == before
"""


def test_optuna_says_nothing() -> None:
    """In a process of its own: Optuna's log handler keeps the stderr that it found when it was imported."""
    done = subprocess.run([sys.executable, "-W", "default", "-c", QUIET], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_process_learns_from_the_best_and_some_others_where_there_are_many() -> None:
    problem = Problem(
        space=Space.parse({"x": {"linear": [0.0, 1.0]}}), metric=Metric.parse("loss"), horizon=lambda _: 1, seed=0
    )
    model = Model(problem, gp_sampler, max_observations=20)
    points = [Observation({"x": i / 100}, float((i * 37) % 100)) for i in range(100)]
    chosen = model._chosen(model._observed(points))
    assert len(chosen) == 20
    assert [trial.number for trial in chosen] == sorted(trial.number for trial in chosen)
    assert set(range(10)) <= {int(trial.value) for trial in chosen if trial.value is not None}
    few = model._observed(points[:20])
    assert model._chosen(few) == few


def test_a_process_is_told_of_far_results_only_that_they_are_far() -> None:
    """Of 1, 2, 3, 4, 1000 and infinity the median of the finite is 3 and the best 2 below it: at most 3 + 5 * 2."""
    problem = problem_of({"x": {"linear": [0.0, 1.0]}})
    model = Model(problem, gp_sampler, most_spread=5.0)
    losses = [1.0, 1000.0, 3.0, math.inf, 2.0, 4.0]
    trials = model._observed([Observation({"x": i / 10}, loss) for i, loss in enumerate(losses)])
    assert [trial.value for trial in model._limited(trials)] == [1.0, 13.0, 3.0, math.inf, 2.0, 4.0]
    assert [trial.value for trial in trials] == losses
    flat = model._observed([Observation({"x": i / 10}, loss) for i, loss in enumerate([1.0, 1.0, 1.0, 9.0])])
    assert model._limited(flat) == flat


@pytest.mark.slow
def test_a_process_learns_beside_one_result_that_is_far_off() -> None:
    """One of 1e6 beside losses from 0 to 10: told as it is, it would be all that the process sees."""

    def loss(x: float, y: float) -> float:
        return 10 * ((x - 0.3) ** 2 + (y - 0.4) ** 2)

    def best(most_spread: float | None, seed: int) -> float:
        problem = problem_of({"x": {"linear": [0.0, 1.0]}, "y": {"linear": [0.0, 1.0]}}, seed)
        drawn = np.random.default_rng(seed).random((9, 2)).tolist()
        seen = [
            Observation({"x": 0.95, "y": 0.95}, 1e6),
            *(Observation({"x": x, "y": y}, loss(x, y)) for x, y in drawn),
        ]
        model = Model(problem, gp_sampler, most_spread=most_spread)
        for index in range(10, 16):
            point = model.propose(seen, [], index)
            assert point is not None
            seen.append(Observation(point, loss(float(point["x"]), float(point["y"]))))
        return min(observation.loss for observation in seen)

    limited, as_it_is = ([best(most_spread, seed) for seed in range(3)] for most_spread in (5.0, None))
    assert median(limited) < 0.1 * median(as_it_is)
