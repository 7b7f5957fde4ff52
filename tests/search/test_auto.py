"""`auto`: first roots and promotions by hand, its budget, its confirmations."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest

from thalweg.budget import Left
from thalweg.execute.simulated import SimulatedTrainer
from thalweg.search import Earlier, Problem, strategy
from thalweg.search.strategy import Branch
from thalweg.simulation import Simulation, simulate
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Continue, Fork, Metric, Report, Run, Start, Tree

SPACE = Space.parse(
    {
        "lr": {"log": [1e-6, 1.0], "prior": 1e-3},
        "dropout": {"linear": [0.0, 0.5], "prior": 0.1},
        "batch_size": {"choice": [8, 16, 32], "prior": 16},
    }
)
COMPUTE = Left({"samples": 1e9}, 20.0)


def make_problem(**fields: Any) -> Problem:
    given: dict[str, Any] = {"space": SPACE, "horizon": lambda _: 800, "seed": 0, **fields}
    return Problem(metric=Metric("loss", "min"), **given)


def point(lr: float) -> Hyperparameters:
    return {"lr": lr, "dropout": 0.1, "batch_size": 16}


def paused(number: int, losses: list[float], **fields: Any) -> Run:
    """A root with these losses at 100, 200, 400 and 800."""
    reports = tuple(Report(100 * 2**k, {"loss": loss}) for k, loss in enumerate(losses))
    given: dict[str, Any] = {"status": "finished" if len(losses) == 4 else "paused", "origin": "auto:start", **fields}
    position = reports[-1].position if reports else 0
    return Run(
        id=f"s-{number}",
        number=number,
        hyperparameters=given.pop("hyperparameters", point(1e-3 * (number + 1))),
        horizon=800,
        until=position,
        position=position,
        reports=reports,
        **given,
    )


def test_begins_with_the_prior_and_half_a_decade_to_each_side() -> None:
    actions = strategy("auto", {}, make_problem()).decide(Tree(), free_slots=3, left=COMPUTE)
    starts = [action for action in actions if isinstance(action, Start)]
    assert [start.until for start in starts] == [100, 100, 100]
    assert [start.origin for start in starts] == ["auto:start"] * 3
    assert [start.hyperparameters["lr"] for start in starts] == pytest.approx([1e-3, 10**-3.5, 10**-2.5])
    assert all((start.hyperparameters["dropout"], start.hyperparameters["batch_size"]) == (0.1, 16) for start in starts)


def test_begins_with_what_earlier_studies_found() -> None:
    found = tuple((point(lr), abs(math.log10(lr) + 1.5)) for lr in (1e-5, 1e-4, 10**-1.5, 0.3, 0.9))
    problem = make_problem(earlier=(Earlier("before", found),))
    (action,) = strategy("auto", {}, problem).decide(Tree(), free_slots=1, left=COMPUTE)
    assert isinstance(action, Start)
    assert action.hyperparameters["lr"] == pytest.approx(10**-1.5)


def test_one_in_two_goes_on_and_the_higher_rung_comes_first() -> None:
    auto = strategy("auto", {}, make_problem())
    assert auto.decide(Tree.of([paused(0, [3.0]), paused(1, [2.0])]), free_slots=1, left=COMPUTE) == [
        Continue("s-1", 200, "auto")
    ]
    # 1 of 2 at the first rung has gone on; at the second there are two, of which the better one is next.
    tree = Tree.of([paused(0, [3.0, 2.5]), paused(1, [2.0, 1.5]), paused(2, [4.0]), paused(3, [5.0])])
    assert auto.decide(tree, free_slots=1, left=COMPUTE) == [Continue("s-1", 400, "auto")]


def test_the_last_fifth_of_the_budget_goes_to_what_has_begun() -> None:
    tree = Tree.of([paused(0, [3.0, 2.0]), paused(1, [2.5]), paused(2, [2.9]), paused(3, [9.0])])
    auto = strategy("auto", {}, make_problem())
    late = Left({"samples": 800}, 1.0)
    assert auto.decide(tree, free_slots=1, left=late) == [Continue("s-0", 400, "auto")]
    starts = auto.decide(Tree.of([paused(0, [3.0])]), free_slots=1, left=Left({"samples": 1e6}, 9.0))
    assert isinstance(starts[0], Start)


def test_an_evaluation_that_is_dear_is_not_made_early() -> None:
    """Each evaluation costs as much as an eighth of the training: the first rung would be half evaluation."""

    def cost(_hyperparameters: Hyperparameters, start: int, until: int) -> float:
        return until - start + 100.0

    (action,) = strategy("auto", {}, make_problem(cost=cost)).decide(Tree(), free_slots=1, left=COMPUTE)
    # 100 + 100 of 900 is 1.78 of an eighth; 200 + 100 of 900 is 1.33 of a quarter.
    assert isinstance(action, Start)
    assert action.until == 200


def test_runs_that_are_all_done_at_once_are_trained_whole() -> None:
    (action,) = strategy("auto", {}, make_problem(horizon=lambda _: 1)).decide(Tree(), free_slots=1, left=COMPUTE)
    assert isinstance(action, Start)
    assert action.until == 1


def test_rungs_are_scored_on_branches_where_there_is_a_trunk() -> None:
    def branch(_hyperparameters: Hyperparameters, budget: int) -> Branch:
        return Branch(budget * 9 // 10, {"tokens": budget})

    space = Space.parse({"lr": {"log": [1e-5, 1e-1]}, "tokens": 800})
    problem = make_problem(space=space, branch=branch)
    (action,) = strategy("auto", {}, problem).decide(Tree(), free_slots=1, left=COMPUTE)
    assert isinstance(action, Start)
    assert action.until == 90
    root = Run(
        id="s-0",
        number=0,
        hyperparameters=action.hyperparameters,
        horizon=800,
        until=90,
        position=90,
        status="paused",
        origin=action.origin,
    )
    fork = strategy("auto", {}, problem).decide(Tree.of([root]), free_slots=1, left=COMPUTE)[0]
    assert fork == Fork("s-0", 90, {"tokens": 100}, 100, "auto")
    (plain,) = strategy("auto", {"trunk": False}, problem).decide(Tree(), free_slots=1, left=COMPUTE)
    assert isinstance(plain, Start)
    assert plain.until == 100


def noisy(hyperparameters: Hyperparameters, position: int, seed: int) -> float:
    """A bowl over the learning rate, falling with training, and chance that only the seed decides."""
    lr, dropout = hyperparameters["lr"], hyperparameters["dropout"]
    assert isinstance(lr, float)
    assert isinstance(dropout, float)
    bowl = (math.log10(lr) + 2) ** 2 + (dropout - 0.2) ** 2
    return bowl + 1 / (1 + position / 20) + 0.05 * math.sin(1e3 * lr + 977 * seed)


def run(budget: str, **options: Any) -> Simulation:
    strategy = {"name": "auto", **options}
    trainer = SimulatedTrainer.of_curve(noisy, horizon_positions=80, unit="samples")
    return simulate(trainer, space=SPACE, metric="loss", budget=budget, strategy=strategy, seed=3, workers=2)


def confirmations(done: Simulation) -> list[Run]:
    return [run for run in done.tree if run.origin == "auto:confirm"]


def test_confirms_the_two_best_under_another_seed() -> None:
    done = run("1600 samples")  # 20 whole runs: 15% is 3, room for two of them
    again = confirmations(done)
    assert [run.seed for run in again] == [4, 4]
    assert all(run.status == "finished" for run in again)
    assert sum(run.position - run.fork_position for run in done.tree) <= 1600
    complete = [r for r in done.tree if r.status == "finished" and r.seed == 3]
    best_two = sorted(complete, key=lambda r: r.reports[-1].metrics["loss"])[:2]
    assert [dict(r.hyperparameters) for r in again] == [dict(r.hyperparameters) for r in best_two]


@pytest.mark.parametrize(("budget", "options"), [("800 samples", {}), ("1600 samples", {"confirm": False})])
def test_a_small_budget_or_an_option_leaves_confirmation_out(budget: str, options: dict[str, Any]) -> None:
    assert confirmations(run(budget, **options)) == []


def test_a_large_budget_confirms_three_under_two_seeds() -> None:
    done = run("4000 samples")  # 50 whole runs: 7.5
    assert Counter(run.seed for run in confirmations(done)) == {4: 3, 5: 3}


def test_every_source_is_tried_and_named() -> None:
    sources = {run.origin for run in run("4000 samples").tree}
    assert sources >= {"auto:start", "auto:prior", "auto:nearby", "auto:uniform", "auto:model"}


def test_most_roots_is_kept() -> None:
    done = run("4000 samples", max_roots=5, confirm=False)
    assert len(done.tree.roots()) == 5
    assert done.best is not None


def test_a_budget_of_runs_alone_ends_with_a_complete_run() -> None:
    done = run("9 runs")
    assert len(done.tree.roots()) == 9
    assert done.best is not None


def test_a_wrong_prior_is_left_behind() -> None:
    """The best rate is 1e-2; the prior says 1e-5, with high confidence."""
    wrong = Space.parse({**SPACE.to_dict(), "lr": {"log": [1e-6, 1.0], "prior": 1e-5, "confidence": "high"}})
    trainer = SimulatedTrainer.of_curve(noisy, horizon_positions=80, unit="samples")
    best = []
    for seed in range(5):
        done = simulate(trainer, space=wrong, metric="loss", budget="1600 samples", strategy="auto", seed=seed)
        lr = done.best_hyperparameters["lr"]
        best.append(abs(math.log10(lr) + 2))
    assert sorted(best)[2] < 0.5


def test_earlier_studies_that_mislead_cost_their_first_points_only() -> None:
    misleading = Earlier("other", tuple((point(10.0 ** (-1 - k / 6)), -float(k)) for k in range(30)))
    trainer = SimulatedTrainer.of_curve(noisy, horizon_positions=80, unit="samples")
    done = simulate(
        trainer, space=SPACE, metric="loss", budget="1600 samples", strategy="auto", earlier=(misleading,), seed=1
    )
    assert abs(math.log10(done.best_hyperparameters["lr"]) + 2) < 0.5
    origins = Counter(run.origin for run in done.tree.roots())
    assert origins["auto:earlier"] <= 3


def test_finalists_are_distinct_and_nothing_follows_their_confirmation() -> None:
    done = run("1600 samples")
    numbers = [run.number for run in confirmations(done)]
    assert numbers == list(itertools.islice(itertools.count(min(numbers)), len(numbers)))
    assert max(numbers) == len(done.tree) - 1


def test_refuses_a_trunk_where_there_is_none() -> None:
    from thalweg.errors import ConfigError

    with pytest.raises(ConfigError, match="there is no trunk to branch from"):
        strategy("auto", {"trunk": True}, make_problem())
    with pytest.raises(ConfigError, match="max_roots = 0 must be at least 1"):
        strategy("auto", {"max_roots": 0}, make_problem())
