"""Rules that end a study, around any strategy."""

from __future__ import annotations

import pytest
from virtual_workers import Outcome, simulate

from thalweg.errors import ConfigError
from thalweg.scaling.stopping import Stopping
from thalweg.search import Problem, strategy
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Metric

SPACE = Space.parse({"x": {"linear": [0.0, 1.0]}})


def problem(*objectives: str) -> Problem:
    parsed = tuple(map(Metric.parse, objectives))
    return Problem(space=SPACE, metric=Metric("loss", "min"), horizon=lambda _: 90, seed=0, objectives=parsed)


def study(name: str, stopping: Stopping, **options: object) -> Outcome:
    def loss(point: Hyperparameters, fraction: float) -> float:
        x = point["x"]
        assert isinstance(x, float)
        return x + 1 - fraction

    def make() -> object:
        return strategy(name, options, problem(), stopping=stopping)

    return simulate(make(), problem(), loss, runs=60, workers=2, remake=make)  # type: ignore[arg-type]


def test_a_target_ends_a_study() -> None:
    tree = study("random", Stopping(target=0.3)).tree
    assert min(run.reports[-1].metrics["loss"] for run in tree) <= 0.3
    # Two workers: the other one's run goes on to its end, and nothing begins after it.
    assert sum(run.reports[-1].metrics["loss"] <= 0.3 for run in tree) <= 2
    assert len(tree) < 20


def test_runs_without_improvement_end_a_study() -> None:
    tree = study("random", Stopping(max_runs_without_improvement=6)).tree
    losses = [run.reports[-1].metrics["loss"] for run in tree]
    best = losses.index(min(losses))
    assert 6 <= len(losses) - 1 - best <= 7


def test_what_has_begun_is_brought_to_an_end() -> None:
    """With halving a rule ends the beginnings; one run reaches its horizon all the same."""
    outcome = study("halving", Stopping(max_runs_without_improvement=3), sampler="random")
    assert outcome.finished()
    assert len(outcome.tree) < 60


def test_little_to_expect_ends_a_study() -> None:
    assert 10 <= len(study("random", Stopping(min_improvement=0.05)).tree) < 30
    assert len(study("random", Stopping(min_improvement=1e-6)).tree) == 60


def test_several_objectives_have_no_single_best_run() -> None:
    with pytest.raises(ConfigError, match="'target', a value of loss, would work"):
        strategy("random", {}, problem("min cost"), stopping=Stopping(min_improvement=0.1))
    strategy("random", {}, problem("min cost"), stopping=Stopping(target=0.1))
