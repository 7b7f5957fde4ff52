"""Which runs were compared at which rung, and which went on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from thalweg.errors import ConfigError
from thalweg.report.figures import robust_range
from thalweg.report.palette import BLUE, GREY, SKY, VERMILLION, finish, hover, label, metric_axis
from thalweg.report.plots_caption import Options, captioned, check_names
from thalweg.report.rung_places import WITH_RUNGS, shares
from thalweg.report.view import StudyView
from thalweg.report.wording import number, score
from thalweg.tree import Run


@dataclass(frozen=True)
class Compared:
    """A run's result at a rung."""

    run: Run
    value: float
    """The study's metric there; not a finite number where the run diverged."""
    position: int
    """Where it was evaluated, in the study's unit."""
    went_on: bool
    """It was trained beyond the rung, or this was the last one."""


def compared(view: StudyView) -> list[list[Compared]]:
    """Per rung, the runs with a result there, in order of creation.

    A run's result is its first evaluation at or after the rung and before the next. With trunks it is what a branch
    with the rung's budget came to.
    """
    fractions = shares(view.strategy)
    branches: dict[tuple[str, int], Run] = {}
    # Where `auto` is not told, it takes trunks where there are some.
    if view.strategy.get("trunk", view.strategy.get("name") == "auto"):
        for run in view.tree:
            if run.parent is not None:
                branches.setdefault((run.parent, run.horizon), run)
    found: list[list[Compared]] = [[] for _ in fractions]
    for run in view.tree.roots():
        if run.origin == "auto:confirm":  # trained to its end whatever it came to at a rung
            continue
        rungs = [max(1, round(run.horizon * share)) for share in fractions]
        for k, position in enumerate(rungs):
            is_last = k == len(rungs) - 1
            end = math.inf if is_last else rungs[k + 1]
            result = _branch_result(view, branches.get((run.id, position))) or _result(view, run, position, end)
            if result is not None:
                found[k].append(Compared(run, *result, went_on=is_last or run.position > max(position, result[1])))
    return found


def rungs(view: StudyView, options: Options) -> go.Figure:
    """Results at each rung, joined where a run went on from one to the next.

    Raises:
        ConfigError: the strategy has no rungs, or no run has reached one.
    """
    check_names("rungs", options, ())
    if view.strategy.get("shortened"):
        raise ConfigError(
            f"plot 'rungs' needs runs that go on from rung to rung; those of {view.name!r} are shortened: each rung is"
            " a run of its own"
        )
    if view.strategy.get("name") not in WITH_RUNGS:
        raise ConfigError(
            f"plot 'rungs' needs a strategy with rungs, such as 'halving'; {view.name!r} has the strategy"
            f" {view.strategy.get('name')!r}, which trains every run to its end"
        )
    found = compared(view)
    finite = [entry.value for rung in found for entry in rung if math.isfinite(entry.value)]
    if not finite:
        raise ConfigError(f"plot 'rungs' needs a run that has been evaluated at a rung; {view.name!r} has none so far")
    ends = robust_range(finite, view.metric.goal)
    figure = go.Figure()
    _joins(figure, view, found, ends)
    _marks(figure, view, found, ends)
    figure.update_xaxes(
        tickvals=list(range(len(found))), ticktext=_ticks(view, found), range=[-0.35, len(found) - 0.65], showgrid=True
    )
    figure.update_yaxes(metric_axis(view), range=ends)
    counts = ", ".join(f"{len(rung)} at rung {k + 1}" for k, rung in enumerate(found))
    note = (
        "Runs are compared at the same share of their own training, and the better ones go on."
        f" Compared so far: {counts}."
    )
    return captioned(finish(figure, 460), view, "Rungs", note)


def _result(view: StudyView, run: Run, position: int, end: float) -> tuple[float, int] | None:
    report = run.report_at(position)
    if report is not None and report.position < end and view.metric.name in report.metrics:
        return report.metrics[view.metric.name], report.position
    # It diverged on the way to this rung: the worst result there is.
    diverged_here = run.status == "diverged" and run.position <= position
    return (math.nan, run.position) if diverged_here else None


def _branch_result(view: StudyView, branch: Run | None) -> tuple[float, int] | None:
    if branch is not None and branch.status == "diverged":
        return math.nan, branch.horizon
    if branch is None or branch.status != "finished" or not branch.reports:
        return None
    report = branch.reports[-1]
    return (report.metrics[view.metric.name], report.position) if view.metric.name in report.metrics else None


def _joins(figure: go.Figure, view: StudyView, found: Sequence[Sequence[Compared]], ends: Sequence[float]) -> None:
    """One trace for all lines: a trace each is slow with thousands of runs."""
    xs: list[int | None] = []
    ys: list[float | None] = []
    for k in range(len(found) - 1):
        above = {entry.run.id: entry for entry in found[k + 1]}
        for entry in found[k]:
            if entry.run.id in above:
                xs += [k, k + 1, None]
                ys += [_height(view, entry.value, ends), _height(view, above[entry.run.id].value, ends), None]
    figure.add_scatter(x=xs, y=ys, mode="lines", line={"color": SKY, "width": 1.2}, hoverinfo="skip", showlegend=False)


def _marks(figure: go.Figure, view: StudyView, found: Sequence[Sequence[Compared]], ends: Sequence[float]) -> None:
    kinds = {
        "went on, or reached the end": {"color": BLUE, "symbol": "circle"},
        "not taken further so far": {"color": GREY, "symbol": "circle-open"},
        "diverged": {"color": VERMILLION, "symbol": "x"},
    }
    entries = [(k, entry) for k, rung in enumerate(found) for entry in rung]
    for name, look in kinds.items():
        here = [(k, entry) for k, entry in entries if _kind(entry) == name]
        if not here:
            continue
        figure.add_scatter(
            x=[k for k, _ in here],
            y=[_height(view, entry.value, ends) for _, entry in here],
            mode="markers",
            marker={**look, "size": 9 if len(entries) <= 200 else 6},
            name=name,
            text=[_box(view, entry) for _, entry in here],
            customdata=[entry.run.id for _, entry in here],
            hoverinfo="text",
            cliponaxis=False,
        )


def _kind(entry: Compared) -> str:
    if not math.isfinite(entry.value):
        return "diverged"
    return "went on, or reached the end" if entry.went_on else "not taken further so far"


def _box(view: StudyView, entry: Compared) -> str:
    at = f"{score(view.metric.name, entry.value)} at {entry.position:,} {view.unit}"
    return f"{label(at)}<br>{hover(view, entry.run)}"


def _height(view: StudyView, value: float, ends: Sequence[float]) -> float:
    worse = ends[0] if view.metric.goal == "max" else ends[1]
    return min(max(value, ends[0]), ends[1]) if math.isfinite(value) else worse


def _ticks(view: StudyView, found: Sequence[Sequence[Compared]]) -> list[str]:
    """A rung's number, its share, and its position where all runs have the same."""
    horizons = {run.horizon for run in view.tree.roots()}
    ticks = []
    for k, share in enumerate(shares(view.strategy)):
        place = f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"
        if len(horizons) == 1:
            place += f", {number(max(1, round(next(iter(horizons)) * share)))} {view.unit}"
        ticks.append(f"rung {k + 1}<br>{label(place)}<br>{len(found[k])} runs")
    return ticks
