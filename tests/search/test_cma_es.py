"""CMA-ES as a function of results: what it does with generations, outliers, order, and restarts."""

from __future__ import annotations

import math
from statistics import fmean, median

import cmaes
import numpy as np
import pytest
from virtual_workers import simulate

from thalweg.search import Observation, Problem, strategy
from thalweg.search.cma_es import CmaEs
from thalweg.search.tpe import tpe
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Metric


def problem_of(spec: dict[str, object], seed: int = 0) -> Problem:
    return Problem(space=Space.parse(spec), metric=Metric("loss", "min"), horizon=lambda _: 10, seed=seed)


SQUARE: dict[str, object] = {"x": {"linear": [0.0, 1.0]}, "y": {"linear": [0.0, 1.0]}}


def drawn(problem: Problem, count: int) -> list[Hyperparameters]:
    return [problem.space.sample(problem.rng(i)) for i in range(count)]


def bent(point: Hyperparameters, _: float = 1.0) -> float:
    """A long thin valley across both axes, lowest at (0.7, 0.3)."""
    x, y = point["x"], point["y"]
    assert isinstance(x, float)
    assert isinstance(y, float)
    return 100 * (x + y - 1) ** 2 + (x - y - 0.4) ** 2


def test_equals_the_package_where_all_results_are_its_own() -> None:
    """An independent loop of ask and tell: four points to begin with, then generations of six by the package itself."""
    problem = problem_of(SQUARE)
    first = drawn(problem, 4)
    seen = [Observation(point, bent(point)) for point in first]
    best = min(seen, key=lambda observation: observation.loss).hyperparameters
    mean = np.array([best["x"], best["y"]], dtype=float) / 0.2
    package = cmaes.CMA(mean, 1.0, bounds=np.array([[0.0, 5.0]] * 2), seed=1)
    for _ in range(5):
        generation = []
        for _ in range(6):
            coordinates = package.ask()
            # Draws beyond the edge at which outliers are taken in are rare; leave them out, as this is not about them.
            while np.linalg.norm(np.linalg.solve(np.linalg.cholesky(package._C), coordinates - package.mean)) > (
                2.41 * package._sigma
            ):
                coordinates = package.ask()
            point = {"x": float(coordinates[0] * 0.2), "y": float(coordinates[1] * 0.2)}
            generation.append((coordinates, bent(point)))
            seen.append(Observation(point, bent(point)))
        package.tell(generation)
    ours = CmaEs(problem)._evolved(seen)
    assert ours.mean == pytest.approx(package.mean)
    assert ours._sigma == pytest.approx(package._sigma)
    package.reseed_rng(int(problem.rng(34).integers(2**32)))
    asked = package.ask() * 0.2
    proposal = CmaEs(problem).propose(seen, [], 34)
    assert proposal is not None
    assert [proposal["x"], proposal["y"]] == pytest.approx(asked.tolist())


def test_follows_a_bent_valley_further_than_random_search() -> None:
    best: dict[str, list[float]] = {"cmaes": [], "random": []}
    for seed in range(5):
        problem = problem_of(SQUARE, seed)
        for name, losses in best.items():
            tree = simulate(strategy(name, {}, problem), problem, bent, runs=100).tree
            losses.append(min(bent(run.hyperparameters) for run in tree))
    # The valley's floor is 1e-4 wide in the loss: of 100 draws the best is a few times 1e-2.
    assert median(best["cmaes"]) < 0.1 * median(best["random"])


def test_only_the_order_of_results_counts() -> None:
    problem = problem_of(SQUARE)
    points = drawn(problem, 22)
    losses = [bent(point) for point in points]
    stretched = [Observation(point, 1e6 * math.exp(loss / 10)) for point, loss in zip(points, losses, strict=True)]
    plain = [Observation(point, loss) for point, loss in zip(points, losses, strict=True)]
    assert CmaEs(problem).propose(stretched, [], 22) == CmaEs(problem).propose(plain, [], 22)
    worst = max(range(4, 22), key=lambda i: losses[i])
    diverged = [Observation(o.hyperparameters, math.inf if i == worst else o.loss) for i, o in enumerate(plain)]
    assert CmaEs(problem).propose(diverged, [], 22) == CmaEs(problem).propose(plain, [], 22)


def test_an_outlier_does_not_tear_the_distribution_apart() -> None:
    """After eight generations that shrink it, one result in the far corner is the best of its generation."""
    problem = problem_of(SQUARE)
    sampler = CmaEs(problem)
    seen: list[Observation] = []
    for index in range(4 + 8 * 6):
        point = sampler.propose(seen, [], index)
        assert point is not None
        seen.append(Observation(point, bent(point)))
    before = sampler._evolved(seen)
    generation = [sampler.propose(seen, [], len(seen) + i) or {} for i in range(5)]
    told = [*seen, Observation({"x": 0.0, "y": 1.0}, -1.0), *(Observation(point, bent(point)) for point in generation)]
    after = sampler._evolved(told)
    assert after.generation == before.generation + 1 == 9
    assert after._sigma < 3 * before._sigma
    moved = np.linalg.norm(after.mean - before.mean) / before._sigma
    assert moved < math.sqrt(2) + 1  # deviations of the first axis at most: the edge, 2.41, times the best one's weight


def test_begins_elsewhere_once_it_has_become_a_point() -> None:
    problem = problem_of(SQUARE)
    same = [Observation({"x": 0.5, "y": 0.5}, 1.0)] * 400
    evolved = CmaEs(problem)._evolved(same)
    assert evolved.population_size > 6
    proposals = [CmaEs(problem).propose(same, [], 400 + i) or {} for i in range(10)]
    assert fmean(abs(point["x"] - 0.5) for point in proposals) > 0.05  # type: ignore[operator]


def test_choices_and_conditional_dimensions_are_those_of_tpe() -> None:
    problem = problem_of(
        {
            "lr": {"log": [1e-5, 1e-1]},
            "kind": {"choice": ["a", "b"]},
            "rank": {"integer": [1, 64], "when": {"kind": "b"}},
        }
    )
    points = drawn(problem, 12)
    seen = [Observation(point, float(i % 5)) for i, point in enumerate(points)]
    for index in (12, 13, 14):
        ours, theirs = CmaEs(problem).propose(seen, [], index), tpe(problem).propose(seen, [], index)
        assert ours is not None
        assert theirs is not None
        assert {k: v for k, v in ours.items() if k != "lr"} == {k: v for k, v in theirs.items() if k != "lr"}
        assert ours["lr"] != theirs["lr"]


def test_a_space_without_ranges_is_tpes() -> None:
    problem = problem_of({"a": {"choice": list("abcdef")}, "b": {"choice": list("abcdef")}})
    seen = [Observation(point, float(i)) for i, point in enumerate(drawn(problem, 8))]
    assert CmaEs(problem).propose(seen, [], 8) == tpe(problem).propose(seen, [], 8)


@pytest.mark.parametrize("spec", [{"n": {"integer": [1, 3]}}, {"n": {"linear": [0.0, 1.0]}}], ids=["integer", "real"])
def test_searches_one_dimension(spec: dict[str, object]) -> None:
    problem = problem_of(spec)
    tree = simulate(strategy("cmaes", {}, problem), problem, lambda p, _: float(p["n"]), runs=30).tree
    assert len(tree) == 30
    assert min(float(run.hyperparameters["n"]) for run in tree) < 0.05 or "integer" in spec["n"]  # type: ignore[operator]


def test_a_prior_of_high_confidence_begins_narrower() -> None:
    """Of 150 proposals after four results with the same best point, the spread of a first generation: 0.2 and 0.125."""
    spreads = []
    for prior in ({}, {"prior": 0.5, "confidence": "high"}):
        problem = problem_of({"x": {"linear": [0.0, 1.0], **prior}, "y": {"linear": [0.0, 1.0]}})
        seen = [Observation({"x": 0.5, "y": 0.1 * i}, float(i)) for i in range(4)]
        xs = [float((CmaEs(problem).propose(seen, [], 4 + i) or {})["x"]) for i in range(150)]
        spreads.append(float(np.std(xs)))
    assert spreads == pytest.approx([0.2, 0.125], rel=0.15)
