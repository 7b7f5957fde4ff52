"""Intervals, verdicts and the facts behind the summary."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest

from thalweg.report.findings import changed, summary_dict, verdict
from thalweg.report.intervals import newcombe, overlap
from thalweg.report.view import StudyView
from thalweg.trainer import Estimate
from thalweg.tree import Metric, Report


def test_newcombe_gives_the_published_interval(make: SimpleNamespace) -> None:
    # Newcombe 1998, table II, case (a): 56/70 against 48/80, method 10.
    gap = newcombe(make.estimate(56 / 70, 70), make.estimate(48 / 80, 80))
    assert gap is not None
    assert gap.value == pytest.approx(0.2)
    assert (round(gap.low, 4), round(gap.high, 4)) == (0.0524, 0.3339)
    assert not gap.is_noise


def test_newcombe_at_the_boundary_stays_within_one(make: SimpleNamespace) -> None:
    # The same table, case (h): 10/10 against 0/10 gives 0.6075 to 1.
    gap = newcombe(make.estimate(1.0, 10), make.estimate(0.0, 10))
    assert gap is not None
    assert (round(gap.low, 4), round(gap.high, 4)) == (0.6075, 1.0)


def test_newcombe_changes_sign_with_the_order(make: SimpleNamespace) -> None:
    first, second = make.estimate(0.7, 50), make.estimate(0.6, 90)
    one, other = newcombe(first, second), newcombe(second, first)
    assert one is not None
    assert other is not None
    assert one.low == pytest.approx(-other.high)
    assert one.is_noise


@pytest.mark.parametrize("bad", [Estimate(math.nan, 0, 1, 10), Estimate(0.5, -math.inf, 1, 10), Estimate(0.5, 0, 1, 0)])
def test_unusable_estimates_are_not_compared(bad: Estimate, make: SimpleNamespace) -> None:
    assert newcombe(bad, make.estimate(0.5, 10)) is None
    assert overlap(make.estimate(0.5, 10), bad) is None


def two_runs(make: SimpleNamespace, ours: Estimate | None, theirs: Estimate | None, **changes: object) -> StudyView:
    runs = [make.baseline(), make.run(1, reports=(Report(6000, {"accuracy": 0.9, "loss": 0.2}),))]
    pairs = (("imdb-1", ours), ("imdb-0", theirs))
    tests = {run_id: (6000, {"accuracy": e, "loss": e}) for run_id, e in pairs if e is not None}
    view: StudyView = make.view(runs, tests=tests, **changes)
    return view


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (0.86, 0.80, "+6.0 points, which is more than noise"),
        (0.81, 0.80, "+1.0 points, which may be noise"),
        (0.70, 0.80, "-10.0 points, for the worse, which is more than noise"),
        (None, 0.80, "no held-back test results"),
        (math.nan, 0.80, "cannot be compared"),
    ],
)
def test_verdict_on_accuracy(make: SimpleNamespace, ours: float | None, theirs: float, expected: str) -> None:
    view = two_runs(make, None if ours is None else make.estimate(ours, 1000), make.estimate(theirs, 1000))
    assert expected in verdict(view)


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (Estimate(0.2, 0.19, 0.21, 500), "-0.2, which is more than noise: the two 95% intervals do not overlap"),
        (Estimate(0.38, 0.3, 0.46, 500), "-0.02, which may be noise: the two 95% intervals overlap"),
        (Estimate(0.6, 0.58, 0.62, 500), "+0.2, for the worse, which is more than noise"),
    ],
)
def test_verdict_on_a_metric_to_minimise(make: SimpleNamespace, ours: Estimate, expected: str) -> None:
    view = two_runs(make, ours, Estimate(0.4, 0.36, 0.44, 500), metric=Metric("loss", "min"))
    assert expected in verdict(view)


def test_verdict_without_runs_baseline_or_winner(make: SimpleNamespace) -> None:
    assert "No run has finished" in verdict(make.view([]))
    assert "no baseline" in verdict(make.view([make.run(1)]))
    assert "Only the baseline has finished" in verdict(make.view([make.baseline()]))
    worse = make.run(1, reports=(Report(6000, {"accuracy": 0.5}),))
    assert "keep its hyperparameters" in verdict(make.view([make.baseline(), worse]))


def test_a_baseline_that_diverged_is_named(make: SimpleNamespace) -> None:
    baseline = make.baseline(status="diverged", reports=(Report(100, {"accuracy": math.nan}),))
    assert "not a number" in verdict(make.view([baseline, make.run(1)]))


def test_changed_names_what_differs_from_the_baseline(make: SimpleNamespace) -> None:
    values = {"lr": 1e-4, "batch_size": 8, "epochs": 3, "warmup_fraction": 0.1}
    run = make.run(1, hyperparameters=values)
    assert changed(make.view([make.baseline(), run]), run) == {"lr": (5e-5, 1e-4)}


def test_a_configured_baseline_stands_in_for_one_that_has_not_run(make: SimpleNamespace) -> None:
    run = make.run(1, hyperparameters={"lr": 1e-4, "batch_size": 16})
    view = make.view([run], config={"baseline": {"lr": 1e-4, "batch_size": 8}})
    assert changed(view, run) == {"batch_size": (8, 16)}


def test_facts_add_up_and_are_json(make: SimpleNamespace) -> None:
    view = make.rich_view(14)
    facts = json.loads(json.dumps(summary_dict(view), allow_nan=False))
    assert facts["runs"]["total"] == 14
    assert sum(facts["runs"]["by_status"].values()) == 14
    assert {f["run"]: f["error"] for f in facts["failures"]} == {
        "imdb-4": "ValueError: out of range",
        "imdb-7": "the loss is nan at position 400",
    }
    kinds = facts["spent"]["by_kind"]
    assert sum(kinds[kind]["tokens"] for kind in kinds) == facts["spent"]["total"]["tokens"]
    lost = sum(view.ledger.of(run_id).tokens for run_id in ("imdb-4", "imdb-7"))
    assert facts["spent"]["failed_and_diverged"]["tokens"] == lost
    scores = [run["validation"] for run in facts["top"]]
    assert scores == sorted(scores, reverse=True)
    assert facts["top"][0] == facts["best"]


def test_facts_keep_numbers_that_json_has_no_word_for(make: SimpleNamespace) -> None:
    baseline = make.baseline(status="diverged", reports=(Report(100, {"accuracy": -math.inf}),))
    facts = summary_dict(make.view([baseline]))
    assert facts["best"] is None
    assert facts["baseline"]["validation"] == "-inf"


def test_comparison_says_what_the_verdict_says(make: SimpleNamespace) -> None:
    view = two_runs(make, make.estimate(0.86, 1000), make.estimate(0.80, 1000))
    comparison = summary_dict(view)["comparison"]
    assert comparison["more_than_noise"] is True
    assert comparison["low"] < comparison["test_difference"] < comparison["high"]
    assert comparison["method"] == "Newcombe hybrid score"


def test_crashed_runs_are_counted_as_such(make: SimpleNamespace) -> None:
    view = make.view([make.run(1, status="running")], crashed=frozenset({"imdb-1"}))
    assert summary_dict(view)["runs"]["by_status"] == {"crashed": 1}
