"""Asynchronous halving: rungs, promotions and the end, worked by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import pytest
from virtual_workers import simulate

from thalweg.budget import Left
from thalweg.search import Observation, Problem, strategy
from thalweg.search.full import Full
from thalweg.search.halving import Halving
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Continue, Metric, Report, Run, Start, Tree

SPACE = Space.parse({"x": {"linear": [0.0, 1.0]}})
PROBLEM = Problem(space=SPACE, metric=Metric("loss", "min"), horizon=lambda _: 900, seed=0)
NO_MORE_RUNS = Left({"runs": 0.0})


class Script:
    """A sampler that proposes x = 0.00, 0.01, 0.02 ..., and remembers what it was told."""

    def __init__(self, count: int | None = None) -> None:
        self.num_points = count
        self.told: list[tuple[list[Observation], list[Hyperparameters]]] = []

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        self.told.append((list(observations), list(pending)))
        return {"x": index / 100} if self.num_points is None or index < self.num_points else None


def halving(sampler: Script | None = None, **options: int) -> Halving:
    return Halving(PROBLEM, sampler or Script(), "halving", **options)  # type: ignore[arg-type]


def run(number: int, *losses: float, positions: Sequence[int] = (100, 300, 900), **changes: object) -> Run:
    """A root with these losses at the first rungs, paused at the last of them."""
    reports = tuple(Report(position, {"loss": loss}) for position, loss in zip(positions, losses, strict=False))
    reached = reports[-1].position if reports else 0
    fields: dict[str, object] = {
        "horizon": 900,
        "until": max(reached, 100),
        "position": reached,
        "status": "finished" if reached >= 900 else "paused" if reports else "running",
        "origin": "halving",
    }
    return Run(
        id=f"s-{number}",
        number=number,
        hyperparameters={"x": number / 100},
        reports=reports,
        **(fields | changes),  # type: ignore[arg-type]
    )


def decide(
    *runs: Run, free: int = 1, left: Left | None = None, strategy: Halving | None = None
) -> list[Start | Continue]:
    actions = (strategy or halving()).decide(Tree.of(runs), free_slots=free, left=left or Left({}))
    return [action for action in actions if isinstance(action, Start | Continue)]


def test_rungs_are_shares_of_the_horizon() -> None:
    assert decide()[0].until == 100
    assert decide(run(0, 3.0), run(1, 1.0), run(2, 2.0)) == [Continue("s-1", 300, "halving")]
    nine = [run(0, 1.0, 0.9), run(1, 2.0, 1.9), run(2, 3.0, 2.9), *(run(i, float(i)) for i in range(3, 9))]
    assert decide(*nine) == [Continue("s-0", 900, "halving")]


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"eta": 2}, 225),  # 900 / 2 / 2
        ({"num_rungs": 2}, 300),
        ({"eta": 2, "num_rungs": 4}, 112),  # 900 / 8 = 112.5, which rounds to even
        ({"first_fraction": 0.1}, 90),
        ({"first_fraction": 0.5}, 450),
    ],
)
def test_options_place_the_first_rung(options: dict[str, int], first: int) -> None:
    assert decide(strategy=halving(**options))[0].until == first


def test_first_fraction_leaves_even_steps() -> None:
    """From 0.1 to 1 in two steps of 3.16, the number of steps nearest to eta = 3."""
    positions = (90, 285, 900)
    runs = [run(i, float(i), positions=positions) for i in range(3)]
    assert decide(*runs, strategy=halving(first_fraction=0.1)) == [Continue("s-0", 285, "halving")]  # type: ignore[arg-type]


def test_rungs_follow_each_runs_own_horizon() -> None:
    """Half of one run's schedule is compared with half of another's, not with the end of it."""
    long = [run(i, 1.0 + i, positions=(200, 600, 1800), horizon=1800) for i in range(3)]
    assert decide(*long) == [Continue("s-0", 600, "halving")]
    short = run(3, 0.5)
    assert decide(long[1], long[2], short) == [Continue("s-3", 300, "halving")]


def test_promotes_one_in_eta_and_else_starts() -> None:
    assert [type(action) for action in decide(run(0, 3.0), run(1, 1.0))] == [Start]
    five = [run(0, 1.0), run(1, 2.0, 1.9), run(2, 3.0), run(3, 4.0), run(4, 5.0)]
    # floor(5 / 3) = 1: only run 0 has earned it; the second worker begins a new root.
    assert decide(*five, free=2) == [Continue("s-0", 300, "halving"), Start({"x": 0.05}, 100, "halving")]
    # Run 1 was among the best when it was promoted; its place is not given twice.
    six = [*five, run(5, 0.5)]
    assert decide(*six, free=2) == [Continue("s-5", 300, "halving"), Continue("s-0", 300, "halving")]


def test_promotes_to_the_highest_rung_first() -> None:
    """Of 12 runs, floor(12 / 3) = 4 have earned the second rung: three are there, and the best of them goes on."""
    runs = [run(0, 1.0, 0.9), run(1, 2.0, 1.9), run(2, 3.0, 2.9), *(run(i, float(i)) for i in range(3, 12))]
    both = [Continue("s-0", 900, "halving"), Continue("s-3", 300, "halving")]
    assert decide(*runs, free=1) == both[:1]
    assert decide(*runs, free=2) == both


def test_a_promoted_run_that_is_still_training_keeps_its_place() -> None:
    runs = [run(0, 1.0, status="running", until=300), run(1, 2.0), run(2, 3.0)]
    assert decide(*runs) == [Start({"x": 0.03}, 100, "halving")]


def test_maximises_where_more_is_better() -> None:
    problem = Problem(space=SPACE, metric=Metric("loss", "max"), horizon=lambda _: 900, seed=0)
    strategy = Halving(problem, Script(), "halving")
    assert decide(run(0, 3.0), run(1, 1.0), run(2, 2.0), strategy=strategy) == [Continue("s-0", 300, "halving")]


def test_the_earlier_run_wins_a_tie() -> None:
    assert decide(run(2, 1.0), run(1, 1.0), run(0, 1.0)) == [Continue("s-0", 300, "halving")]


def test_diverged_runs_are_ranked_last_and_failed_ones_not_at_all() -> None:
    gone = {"status": "diverged", "position": 50}
    assert decide(run(0, **gone), run(1, **gone), run(2, 9.0)) == [Continue("s-2", 300, "halving")]
    diverged_later = run(0, 1.0, status="diverged")
    assert decide(diverged_later, run(1, 2.0), run(2, 3.0)) == [Continue("s-1", 300, "halving")]
    for status in ("failed", "stopped"):
        given_up = run(0, 1.0, status=status)
        assert decide(given_up, run(1, 2.0), run(2, 3.0)) == [Start({"x": 0.03}, 100, "halving")]
        assert decide(given_up, run(1, 2.0), run(2, 3.0), run(3, 4.0)) == [Continue("s-1", 300, "halving")]


def test_a_result_that_is_not_a_number_is_never_promoted() -> None:
    runs = [run(i, math.nan) for i in range(3)]
    assert decide(*runs) == [Start({"x": 0.03}, 100, "halving")]
    assert decide(*runs, left=NO_MORE_RUNS) == []


def test_steps_may_overshoot_a_rung_but_not_into_the_next() -> None:
    """With steps of 128 the first rung is met at 128; an evaluation at 384 belongs to the rung at 300."""
    steps = [run(i, 1.0 + i, positions=(128, 384, 900)) for i in range(3)]
    assert decide(*steps) == [Continue("s-0", 300, "halving")]
    far = run(0, 9.0, positions=(384,), until=300)
    assert decide(far, run(1, 2.0), run(2, 3.0)) == [Start({"x": 0.03}, 100, "halving")]


def test_the_baseline_is_ranked_only_where_it_has_evaluations() -> None:
    """Its final loss would beat every run at the first rung, and is never compared with them."""
    at_end = run(0, 0.1, positions=(900,), origin="baseline")
    assert decide(at_end, run(1, 2.0), run(2, 3.0)) == [Start({"x": 0.02}, 100, "halving")]
    assert decide(at_end, run(1, 2.0), run(2, 3.0), run(3, 4.0)) == [Continue("s-1", 300, "halving")]
    throughout = run(0, 5.0, 4.0, 3.0, origin="baseline")
    assert decide(throughout, run(1, 2.0), run(2, 3.0)) == [Continue("s-1", 300, "halving")]


def test_at_the_end_the_best_run_goes_on_to_its_horizon() -> None:
    two = [run(0, 2.0), run(1, 1.0)]
    assert decide(*two, free=3, left=NO_MORE_RUNS) == [Continue("s-1", 300, "halving")]
    assert decide(two[0], run(1, 1.0, 0.9), left=NO_MORE_RUNS) == [Continue("s-1", 900, "halving")]
    assert decide(two[0], run(1, 1.0, 0.9, 0.8), left=NO_MORE_RUNS) == []


def test_the_end_comes_by_each_limit() -> None:
    two = [run(0, 2.0), run(1, 1.0)]
    goes_on = [Continue("s-1", 300, "halving")]
    assert decide(*two, strategy=halving(max_roots=2)) == goes_on
    assert decide(*two, strategy=halving(Script(count=2))) == goes_on
    assert decide(*two, strategy=halving(max_roots=3)) == [Start({"x": 0.02}, 100, "halving")]


def test_the_end_waits_for_active_runs_and_is_not_met_by_the_baseline() -> None:
    two = [run(0, 2.0), run(1, 1.0)]
    assert decide(*two, run(2), left=NO_MORE_RUNS) == []
    baseline = run(2, 0.1, positions=(900,), origin="baseline")
    assert decide(*two, baseline, left=NO_MORE_RUNS) == [Continue("s-1", 300, "halving")]


def test_at_the_end_the_next_best_replaces_one_that_diverged() -> None:
    runs = [run(0, 2.0), run(1, 1.0, 0.9, status="diverged")]
    assert decide(*runs, left=NO_MORE_RUNS) == [Continue("s-0", 300, "halving")]


def test_the_sampler_learns_from_the_highest_rung_with_four_results() -> None:
    def told(*runs: Run) -> tuple[list[float], list[Hyperparameters]]:
        script = Script()
        decide(*runs, free=9, strategy=halving(script))
        observations, pending = script.told[0]
        return [seen.loss for seen in observations], pending

    low = [run(i, 1.0 + i) for i in range(3)]
    assert told(*low[:2])[0] == [1.0, 2.0]
    three_higher = [run(i, 1.0 + i, 0.1 + i) for i in range(3)]
    assert told(*three_higher, run(3, 9.0))[0] == [1.0, 2.0, 3.0, 9.0]
    four_higher = [run(i, 1.0 + i, 0.5 + i) for i in range(4)]
    assert told(*four_higher, run(4, 9.0))[0] == [0.5, 1.5, 2.5, 3.5]
    diverged = [run(i, status="diverged") for i in (4, 5)]
    assert told(*four_higher, *diverged)[0] == [0.5, 1.5, 2.5, 3.5, math.inf, math.inf]
    assert told(*four_higher, run(6), run(7, 9.0, status="running"))[1] == [{"x": 0.06}, {"x": 0.07}]
    # A promoted run is known at the rung that it comes from, so it is not pending there.
    assert told(run(0, 1.0, status="running"), run(1, 2.0)) == ([1.0, 2.0], [])
    only_diverged = [run(i, status="diverged") for i in range(5)]
    assert told(*only_diverged, run(5, 2.0), run(6, 1.0))[0] == [*[math.inf] * 5, 2.0, 1.0]


def test_says_how_much_of_a_run_a_root_gets() -> None:
    """A ninth each, the step to a third for one in 3, the rest for one in 9: 1/9 + 2/9 / 3 + 2/3 / 9 = 7/27."""
    assert math.isclose(halving().share, 7 / 27)
    assert math.isclose(halving(eta=2, num_rungs=2).share, 3 / 4)
    assert Full(PROBLEM, Script(), "full").share == 1.0


def test_says_how_many_roots_it_begins_at_most() -> None:
    assert halving().num_roots is None
    assert halving(max_roots=5).num_roots == 5
    assert halving(Script(count=3), max_roots=5).num_roots == 3
    assert Full(PROBLEM, Script(count=3), "full").num_roots == 3


@pytest.mark.parametrize("make", [halving, lambda script: Full(PROBLEM, script, "full")], ids=["halving", "full"])
def test_proposals_are_made_in_the_knowledge_of_those_before(make: Callable[[Script], Halving | Full]) -> None:
    script = Script()
    tree = Tree.of([run(0), run(1, status="pending"), run(2, status="failed")])
    make(script).decide(tree, free_slots=2, left=Left({}))
    waiting = [{"x": 0.0}, {"x": 0.01}]
    assert [pending for _, pending in script.told] == [waiting, [*waiting, {"x": 0.03}]]


def curve(hyperparameters: Hyperparameters, fraction: float) -> float:
    x = hyperparameters["x"]
    assert isinstance(x, float)
    return abs(x - 0.3) + 1 - fraction


@pytest.mark.parametrize("runs", [1, 2, 5, 6, 12, 20])
@pytest.mark.parametrize("workers", [1, 3])
def test_whole_studies(runs: int, workers: int) -> None:
    """The best reaches its horizon, no position is trained twice, and less is spent than on full runs."""
    half = simulate(strategy("halving", {"sampler": "random"}, PROBLEM), PROBLEM, curve, runs=runs, workers=workers)
    full = simulate(strategy("random", {}, PROBLEM), PROBLEM, curve, runs=runs, workers=workers)
    assert [r.hyperparameters for r in half.tree] == [r.hyperparameters for r in full.tree]
    # Loss curves do not cross here, so the best run of all is the best of those that finished.
    best = min(half.tree, key=lambda r: curve(r.hyperparameters, 1.0))
    assert best.status == "finished"
    for r in half.tree:
        stretches = [(begin, until) for name, begin, until in half.trained if name == r.id]
        assert [begin for begin, _ in stretches] == [0, *(until for _, until in stretches[:-1])]
    assert half.work <= full.work
    if runs >= 5:
        assert half.work < 0.6 * full.work


@pytest.mark.parametrize("horizon", [1, 2, 3, 4])
def test_horizons_too_short_for_three_rungs(horizon: int) -> None:
    problem = Problem(space=SPACE, metric=Metric("loss", "min"), horizon=lambda _: horizon, seed=0)
    outcome = simulate(strategy("halving", {"sampler": "random"}, problem), problem, curve, runs=6, workers=2)
    assert outcome.finished()


def test_decides_soon_with_a_thousand_runs() -> None:
    """A guard against quadratic work, far above the 20 ms that the benchmark asks for."""
    runs = [run(i, *(float(i % 7 + k) for k in range(1 + (i % 3 == 0)))) for i in range(1000)]
    tree = Tree.of(runs)
    method = strategy("halving", {"sampler": "random"}, PROBLEM)
    begin = time.perf_counter()
    method.decide(tree, free_slots=1, left=Left({}))
    assert time.perf_counter() - begin < 0.5
