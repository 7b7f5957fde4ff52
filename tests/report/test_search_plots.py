"""The dashboard's plots of a search: values by hand, what studies look like on bad days, and names that are markup."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import numpy as np
import plotly.io
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.budget import Budget, Cost, Ledger, Left, SpendKind
from thalweg.errors import ConfigError
from thalweg.report.lineage_costs import costs_to_reach
from thalweg.report.plots_cost import pareto_front
from thalweg.report.plots_rungs import compared
from thalweg.report.rung_places import WITH_RUNGS, shares
from thalweg.report.search_plots import PLOTS
from thalweg.report.view import StudyView
from thalweg.search import STRATEGIES, Problem, strategy
from thalweg.search.ladder import fractions
from thalweg.simulation import simulate
from thalweg.space import Space
from thalweg.tree import Metric, Report, Start, Tree

KINDS = {"history", "parallel", "importance", "slices", "contour", "rungs", "pareto", "ledger"}
HOSTILE = "<script>x</script><b>%{y}</b>"


def accuracy(value: float, position: int = 6000) -> tuple[Report, ...]:
    return (Report(position, {"accuracy": value}),)


def texts(figure: Any) -> list[str]:
    """Every text that Plotly would read markup in."""
    drawn = json.loads(plotly.io.to_json(figure))
    found: list[str] = []

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict):
            for name, child in node.items():
                # `meta`, `customdata` and ids of traces are data: they are never drawn.
                if name not in ("meta", "customdata"):
                    walk(child, name)
        elif isinstance(node, list):
            for child in node:
                walk(child, key)
        elif isinstance(node, str):
            found.append(node)

    walk(drawn, "")
    return found


def test_every_plot_is_there_and_says_how_to_read_it(make: SimpleNamespace) -> None:
    view = make.rich_view(30)
    assert set(PLOTS) == KINDS
    for name, plot in PLOTS.items():
        figure = plot(view, {})
        json.loads(plotly.io.to_json(figure), parse_constant=lambda word: pytest.fail(word))
        assert figure.layout.meta["title"], name
        assert figure.layout.meta["note"].endswith("."), name


@pytest.mark.parametrize("kind", sorted(KINDS - {"importance"}))
def test_points_name_their_runs(make: SimpleNamespace, kind: str) -> None:
    view = make.rich_view(20)
    linked = {run for trace in PLOTS[kind](view, {}).data if trace.customdata is not None for run in trace.customdata}
    linked.discard(None)
    assert linked
    assert linked <= set(view.tree.runs)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_too_few_runs_are_said_to_be(make: SimpleNamespace, kind: str) -> None:
    empty = make.view([], ledger=Ledger())
    pending = make.view([make.run(1, status="pending", position=0, reports=())], ledger=Ledger())
    nan = make.view([make.run(1, status="diverged", reports=accuracy(math.nan))], ledger=Ledger())
    for view in (empty, pending, nan):
        with pytest.raises(ConfigError, match=r"needs|Too few runs") as caught:
            PLOTS[kind](view, {})
        assert kind in str(caught.value)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_unknown_options_and_values_are_refused(make: SimpleNamespace, kind: str) -> None:
    view = make.rich_view(20)
    with pytest.raises(ConfigError, match="no option 'colour'"):
        PLOTS[kind](view, {"colour": "red"})
    for control in PLOTS[kind](view, {}).layout.meta["options"]:
        with pytest.raises(ConfigError, match=control["values"][0]):
            PLOTS[kind](view, {control["name"]: "nonsense"})
        for value in control["values"]:
            others = {"y": next(v for v in control["values"] if v != value)} if control["name"] == "x" else {}
            others |= {"x": next(v for v in control["values"] if v != value)} if control["name"] == "y" else {}
            drawn = PLOTS[kind](view, {control["name"]: value, **others})
            assert value in [c["value"] for c in drawn.layout.meta["options"]]


@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_few_runs_are_drawn_or_refused_and_nothing_else(make: SimpleNamespace, num: int) -> None:
    same = [make.run(i, hyperparameters=make.run(0).hyperparameters, reports=accuracy(0.5)) for i in range(num)]
    for view in (make.view([make.run(i) for i in range(num)]), make.view(same)):
        for plot in PLOTS.values():
            with contextlib.suppress(ConfigError):
                plotly.io.to_json(plot(view, {}))


def test_names_and_values_are_not_markup(make: SimpleNamespace) -> None:
    space = Space.parse({HOSTILE: {"log": [1e-6, 1e-3]}, "<i>c</i>": {"choice": ["<a href=x>", "%{x}"]}, "n": 3})
    runs = [
        make.run(
            i,
            id=f"<img src=x>-{i}",
            hyperparameters={HOSTILE: 10.0 ** -(4 + i / 4), "<i>c</i>": ("<a href=x>", "%{x}")[i % 2], "n": 3},
            horizon=6000,
            reports=(Report(6000, {HOSTILE: 0.1 * (i % 5)}),),
        )
        for i in range(8)
    ]
    view = make.view(runs, metric=Metric(HOSTILE, "min"), space=space, name="<u>study</u>")
    for name, plot in PLOTS.items():
        for text in texts(plot(view, {})):
            for tag in ("<script", "<img", "<a ", "<i>", "<u>", "<b>"):
                assert tag not in text, (name, text)
            assert "%{x}" not in text, (name, text)


def test_slices_stand_on_the_scale_that_is_searched(make: SimpleNamespace) -> None:
    points = [{"lr": 1e-5, "batch_size": 8, "epochs": 1}, {"lr": 1e-4, "batch_size": 32, "epochs": 3}]
    runs = [make.run(i, hyperparameters=p, reports=accuracy(0.5 + 0.1 * i)) for i, p in enumerate(points)]
    figure = PLOTS["slices"](make.view(runs), {})
    assert [figure.layout[axis].type for axis in ("xaxis", "xaxis2", "xaxis3")] == ["log", None, "linear"]
    assert list(figure.layout.xaxis2.ticktext) == ["8", "16", "32"]
    lr, batch_size, epochs = figure.data
    assert list(lr.x) == [1e-5, 1e-4]
    assert list(batch_size.x) == [0, 2]
    assert list(epochs.x) == [1, 3]
    assert [list(trace.y) for trace in figure.data] == [[0.5, 0.6]] * 3
    assert list(lr.customdata) == ["imdb-0", "imdb-1"]


def test_slices_leave_out_a_hyperparameter_that_a_run_does_not_have(make: SimpleNamespace) -> None:
    lora = {"integer": [1, 64], "log": True, "when": {"adapter": "lora"}}
    space = Space.parse({"adapter": {"choice": ["lora", "none"]}, "r": lora})
    points = [{"adapter": "lora", "r": 4}, {"adapter": "none"}]
    runs = [make.run(i, hyperparameters=p, horizon=6000, reports=accuracy(0.5)) for i, p in enumerate(points)]
    figure = PLOTS["slices"](make.view(runs, space=space), {})
    assert [len(trace.x) for trace in figure.data] == [2, 1]


def test_slices_show_failures_at_the_worse_edge(make: SimpleNamespace) -> None:
    runs = [make.run(i, reports=accuracy(0.6 + 0.1 * i)) for i in range(3)]
    runs += [make.run(3, status="failed", reports=(), error="x"), make.run(4, status="pending", reports=())]
    figure = PLOTS["slices"](make.view(runs), {})
    failed = [trace for trace in figure.data if trace.name == "failed"]
    assert len(failed) == 3
    assert all(list(trace.y) == [figure.layout.yaxis.range[0]] for trace in failed)
    assert not [trace for trace in figure.data if trace.name == "pending"]


def corner_runs(make: SimpleNamespace, values: list[float]) -> list[Any]:
    places = [(1e-6, 1), (1e-4, 1), (1e-6, 3), (1e-4, 3)]
    points = [{"lr": lr, "batch_size": 8, "epochs": epochs} for lr, epochs in places]
    return [
        make.run(i, hyperparameters=p, reports=accuracy(v))
        for i, (p, v) in enumerate(zip(points, values, strict=False))
    ]


def test_the_contour_is_linear_between_runs_in_the_scale_that_is_searched(make: SimpleNamespace) -> None:
    # Accuracy = 0.5 + 0.1 * (decades above 1e-6) + 0.05 * (epochs - 1): a plane in log10(lr) and epochs.
    view = make.view(corner_runs(make, [0.5, 0.7, 0.6, 0.8]))
    surface, points = PLOTS["contour"](view, {"x": "lr", "y": "epochs"}).data
    lr, epochs, heights = np.array(surface.x), np.array(surface.y), np.array(surface.z, dtype=float)
    wanted = 0.5 + 0.1 * (np.log10(lr)[None, :] + 6) + 0.05 * (epochs[:, None] - 1)
    np.testing.assert_allclose(heights, wanted, atol=1e-9)
    assert (lr.min(), lr.max()) == pytest.approx((1e-6, 1e-4))
    assert list(points.x) == [1e-6, 1e-4, 1e-6, 1e-4]
    assert list(points.marker.color) == [0.5, 0.7, 0.6, 0.8]


def test_the_contour_ends_where_the_runs_end(make: SimpleNamespace) -> None:
    runs = corner_runs(make, [0.5, 0.7, 0.6, 0.8])[:3]
    inside = make.run(3, hyperparameters={"lr": 2e-6, "batch_size": 8, "epochs": 1}, reports=accuracy(0.52))
    surface = PLOTS["contour"](make.view([*runs, inside]), {"x": "lr", "y": "epochs"}).data[0]
    # The corner (1e-4, 3) lies beyond the triangle. None and not NaN: Plotly's own JSON has no NaN.
    assert surface.z[-1][-1] is None
    assert surface.z[0][0] == pytest.approx(0.5)


@pytest.mark.parametrize(("x", "y"), [("batch_size", "lr"), ("lr", "batch_size")])
def test_nothing_is_drawn_between_choices(make: SimpleNamespace, x: str, y: str) -> None:
    figure = PLOTS["contour"](make.rich_view(20), {"x": x, "y": y})
    assert [trace.type for trace in figure.data] == ["scatter"]
    assert "between choices" in figure.layout.meta["note"]


def test_runs_on_one_line_have_no_surface(make: SimpleNamespace) -> None:
    points = [{"lr": 10.0 ** -(6 - i / 2), "batch_size": 8, "epochs": 2} for i in range(5)]
    runs = [make.run(i, hyperparameters=p, reports=accuracy(0.5 + i / 100)) for i, p in enumerate(points)]
    figure = PLOTS["contour"](make.view(runs), {"x": "lr", "y": "epochs"})
    assert [trace.type for trace in figure.data] == ["scatter"]
    assert "one line" in figure.layout.meta["note"]


def test_a_contour_of_one_hyperparameter_is_refused(make: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="x and y are both 'lr'"):
        PLOTS["contour"](make.rich_view(20), {"x": "lr", "y": "lr"})
    one = make.view([make.run(i) for i in range(9)], space=Space.parse({"lr": {"log": [1e-6, 1e-3]}}))
    with pytest.raises(ConfigError, match="2 hyperparameters to be searched"):
        PLOTS["contour"](one, {})


@given(
    eta=st.integers(2, 6),
    length=st.one_of(
        st.builds(lambda n: {"num_rungs": n}, st.integers(2, 8)),
        st.builds(lambda f: {"first_fraction": f}, st.floats(0.001, 0.9)),
        st.just({}),
    ),
)
def test_rungs_lie_where_the_strategy_has_them(eta: int, length: dict[str, Any]) -> None:
    wanted = fractions(eta, length.get("num_rungs"), length.get("first_fraction"))
    assert shares({"name": "halving", "eta": eta, **length}) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {}) for name in ("halving", "asha", "successive_halving", "hyperband", "bohb", "lr_race", "auto")],
        ("asha", {"rungs": [0.1, 0.3, 1.0]}),
        ("hyperband", {"eta": 4, "num_rungs": 4}),
        ("lr_race", {"first_fraction": 0.05}),
        ("two_stage", {}),
        ("two_stage", {"first_share": 0.4}),
        ("freeze_thaw", {}),
        ("freeze_thaw", {"first_share": 0.01, "step": 4.0}),
    ],
)
def test_rungs_lie_where_every_strategy_trains_its_first_run_to(name: str, options: dict[str, Any]) -> None:
    space = Space.parse({"lr": {"log": [1e-5, 1e-1]}})
    problem = Problem(space=space, metric=Metric("loss", "min"), horizon=lambda _: 10_000, seed=0)
    given = options if name in ("bohb", "lr_race", "freeze_thaw", "auto") else {"sampler": "random", **options}
    result = simulate(lambda h, f: 1 - f, space=space, metric="loss", budget="12 runs", horizon=10_000,
                      strategy={"name": name, **given})  # fmt: skip
    places = {report.position for run in result.tree for report in run.reports}
    assert places == {max(1, round(10_000 * share)) for share in shares({"name": name, **options})}
    first = strategy(name, given, problem).decide(Tree(), free_slots=1, left=Left({"runs": 1.0}))[0]
    assert isinstance(first, Start)
    assert first.until == min(places)


def test_the_page_offers_rungs_for_the_same_strategies() -> None:
    script = (files("thalweg.report.web") / "static" / "search_plots.js").read_text()
    offered = re.search(r"const WITH_RUNGS = (\[.*\]);", script)
    assert offered is not None
    assert set(json.loads(offered[1])) == WITH_RUNGS
    assert {*STRATEGIES, "auto"} >= WITH_RUNGS


def test_shortened_runs_are_not_joined(make: SimpleNamespace) -> None:
    view = make.view(rung_runs(make), strategy={"name": "halving", "shortened": True})
    with pytest.raises(ConfigError, match="each rung is a run of its own"):
        PLOTS["rungs"](view, {})


def rung_runs(make: SimpleNamespace) -> list[Any]:
    def reports(*values: float) -> tuple[Report, ...]:
        return tuple(Report(p, {"accuracy": v}) for p, v in zip((100, 300, 900), values, strict=False))

    return [
        make.run(0, horizon=900, position=900, status="finished", reports=reports(0.5, 0.6, 0.7)),
        make.run(1, horizon=900, position=300, status="paused", reports=reports(0.4, 0.5)),
        make.run(2, horizon=900, position=100, status="paused", reports=reports(0.3)),
        make.run(3, horizon=900, position=60, status="diverged", reports=()),
        make.run(4, horizon=900, position=50, status="running", reports=()),
    ]


def test_rungs_by_hand(make: SimpleNamespace) -> None:
    found = compared(make.view(rung_runs(make)))
    seen = [[(e.run.number, e.value, e.position, e.went_on) for e in rung if math.isfinite(e.value)] for rung in found]
    assert seen == [
        [(0, 0.5, 100, True), (1, 0.4, 100, True), (2, 0.3, 100, False)],
        [(0, 0.6, 300, True), (1, 0.5, 300, False)],
        [(0, 0.7, 900, True)],
    ]
    # As the strategy ranks: what diverged is the worst at every rung.
    assert [[e.run.number for e in rung if not math.isfinite(e.value)] for rung in found] == [[3], [3], [3]]


def test_rungs_are_drawn_with_who_went_on(make: SimpleNamespace) -> None:
    figure = PLOTS["rungs"](make.view(rung_runs(make)), {})
    by_name = {trace.name: trace for trace in figure.data if trace.name}
    assert list(by_name["went on, or reached the end"].customdata) == ["imdb-0", "imdb-1", "imdb-0", "imdb-0"]
    assert list(by_name["not taken further so far"].customdata) == ["imdb-2", "imdb-1"]
    assert "100 samples" in figure.layout.xaxis.ticktext[0]
    assert figure.layout.xaxis.ticktext[0].endswith("4 runs")


def test_a_trunk_is_compared_by_its_branches(make: SimpleNamespace) -> None:
    trunk = make.run(0, horizon=900, position=250, status="paused", reports=())
    branch = {"parent": "imdb-0", "horizon": 100, "position": 100, "fork_position": 80}
    runs = [trunk, make.run(1, **branch, reports=accuracy(0.55, 100))]
    found = compared(make.view(runs, strategy={"name": "halving", "trunk": True}))
    assert [[(e.run.number, e.value, e.position, e.went_on) for e in rung] for rung in found] == [
        [(0, 0.55, 100, True)], [], []
    ]  # fmt: skip


def test_other_strategies_have_no_rungs(make: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="'tpe', which trains every run to its end"):
        PLOTS["rungs"](make.view([make.run(1)], strategy={"name": "tpe"}), {})


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_what_no_point_beats(points: list[tuple[int, int]]) -> None:
    def beaten(p: tuple[int, int]) -> bool:
        return any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)

    front = pareto_front([(float(c), float(v)) for c, v in points])
    assert {points[i] for i in front} == {p for p in points if not beaten(p)}
    costs = [points[i][0] for i in front]
    assert costs == sorted(set(costs))


def test_the_front_is_marked_and_costs_can_be_chosen(make: SimpleNamespace) -> None:
    runs = [make.run(i, reports=accuracy(v)) for i, v in enumerate((0.5, 0.7, 0.6))]
    amounts = [(10, 3.0), (20, 2.0), (30, 1.0)]
    spent: Mapping[str, Mapping[SpendKind, Cost]] = {
        f"imdb-{i}": {"train": Cost(tokens=t, flops=f)} for i, (t, f) in enumerate(amounts)
    }
    view = make.view(runs, ledger=Ledger(spent, 3, 1.0))
    by_tokens = PLOTS["pareto"](view, {"against": "tokens"})
    on_front = next(trace for trace in by_tokens.data if str(trace.name).startswith("on the front"))
    assert list(on_front.customdata) == ["imdb-0", "imdb-1"]
    assert list(on_front.x) == [10, 20]
    by_flops = PLOTS["pareto"](view, {"against": "flops"})
    assert list(next(t for t in by_flops.data if str(t.name).startswith("on the")).customdata) == ["imdb-2", "imdb-1"]
    # Nothing else was spent: nothing else can be chosen.
    assert by_tokens.layout.meta["options"][0]["values"] == ("flops", "tokens")


def test_a_fork_costs_its_share_of_its_ancestors(make: SimpleNamespace) -> None:
    runs = [
        make.run(0, position=100),
        make.run(1, parent="imdb-0", fork_position=50, position=100),
        make.run(2, parent="imdb-1", fork_position=75, position=100),
    ]
    spent: Mapping[str, Mapping[SpendKind, Cost]] = {
        f"imdb-{i}": {"train": Cost(tokens=tokens)} for i, tokens in enumerate((1000, 400, 7))
    }
    view = make.view(runs, ledger=Ledger(spent, 3, 1.0))
    # Half of the root's, then half of the first fork's own.
    assert costs_to_reach(view, "tokens") == {"imdb-0": 1000, "imdb-1": 500 + 400, "imdb-2": 500 + 200 + 7}


def test_the_ledger_adds_up_and_shows_the_limit(make: SimpleNamespace) -> None:
    runs = [make.run(i) for i in range(3)]
    spent: Mapping[str, Mapping[SpendKind, Cost]] = {
        f"imdb-{i}": {"train": Cost(tokens=10 * (i + 1)), "evaluate": Cost(tokens=5)} for i in range(3)
    }
    view = make.view(runs, ledger=Ledger(spent, 3, 1.0), budget=Budget(tokens=100))
    figure = PLOTS["ledger"](view, {})
    layers = {trace.name: list(trace.y) for trace in figure.data}
    assert layers == {"train": [10, 30, 60], "evaluate": [5, 10, 15]}
    assert figure.layout.shapes[0].y0 == 100
    assert figure.layout.yaxis.range[1] > 100
    assert "Left of the budget: 25 tokens" in figure.layout.meta["note"]
    assert "no times" in figure.layout.meta["note"]


def test_a_clock_is_not_drawn_over_time_summed_over_runs(make: SimpleNamespace) -> None:
    view = make.view([make.run(i) for i in range(3)], budget=Budget(seconds=480.0))
    figure = PLOTS["ledger"](view, {"field": "seconds"})
    assert not figure.layout.shapes
    assert "432 of 480 seconds" in figure.layout.meta["note"]


def test_thousands_of_runs_take_few_traces(make: SimpleNamespace) -> None:
    runs = [make.run(i, reports=accuracy(0.5 + (i % 97) / 1000)) for i in range(2000)]
    view: StudyView = make.view(runs)
    for kind in ("history", "slices", "contour", "rungs", "pareto", "ledger"):
        assert len(PLOTS[kind](view, {}).data) < 40, kind
    parallel = PLOTS["parallel"](view, {})
    assert len(parallel.data) < 400
    assert "best 300 of 2,000" in parallel.layout.meta["note"]
