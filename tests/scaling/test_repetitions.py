"""Repetitions under other seeds: grouping, intervals, and who is recommended."""

from __future__ import annotations

import math
import random
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thalweg.scaling.repetitions import best_run, confirmed, final_value, welch
from thalweg.tree import Metric, Report, Run, Status, Tree

LOSS = Metric("loss", "min")
ACCURACY = Metric("accuracy", "max")


def run(number: int, lr: Any, seed: int, value: float | None, **changes: Any) -> Run:
    status: Status = "diverged" if value is None else "finished"
    reports = () if value is None else (Report(9, {"loss": value, "accuracy": 1 - value}),)
    fields: dict[str, Any] = {"status": status, "position": 9, "reports": reports} | changes
    return Run(id=f"s-{number}", number=number, hyperparameters={"lr": lr}, horizon=9, until=9, seed=seed, **fields)


def test_a_mean_and_its_interval_by_hand() -> None:
    """Of 1 and 3: mean 2, deviation sqrt 2, standard error 1, and t with one degree of freedom is 12.7062."""
    (group,) = confirmed(Tree.of([run(0, 0.1, 0, 1.0), run(1, 0.1, 7, 3.0), run(2, 0.2, 0, 0.5)]), LOSS)
    assert (group.runs, group.seeds, group.values, group.mean) == (("s-0", "s-1"), (0, 7), (1.0, 3.0), 2.0)
    assert (group.low, group.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_the_best_mean_comes_first_in_either_direction_and_any_order_of_the_runs() -> None:
    runs = [run(0, 0.1, 0, 0.30), run(1, 0.2, 0, 0.25), run(2, 0.1, 1, 0.32), run(3, 0.2, 1, 0.45)]
    random.Random(3).shuffle(runs)
    tree = Tree({each.id: each for each in runs})
    for metric in (LOSS, ACCURACY):
        first, second = confirmed(tree, metric)
        assert (first.hyperparameters["lr"], second.hyperparameters["lr"]) == (0.1, 0.2)
    # The single best run, s-1, was lucky: the other configuration has the better mean.
    assert best_run(tree, LOSS) == tree["s-0"]


def test_only_other_seeds_are_repetitions() -> None:
    same_seed = [run(0, 0.1, 0, 0.3), run(1, 0.1, 0, 0.3)]
    unfinished = [run(2, 0.1, 1, 0.2, status="paused"), run(3, 0.1, 2, 0.2, status="failed")]
    no_metric = [run(4, 0.1, 3, 0.2, reports=(Report(9, {"other": 1.0}),))]
    assert confirmed(Tree.of([*same_seed, *unfinished, *no_metric]), LOSS) == []


def test_true_is_not_one() -> None:
    tree = Tree.of([run(0, True, 0, 0.3), run(1, 1, 1, 0.3), run(2, 1.0, 2, 0.3)])
    assert confirmed(tree, LOSS) == []


def test_forks_are_grouped_by_their_whole_lineage() -> None:
    roots = [run(0, 0.1, 0, 0.9, status="paused"), run(1, 0.1, 1, 0.9, status="paused")]
    roots.append(run(2, 0.3, 2, 0.9, status="paused"))
    forks = [run(3 + i, 0.2, i, 0.3, parent=f"s-{i}", fork_position=4) for i in range(3)]
    (group,) = confirmed(Tree.of([*roots, *forks]), LOSS)
    assert group.runs == ("s-3", "s-4")
    elsewhere = [forks[0], run(4, 0.2, 1, 0.3, parent="s-1", fork_position=5)]
    assert confirmed(Tree.of([*roots, *elsewhere]), LOSS) == []


@pytest.mark.parametrize(("metric", "worst"), [(LOSS, math.inf), (ACCURACY, -math.inf)])
def test_a_repetition_that_diverged_counts_as_the_worst_there_is(metric: Metric, worst: float) -> None:
    tree = Tree.of([run(0, 0.1, 0, 0.2), run(1, 0.1, 1, None), run(2, 0.2, 0, 0.4), run(3, 0.2, 1, 0.4)])
    first, second = confirmed(tree, metric)
    assert (first.hyperparameters["lr"], second.mean) == (0.2, worst)
    assert math.isnan(second.low)
    assert math.isnan(second.high)
    assert best_run(tree, metric) == tree["s-2"]
    nan = run(4, 0.2, 5, math.nan)
    assert final_value(nan, metric) == worst


def test_where_all_repetitions_diverged_the_single_best_run_stays() -> None:
    tree = Tree.of([run(0, 0.1, 0, 0.2), run(1, 0.1, 1, None)])
    assert best_run(tree, LOSS) == tree["s-0"]
    assert best_run(Tree(), LOSS) is None


def test_repetitions_of_another_configuration_alone_change_nothing() -> None:
    tree = Tree.of([run(0, 0.1, 0, 0.2), run(1, 0.2, 0, 0.4), run(2, 0.2, 1, 0.4)])
    assert best_run(tree, LOSS) == tree["s-0"]


samples = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=2, max_size=8)


@given(first=samples, second=samples)
def test_welch_agrees_with_scipy(first: list[float], second: list[float]) -> None:
    gap = welch(first, second)
    assert gap is not None
    assert gap.value == pytest.approx(sum(first) / len(first) - sum(second) / len(second), abs=1e-9)
    if len({*first}) == len({*second}) == 1:
        assert (gap.low, gap.high) == (gap.value, gap.value)
        return
    if max(max(s) - min(s) for s in (first, second)) < 0.1:
        return  # too near to equal for scipy's precision
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # one of the two may be constant
        theirs = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (gap.low, gap.high) == pytest.approx((theirs.low, theirs.high), rel=1e-6, abs=1e-6)


def test_welch_says_nothing_of_one_value_or_an_infinite_one() -> None:
    assert welch([1.0], [1.0, 2.0]) is None
    assert welch([1.0, math.inf], [1.0, 2.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]).is_noise is False  # type: ignore[union-attr]
