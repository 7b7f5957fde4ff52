"""Two-stage Bayesian optimisation: what it costs, who goes on, and what it does when there is less than it needs."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_workers import Outcome, simulate

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import Problem, strategy
from thalweg.search.strategy import Branch
from thalweg.search.two_stage import affordable
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Continue, Fork, Metric, Report, Run, Start, Tree

SPACE = Space.parse({"x": {"linear": [0.0, 1.0]}})
HORIZON = 1000


def make_problem(**changes: object) -> Problem:
    fields: dict[str, object] = {
        "space": SPACE,
        "metric": Metric("loss", "min"),
        "horizon": lambda _: HORIZON,
        "seed": 0,
    }
    return Problem(**(fields | changes))  # type: ignore[arg-type]


def x(hyperparameters: Hyperparameters) -> float:
    value = hyperparameters["x"]
    assert isinstance(value, float)
    return value


def search(runs: int | None = None, objective=lambda h, _: x(h), **options: object) -> Outcome:  # type: ignore[no-untyped-def]
    problem = make_problem()
    return simulate(strategy("two_stage", {"sampler": "random", **options}, problem), problem, objective, runs=runs)


def test_the_defaults_cost_8_of_20_whole_runs() -> None:
    """N t1 + k (t2 - t1) = 20 * 0.2 + 5 * 0.8 = 8; facts.md's own numbers."""
    outcome = search()
    assert outcome.work == 8 * HORIZON
    assert len(outcome.tree) == 20
    assert len(outcome.finished()) == 5
    assert strategy("two_stage", {}, make_problem()).share * 20 == pytest.approx(8)


def test_the_best_early_runs_go_on_and_nobody_else() -> None:
    outcome = search(num_configs=9, top_k=3)
    best = sorted(outcome.tree, key=lambda run: x(run.hyperparameters))[:3]
    assert {run.id for run in outcome.finished()} == {run.id for run in best}
    continued = [action.run for action in outcome.actions if isinstance(action, Continue)]
    assert continued == [run.id for run in best]
    assert all(run.position == 200 for run in outcome.tree if run.status == "paused")


def test_the_sampler_learns_early_scores() -> None:
    """A TPE that is told them finds lower ones in its last ten proposals than in its first ten."""
    problem = make_problem()
    tree = simulate(strategy("two_stage", {"sampler": "tpe"}, problem), problem, lambda h, _: x(h), runs=None).tree
    values = [x(run.hyperparameters) for run in tree]
    assert sum(values[10:]) < sum(values[:10]) / 2


def test_stage_2_waits_for_every_early_score() -> None:
    done = Run(
        id="s-0", number=0, hyperparameters={"x": 0.1}, horizon=1000, until=200, position=200, status="paused",
        reports=(Report(200, {"loss": 0.1}),), origin="two_stage",
    )  # fmt: skip
    busy = dataclasses.replace(done, id="s-1", number=1, status="running", position=0, reports=())
    make = strategy("two_stage", {"sampler": "random", "num_configs": 2, "top_k": 1}, make_problem())
    assert make.decide(Tree.of([done, busy]), free_slots=3, left=Left({})) == []
    scored = dataclasses.replace(busy, status="paused", position=200, reports=(Report(200, {"loss": 0.05}),))
    assert make.decide(Tree.of([done, scored]), free_slots=3, left=Left({})) == [Continue("s-1", 1000, "two_stage")]


def test_one_that_is_lost_in_stage_2_is_replaced() -> None:
    def objective(hyperparameters: Hyperparameters, share: float) -> float:
        return math.nan if share > 0.5 and x(hyperparameters) < 0.3 else x(hyperparameters)

    outcome = search(num_configs=12, top_k=2, objective=objective)
    usable = sorted(x(run.hyperparameters) for run in outcome.tree if x(run.hyperparameters) >= 0.3)
    assert sorted(x(run.hyperparameters) for run in outcome.finished()) == usable[:2]
    assert any(run.status == "diverged" for run in outcome.tree)


def test_an_infinite_score_is_never_continued() -> None:
    assert search(num_configs=4, top_k=2, objective=lambda *_: math.inf).finished() == []


def test_a_run_without_the_metric_at_its_rung_is_left_and_the_study_ends() -> None:
    run = Run(
        id="s-0", number=0, hyperparameters={"x": 0.1}, horizon=1000, until=200, position=200, status="paused",
        reports=(Report(200, {"accuracy": 0.1}),), origin="two_stage",
    )  # fmt: skip
    make = strategy("two_stage", {"sampler": "random", "num_configs": 1, "top_k": 1}, make_problem())
    assert make.decide(Tree.of([run]), free_slots=1, left=Left({})) == []


def test_a_limit_on_runs_shortens_stage_1_only() -> None:
    outcome = search(runs=7)
    assert (len(outcome.tree), len(outcome.finished())) == (7, 5)


def test_the_baseline_is_not_continued_and_a_run_by_hand_is() -> None:
    by_hand = Run(
        id="s-0", number=0, hyperparameters={"x": 0.2}, horizon=1000, until=200, position=200, status="paused",
        reports=(Report(200, {"loss": -5.0}),),
    )  # fmt: skip
    baseline = dataclasses.replace(
        by_hand, id="s-1", number=1, origin="baseline", reports=(Report(200, {"loss": -9.0}),)
    )
    problem = make_problem()
    make = strategy("two_stage", {"sampler": "random", "num_configs": 4, "top_k": 1}, problem)
    tree = simulate(make, problem, lambda h, _: x(h), runs=None, tree=Tree.of([by_hand, baseline])).tree
    assert [run.id for run in tree if run.status == "finished"] == ["s-0"]
    assert len(tree) == 6


def test_over_trunks_stage_1_is_scored_on_a_branch() -> None:
    """A decay over the last tenth: the branch for a budget of 200 begins at 180."""

    def branch(_: Hyperparameters, budget: int) -> Branch:
        return Branch(round(0.9 * budget), {"total": budget})

    problem = make_problem(
        space=Space.parse({"x": {"linear": [0.0, 1.0]}, "total": 1000}),
        branch=branch,
        horizon=lambda hyperparameters: hyperparameters["total"],
    )
    options = {"sampler": "random", "num_configs": 4, "top_k": 1, "trunk": True}
    outcome = simulate(strategy("two_stage", options, problem), problem, lambda h, _: x(h), runs=None)
    assert [action.until for action in outcome.actions if isinstance(action, Start)] == [180] * 4
    assert [(action.at, action.until) for action in outcome.actions if isinstance(action, Fork)] == [(180, 200)] * 4
    # 4 trunks to 180 and branches of 20, and one trunk from 180 to 1000.
    assert outcome.work == 4 * 200 + 820
    assert strategy("two_stage", options, problem).share == pytest.approx(outcome.work / 4000)


@pytest.mark.parametrize(
    ("whole_runs", "expected"),
    [(8.0, (20, 5)), (100.0, (20, 5)), (4.0, (12, 2)), (2.0, (6, 1)), (1.0, (1, 1)), (0.1, (1, 1))],
)
def test_a_smaller_budget_by_hand(whole_runs: float, expected: tuple[int, int]) -> None:
    """4 of 8: k = floor(5 * 4 / 8) = 2, N = floor((4 - 2 * 0.8) / 0.2) = 12. 2 of 8: k = 1, N = 1.2 / 0.2 = 6."""
    assert affordable(20, 5, first=0.2, second=0.8, whole_runs=whole_runs) == expected


@given(num=st.integers(1, 50), k=st.integers(1, 50), first=st.floats(0.05, 0.95), whole_runs=st.floats(1.0, 60.0))
def test_what_is_affordable_fits_the_budget(num: int, k: int, first: float, whole_runs: float) -> None:
    k = min(k, num)
    configs, top = affordable(num, k, first=first, second=1 - first, whole_runs=whole_runs)
    assert 1 <= top <= min(configs, k)
    assert configs <= num
    assert configs * first + top * (1 - first) <= whole_runs + 2e-3


@pytest.mark.parametrize("whole_runs", [1.0, 2.0, 4.0])
def test_a_budget_that_ends_early_still_finishes_a_run(whole_runs: float) -> None:
    """The loop's own arithmetic: what is left is told, and what does not fit is dropped."""
    problem = make_problem()
    make = strategy("two_stage", {"sampler": "random"}, problem)

    class Limited:
        share, num_roots = make.share, make.num_roots

        def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[object]:
            spent = sum(run.until for run in tree) / HORIZON
            return list(make.decide(tree, free_slots=free_slots, left=Left(left.amounts, whole_runs - spent)))

    outcome = simulate(Limited(), problem, lambda h, _: x(h), runs=None)  # type: ignore[arg-type]
    assert outcome.work <= whole_runs * HORIZON
    assert len(outcome.finished()) >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_configs": 8, "top_k": 9}, r"strategy.top_k = 9 must be at most num_configs = 8"),
        ({"num_configs": 4}, r"strategy.top_k = 5 must be at most num_configs = 4"),
        ({"num_configs": 0}, r"strategy.num_configs = 0 must be at least 1"),
        ({"top_k": 0}, r"strategy.top_k = 0 must be at least 1"),
        ({"first_share": 1.0}, r"strategy.first_share = 1 must be between 0 and 1, such as 0.2"),
        ({"first_share": -0.1}, r"strategy.first_share = -0.1 must be"),
        ({"num_config": 3}, r"unknown option 'num_config'"),
        ({"trunk": True}, r"schedule = 'wsd' has one"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        strategy("two_stage", options, make_problem())
