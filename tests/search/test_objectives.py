"""Several objectives through strategies that know of one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from virtual_workers import simulate

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import STRATEGIES, Problem, Strategy, strategy
from thalweg.search.objectives import TRADE_OFF, TradeOffs, reported
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Action, Metric, Report, Run, Tree

SPACE = Space.parse({"x": {"linear": [0.0, 1.0]}, "y": {"linear": [0.0, 1.0]}})
LOSS, COST, LATENCY = Metric("loss", "min"), Metric("cost", "min"), Metric("latency", "min")


def size(point: Hyperparameters) -> float:
    x = point["x"]
    assert isinstance(x, float)
    return x


def make_problem(**changes: Any) -> Problem:
    """Loss falls with x, cost rises with it; y is a mistake to make."""
    return Problem(
        **{
            "space": SPACE,
            "metric": LOSS,
            "horizon": lambda _: 90,
            "seed": 0,
            "objectives": (COST,),
            "cost": lambda point, start, until: (0.1 + size(point)) * (until - start),
        }
        | changes
    )


def error(point: Hyperparameters, fraction: float) -> float:
    y = point["y"]
    assert isinstance(y, float)
    return (1 - size(point)) ** 2 + y + 1 - fraction


def run(number: int, x: float, losses: list[float], **changes: Any) -> Run:
    reports = tuple(Report(30 * (i + 1), {"loss": loss}) for i, loss in enumerate(losses))
    fields: dict[str, Any] = {"status": "finished", "origin": "random", "position": 90, "reports": reports}
    return Run(
        id=f"s-{number}",
        number=number,
        hyperparameters={"x": x, "y": 0.0},
        horizon=90,
        until=90,
        **(fields | changes),
    )


class Remembers:
    """A strategy that does nothing but keep what it was shown."""

    share = 1.0
    num_roots: int | None = None

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.seen = Tree()

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        self.seen = tree
        return []


def shown(problem: Problem, tree: Tree, left: Left) -> tuple[Tree, Remembers]:
    kept: list[Remembers] = []

    def make(single: Problem) -> Strategy:
        kept.append(Remembers(single))
        return kept[0]

    TradeOffs(problem, make).decide(tree, free_slots=1, left=left)
    return kept[0].seen, kept[0]


def test_the_weighing_by_hand() -> None:
    """Losses 1, 2, 5 and costs 90 * (.1 + x) = 99, 54, 9; equal weights, as no more roots may begin.

    Best 1 and 9; third quartiles 3.5 and 76.5, so that 2.5 and 67.5 above the best count as 1.
    """
    tree = Tree.of([run(0, 1.0, [4.0, 1.0]), run(1, 0.5, [2.0]), run(2, 0.0, [5.0])])
    seen, inner = shown(make_problem(), tree, Left({"runs": 0.0}))
    assert (inner.problem.metric, inner.problem.objectives) == (Metric(TRADE_OFF, "min"), ())
    found = [report.metrics[TRADE_OFF] for each in seen for report in each.reports]
    scaled = [(3 / 2.5, 90 / 67.5), (0, 90 / 67.5), (1 / 2.5, 45 / 67.5), (4 / 2.5, 0)]
    assert found == pytest.approx([max(a, b) / 2 + 0.05 * (a + b) / 2 for a, b in scaled])


def test_each_root_is_weighed_anew_and_the_same_tree_always_alike() -> None:
    runs = [run(i, 1 - i / 4, [1.0 + i]) for i in range(5)]
    # The same results; of the runs fewer and fewer are the strategy's own.
    others = [[dataclasses.replace(each, origin="hand") for each in runs[:num]] for num in (0, 1, 2)]
    trees = [Tree.of([*hand, *runs[len(hand) :]]) for hand in others]
    numbers = []
    for tree in trees:
        first, _ = shown(make_problem(), tree, Left({}))
        again, _ = shown(make_problem(), Tree(dict(reversed(list(tree.runs.items())))), Left({}))
        assert {each.id: each for each in first} == {each.id: each for each in again}
        one, two = (first[name].reports[0].metrics[TRADE_OFF] for name in ("s-0", "s-3"))
        numbers.append(one / two)
    assert len(set(numbers)) == 3


def test_the_cost_of_a_fork_is_its_lineages() -> None:
    fork = run(1, 0.4, [1.0], parent="s-0", fork_position=30)
    tree = Tree.of([run(0, 0.9, [3.0], status="paused", position=30), fork, run(2, 0.0, [1.0])])
    problem = make_problem()
    trade_offs = TradeOffs(problem, Remembers)
    assert trade_offs._cost(tree, fork) == pytest.approx(30 * 1.0 + 60 * 0.5)


def test_an_objective_that_is_missing_is_the_last_one_known_or_none() -> None:
    problem = make_problem(objectives=(LATENCY,))
    first = run(0, 0.1, [])
    reports = (
        Report(30, {"loss": 3.0}),
        Report(60, {"loss": 2.0, "latency": 7.0}),
        Report(90, {"loss": 1.0}),
    )
    tree = Tree.of([dataclasses.replace(first, reports=reports), run(1, 0.5, [2.0])])
    seen, _ = shown(problem, tree, Left({}))
    assert [TRADE_OFF in report.metrics for report in seen["s-0"].reports] == [False, True, True]
    assert TRADE_OFF not in seen["s-1"].reports[0].metrics
    # A fork knows its parent's latency, up to where it left it; the loss is its own.
    early = run(2, 0.2, [1.0], parent="s-0", fork_position=50)
    late = run(3, 0.2, [1.0], parent="s-0", fork_position=70)
    lossless = dataclasses.replace(late, id="s-4", number=4, reports=(Report(90, {"other": 1.0}),))
    seen, _ = shown(problem, Tree.of([*tree, early, late, lossless]), Left({}))
    assert [TRADE_OFF in seen[name].reports[0].metrics for name in ("s-2", "s-3", "s-4")] == [False, True, False]


# The virtual workers carry out no stops, which populations ask for; `gp` and `sobol` are slow, and `Full` as `tpe` is.
@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in ("gp", "sobol", "grid", "pbt", "pb2")])
def test_any_strategy_takes_objectives(name: str) -> None:
    """`simulate` holds it to the contract: pure, within slots and budget, and it ends."""
    problem = make_problem(seed=5)
    outcome = simulate(
        strategy(name, {}, problem), problem, error, runs=10, workers=2, remake=lambda: strategy(name, {}, problem)
    )
    assert any(each.status == "finished" for each in outcome.tree)


def test_both_ends_of_the_front_are_found() -> None:
    """With one objective TPE goes to x = 1; with the cost beside it, it covers small and large x, and avoids y."""
    problem = make_problem()
    tree = simulate(strategy("tpe", {}, problem), problem, error, runs=40).tree
    late = [each.hyperparameters for each in tree if each.number >= 10]
    alone = make_problem(objectives=())
    single = simulate(strategy("tpe", {}, alone), alone, error, runs=40).tree
    sizes, single_sizes = map(size, late), [size(r.hyperparameters) for r in single if r.number >= 10]
    assert sum(x < 0.3 for x in sizes) >= 6
    assert sum(x > 0.7 for x in map(size, late)) >= 3
    assert sum(x < 0.3 for x in single_sizes) <= 3
    assert sum(point["y"] < 0.3 for point in late) >= 20  # type: ignore[operator]


@pytest.mark.parametrize(
    ("metric", "objectives", "message"),
    [
        ("loss", ["min loss"], "'loss' is given twice"),
        ("loss", ["min cost", "min cost"], "'cost' is given twice"),
        ("loss", ["max cost"], "write 'min cost'"),
        ("min cost", ["min latency"], "the metric has to be reported"),
    ],
)
def test_objectives_that_cannot_be(metric: str, objectives: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        reported(Metric.parse(metric), [Metric.parse(each) for each in objectives])
    assert message in str(error.value)


def test_what_has_to_be_reported() -> None:
    assert reported(LOSS, [COST, LATENCY]) == [LATENCY, LOSS]
