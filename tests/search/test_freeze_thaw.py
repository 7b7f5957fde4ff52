"""Freeze-thaw: which run is thawed, when it ends, and what it leaves room for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from virtual_workers import simulate

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import Problem, strategy
from thalweg.search.freeze_thaw import expected_improvement
from thalweg.search.nearby import drawn, moved
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Action, Continue, Metric, Report, Run, Start, Tree

SPACE = Space.parse({"x": {"linear": [0.0, 1.0]}})


def make_problem(space: Space = SPACE, **changes: object) -> Problem:
    fields: dict[str, object] = {"space": space, "metric": Metric("loss", "min"), "horizon": lambda _: 1600, "seed": 0}
    return Problem(**(fields | changes))  # type: ignore[arg-type]


def loss(hyperparameters: Hyperparameters, share: float) -> float:
    x = hyperparameters["x"]
    assert isinstance(x, float)
    return (x - 0.3) ** 2 + 0.1 * (share**-0.5 - 1)


def make_run(number: int, x: float, losses: Mapping[int, float], **changes: object) -> Run:
    position = max(losses, default=0)
    fields: dict[str, object] = {
        "id": f"s-{number}",
        "number": number,
        "hyperparameters": {"x": x},
        "horizon": 1600,
        "until": position,
        "position": position,
        "status": "finished" if position >= 1600 else "paused",
        "reports": tuple(Report(at, {"loss": value}) for at, value in losses.items()),
        "origin": "freeze_thaw",
    }
    return Run(**(fields | changes))  # type: ignore[arg-type]


def decide(runs: Sequence[Run], problem: Problem | None = None, *, left: Left, slots: int = 1) -> list[Action]:
    made = strategy("freeze_thaw", {}, problem or make_problem())
    return made.decide(Tree.of(runs), free_slots=slots, left=left)


NO_STARTS = Left({"runs": 0.0})


def curve(final: float, until: int) -> dict[int, float]:
    return {at: final + 0.05 * (1600 / at) ** 0.5 for at in (100, 200, 400, 800, 1600) if at <= until}


def test_it_finds_the_minimum_of_a_bowl_without_training_every_run_to_its_end() -> None:
    problem = make_problem()
    outcome = simulate(strategy("freeze_thaw", {}, problem), problem, loss, runs=25)
    best = outcome.tree.best(problem.metric)
    assert best is not None
    assert abs(best.hyperparameters["x"] - 0.3) < 0.05  # type: ignore[operator]
    assert outcome.work < 25 * 1600 * 2 / 3


def test_rungs_double_and_end_at_the_horizon() -> None:
    problem = make_problem()
    outcome = simulate(strategy("freeze_thaw", {}, problem), problem, loss, runs=6)
    assert {action.until for action in outcome.actions if isinstance(action, Start)} == {100}
    assert {action.until for action in outcome.actions if isinstance(action, Continue)} <= {200, 400, 800, 1600}
    assert outcome.finished()


def test_the_run_that_promises_more_is_thawed() -> None:
    """Of two alike in cost, the lower curve; and none whose last result is not a number."""
    runs = [
        make_run(0, 0.1, curve(1.0, 1600)),
        make_run(1, 0.3, curve(0.9, 200)),
        make_run(2, 0.5, curve(0.5, 200)),
        make_run(3, 0.7, {100: 1.2, 200: math.inf}),
        make_run(4, 0.9, curve(1.5, 200)),
    ]
    assert decide(runs, left=NO_STARTS) == [Continue("s-2", 400, "freeze_thaw")]


def test_of_equal_promise_the_cheaper_is_thawed() -> None:
    """Runs that differ in nothing the model sees, with a trainer to which one is a hundred times as dear."""
    space = Space.parse({"x": {"linear": [0.0, 1.0]}, "dear": True})
    for dear in (1, 2):
        runs = [make_run(0, 0.1, curve(1.0, 1600)), make_run(3, 0.9, curve(1.3, 200))]
        runs += [make_run(n, 0.5, curve(0.8, 200), hyperparameters={"x": 0.5, "dear": n == dear}) for n in (1, 2)]
        problem = make_problem(
            space, cost=lambda point, begin, end: (end - begin) * (100.0 if point.get("dear") is True else 1.0)
        )
        assert decide(runs, problem, left=NO_STARTS) == [Continue(f"s-{3 - dear}", 400, "freeze_thaw")]


def test_it_ends_once_a_run_is_finished_and_no_other_may_beat_it() -> None:
    hopeless = [make_run(n, 0.5 + 0.1 * n, curve(5.0 + n, 800)) for n in (1, 2, 3)]
    assert decide([make_run(0, 0.1, curve(0.1, 1600)), *hopeless], left=NO_STARTS) == []
    # The same without a finished run: the best of them has to be.
    assert decide(hopeless, left=NO_STARTS) == [Continue("s-1", 1600, "freeze_thaw")]


def test_room_for_a_last_run_is_kept() -> None:
    """With room for 0.8 whole runs, only the run predicted best, at an eighth, may go on: it needs 0.875 - of which the
    loop drops what does not fit - and with room for 2 others may begin."""
    runs = [make_run(n, 0.2 * n, curve(0.5 + n, 200)) for n in range(5)]
    assert decide(runs, left=Left({}, 0.8)) == [Continue("s-0", 400, "freeze_thaw")]
    many = decide(runs, left=Left({}, 2.0), slots=3)
    assert len(many) == 3
    steps = [1 / 16 if isinstance(action, Start) else 200 / 1600 for action in many]
    assert sum(steps) <= 2.0 - 0.75


def test_a_batch_begins_in_different_places() -> None:
    runs = [make_run(n, x, curve((x - 0.3) ** 2, 1600)) for n, x in enumerate((0.05, 0.5, 0.75, 1.0))]
    actions = decide(runs, left=Left({}), slots=4)
    xs = sorted(action.hyperparameters["x"] for action in actions if isinstance(action, Start))  # type: ignore[type-var]
    assert len(xs) == 4
    assert min(np.diff(np.array(xs, dtype=float))) > 0.002


def test_a_fork_by_hand_knows_its_parents_curve_and_is_continued() -> None:
    parent = make_run(0, 0.9, curve(2.0, 800), status="stopped")
    child = make_run(1, 0.3, {800: 0.1}, parent="s-0", fork_position=400, origin="hand", hyperparameters={"x": 0.3})
    runs = [parent, child, make_run(2, 0.6, curve(1.5, 200)), make_run(3, 0.7, curve(1.6, 200))]
    assert decide(runs, left=NO_STARTS) == [Continue("s-1", 1600, "freeze_thaw")]


def test_decisions_do_not_depend_on_order_or_history() -> None:
    problem = make_problem(
        Space.parse({f"x{i}": {"linear": [0.0, 1.0]} for i in range(12)} | {"x": {"linear": [0, 1]}})
    )
    used = strategy("freeze_thaw", {}, problem)
    tree = simulate(used, problem, loss, runs=8, workers=3, step=7, remake=lambda: strategy("freeze_thaw", {}, problem))
    assert len(tree.tree) == 8


@pytest.mark.parametrize("value", [1.0, math.inf])
def test_constant_and_infinite_metrics_end(value: float) -> None:
    problem = make_problem()
    outcome = simulate(strategy("freeze_thaw", {}, problem), problem, lambda *_: value, runs=7, workers=2)
    assert len(outcome.tree) == 7
    assert bool(outcome.finished()) == math.isfinite(value)


def test_a_space_of_one_point_and_runs_without_the_metric_end() -> None:
    problem = make_problem(Space.parse({"kind": {"choice": ["only"]}}))
    assert len(simulate(strategy("freeze_thaw", {}, problem), problem, lambda *_: 1.0, runs=6).tree) == 6
    unscored = [
        dataclasses.replace(make_run(n, 0.2 * n, {}), position=100, reports=(Report(100, {"accuracy": 1.0}),))
        for n in range(3)
    ]
    assert decide(unscored, left=NO_STARTS) == [Continue("s-0", 200, "freeze_thaw")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_share": 0.0}, "strategy.first_share = 0 must be between 0 and 1"),
        ({"step": 1.0}, "strategy.step = 1 must be from 1.1"),
        ({"max_roots": 0}, "strategy.max_roots = 0 must be at least 1"),
        ({"sampler": "tpe"}, "unknown option 'sampler'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        strategy("freeze_thaw", options, make_problem())


def test_max_roots_limits_what_begins() -> None:
    problem = make_problem()
    assert len(simulate(strategy("freeze_thaw", {"max_roots": 5}, problem), problem, loss, runs=None).tree) == 5


@pytest.mark.parametrize(("mean", "deviation", "best"), [(0.0, 1.0, 0.5), (2.0, 0.3, 1.0), (-1.0, 0.1, 0.0)])
def test_expected_improvement_equals_the_integral(mean: float, deviation: float, best: float) -> None:
    expected, _ = quad(lambda y: (best - y) * norm.pdf(y, mean, deviation), mean - 12 * deviation, best)
    found = expected_improvement(np.array([mean]), np.array([deviation]), best)
    assert found[0] == pytest.approx(expected, abs=1e-9)


def test_candidates_lie_in_the_space_and_follow_its_priors() -> None:
    space = Space.parse(
        {
            "lr": {"log": [1e-5, 1e-1], "prior": 1e-3},
            "kind": {"choice": ["a", "b"]},
            "rank": {"integer": [2, 64], "log": True, "when": {"kind": "a"}},
        }
    )
    rng = np.random.default_rng(0)
    many = drawn(space, rng, count=2000)
    near = moved(space, {"lr": 5.0, "kind": "a", "rank": 8}, rng, count=200)
    for point in [*many, *near]:
        space.check(point)
    # 75% normal around the middle with a deviation of a quarter of the range, 25% uniform: cut at two deviations,
    # 0.75 * (2 * 0.3413 / 0.9545) + 0.25 * 0.5 = 0.661 of the draws lie within a quarter of it.
    middle = np.mean([10**-4 < float(point["lr"]) < 10**-2 for point in many])
    assert middle == pytest.approx(0.661, abs=0.04)
