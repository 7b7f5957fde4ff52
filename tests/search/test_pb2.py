"""Population-based bandits: what is learned from a population, and what is proposed. `test_pbt.py` has the rest."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from thalweg.search import Problem
from thalweg.search.pb2 import (
    Bandit,
    TimeVaryingProcess,
    beta,
    improvements,
    kernel,
    maximise,
    standardised,
)
from thalweg.search.perturb import Perturb
from thalweg.search.population import Population
from thalweg.space import Space
from thalweg.tree import Metric, Report, Run, Tree

PROBLEM = Problem(
    space=Space.parse({"lr": {"log": [1e-4, 1e-1]}, "kind": {"choice": ["a", "b"]}}),
    metric=Metric("loss", "min"),
    horizon=lambda _: 100,
    seed=0,
)


def run(number: int, losses: list[float], *, lr: float = 1e-3, parent: str | None = None, fork: int = 0) -> Run:
    positions = [fork + 10 * k for k in range(1, len(losses) + 1)]
    at = positions[-1] if positions else fork
    reports = tuple(Report(p, {"loss": loss}) for p, loss in zip(positions, losses, strict=True))
    return Run(
        id=f"s-{number}",
        number=number,
        hyperparameters={"lr": lr, "kind": "a"},
        horizon=100,
        until=at,
        parent=parent,
        fork_position=fork,
        status="paused",
        position=at,
        reports=reports,
        origin="pb2",
    )


def population(*runs: Run) -> Population:
    return Population(PROBLEM, Tree.of(runs), "pb2", 0.1)


def test_the_weight_of_uncertainty_is_that_of_the_paper() -> None:
    assert beta(10) == pytest.approx(0.277259, abs=1e-6)
    assert math.sqrt(beta(10)) == pytest.approx(0.526554, abs=1e-6)
    assert beta(100) == pytest.approx(0.737776, abs=1e-6)
    assert math.sqrt(beta(100)) == pytest.approx(0.858939, abs=1e-6)
    assert beta(0) == beta(2) == 0.0


def test_the_jump_from_the_loser_to_the_winner_is_not_learned() -> None:
    winner, loser = run(0, [5.0, 3.0]), run(1, [9.0, 9.5])
    # The fork took the loser's place, whose last loss was 9.5: what it brought is 3.0 - 2.5.
    child = run(2, [2.5], lr=1.2e-3, parent="s-0", fork=20)
    seen = improvements(PROBLEM, population(winner, loser, child), 0.1)
    assert [(one.mark, one.before, one.per_interval) for one in seen] == [(1, 5.0, 2.0), (1, 9.0, -0.5), (2, 3.0, 0.5)]
    assert seen[2].hyperparameters["lr"] == 1.2e-3


def test_a_diverged_interval_is_the_worst_and_the_last() -> None:
    diverged = dataclasses.replace(run(0, [5.0]), status="diverged")
    (seen,) = improvements(PROBLEM, population(diverged), 0.1)
    assert seen.per_interval == -math.inf
    assert standardised([1.0, 3.0, -math.inf]).tolist() == [-1.0, 1.0, -2.0]
    assert standardised([2.0, 2.0]).tolist() == [0.0, 0.0]


def test_the_process_agrees_with_the_formula_written_out() -> None:
    rng = np.random.default_rng(0)
    inputs, values, point = rng.random((6, 3)), rng.random(6), rng.random(3)
    inputs[:, 0] = [1, 1, 2, 2, 3, 5]
    point[0] = 5
    process = TimeVaryingProcess(inputs, values, length=0.7, noise=0.05)

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        apart = abs(a[0] - b[0])
        return float(0.9 ** (apart / 2) * np.exp(-np.sum((a[1:] - b[1:]) ** 2) / (2 * 0.7**2)))

    matrix = np.array([[covariance(a, b) for b in inputs] for a in inputs]) + 0.05 * np.eye(6)
    across = np.array([covariance(point, a) for a in inputs])
    mean, deviation = process.predictor(np.empty((0, 3)))(point)
    assert mean == pytest.approx(float(across @ np.linalg.inv(matrix) @ values), abs=1e-6)
    assert deviation == pytest.approx(math.sqrt(1 - float(across @ np.linalg.inv(matrix) @ across)), abs=1e-6)
    # What is being tried near by leaves the mean and lessens the doubt.
    same, less = process.predictor(point[None, :])(point)
    assert same == pytest.approx(mean)
    assert less < 0.5 * deviation


def test_what_is_long_past_counts_less() -> None:
    rows = np.array([[0.0, 0.5], [1.0, 0.5], [9.0, 0.5]])
    assert kernel(rows, rows, 1.0)[0].tolist() == pytest.approx([1.0, 0.9**0.5, 0.9**4.5])


def test_climbing_finds_the_top() -> None:
    top = np.array([0.2, 0.9])
    found = maximise(lambda units: -float(np.sum((units - top) ** 2)), 2, np.random.default_rng(0))
    assert found == pytest.approx(top, abs=1e-4)


def bandit(names: list[str]) -> Bandit:
    perturbed = Perturb(PROBLEM, names, perturb=0.2, resample=0.25)
    return Bandit(PROBLEM, 0.1, ["lr"], perturbed, Perturb(PROBLEM, ["kind"], perturb=0.2, resample=0.25))


def test_proposes_where_the_metric_improved_most() -> None:
    """Twelve runs from the same start: the nearer to 1e-2, the more their second interval brought."""
    rates = np.logspace(-4, -1, 12)
    runs = [run(n, [5.0, 5.0 - math.exp(-4 * (math.log10(lr) + 2) ** 2)], lr=float(lr)) for n, lr in enumerate(rates)]
    changes = bandit(["lr", "kind"])(runs[0], population(*runs), [], np.random.default_rng(0))
    assert 3e-3 < float(changes["lr"]) < 3e-2


def test_perturbs_before_there_is_enough_to_learn_from() -> None:
    winner = run(0, [5.0])
    tree = population(winner, run(1, [6.0]))
    made = bandit(["lr"])
    changes = made(winner, tree, [], np.random.default_rng(3))
    assert changes == made.perturbed(winner, tree, [], np.random.default_rng(3))
    assert changes
