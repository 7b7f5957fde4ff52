"""Priors shape every sampler: a good one helps at once, and a wrong one is got over. Also the corners of a space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

import numpy as np
import pytest
from virtual_workers import simulate

from thalweg.search import SAMPLERS, Observation, Problem, Sampler, strategy
from thalweg.search.grid import Grid
from thalweg.search.sobol import Sobol
from thalweg.search.startup import believed_option, prior_weight
from thalweg.search.tpe import tpe
from thalweg.space import Hyperparameters, Space, choice, log
from thalweg.tree import Metric, Run

SLOW = [pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name for name in SAMPLERS]
every_sampler = pytest.mark.parametrize("name", SLOW)
LEARNS = [name for name in SLOW if name not in ("grid", "random", "sobol")]

OPTIMUM = -3.5
"""The logarithm of the best learning rate."""


def problem_of(spec: dict[str, object], seed: int = 0) -> Problem:
    return Problem(space=Space.parse(spec), metric=Metric("loss", "min"), horizon=lambda _: 10, seed=seed)


def sampler_of(name: str, problem: Problem) -> Sampler:
    made = strategy(name, {}, problem)
    return made._sampler  # type: ignore[attr-defined, no-any-return]


def valley(hyperparameters: Hyperparameters, _: float = 1.0) -> float:
    lr, dropout = hyperparameters["lr"], hyperparameters["dropout"]
    assert isinstance(lr, float)
    assert isinstance(dropout, float)
    wrong = 0.5 if hyperparameters["optimizer"] != "b" else 0.0
    return (math.log10(lr) - OPTIMUM) ** 2 + 20 * (dropout - 0.15) ** 2 + wrong


def space_of(factor: float | None, confidence: str = "medium") -> dict[str, object]:
    """With a prior this many times the best learning rate; those of the others are good. None: without priors."""

    def believed(prior: object) -> dict[str, object]:
        return {} if factor is None else {"prior": prior, "confidence": confidence}

    return {
        "lr": {"log": [1e-6, 1e-1], **believed((factor or 1) * 10**OPTIMUM)},
        "dropout": {"linear": [0.0, 0.5], **believed(0.15)},
        "optimizer": {"choice": ["a", "b", "c"], **believed("b")},
    }


def searched(name: str, spec: dict[str, object], seed: int, runs: int) -> list[Run]:
    problem = problem_of(spec, seed)
    tree = simulate(strategy(name, {}, problem), problem, valley, runs=runs).tree
    return sorted(tree, key=lambda run: run.number)


def lr_distances(runs: Sequence[Run]) -> list[float]:
    return [abs(math.log10(run.hyperparameters["lr"]) - OPTIMUM) for run in runs]  # type: ignore[arg-type]


@every_sampler
def test_a_good_prior_brings_the_first_proposals_nearer(name: str) -> None:
    """The prior is twice the best rate, not the best itself."""
    seeds = range(3 if name == "gp" else 8)
    plain, believed = ([searched(name, space_of(factor, "high"), seed, 10) for seed in seeds] for factor in (None, 2.0))
    assert fmean(fmean(lr_distances(runs)) for runs in believed) < 0.8 * fmean(
        fmean(lr_distances(runs)) for runs in plain
    )
    share = [
        fmean(run.hyperparameters["optimizer"] == "b" for runs in group for run in runs) for group in (plain, believed)
    ]
    assert share[1] > share[0] + 0.1


def test_tpe_draws_by_the_prior_where_results_say_nothing() -> None:
    """Results that are all equal, spread evenly: without a prior, proposals are 0.25 of the range from its middle on
    average, and a third of them take each option."""
    distances, shares = [], []
    for prior in ({}, {"prior": 0.5, "confidence": "high"}):
        option = {"prior": "b", "confidence": "high"} if prior else {}
        problem = problem_of({"x": {"linear": [0.0, 1.0], **prior}, "k": {"choice": ["a", "b", "c"], **option}})
        seen = [Observation({"x": x, "k": k}, 1.0) for x, k in zip((0.1, 0.4, 0.6, 0.9), "abca", strict=True)]
        points = [tpe(problem).propose(seen, [], 4 + i) or {} for i in range(60)]
        distances.append(fmean(abs(float(point["x"]) - 0.5) for point in points))
        shares.append(fmean(point["k"] == "b" for point in points))
    assert distances[1] < 0.8 * distances[0]
    assert shares[1] > shares[0] + 0.15


@pytest.mark.parametrize("name", LEARNS)
@pytest.mark.parametrize("factor", [1 / 30, 30.0])
def test_a_wrong_prior_of_the_learning_rate_is_got_over_in_thirty_runs(name: str, factor: float) -> None:
    """The best rate lies one and a half decades from a prior of high confidence, three of its deviations. Random draws
    from that prior end 0.5 decades from the best rate in the median."""
    nearest = []
    for seed in range(2 if name == "gp" else 6):
        runs = searched(name, space_of(factor, "high"), seed, 30)
        best = min(runs, key=lambda run: valley(run.hyperparameters))
        nearest += lr_distances([best])
    assert median(nearest) < 0.4
    assert max(nearest) < 0.9


@pytest.mark.parametrize("name", ["random", "sobol", "grid"])
def test_a_wrong_prior_hides_nothing(name: str) -> None:
    """A tenth of the draws is uniform where a prior has high confidence, 0.8 decades of 5 are near the best rate; and a
    grid has all of its points."""
    problem = problem_of({"lr": {"log": [1e-6, 1e-1], "prior": 30 * 10**OPTIMUM, "confidence": "high"}})
    made = Grid(problem, resolution=400) if name == "grid" else sampler_of(name, problem)
    points = [made.propose([], [], index) for index in range(400)]
    near = sum(abs(math.log10(point["lr"]) - OPTIMUM) < 0.4 for point in points if point)  # type: ignore[arg-type]
    expected = 400 * 0.16 if name == "grid" else 400 * 0.1 * 0.16
    assert near >= expected - 2


def test_the_weight_of_a_prior_falls_as_results_come_in() -> None:
    space = Space(
        {
            "optimizer": choice(["a", "b"], prior="b", confidence="high"),
            "plain": choice(["a", "b"]),
            "lr": log(1e-5, 1e-3, prior=1e-4, confidence="high"),
            "decay": log(1e-5, 1e-3, prior=1e-4, confidence="high"),
        }
    )
    assert [prior_weight(space, "optimizer", n) for n in (0, 7, 8, 31, 32)] == [0.9, 0.9, 0.45, 0.225, 0.1125]
    # Of two ranges each follows with the root of 0.9.
    assert [prior_weight(space, "lr", n) for n in (0, 8)] == pytest.approx([0.948683, 0.474342], abs=1e-6)
    assert prior_weight(space, "plain", 0) is None
    rng = np.random.default_rng(0)
    taken = fmean(believed_option(space, "optimizer", 16, rng) == "b" for _ in range(2_000))
    assert abs(taken - 0.225) < 4 * math.sqrt(0.225 * 0.775 / 2_000)
    assert believed_option(space, "plain", 0, rng) is None
    assert believed_option(space, "lr", 0, rng) is None


def test_sobol_puts_as_many_points_in_equal_shares_of_the_prior() -> None:
    """Of the first 8 points exactly one lies in each eighth of the prior's probability."""
    problem = problem_of(
        {"lr": {"log": [1e-6, 1e-1], "prior": 1e-3, "confidence": "high"}, "x": {"linear": [0.0, 8.0]}}
    )
    points = [Sobol(problem).propose([], [], index) for index in range(8)]
    lr = problem.space.dimensions["lr"]
    assert sorted(math.floor(8 * lr.to_prior(point["lr"])) for point in points if point) == list(range(8))
    assert sorted(math.floor(point["x"]) for point in points if point) == list(range(8))  # type: ignore[arg-type]


def test_a_grid_begins_with_what_is_believed() -> None:
    spec: dict[str, object] = {
        "lr": {"log": [1e-6, 1e-2], "prior": 3e-4, "confidence": "high"},
        "batch": {"choice": [8, 16, 32], "prior": 16, "confidence": "high"},
    }
    grids = [Grid(problem_of(spec, seed), resolution=5) for seed in range(40)]
    orders = [[grid.propose([], [], index) or {} for index in range(15)] for grid in grids]
    assert all(order[0] == {"lr": 3e-4, "batch": 16} for order in orders)
    assert all(len({tuple(point.values()) for point in order}) == 15 for order in orders)
    # Weights 2.8 and 0.1: the other four rates with the prior's batch size are before the other two sizes on average.
    places = [(point["batch"] == 16, place) for order in orders for place, point in enumerate(order[1:])]
    assert fmean(place for believed, place in places if believed) < 4 < 7 < fmean(p for b, p in places if not b)


CONDITIONAL: dict[str, object] = {
    "lr": {"log": [1e-5, 1e-1], "prior": 1e-3},
    "epochs": {"integer": [1, 4], "prior": 2},
    "adapter": {"choice": ["none", "lora"], "prior": "lora"},
    "rank": {"integer": [2, 64], "log": True, "prior": 8, "when": {"adapter": "lora"}},
    "variant": {"choice": ["plain", "dora"], "prior": "plain", "when": {"adapter": "lora"}},
    "scale": {"linear": [0.0, 1.0], "when": {"variant": "dora", "adapter": "lora"}},
}


@every_sampler
def test_proposes_whole_points_of_a_conditional_space_with_priors(name: str) -> None:
    problem = problem_of(CONDITIONAL)

    def objective(point: Hyperparameters, _: float) -> float:
        return abs(math.log10(point["lr"]) + 2) + (0.0 if "scale" in point else 0.3)  # type: ignore[arg-type]

    runs = list(simulate(strategy(name, {}, problem), problem, objective, runs=24, workers=2).tree)
    for run in runs:  # `simulate` has checked that each has all the values that exist, and no other
        problem.space.check(run.hyperparameters)
    kinds = {(run.hyperparameters["adapter"], run.hyperparameters.get("variant")) for run in runs}
    assert kinds == {("none", None), ("lora", "plain"), ("lora", "dora")}


@every_sampler
@pytest.mark.parametrize(
    "losses",
    [[1.0] * 12, [math.inf] * 12, [math.inf] * 11 + [1.0], [3e38, -3e38] * 6],
    ids=["equal", "inf", "one", "huge"],
)
def test_bears_results_that_tell_nothing(name: str, losses: list[float]) -> None:
    problem = problem_of(CONDITIONAL)
    points = [problem.space.sample(problem.rng(i)) for i in range(12)]
    seen = [Observation(point, loss) for point, loss in zip(points, losses, strict=True)]
    sampler = sampler_of(name, problem)
    for index in (12, 13):
        point = sampler.propose(seen, [points[0]], index)
        assert point is not None
        problem.space.check(point)


@every_sampler
@pytest.mark.parametrize("prior", [{}, {"prior": "only"}], ids=["plain", "prior"])
def test_bears_a_space_of_one_point(name: str, prior: dict[str, object]) -> None:
    problem = problem_of({"kind": {"choice": ["only"], **prior}, "fixed": 3})
    seen = [Observation({"kind": "only", "fixed": 3}, float(i)) for i in range(8)]
    sampler = sampler_of(name, problem)
    assert sampler.propose([], [], 0) == {"kind": "only", "fixed": 3}
    assert sampler.propose(seen, [], 8) == (None if name == "grid" else {"kind": "only", "fixed": 3})


@every_sampler
def test_a_used_sampler_proposes_as_a_new_one_across_a_change_of_the_priors_weight(name: str) -> None:
    problem = problem_of(CONDITIONAL)
    points = [problem.space.sample(problem.rng(i)) for i in range(18)]
    seen = [Observation(point, float(i % 7)) for i, point in enumerate(points)]
    used = sampler_of(name, problem)
    for count in (6, 7, 8, 9, 16, 18, 7):
        assert used.propose(seen[:count], [], count) == sampler_of(name, problem).propose(seen[:count], [], count)
