"""What every strategy keeps. A new one is held to this by its line in the tables alone."""

from __future__ import annotations

import math

import pytest
from contract_cases import (
    CASES,
    Options,
    bowl,
    every_strategy,
    make,
    make_problem,
    number,
    quick_strategies,
    spaces,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtual_workers import killed, shuffled, simulate

from thalweg.budget import Left
from thalweg.search import SAMPLERS, takes_sampler
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Continue, Fork, Run, Start, Tree

HOLDS_BACK = ("auto",)
"""Strategies that keep runs of the budget for repetitions of the best, which there may be none of."""

POPULATIONS = ("pbt", "pb2")

TOTAL = 4.0 * 1800
"""A budget of four average runs of `SPACE`, in positions."""


def may_end_early(name: str, options: Options) -> bool:
    """Whether it may begin fewer roots than the budget has: it has no more points, or a reason of its own."""
    return name in (*HOLDS_BACK, "grid") or options.get("sampler") == "grid" or bool(options.get("shortened"))


@every_strategy
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(space=spaces(), seed=st.integers(0, 2**40), workers=st.integers(1, 3), fault=st.sampled_from([0.0, 0.4, 1.0]))
def test_keeps_its_contract_on_any_space(
    name: str, options: Options, space: Space, seed: int, workers: int, fault: float
) -> None:
    """`simulate` checks each decision: in the space, within slots and budget, pure, and it ends."""
    problem = make_problem(space, seed)
    made = make(name, options, problem)

    def objective(hyperparameters: Hyperparameters, fraction: float) -> float:
        draw = number(hyperparameters)
        if draw < fault / 2:
            raise ArithmeticError("out of memory")
        return math.nan if draw < fault else draw - fraction

    outcome = simulate(
        made, problem, objective, runs=9, workers=workers, step=7, remake=lambda: make(name, options, problem)
    )
    num_roots = len(outcome.tree.roots())
    assert num_roots == min(9, made.num_roots or 9) or may_end_early(name, options)


@every_strategy
def test_a_used_instance_decides_as_a_new_one(name: str, options: Options) -> None:
    """At every prefix of the tree: a study may be killed anywhere, and goes on the same."""
    problem = make_problem()
    simulate(
        make(name, options, problem), problem, bowl, runs=14, workers=3, remake=lambda: make(name, options, problem)
    )


@quick_strategies
@pytest.mark.parametrize("workers", [1, 3])
def test_keeps_a_budget_of_compute_and_ends_with_a_result(name: str, options: Options, workers: int) -> None:
    problem = make_problem()
    outcome = simulate(
        make(name, options, problem),
        problem,
        bowl,
        runs=None,
        budget=TOTAL,
        workers=workers,
        step=7,
        remake=lambda: make(name, options, problem),
    )
    assert outcome.spent <= TOTAL
    whole = [run for run in outcome.finished() if run.hyperparameters["share"] == 1.0]
    # What is kept for bringing a run to its horizon does not count the branches still to come: over trunks of different
    # lengths it may fall short by one of them.
    assert whole or options.get("trunk")


@quick_strategies
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), workers=st.integers(1, 3), fault=st.sampled_from([0.0, 0.3]))
def test_goes_on_from_any_prefix_where_it_was_killed(
    name: str, options: Options, data: st.DataObject, workers: int, fault: float
) -> None:
    """What was running is sent on by the loop; the budget holds over both sessions, and nothing is begun twice."""
    problem = make_problem(seed=data.draw(st.integers(0, 50)))

    def objective(hyperparameters: Hyperparameters, fraction: float) -> float:
        return math.nan if number(hyperparameters) < fault else bowl(hyperparameters, fraction)

    first = simulate(make(name, options, problem), problem, objective, runs=12, budget=TOTAL, workers=workers, step=7)
    tree = killed(shuffled(data.draw(st.sampled_from(first.prefixes)), 1))
    second = simulate(
        make(name, options, problem),
        problem,
        objective,
        runs=12,
        budget=TOTAL,
        workers=workers,
        step=7,
        tree=tree,
        remake=lambda: make(name, options, problem),
    )
    assert second.spent <= TOTAL
    assert len(second.tree.roots()) <= 12
    # Two forks of one winner may draw the same mutation, as by factors there are few.
    assert name in POPULATIONS or not second.trained_twice()
    assert not second.tree.active()


@quick_strategies
def test_one_worker_goes_on_exactly_as_if_it_had_not_been_killed(name: str, options: Options) -> None:
    """With one worker the order of events is the same in both sessions, and so is every action."""
    problem = make_problem(seed=3)
    first = simulate(make(name, options, problem), problem, bowl, runs=11, step=7)
    for prefix in first.prefixes[1 :: max(1, len(first.prefixes) // 3)]:
        again = simulate(make(name, options, problem), problem, bowl, runs=11, step=7, tree=killed(prefix))
        assert {r.id: r for r in again.tree} == {r.id: r for r in first.tree}


@every_strategy
def test_trains_nothing_twice(name: str, options: Options) -> None:
    """No stretch of one training, by its seed and hyperparameters up to there, is trained by two runs.

    Shortened schedules are the exception by design: each rung is a root of its own, and its share of the horizon is
    among its hyperparameters here. With branches the trunk's stretch and the branch's differ in the same way.
    """
    problem = make_problem(seed=2)
    # Where every fourth diverges and every fourth of the others fails, too.
    for fault in (0.0, 0.5):

        def objective(hyperparameters: Hyperparameters, fraction: float, fault: float = fault) -> float:
            draw = number(hyperparameters)
            if draw < fault / 2:
                raise ArithmeticError("out of memory")
            return math.nan if draw < fault else bowl(hyperparameters, fraction)

        outcome = simulate(make(name, options, problem), problem, objective, runs=10, workers=2, step=7)
        assert not outcome.trained_twice()
        # A run goes on where it stands, so that its stretches join.
        for run in outcome.tree:
            stretches = [(begin, until) for name_of, begin, until in outcome.trained if name_of == run.id]
            assert [begin for begin, _ in stretches] == [run.fork_position, *(until for _, until in stretches[:-1])]


@every_strategy
def test_the_same_seed_gives_the_same_study_and_another_seed_another(name: str, options: Options) -> None:
    studies = []
    for seed in (1, 1, 2):
        problem = make_problem(seed=seed)
        studies.append(simulate(make(name, options, problem), problem, bowl, runs=8, workers=2).actions)
    assert studies[0] == studies[1] != studies[2]


@every_strategy
@pytest.mark.parametrize("outcome", ["fail", "diverge"])
def test_ends_where_every_run_goes_wrong(name: str, options: Options, outcome: str) -> None:
    def objective(*_: object) -> float:
        if outcome == "fail":
            raise ArithmeticError("out of memory")
        return math.nan

    problem = make_problem()
    made = make(name, options, problem)
    tree = simulate(made, problem, objective, runs=7, workers=2).tree
    # Of a pool all of whose members are lost, nobody is left to fork.
    assert len(tree) == min(7, made.num_roots or 7)
    assert {run.status for run in tree} == {"failed" if outcome == "fail" else "diverged"}


@every_strategy
@pytest.mark.parametrize("loss", [1.5, math.inf, -math.inf])
def test_ends_where_every_evaluation_says_the_same(name: str, options: Options, loss: float) -> None:
    problem = make_problem()
    outcome = simulate(
        make(name, options, problem),
        problem,
        lambda *_: loss,
        runs=7,
        workers=2,
        remake=lambda: make(name, options, problem),
    )
    assert 1 <= len(outcome.tree.roots()) <= 7
    # A constant ranks nobody, and yet somebody reaches the horizon; with infinite losses, nobody need.
    assert loss != 1.5 or outcome.finished()


@every_strategy
def test_a_space_of_one_point(name: str, options: Options) -> None:
    """There is nothing to choose: it ends within its runs, whether it trains the point once or fills them."""
    space = Space.parse({"kind": {"choice": ["only"]}, "share": 1.0})
    problem = make_problem(space)
    outcome = simulate(
        make(name, options, problem),
        problem,
        lambda _, fraction: 1 - fraction,
        runs=4,
        workers=2,
        remake=lambda: make(name, options, problem),
    )
    assert 1 <= len(outcome.tree.roots()) <= 4
    assert {run.hyperparameters["kind"] for run in outcome.tree} == {"only"}
    assert outcome.finished()


@every_strategy
def test_begins_nothing_that_breaks_a_constraint(name: str, options: Options) -> None:
    """`simulate` checks every root and fork; a half of the space is forbidden, the priors' point in it."""

    def is_feasible(hyperparameters: Hyperparameters) -> bool:
        lr = hyperparameters["lr"]
        assert isinstance(lr, float)
        return lr < 1e-3

    problem = make_problem(is_feasible=is_feasible)
    if name == "pb2":  # each of its forks takes seconds where its bandit keeps pointing at what is forbidden
        options = {**options, "interval": 0.5}
    outcome = simulate(make(name, options, problem), problem, bowl, runs=8, workers=2)
    assert len(outcome.tree.roots()) >= 3
    assert outcome.finished()


@every_strategy
def test_a_study_that_is_complete_stays_complete(name: str, options: Options) -> None:
    problem = make_problem()
    tree = simulate(make(name, options, problem), problem, bowl, runs=6, workers=6).tree
    assert any(run.status == "finished" for run in tree)
    for free in (1, 4):
        assert make(name, options, problem).decide(tree, free_slots=free, left=Left({"runs": 0.0})) == []


@every_strategy
def test_proposes_nothing_without_a_free_worker(name: str, options: Options) -> None:
    problem = make_problem()
    assert make(name, options, problem).decide(Tree(), free_slots=0, left=Left({})) == []
    for prefix in simulate(make(name, options, problem), problem, bowl, runs=6).prefixes:
        assert make(name, options, problem).decide(prefix, free_slots=0, left=Left({})) == []


@every_strategy
def test_does_not_propose_what_is_pending(name: str, options: Options) -> None:
    """Six workers begin at once, and none of them gets what another has."""
    problem = make_problem()
    made = make(name, options, problem)
    actions = made.decide(Tree(), free_slots=6, left=Left({}))
    points = [dict(action.hyperparameters) for action in actions if isinstance(action, Start)]
    assert len(points) == min(6, made.num_roots or 6)
    assert all(point not in points[:i] for i, point in enumerate(points))


@every_strategy
def test_waits_for_active_runs_once_the_runs_are_used_up(name: str, options: Options) -> None:
    problem = make_problem()
    point = {"lr": 1e-3, "dropout": 0.1, "batch_size": 8, "epochs": 1, "adapter": "none", "warmup": 0.1, "share": 1.0}
    tree = Tree.of(
        Run(id=f"s-{i}", number=i, hyperparameters=point, horizon=900, until=100, status=status, origin=name)
        for i, status in enumerate(("running", "pending", "interrupted"))
    )
    assert make(name, options, problem).decide(tree, free_slots=2, left=Left({"runs": 0.0})) == []


@every_strategy
def test_knows_runs_of_others(name: str, options: Options) -> None:
    """A baseline outside the space, and a fork made by hand, do no harm and shift no sequence."""
    problem = make_problem()
    fresh = make(name, options, problem).decide(Tree(), free_slots=1, left=Left({}))
    outside = {"lr": 5.0, "batch_size": 64, "share": 1.0}
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


@every_strategy
def test_what_a_person_stops_is_left_alone(name: str, options: Options) -> None:
    """The best run of all is stopped by hand as soon as it rests: it is not continued, and the study ends."""
    problem = make_problem()
    first = simulate(make(name, options, problem), problem, bowl, runs=8, workers=2)
    resting = [tree for tree in first.prefixes if any(run.status == "paused" for run in tree)]
    for tree in resting[: 1 if takes_sampler(name) else 3]:
        stopped = next(run.id for run in tree if run.status == "paused")
        runs = {r.id: r for r in killed(tree)}
        fields = {**vars(runs[stopped]), "status": "stopped"}
        again = simulate(
            make(name, options, problem),
            problem,
            bowl,
            runs=8,
            workers=2,
            tree=Tree({**runs, stopped: Run(**fields)}),
            remake=lambda: make(name, options, problem),
        )
        assert again.tree[stopped].status == "stopped"
        touched = [
            action
            for action in again.actions
            if (isinstance(action, Continue) and action.run == stopped)
            or (isinstance(action, Fork) and action.parent == stopped)
        ]
        assert touched == []


def test_more_points_in_the_grid_than_the_budget_has_runs() -> None:
    """As many are trained as the budget has room for, spread over the grid; and the same number by runs or compute."""
    problem = make_problem(Space.parse({"lr": {"log": [1e-4, 1e-2]}, "kind": {"choice": ["a", "b"]}, "share": 1.0}))
    made = make("grid", {"resolution": 10}, problem)
    by_runs = simulate(made, problem, bowl, runs=6)
    by_compute = simulate(made, problem, bowl, runs=None, budget=6.0 * 1800)
    assert made.num_roots == 20
    assert len(by_runs.finished()) == len(by_compute.finished()) == 6
    assert [run.hyperparameters for run in by_runs.tree] == [run.hyperparameters for run in by_compute.tree]
    assert {run.hyperparameters["kind"] for run in by_runs.tree} == {"a", "b"}


def test_every_sampler_is_tried_with_rungs() -> None:
    assert {options["sampler"] for name, options in CASES if name == "halving"} == {*SAMPLERS}
