"""The tree of runs: order, lineage, evaluations and the best run."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.tree import Metric, Report, Run, Status, Tree, final_loss

ACCURACY = Metric("accuracy", "max")


def run(number: int, *reports: tuple[int, float], parent: int | None = None, status: Status = "finished") -> Run:
    return Run(
        id=f"s-{number}",
        number=number,
        hyperparameters={"lr": 0.1},
        horizon=100,
        until=100,
        parent=None if parent is None else f"s-{parent}",
        status=status,
        reports=tuple(Report(position, {"accuracy": value}) for position, value in reports),
    )


def ids(runs: list[Run]) -> list[str]:
    return [run.id for run in runs]


@given(st.permutations(range(6)))
def test_runs_are_in_order_of_creation(order: list[int]) -> None:
    assert [r.number for r in Tree.of(run(number) for number in order)] == list(range(6))


def test_absorbing_a_run_again_keeps_its_place() -> None:
    tree = Tree.of([run(0, status="running"), run(1)])
    tree.absorb(dataclasses.replace(tree["s-0"], status="finished", position=100))
    tree.absorb(run(2))
    assert ids(list(tree)) == ["s-0", "s-1", "s-2"]
    assert tree["s-0"].position == 100
    assert len(tree) == 3


def test_roots_children_and_lineage() -> None:
    tree = Tree.of([run(0), run(1, parent=0), run(2, parent=1), run(3, parent=0), run(4)])
    assert ids(tree.roots()) == ["s-0", "s-4"]
    assert ids(tree.children("s-0")) == ["s-1", "s-3"]
    assert ids(tree.lineage("s-2")) == ["s-0", "s-1", "s-2"]
    assert ids(tree.lineage("s-4")) == ["s-4"]
    with pytest.raises(KeyError):
        tree["s-9"]


@pytest.mark.parametrize(
    ("status", "active", "ended", "waits"),
    [
        ("pending", True, False, True),
        ("running", True, False, False),
        ("paused", False, False, False),
        ("interrupted", True, False, True),
        ("finished", False, True, False),
        ("diverged", False, True, False),
        ("failed", False, True, False),
        ("stopped", False, True, False),
    ],
)
def test_what_each_status_means(status: Status, active: bool, ended: bool, waits: bool) -> None:
    one = run(0, status=status)
    assert (one in Tree.of([one]).active(), one.ended, one.waits_for_worker) == (active, ended, waits)


def test_report_at_takes_the_step_boundary_that_follows() -> None:
    one = run(0, (30, 0.1), (64, 0.2), (100, 0.3))
    found = {position: one.report_at(position) for position in (0, 30, 31, 100, 101)}
    reached = {position: report and report.position for position, report in found.items()}
    assert reached == {0: 30, 30: 30, 31: 64, 100: 100, 101: None}


def test_the_best_run_is_finished_and_judged_by_its_last_evaluation() -> None:
    tree = Tree.of(
        [
            run(0, (50, 0.99), (100, 0.7)),
            run(1, (100, 0.8)),
            run(2, (100, 0.8)),
            run(3, (50, 0.95), status="paused"),
            run(4, (50, 0.95), status="stopped"),
            run(5, (50, 0.95), status="diverged"),
            run(6, (100, math.nan)),
        ]
    )
    best = tree.best(ACCURACY)
    assert best is not None
    assert best.id == "s-1"
    lowest = tree.best(Metric("accuracy", "min"))
    assert lowest is not None
    assert lowest.id == "s-0"


def test_there_is_no_best_run_where_none_has_a_finite_result() -> None:
    assert Tree().best(ACCURACY) is None
    assert Tree.of([run(0, status="diverged"), run(1, (100, math.nan)), run(2)]).best(ACCURACY) is None


def test_final_loss_is_something_to_minimise() -> None:
    assert final_loss(run(0, (100, 0.8)), ACCURACY) == -0.8
    assert final_loss(run(0, (100, 0.8)), Metric("accuracy", "min")) == 0.8
    assert final_loss(run(0, (100, math.nan)), ACCURACY) == math.inf
    assert final_loss(run(0, status="diverged"), ACCURACY) == math.inf
    assert final_loss(run(0, (50, 0.8), status="paused"), ACCURACY) is None
    assert final_loss(run(0, (100, 0.8)), Metric("f1", "max")) is None
    assert final_loss(run(0), ACCURACY) is None


@pytest.mark.parametrize(
    ("spec", "metric"),
    [
        ("accuracy", ACCURACY),
        ("perplexity", Metric("perplexity", "min")),
        ("max reward", Metric("reward", "max")),
        ("min accuracy", Metric("accuracy", "min")),
        (ACCURACY, ACCURACY),
    ],
)
def test_reads_metrics(spec: str | Metric, metric: Metric) -> None:
    assert Metric.parse(spec) == metric
    assert Metric.parse(str(metric)) == metric


@pytest.mark.parametrize("spec", ["reward", "acuracy", "maximal reward", "max", "", "max a b"])
def test_refuses_metrics_without_a_direction(spec: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"metric = {spec!r}")):
        Metric.parse(spec)


def test_names_the_nearest_metric() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        Metric.parse("acuracy")
