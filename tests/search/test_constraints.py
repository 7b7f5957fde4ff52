"""Constraints: no sampler and no strategy begins what is not allowed."""

from __future__ import annotations

import math
from typing import Any

import pytest
from virtual_workers import simulate

from thalweg.errors import ConfigError
from thalweg.search import SAMPLERS, Problem, strategy
from thalweg.search.constraints import Feasible
from thalweg.search.random_search import RandomSearch
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Metric, Start

SPACE = Space.parse(
    {
        "lr": {"log": [1e-5, 1e-1], "prior": 1e-3},
        "batch_size": {"choice": [8, 16, 32, 64], "prior": 64},
        "adapter": {"choice": ["none", "lora"]},
        "rank": {"integer": [2, 64], "log": True, "when": {"adapter": "lora"}},
    }
)


def fits(point: Hyperparameters) -> bool:
    """Small batches only, and with LoRA smaller ones still."""
    batch_size, rank = point["batch_size"], point.get("rank", 0)
    assert isinstance(batch_size, int)
    assert isinstance(rank, int)
    return batch_size + rank <= 40


def make_problem(**changes: Any) -> Problem:
    return Problem(
        **{"space": SPACE, "metric": Metric("loss", "min"), "horizon": lambda _: 90, "seed": 3, "is_feasible": fits}
        | changes
    )


def bowl(point: Hyperparameters, fraction: float) -> float:
    lr, batch_size = point["lr"], point["batch_size"]
    assert isinstance(lr, float)
    assert isinstance(batch_size, int)
    return (math.log10(lr) + 3) ** 2 + 10 / batch_size + 1 - fraction  # the largest batch would be best


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["full", "halving"])
def test_no_sampler_begins_what_is_not_allowed(sampler: str, name: str) -> None:
    options = {} if name == "full" else {"sampler": sampler}
    known = sampler if name == "full" else name
    problem = make_problem()
    runs = 7 if sampler == "gp" else 16  # of which 4 begin before there is a model, which is slow
    outcome = simulate(
        strategy(known, options, problem),
        problem,
        bowl,
        runs=runs,
        workers=2,
        remake=lambda: strategy(known, options, problem),
    )
    starts = [action.hyperparameters for action in outcome.actions if isinstance(action, Start)]
    assert len(starts) == runs
    assert all(map(fits, starts))


def test_what_does_not_matter_to_the_constraint_stays() -> None:
    """Only the batch size breaks it, so that the learning rate is the sampler's own."""
    space = Space.parse({"lr": {"log": [1e-5, 1e-1]}, "batch_size": {"choice": [8, 64]}, "warmup": 0.1})
    problem = make_problem(space=space)
    alone = RandomSearch(make_problem(space=space, is_feasible=lambda _: True))
    wrapped = Feasible(alone, problem)
    moved = 0
    for index in range(20):
        before, after = alone.propose([], [], index), wrapped.propose([], [], index)
        assert before is not None
        assert after == {**before, "batch_size": 8}
        moved += before != after
    assert moved > 5


def test_a_pending_point_is_not_moved_into_again_where_there_is_another() -> None:
    space = Space.parse({"batch_size": {"choice": [8, 16, 32, 64]}})
    problem = make_problem(space=space, is_feasible=lambda point: point["batch_size"] != 64)

    class Largest:
        num_points = None

        def propose(self, *_: object) -> Hyperparameters:
            return {"batch_size": 64}

    pending: list[Hyperparameters] = [{"batch_size": 8}, {"batch_size": 16}]
    points = {Feasible(Largest(), problem).propose([], pending, index)["batch_size"] for index in range(8)}  # type: ignore[index]
    assert points == {32}


def test_a_grid_leaves_out_what_is_not_allowed() -> None:
    problem = make_problem()
    outcome = simulate(strategy("grid", {"resolution": 2}, problem), problem, bowl, runs=None)
    allowed = [point for point in SPACE.grid(2) if fits(point)]
    points = [dict(run.hyperparameters) for run in outcome.tree]
    assert len(points) == len(allowed) < len(SPACE.grid(2))
    assert all(point in points for point in allowed)


def test_an_impossible_constraint_is_refused() -> None:
    problem = make_problem(is_feasible=lambda _: False)
    with pytest.raises(ConfigError, match=r"no.* point.* keeps the study's constraints"):
        strategy("grid", {"resolution": 2}, problem)
    with pytest.raises(ConfigError, match="none of 1,000 points drawn from the space"):
        Feasible(RandomSearch(problem), problem).propose([], [], 0)
