"""Every figure, with what studies look like on good and on bad days."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import plotly.io
import pytest

from thalweg.budget import Budget, Cost, Ledger
from thalweg.report.curves import line, panel_metrics
from thalweg.report.figures import all_panels, costs, history, importance_bars, learning_curves, rungs
from thalweg.report.fork_tree import fork_tree
from thalweg.report.importance import MIN_RUNS, importance
from thalweg.report.palette import STATUS_MARKS, label, looks
from thalweg.report.parallel import ABSENT, parallel_coordinates
from thalweg.report.view import StudyView
from thalweg.space import Space
from thalweg.track.series import Reduced
from thalweg.tree import Metric, Report, Status


def awkward_views(make: SimpleNamespace) -> dict[str, StudyView]:
    nan = (Report(100, {"accuracy": math.nan}),)
    infinite = (Report(6000, {"accuracy": -math.inf, "loss": math.inf}),)
    lonely = make.run(1)
    statuses = [make.run(i, status=status) for i, status in enumerate(STATUS_MARKS) if status != "crashed"]
    outlier = [make.run(i, reports=(Report(6000, {"loss": 1e30 if i == 3 else 0.1 * i}),)) for i in range(8)]
    lora = {"integer": [1, 64], "log": True, "when": {"adapter": "lora"}}
    space = Space.parse({"adapter": {"choice": ["lora", "none"]}, "r": lora})
    points = [{"adapter": "lora", "r": 2 + i} if i % 2 else {"adapter": "none"} for i in range(6)]
    conditional = [
        make.run(i, hyperparameters=point, horizon=6000, reports=(Report(6000, {"accuracy": 0.1 * i}),))
        for i, point in enumerate(points)
    ]
    return {
        "no runs": make.view([]),
        "one run": make.view([lonely]),
        "nothing spent": make.view([lonely], ledger=Ledger()),
        "only tokens": make.view([lonely], ledger=Ledger({lonely.id: {"train": Cost(tokens=9)}}, 1, 0.0)),
        "pending only": make.view([make.run(1, status="pending", position=0, reports=())]),
        "all failed": make.view([make.run(i, status="failed", reports=(), error="x") for i in range(6)]),
        "not a number": make.view([make.run(i, status="diverged", reports=nan) for i in range(6)]),
        "infinite": make.view([make.run(1, reports=infinite), make.run(2)]),
        "equal results": make.view([make.run(i, reports=(Report(6000, {"accuracy": 0.5}),)) for i in range(6)]),
        "every status": make.view(statuses),
        "outlier": make.view(outlier, metric=Metric("loss", "min"), budget=Budget()),
        "conditional": make.view(conditional, space=space),
        "everything": make.rich_view(14),
    }


AWKWARD = (
    "no runs", "one run", "nothing spent", "only tokens", "pending only", "all failed", "not a number", "infinite",
    "equal results", "every status", "outlier", "conditional", "everything",
)  # fmt: skip


@pytest.mark.parametrize("name", AWKWARD)
def test_every_figure_can_be_drawn(make: SimpleNamespace, name: str) -> None:
    view = awkward_views(make)[name]
    panels = all_panels(view, make.curves(view))
    assert len({panel.key for panel in panels}) == len(panels)
    for panel in panels:
        assert panel.caption
        if panel.figure is None:
            continue
        drawn = json.loads(plotly.io.to_json(panel.figure), parse_constant=lambda word: pytest.fail(word))
        for key, axis in drawn["layout"].items():
            if "axis" in key and "range" in axis:
                assert all(math.isfinite(end) for end in axis["range"]), (panel.key, key)


def test_no_figure_without_anything_to_draw(make: SimpleNamespace) -> None:
    view = make.view([])
    assert all(panel.figure is None for panel in all_panels(view, {}))
    assert importance_bars({}) is None


def test_rungs_are_for_halving_only(make: SimpleNamespace) -> None:
    view = make.view([make.run(1)], strategy={"name": "tpe"})
    assert "rungs" not in [panel.key for panel in all_panels(view, {})]


def test_history_keeps_the_best_so_far(make: SimpleNamespace) -> None:
    values = [0.7, 0.6, 0.8, 0.75]
    view = make.view([make.run(i, reports=(Report(6000, {"accuracy": v}),)) for i, v in enumerate(values)])
    figure = history(view)
    assert figure is not None
    best = [trace for trace in figure.data if trace.name == "best finished run so far"]
    assert [list(trace.y) for trace in best] == [[0.7, 0.7, 0.8, 0.8]] * 2
    spent = [view.ledger.of(f"imdb-{i}").device_seconds for i in range(4)]
    factor = 60 if sum(spent) >= 120 else 1
    assert list(best[1].x) == pytest.approx(list(np.cumsum(spent) / factor))


def test_history_cuts_an_outlier_at_the_worse_end_only(make: SimpleNamespace) -> None:
    figure = history(awkward_views(make)["outlier"])
    assert figure is not None
    low, high = figure.layout.yaxis.range
    assert low < 0.0
    assert 0.7 < high < 10


def test_a_spike_is_in_the_drawn_line() -> None:
    zeros = np.zeros(3, dtype=np.int64)
    first = np.array([0, 10, 20])
    curve = Reduced(first, first + 9, np.array([1.0, 1.0, 1.0]), np.array([1.0, 500.0, 1.0]), zeros, zeros + 10)
    positions, values = line(curve)
    assert values.max() == 500.0
    assert (np.diff(positions) >= 0).all()
    assert list(positions) == [0, 9, 10, 14, 19, 20, 29]


def test_values_that_are_not_numbers_are_marked(make: SimpleNamespace) -> None:
    view = make.view([make.run(1)])
    first = np.array([0, 10])
    counts = np.array([0, 10])
    broken = Reduced(first, first + 9, np.array([1.0, math.nan]), np.array([1.0, math.nan]), counts, counts + 10)
    figure = learning_curves(view, {"train/loss": {"imdb-1": broken}})
    assert figure is not None
    crosses = [trace for trace in figure.data if trace.marker.symbol == "x"]
    assert [list(trace.x) for trace in crosses] == [[10]]


def test_the_inherited_part_of_a_fork_is_pale_and_meets_its_own(make: SimpleNamespace) -> None:
    parent = make.run(1, position=6000, horizon=6000)
    child = make.run(2, parent="imdb-1", fork_position=2000, position=6000, horizon=6000)
    view = make.view([parent, child])
    figure = learning_curves(view, {"train/loss": {"imdb-2": make.curves(view)["train/loss"]["imdb-2"]}})
    assert figure is not None
    parts = [trace for trace in figure.data if trace.name == "imdb-2"]
    assert len(parts) == 2
    assert parts[0].opacity < parts[1].opacity
    assert max(parts[0].x) == min(parts[1].x) <= 2000


def test_forks_leave_their_parents_line_at_the_fork_point(make: SimpleNamespace) -> None:
    runs = [
        make.run(1, position=6000, horizon=6000),
        make.run(2, position=6000, horizon=6000),
        make.run(3, parent="imdb-1", fork_position=2000, position=4000, horizon=6000, status="stopped"),
    ]
    figure = fork_tree(make.view(runs))
    assert figure is not None
    elbow = next(trace for trace in figure.data if trace.mode == "lines" and 2000 in trace.x)
    # The child's row lies directly below its parent's, above that of the next root.
    assert list(zip(elbow.x, elbow.y, strict=True))[:3] == [(2000, 0), (2000, 1), (4000, 1)]
    rows = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    assert rows == {"imdb-1": 0, "imdb-3": 1, "imdb-2": 2}


def test_a_lineage_of_a_thousand_forks_is_drawn(make: SimpleNamespace) -> None:
    forks = [{"parent": f"imdb-{i - 1}", "fork_position": i, "position": i + 10} for i in range(1, 1001)]
    runs = [make.run(i, reports=(), **fork) for i, fork in enumerate([{}, *forks])]
    figure = fork_tree(make.view(runs))
    assert figure is not None
    assert figure.layout.height < 6000


def test_statuses_differ_by_symbol_and_not_only_by_colour() -> None:
    assert len({symbol for _, symbol in STATUS_MARKS.values()}) == len(STATUS_MARKS)
    assert set(Status.__args__) < set(STATUS_MARKS)  # type: ignore[attr-defined]


def test_parallel_coordinates_by_hand(make: SimpleNamespace) -> None:
    values = [{"lr": 1e-6, "batch_size": 8, "epochs": 1}, {"lr": 1e-3, "batch_size": 16, "epochs": 3}]
    reports = [(Report(6000, {"accuracy": 0.5}),), (Report(6000, {"accuracy": 0.7}),)]
    runs = [make.run(i, hyperparameters=v, reports=r) for i, (v, r) in enumerate(zip(values, reports, strict=True))]
    figure = parallel_coordinates(make.view(runs))
    assert figure is not None
    lines = {tuple(trace.y) for trace in figure.data if trace.x[0] is not None}
    assert lines == {(0.0, 0.0, 0.0, 0.0), (1.0, 0.5, 1.0, 1.0)}


def test_parallel_coordinates_put_the_better_end_on_top_whatever_the_goal(make: SimpleNamespace) -> None:
    runs = [make.run(i, reports=(Report(6000, {"loss": float(i)}),)) for i in (1, 2)]
    figure = parallel_coordinates(make.view(runs, metric=Metric("loss", "min")))
    assert figure is not None
    by_text = {trace.text.split(" ")[0]: trace.y[-1] for trace in figure.data if trace.text}
    assert by_text == {"imdb-1": 1.0, "imdb-2": 0.0}


def test_a_hyperparameter_that_a_run_does_not_have_is_marked(make: SimpleNamespace) -> None:
    figure = parallel_coordinates(awkward_views(make)["conditional"])
    assert figure is not None
    assert ABSENT in {trace.y[1] for trace in figure.data if trace.text}
    assert "unused" in {annotation.text for annotation in figure.layout.annotations}


def test_costs_stack_to_what_each_run_spent(make: SimpleNamespace) -> None:
    view = make.rich_view(8)
    figure = costs(view)
    assert figure is not None
    bars = [trace for trace in figure.data if trace.x[0] is not None]
    for i, run in enumerate(view.tree):
        spent = view.ledger.of(run.id).device_seconds
        assert sum(bar.y[i] for bar in bars) * 60 == pytest.approx(spent)
    failed = [i for i, run in enumerate(view.tree) if run.status in ("failed", "diverged")]
    assert [i for i, shape in enumerate(bars[0].marker.pattern.shape) if shape] == failed


def test_rungs_stand_at_the_share_of_a_runs_own_horizon(make: SimpleNamespace) -> None:
    reports = (Report(500, {"accuracy": 0.5}), Report(2000, {"accuracy": 0.6}))
    figure = rungs(make.view([make.run(1, horizon=2000, reports=reports)]))
    assert figure is not None
    assert list(figure.data[0].x) == [0.25, 1.0]


def test_importance_finds_what_matters(make: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    runs = []
    for i in range(30):
        values = {"lr": float(10 ** rng.uniform(-6, -3)), "batch_size": int(rng.choice([8, 16])), "epochs": 1 + i % 3}
        runs.append(
            make.run(i, hyperparameters=values, reports=(Report(6000, {"accuracy": -math.log10(values["lr"])}),))
        )
    found = importance(make.view(runs))
    assert next(iter(found.shares)) == "lr"
    assert found.shares["lr"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1.0)


def test_importance_has_intervals_and_says_when_they_are_wide(make: SimpleNamespace) -> None:
    many = importance(make.view([make.run(i) for i in range(1, 60)]))
    assert set(many.intervals) == set(many.shares)
    assert all(0 <= low <= high <= 1 for low, high in many.intervals.values())
    assert (
        many.intervals["lr"][0] > 0.5
    )  # the accuracy of these runs falls with the distance of the learning rate's logarithm
    assert "Not enough runs" not in many.basis
    rng = np.random.default_rng(0)
    noise = [
        make.run(i, reports=(Report(6000, {"accuracy": float(rng.random())}),), position=6000, horizon=6000)
        for i in range(1, 8)
    ]
    assert "Not enough runs" in importance(make.view(noise)).basis


def test_importance_of_thousands_of_runs_is_of_some_of_them(make: SimpleNamespace) -> None:
    found = importance(make.view([make.run(i) for i in range(1, 3_001)]))
    assert "From 200 runs" in found.basis
    assert "Of 3,000 such runs they are drawn at random" in found.basis


def test_importance_says_when_it_cannot_tell(make: SimpleNamespace) -> None:
    few = importance(make.view([make.run(i) for i in range(1, MIN_RUNS)]))
    assert few.shares == {}
    assert "Too few runs" in few.basis
    equal = importance(awkward_views(make)["equal results"])
    assert "nothing to tell" in equal.basis
    nan = [make.run(i, reports=(Report(6000, {"accuracy": math.nan}),)) for i in range(9)]
    assert "0 comparable results" in importance(make.view(nan)).basis


def test_importance_compares_at_the_furthest_rung_that_enough_runs_reached(make: SimpleNamespace) -> None:
    runs = []
    for i in range(12):
        reports = (Report(667, {"accuracy": 0.1 * i}), Report(6000, {"accuracy": 0.5 + 0.01 * i}))
        runs.append(make.run(i, horizon=6000, reports=reports if i < 3 else reports[:1]))
    assert "12 runs compared after 11% of their training" in importance(make.view(runs)).basis


def test_importance_leaves_out_what_not_every_run_has(make: SimpleNamespace) -> None:
    found = importance(awkward_views(make)["conditional"])
    assert "r" not in found.shares
    assert "Left out, because not every run has them: r." in found.basis


def test_importance_takes_a_baseline_outside_the_space(make: SimpleNamespace) -> None:
    outside = {"lr": 0.5, "batch_size": 64, "epochs": 10}
    report = (Report(6000, {"accuracy": 0.2}),)
    runs = [make.run(0, hyperparameters=outside, reports=report)]
    runs += [make.run(i, reports=(Report(6000, {"accuracy": 0.1 * i}),), horizon=6000) for i in range(1, 9)]
    assert set(importance(make.view(runs)).shares) == {"lr", "batch_size", "epochs"}


def test_labels_cannot_be_read_as_markup_or_templates() -> None:
    assert label("<b>&%{y}") == "&lt;b&gt;&amp;%&#123;y}"


def test_looks_single_out_the_best_and_the_baseline(make: SimpleNamespace) -> None:
    view = make.rich_view(12)
    found = looks(view)
    assert view.best is not None
    assert found[view.best.id].group == "best run"
    assert found["imdb-0"].group == "baseline"
    assert looks(make.view([make.baseline()]))["imdb-0"].group == "best run, which is the baseline"


def test_panels_of_curves_by_what_was_logged(make: SimpleNamespace) -> None:
    view = make.view([])
    assert panel_metrics(view, {"validation/accuracy", "train/loss", "train/gradient_norm", "train/lr"}) == [
        "validation/accuracy",
        "train/loss",
        "train/gradient_norm",
    ]
    assert panel_metrics(view, {"loss"}) == ["loss"]
    assert panel_metrics(view, set()) == []
