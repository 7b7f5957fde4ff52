"""Where rungs lie, what is refused, and what is kept for a last run."""

from __future__ import annotations

import math

import pytest
from hand_made import PROBLEM, Script, decide, run

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import STRATEGIES, strategy
from thalweg.search.halving import Halving
from thalweg.search.rungs import shares
from thalweg.search.successive_halving import SuccessiveHalving
from thalweg.tree import Continue, Report, Start

RUNGED = ("halving", "asha", "successive_halving", "hyperband", "bohb", "lr_race")


@pytest.mark.parametrize("name", RUNGED)
def test_rungs_may_be_given(name: str) -> None:
    (action,) = decide(strategy(name, {"rungs": [0.1, 0.5, 1]}, PROBLEM))
    assert isinstance(action, Start)
    assert action.until == 90


def test_given_rungs_are_where_runs_go_on_to() -> None:
    halving = Halving(PROBLEM, Script(), "tested", rungs=[0.1, 0.5, 1.0])
    assert decide(halving, *(run(i, float(i), positions=(90,)) for i in range(3))) == [Continue("s-0", 450, "tested")]
    # A tenth for all, four tenths for a third, half for a ninth.
    assert math.isclose(halving.share, 0.1 + 0.4 / 3 + 0.5 / 9)


@pytest.mark.parametrize("name", RUNGED)
@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        ([0.3, 0.1, 1], r"rungs = \[0.3, 0.1, 1\] must rise"),
        ([0.1, 0.1, 1], "must rise"),
        ([0.0, 1], "above 0 and at most 1"),
        ([0.5, 1.5], "above 0 and at most 1"),
        ([float("nan"), 1], "above 0 and at most 1"),
        ([0.1, 0.3], "must end at 1"),
        ([1], "must be 2 to 20 shares"),
        ([], "must be 2 to 20 shares"),
        ("0.1,1", "must be a list of numbers"),
        ([0.1, "1"], "must be a list of numbers"),
        ([0.1, True], "must be a list of numbers"),
        (0.1, "must be a list of numbers"),
    ],
)
def test_refuses_rungs(name: str, rungs: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        strategy(name, {"rungs": rungs}, PROBLEM)


def test_two_ways_to_say_where_rungs_are() -> None:
    with pytest.raises(ConfigError, match=r"num_rungs = 3 and rungs = \[0.5, 1\] say the same; give one of them"):
        shares(eta=3, num_rungs=3, first_fraction=None, rungs=[0.5, 1])


def test_trunks_and_shortened_schedules_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="trunk = true and shortened = true exclude each other"):
        strategy("halving", {"trunk": True, "shortened": True}, PROBLEM)


def test_asha_is_halving() -> None:
    assert STRATEGIES["asha"] == STRATEGIES["halving"]
    assert strategy("asha", {}, PROBLEM).share == strategy("halving", {}, PROBLEM).share


def test_the_first_evaluation_with_the_metric_counts() -> None:
    """Run 0 reports the study's metric at 150 only; at 100 it reports another."""
    halving = Halving(PROBLEM, Script(), "tested")
    reports = (Report(100, {"perplexity": 1.0}), Report(150, {"loss": 0.5, "perplexity": 1.0}))
    late = run(0, status="paused", position=150, reports=reports)
    assert decide(halving, late, run(1, 1.0), run(2, 2.0)) == [Continue("s-0", 300, "tested")]


def test_a_run_without_the_metric_is_not_promoted_by_what_it_was_lower_down() -> None:
    """Run 0 was the best at the first rung, and has nothing to be ranked by at the second."""
    reports = (Report(100, {"loss": 0.1}), Report(300, {"perplexity": 1.0}))
    lacking = run(0, status="paused", position=300, reports=reports)
    halving = Halving(PROBLEM, Script(), "tested")
    five = [run(i, float(i)) for i in range(1, 5)]
    assert decide(halving, lacking, *five) == [Start({"x": 0.05}, 100, "tested")]
    # At the end, too, one with a result goes on rather than it.
    assert decide(halving, lacking, *five, left=Left({"runs": 0.0})) == [Continue("s-1", 300, "tested")]


def test_room_for_a_last_run_is_kept() -> None:
    """A third of each of three runs would be 2/3 of a whole run; one of them to its horizon takes 8/9, with a margin
    of 15% after its first step 2/9 + 1.15 * 6/9 = 0.99."""
    strategy = SuccessiveHalving(PROBLEM, Script(), "tested")
    nine = [run(i, float(i)) for i in range(9)]

    def go_on(whole_runs: float | None) -> list[str]:
        left = Left({"seconds": 100.0, "runs": 0.0}, whole_runs)
        return [action.run for action in decide(strategy, *nine, free=3, left=left) if isinstance(action, Continue)]

    assert go_on(2.0) == go_on(None) == ["s-0", "s-1", "s-2"]
    assert go_on(1.5) == ["s-0", "s-1", "s-2"]  # 1.5 - 3 * 2/9 = 0.83, above 0.77
    assert go_on(1.4) == ["s-0", "s-1"]
    assert go_on(1.0) == ["s-0"]
    # Not enough for any by this reckoning: the best tries.
    assert go_on(0.9) == ["s-0"]
    done = run(9, 0.1, 0.1, 0.1)
    left = Left({"seconds": 100.0, "runs": 0.0}, 0.3)
    assert len(decide(strategy, *nine, done, free=3, left=left)) == 3
