"""Synchronous halving, Hyperband and BOHB: brackets, promotions and the end, worked by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
from hand_made import NO_MORE_RUNS, PROBLEM, Script, decide, run
from virtual_workers import simulate

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import Problem, strategy
from thalweg.search.bohb import Bohb
from thalweg.search.hyperband import Hyperband, brackets
from thalweg.search.successive_halving import SuccessiveHalving
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Continue, Fork, Metric, Report, Run, Start, Tree


def halving(sampler: Script | None = None, **options: object) -> SuccessiveHalving:
    return SuccessiveHalving(PROBLEM, sampler or Script(), "tested", **options)  # type: ignore[arg-type]


def hyperband(sampler: Script | None = None, **options: object) -> Hyperband:
    return Hyperband(PROBLEM, sampler or Script(), "tested", **options)  # type: ignore[arg-type]


def goes_on(number: int, until: int) -> Continue:
    return Continue(f"s-{number}", until, "tested")


def test_nobody_goes_on_before_the_bracket_is_full() -> None:
    eight = [run(i, float(i)) for i in range(8)]
    assert decide(halving(), *eight, free=2) == [Start({"x": 0.08}, 100, "tested"), Start({"x": 0.09}, 100, "tested")]


def test_nobody_goes_on_before_all_have_arrived() -> None:
    """The free worker begins the next bracket rather than wait."""
    nine = [*(run(i, float(i)) for i in range(8)), run(8)]
    assert decide(halving(), *nine) == [Start({"x": 0.09}, 100, "tested")]
    assert decide(halving(), *nine, left=NO_MORE_RUNS) == []


def test_the_best_third_goes_on_the_best_first() -> None:
    nine = [run(i, loss) for i, loss in enumerate([5.0, 3.0, 9.0, 1.0, 8.0, 2.0, 7.0, 6.0, 4.0])]
    third = [goes_on(3, 300), goes_on(5, 300), goes_on(1, 300)]
    assert decide(halving(), *nine, free=2) == third[:2]
    assert decide(halving(), *nine, free=4) == [*third, Start({"x": 0.09}, 100, "tested")]
    one_is_there = [*nine[:3], run(3, 1.0, 0.9), *nine[4:]]
    assert decide(halving(), *one_is_there, free=2) == third[1:]


def test_the_last_rung_is_for_the_best_of_the_middle_one() -> None:
    """Run 1 was best at the first rung, run 2 is at the second: scores at two rungs are not compared."""
    middle = [run(0, 3.0, 2.5), run(1, 1.0, 2.4), run(2, 2.0, 1.9)]
    rest = [run(i, float(i + 5)) for i in range(3, 9)]
    assert decide(halving(), *middle, *rest) == [goes_on(2, 900)]
    still_training = [middle[0], middle[1], run(2, 2.0, status="running", until=300)]
    assert decide(halving(), *still_training, *rest, left=NO_MORE_RUNS) == []


@pytest.mark.parametrize("status", ["failed", "stopped", "diverged"])
def test_a_lost_place_goes_to_the_next_best(status: str) -> None:
    """Of runs 0, 1 and 2 at the middle rung one is lost: the fourth best, run 3, comes up before any goes further."""
    runs = [run(0, 1.0, 0.9), run(1, 2.0, 1.9), run(2, 3.0, status=status, until=300, position=200)]
    runs += [run(i, float(i + 1)) for i in range(3, 9)]
    assert decide(halving(), *runs, free=2, left=NO_MORE_RUNS) == [goes_on(3, 300)]
    at_the_end = [run(0, 1.0, 0.9, status=status, position=700), run(1, 2.0, 1.9), run(2, 3.0, 2.9)]
    at_the_end += [run(3, 4.0, 3.9), *(run(i, float(i + 1)) for i in range(4, 9))]
    assert decide(halving(), *at_the_end) == [goes_on(1, 900)]


def test_brackets_do_not_meet() -> None:
    """The second bracket's best goes on although all of the first were better."""
    first = [run(0, 0.1, 0.1, 0.1), run(1, 0.2, 0.2), run(2, 0.3, 0.3), *(run(i, 0.1 * i) for i in range(4, 9))]
    first.insert(3, run(3, 0.9))
    second = [run(i, float(i)) for i in range(9, 18)]
    assert decide(halving(), *first, *second, free=3) == [goes_on(i, 300) for i in (9, 10, 11)]


def test_earlier_brackets_go_first() -> None:
    first = [run(i, 10.0 + i) for i in range(9)]
    second = [run(i, float(i)) for i in range(9, 18)]
    assert decide(halving(), *first, *second, free=4)[:3] == [goes_on(i, 300) for i in (0, 1, 2)]


def test_others_runs_are_in_no_bracket_but_teach_the_sampler() -> None:
    script = Script()
    runs = [run(0, 0.1, origin="hand"), run(1, 0.2, origin="baseline"), *(run(i, float(i)) for i in range(2, 10))]
    # Eight of nine are the strategy's own: it begins the ninth.
    assert decide(halving(script), *runs) == [Start({"x": 0.08}, 100, "tested")]
    assert [seen.loss for seen in script.told[0][0]] == [0.1, 0.2, *(float(i) for i in range(2, 10))]


def test_a_bracket_that_cannot_be_filled_has_places_in_proportion() -> None:
    six = [run(i, float(i)) for i in range(6)]
    both = [goes_on(0, 300), goes_on(1, 300)]  # 3 places for 9 runs are 2 for 6
    assert decide(halving(), *six, free=3, left=NO_MORE_RUNS) == both
    assert decide(halving(max_roots=6), *six, free=3) == both
    assert decide(halving(Script(count=6)), *six, free=3) == both
    two = [run(0, 2.0), run(1, 1.0)]
    assert decide(halving(), *two, free=3, left=NO_MORE_RUNS) == [goes_on(1, 300)]


class Exhausted(Script):
    """It has nothing to propose after five, and does not say so beforehand."""

    def propose(self, observations: object, pending: object, index: int) -> Hyperparameters | None:  # type: ignore[override]
        return {"x": index / 100} if index < 5 else None


def test_a_sampler_that_has_nothing_more_closes_the_bracket() -> None:
    five = [run(i, float(i)) for i in range(5)]
    assert decide(halving(Exhausted()), *five, free=3) == [goes_on(0, 300)]  # 3 * 5 // 9


def test_a_run_that_steps_over_a_rung_takes_a_place() -> None:
    """Run 0 has no result between 100 and 300, and one at 400: it is compared there with those that come up."""
    runs = [run(0, 5.0, positions=(400,)), *(run(i, float(i)) for i in range(1, 9))]
    assert decide(halving(), *runs, free=3, left=NO_MORE_RUNS) == [goes_on(1, 300), goes_on(2, 300)]


def test_horizons_too_short_for_the_rungs_still_end_with_a_whole_run() -> None:
    problem = Problem(space=PROBLEM.space, metric=Metric("loss", "min"), horizon=lambda _: 2, seed=0)
    for name in ("successive_halving", "hyperband", "bohb", "lr_race"):
        assert simulate(strategy(name, {}, problem), problem, bowl, runs=9, workers=2).finished()


def bowl(hyperparameters: Hyperparameters, fraction: float) -> float:
    x = hyperparameters["x"]
    assert isinstance(x, float)
    return abs(x - 0.3) + 1 - fraction


def test_a_whole_bracket_costs_what_the_formula_says() -> None:
    """9 to 100, 3 from there to 300, 1 from there to 900: 900 + 600 + 600, of 9 x 900 for all of them."""
    for workers in (1, 4):
        outcome = simulate(
            strategy("successive_halving", {"sampler": "random"}, PROBLEM), PROBLEM, bowl, runs=9, workers=workers
        )
        assert outcome.work == 2100
        (best,) = outcome.finished()
        assert best is min(outcome.tree, key=lambda r: bowl(r.hyperparameters, 1.0))
    assert math.isclose(halving().share, 2100 / (9 * 900))
    assert halving(num_configs=27).num_roots is None
    assert halving(max_roots=5).num_roots == 5


def test_over_trunks() -> None:
    space = Space.parse({"lr": {"log": [1e-4, 1e-1]}, "tokens": 900})

    def horizon(hyperparameters: Hyperparameters) -> int:
        tokens = hyperparameters["tokens"]
        assert isinstance(tokens, int)
        return tokens

    from thalweg.search.strategy import Branch

    problem = Problem(
        space=space,
        metric=Metric("loss", "min"),
        horizon=horizon,
        seed=0,
        branch=lambda _, budget: Branch(int(budget * 0.9) // 10 * 10, {"tokens": budget}),
    )
    for name in ("successive_halving", "hyperband", "lr_race"):
        outcome = simulate(
            strategy(name, {"trunk": True}, problem), problem, lambda h, f: math.log10(h["lr"]) - f, runs=9, step=10
        )
        assert outcome.finished()
        forks = [action for action in outcome.actions if isinstance(action, Fork)]
        assert forks
        if name == "hyperband":  # a bracket's first rung is the first that is branched for
            (later,) = {a.until for a in outcome.actions if isinstance(a, Start)} - {270}
            assert later == 90


def test_the_papers_brackets() -> None:
    """Li et al. 2018, the example with R = 81 and eta = 3: n_i of each bracket, from s = 4 down."""
    table = [(81, 27, 9, 3, 1), (34, 11, 3, 1), (15, 5, 1), (8, 2), (5,)]
    assert [bracket.sizes for bracket in brackets(3, 5)] == table
    assert [bracket.first for bracket in brackets(3, 5)] == [0, 1, 2, 3, 4]
    # As mlr3hyperband prints it for eta = 2 and budgets from 1 to 8.
    assert [bracket.sizes for bracket in brackets(2, 4)] == [(8, 4, 2, 1), (6, 3, 1), (4, 2), (4,)]


def test_brackets_cycle() -> None:
    """9 runs to 100, 5 to 300, 3 to 900, and again."""
    ends = [action.until for action in decide(hyperband(), free=19) if isinstance(action, Start)]
    assert ends == [*[100] * 9, *[300] * 5, *[900] * 3, 100, 100]


def test_a_bracket_is_compared_at_its_own_rungs() -> None:
    """The second bracket begins at 300; what its runs reported at 100 does not count."""
    first = [run(0, 0.1, 0.1, 0.1), *(run(i, 1.0 + i, 1.0 + i) for i in (1, 2)), *(run(i, 9.0) for i in range(3, 9))]
    second = [run(9, 0.1, 5.0), run(10, 9.0, 2.0), *(run(i, 3.0, 3.0 + i) for i in (11, 12, 13))]
    assert decide(hyperband(), *first, *second) == [goes_on(10, 900)]


def test_hyperbands_share() -> None:
    """7/3 of a whole run for 9 roots, 5/3 + 2/3 for 5, and 3 for 3."""
    assert math.isclose(hyperband().share, (7 / 3 + 7 / 3 + 3) / 17)


def test_a_whole_cycle_of_hyperband() -> None:
    outcome = simulate(strategy("hyperband", {"sampler": "random"}, PROBLEM), PROBLEM, bowl, runs=17)
    assert outcome.work == 2100 + 5 * 300 + 600 + 3 * 900
    assert len(outcome.finished()) == 5


def told_by_bohb(monkeypatch: pytest.MonkeyPatch, *runs: Run, **options: object) -> list[float] | None:
    """What the model was told, or None where it was not asked."""
    script = Script()
    monkeypatch.setattr("thalweg.search.bohb.tpe", lambda _: script)
    decide(Bohb(PROBLEM, "tested", random_fraction=0.0, **options), *runs)  # type: ignore[arg-type]
    return [seen.loss for seen in script.told[0][0]] if script.told else None


def test_bohb_models_the_highest_rung_with_enough_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """One dimension: two results are enough."""
    assert told_by_bohb(monkeypatch, run(0, 1.0)) is None
    assert told_by_bohb(monkeypatch, run(0, 1.0), run(1, 2.0)) == [1.0, 2.0]
    higher = [run(0, 1.0, 0.5), run(1, 2.0, 1.5), run(2, 3.0)]
    assert told_by_bohb(monkeypatch, *higher) == [0.5, 1.5]
    assert told_by_bohb(monkeypatch, *higher, min_results=3) == [1.0, 2.0, 3.0]


def test_bohb_draws_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thalweg.search.bohb.tpe", lambda _: Script())
    problem = Problem(space=PROBLEM.space, metric=PROBLEM.metric, horizon=lambda _: 900, seed=1)
    runs = [run(i, float(i)) for i in range(5)]
    actions = decide(Bohb(problem, "tested", random_fraction=1 / 3), *runs, free=300)
    drawn = [a for i, a in enumerate(actions) if isinstance(a, Start) and a.hyperparameters["x"] != (5 + i) / 100]
    assert 70 <= len(drawn) <= 130  # 100 expected, with a standard deviation of 8


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("successive_halving", {"num_configs": 1}, "num_configs = 1 must be at least 2"),
        ("successive_halving", {"eta": 1}, "eta = 1 must be at least 2"),
        ("hyperband", {"max_roots": 0}, "max_roots = 0 must be at least 1"),
        ("hyperband", {"num_configs": 9}, "unknown option 'num_configs'"),
        ("bohb", {"random_fraction": 1.5}, "random_fraction = 1.5 must be from 0 to 1"),
        ("bohb", {"min_results": 1}, "min_results = 1 must be at least 2"),
        ("bohb", {"sampler": "random"}, "unknown option 'sampler'"),
    ],
)
def test_refuses(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        strategy(name, options, PROBLEM)


RUNGED: list[tuple[str, dict[str, object]]] = [
    ("halving", {"sampler": "random"}),
    ("asha", {"sampler": "random"}),
    ("successive_halving", {"sampler": "random"}),
    ("hyperband", {"sampler": "random"}),
    ("bohb", {}),
    ("lr_race", {}),
]
every = pytest.mark.parametrize(("name", "options"), RUNGED, ids=[name for name, _ in RUNGED])


@every
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("runs", [1, 2, 5, 12, 20])
def test_whole_studies_train_nothing_twice_and_end_with_a_whole_run(
    name: str, options: dict[str, object], workers: int, runs: int
) -> None:
    def make() -> object:
        return strategy(name, options, PROBLEM)

    outcome = simulate(make(), PROBLEM, bowl, runs=runs, workers=workers, step=7, remake=make)  # type: ignore[arg-type]
    assert outcome.finished()
    for r in outcome.tree:
        stretches = [(begin, until) for name, begin, until in outcome.trained if name == r.id]
        assert [begin for begin, _ in stretches] == [0, *(until for _, until in stretches[:-1])]


@every
@pytest.mark.parametrize("loss", [1.0, math.inf], ids=["constant", "infinite"])
def test_metrics_that_tell_nothing_apart(name: str, options: dict[str, object], loss: float) -> None:
    """Constant ones: the earliest goes on. Infinite ones: nothing is worth going on with, and the study ends."""
    outcome = simulate(strategy(name, options, PROBLEM), PROBLEM, lambda *_: loss, runs=9, workers=2)
    assert len(outcome.tree) == 9
    if math.isfinite(loss):
        assert outcome.finished()
    else:
        assert not any(isinstance(action, Continue) for action in outcome.actions)


@every
def test_an_evaluation_without_the_metric_is_not_ranked(name: str, options: dict[str, object]) -> None:
    """Where no run has the metric before its horizon, the first goes on to it."""
    tree = Tree()
    make: Callable[[], object] = lambda: strategy(name, options, PROBLEM)  # noqa: E731
    for _ in range(40):
        actions = make().decide(tree, free_slots=1, left=Left({"runs": max(0, 6 - len(tree))}))  # type: ignore[attr-defined]
        if not actions:
            break
        (action,) = actions
        if isinstance(action, Start):
            before = run(len(tree), hyperparameters=action.hyperparameters)
        else:
            assert isinstance(action, Continue)
            before = tree[action.run]
        report = Report(action.until, {"loss": 1.0} if action.until == 900 else {"perplexity": 3.0})
        status = "finished" if action.until == 900 else "paused"
        reached = {"position": action.until, "status": status, "reports": (*before.reports, report)}
        tree.absorb(dataclasses.replace(before, **reached))
    assert len(tree) == 6
    assert [r.number for r in tree if r.status == "finished"] == [0]


def test_a_run_without_the_metric_does_not_take_a_place() -> None:
    """Run 2 has none at the first rung: run 1 is the best of the other eight."""
    lacking = run(2, status="paused", position=100, reports=(Report(100, {"perplexity": 3.0}),))
    runs = [run(0, 9.0), run(1, 1.0), lacking, *(run(i, float(i)) for i in range(3, 9))]
    actions = decide(halving(), *runs, free=3, left=NO_MORE_RUNS)
    assert actions == [goes_on(1, 300), goes_on(3, 300), goes_on(4, 300)]
