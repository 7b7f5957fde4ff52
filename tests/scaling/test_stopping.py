"""Rules that end a study, and the expected improvement."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from thalweg.errors import ConfigError
from thalweg.scaling.stopping import Stopping, _expected_best, _next_gain, expected_improvement, verdict
from thalweg.tree import Metric, Report, Run, Tree

ACCURACY = Metric("accuracy", "max")


def run(number: int, value: float, **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "status": "finished",
        "origin": "random",
        "reports": (Report(9, {"accuracy": value}),),
    } | changes
    return Run(
        id=f"s-{number}", number=number, hyperparameters={"lr": number}, horizon=9, until=9, position=9, **fields
    )


def test_the_expected_best_is_the_mean_over_all_choices() -> None:
    results = np.sort(np.random.default_rng(0).normal(size=9))
    for size in range(1, 10):
        means = [min(chosen) for chosen in itertools.combinations(results, size)]
        assert _expected_best(results, size) == pytest.approx(np.mean(means))


def test_the_expected_improvement_of_uniform_results() -> None:
    """The best of n uniform numbers is 1 / (n + 1) on average, so that one more gains 1 / ((n + 1) (n + 2))."""
    rng = np.random.default_rng(0)
    for num in (12, 60):
        gains = [_next_gain(rng.uniform(size=num)) for _ in range(400)]
        assert np.mean(gains) == pytest.approx(1 / ((num + 1) * (num + 2)), rel=0.15)


def test_the_later_half_counts_where_it_says_more() -> None:
    """Of exchangeable results it always does, knowing only half of them: the search errs towards going on."""
    rng = np.random.default_rng(1)
    found = [expected_improvement(rng.uniform(size=60)) for _ in range(400)]
    assert np.mean(found) == pytest.approx(1 / (31 * 32), rel=0.15)  # type: ignore[arg-type]
    # Too few for a half of their own.
    found = [expected_improvement(rng.uniform(size=12)) for _ in range(400)]
    assert np.mean(found) == pytest.approx(1 / (13 * 14), rel=0.15)  # type: ignore[arg-type]


def test_it_says_nothing_too_early_and_never_less_than_zero() -> None:
    assert expected_improvement([1.0] * 9) is None
    assert expected_improvement([math.inf] * 12) is None
    gain = expected_improvement([math.inf, *np.linspace(1, 2, 12)])
    assert gain is not None
    assert 0 < gain < 0.1


def test_a_search_that_still_gets_better_goes_on() -> None:
    """Early results far off say nothing of what the later ones still gain."""
    early, later = [5.0 + i for i in range(10)], [2.0 - 0.1 * i for i in range(10)]
    gain = expected_improvement([*early, *later])
    alone = expected_improvement(later)
    assert gain is not None
    assert alone is not None
    assert gain >= alone > 0.005


def test_a_target_is_met_by_a_finished_run_alone() -> None:
    rule = Stopping(target=0.9)
    paused = run(0, 0.95, status="paused")
    assert verdict(Tree.of([paused]), ACCURACY, rule) is None
    assert verdict(Tree.of([paused, run(1, 0.89)]), ACCURACY, rule) is None
    met = verdict(Tree.of([paused, run(1, 0.9)]), ACCURACY, rule)
    assert met is not None
    assert met.reason == "s-1 has reached 0.9; the target was 0.9."
    assert verdict(Tree.of([run(0, 0.9)]), Metric("accuracy", "min"), Stopping(target=0.95)) is not None


def test_runs_without_improvement_are_those_that_began_after_the_best() -> None:
    rule = Stopping(max_runs_without_improvement=2)
    runs = [run(0, 0.5), run(1, 0.8), run(2, 0.7), run(3, 0.6, status="paused")]
    assert verdict(Tree.of(runs[:3]), ACCURACY, rule) is None
    assert verdict(Tree.of(runs), ACCURACY, rule) is not None
    for other in ({"status": "running"}, {"origin": "hand"}, {"origin": "baseline"}, {"parent": "s-0"}):
        assert verdict(Tree.of([*runs[:3], run(3, 0.6, **other)]), ACCURACY, rule) is None
    # A fork that is the best began with its root.
    fork = run(4, 0.9, parent="s-1", fork_position=3)
    assert verdict(Tree.of([*runs, fork]), ACCURACY, rule) is not None


def test_little_to_expect_ends_a_study() -> None:
    flat = [run(i, 0.8 + 0.001 * (i % 4)) for i in range(20)]
    met = verdict(Tree.of(flat), ACCURACY, Stopping(min_improvement=0.002))
    assert met is not None
    assert "By the 20 results so far, the next run is expected to improve accuracy by" in met.reason
    wide = [run(i, 0.03 * ((7 * i) % 20)) for i in range(20)]
    assert verdict(Tree.of(wide), ACCURACY, Stopping(min_improvement=0.002)) is None
    assert verdict(Tree(), ACCURACY, Stopping(min_improvement=0.002)) is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"min_improvment": 0.1}, "unknown rule 'min_improvment'. Did you mean 'min_improvement'"),
        ({"min_improvement": 0}, "must be above zero, such as 0.002"),
        ({"min_improvement": "much"}, "stopping.min_improvement = 'much' must be a number"),
        ({"max_runs_without_improvement": 0}, "must be at least 1, such as 10"),
        ({"max_runs_without_improvement": 2.5}, "must be a whole number"),
        ({"max_runs_without_improvement": True}, "must be a whole number"),
        ({"target": math.inf}, "stopping.target = inf must be a finite value"),
        ({}, "it sets no rule"),
    ],
)
def test_bad_rules_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Stopping.parse(spec)
    assert message in str(error.value)
