"""The figures of a study, as Plotly figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from thalweg.budget import SPEND_KINDS
from thalweg.report.curves import Curves, line
from thalweg.report.fork_tree import fork_tree
from thalweg.report.importance import importance
from thalweg.report.palette import (
    BLUE,
    GREY,
    KIND_COLOURS,
    ORANGE,
    STATUS_MARKS,
    VERMILLION,
    Look,
    cost_axis,
    drawn_last,
    finish,
    hover,
    label,
    legend_only,
    looks,
    metric_axis,
    tick_format,
)
from thalweg.report.parallel import parallel_coordinates
from thalweg.report.rung_places import WITH_RUNGS
from thalweg.report.view import StudyView
from thalweg.report.wording import result, score
from thalweg.track.series import Reduced
from thalweg.tree import Run


@dataclass(frozen=True)
class Panel:
    """One figure with what stands around it."""

    key: str
    title: str
    caption: str
    """How to read it, in a line or two."""
    figure: go.Figure | None
    """None where there is nothing to draw; the caption says why."""


def all_panels(view: StudyView, curves: Curves) -> list[Panel]:
    """The report's figures, in order."""
    panels = [_history_panel(view), _curves_panel(view, curves), _tree_panel(view)]
    if view.strategy.get("name") in WITH_RUNGS and not view.strategy.get("shortened"):
        panels.append(_rungs_panel(view))
    return [*panels, _parallel_panel(view), _importance_panel(view), _cost_panel(view)]


def history(view: StudyView) -> go.Figure | None:
    """Results in order of the runs and against the cost so far; None before the first result."""
    scored = [run for run in view.tree if _finite(result(run, view.metric))]
    if not scored:
        return None
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.2)
    field, factor, unit = cost_axis(view)
    costs = np.cumsum([getattr(view.ledger.of(run.id), field) / factor for run in view.tree])
    numbers = np.array([run.number for run in view.tree])
    ends = robust_range([_value(view, run) for run in scored], view.metric.goal)
    for row, xs in ((1, numbers), (2, costs)):
        _best_so_far(figure, view, row, xs)
        _marks(figure, view, row, xs, ends)
        if (level := _baseline_value(view)) is not None:
            figure.add_hline(y=level, line={"color": ORANGE, "dash": "dash", "width": 1.5}, row=row, col=1)
    if _baseline_value(view) is not None:
        legend_only(figure, "baseline", mode="lines", line={"color": ORANGE, "dash": "dash", "width": 1.5})
    figure.update_yaxes(metric_axis(view), range=ends)
    figure.update_xaxes(title_text="run number", tickformat="d", row=1, col=1)
    figure.update_xaxes(title_text=f"{unit} spent, by order of the runs", rangemode="tozero", row=2, col=1)
    if len(view.tree) <= 10:
        figure.update_xaxes(dtick=1, range=[-0.5, len(view.tree) - 0.5], row=1, col=1)
    return finish(figure, 620)


def learning_curves(view: StudyView, curves: Curves) -> go.Figure | None:
    """Curves over each run's lineage, a panel per metric; None where no run has logged any."""
    metrics = [metric for metric, of_runs in curves.items() if of_runs]
    if not metrics:
        return None
    figure = make_subplots(rows=len(metrics), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    found = looks(view)
    order = drawn_last(view, found)
    for row, metric in enumerate(metrics, start=1):
        of_runs = curves[metric]
        for run in order:
            if run.id in of_runs:
                _curve(figure, view, run, of_runs[run.id], found[run.id], row)
        name = metric.removeprefix("train/").replace("_", " ")
        title = name.replace("validation/", "validation ") if "/" in name else f"training {name}"
        scale = "log" if _spans_decades(list(of_runs.values())) else "linear"
        is_metric = metric.removeprefix("validation/") == view.metric.name
        form = tick_format(view) if is_metric else "~g"
        figure.update_yaxes(title_text=label(title), type=scale, tickformat=form, row=row, col=1)
        if scale == "log":
            figure.update_yaxes(dtick=1, minor={"ticks": "outside", "ticklen": 3}, tickformat="~g", row=row, col=1)
    figure.update_xaxes(title_text=f"position ({view.unit})", row=len(metrics), col=1)
    figure.update_xaxes(rangemode="tozero", tickformat=",d")
    present = [found[run.id] for run in reversed(order) if any(run.id in curves[metric] for metric in metrics)]
    for look in dict.fromkeys(present):
        legend_only(
            figure, look.group, mode="lines", line={"color": look.colour, "width": look.width, "dash": look.dash}
        )
    return finish(figure, 60 + 250 * len(metrics))


def costs(view: StudyView) -> go.Figure | None:
    """What each run cost, stacked by kind; None where nothing was spent."""
    field, factor, unit = cost_axis(view)
    if not getattr(view.total_cost, field):
        return None
    figure = go.Figure()
    runs = list(view.tree)
    # Failed work is hatched: by pattern and not by colour, since colour tells the kind.
    shapes = ["/" if run.status in ("failed", "diverged") else "" for run in runs]
    texts = [hover(view, run) for run in runs]
    for kind in SPEND_KINDS:
        spent = [view.ledger.spent.get(run.id, {}).get(kind) for run in runs]
        heights = [getattr(cost, field) / factor if cost else 0.0 for cost in spent]
        if any(heights):
            pattern = {"shape": shapes, "fillmode": "overlay", "fgcolor": "#ffffff", "size": 6, "solidity": 0.4}
            figure.add_bar(
                x=[run.number for run in runs],
                y=heights,
                name=kind,
                marker={"color": KIND_COLOURS[kind], "pattern": pattern, "line": {"width": 0}},
                hovertext=[
                    f"{text}<br>{kind}: {height:.3g} {unit}" for text, height in zip(texts, heights, strict=True)
                ],
                hoverinfo="text",
            )
    if any(shapes):
        hatched = {"shape": "/", "fillmode": "overlay", "fgcolor": "#ffffff", "size": 6, "solidity": 0.4}
        figure.add_bar(x=[None], y=[None], name="failed or diverged", marker={"color": GREY, "pattern": hatched})
    figure.update_layout(barmode="stack", bargap=0.25, showlegend=True, legend={"traceorder": "normal"})
    figure.update_yaxes(title_text=unit, tickformat="~s" if field in ("flops", "tokens") else "~g")
    figure.update_xaxes(title_text="run number", tickformat="d", **({"dtick": 1} if len(runs) <= 20 else {}))
    if len(runs) <= 4:
        figure.update_xaxes(range=[-1.5, max(len(runs), 3) + 0.5])
    return finish(figure, 380)


def rungs(view: StudyView) -> go.Figure | None:
    """Results against the share of its own training that each run had behind it; None before the first result."""
    figure = go.Figure()
    found = looks(view)
    drawn: list[Look] = []
    values: list[float] = []
    for run in drawn_last(view, found):
        pairs = [(r.position, r.metrics.get(view.metric.name, math.nan)) for r in run.reports]
        pairs = [(position, value) for position, value in pairs if math.isfinite(value)]
        if not pairs:
            continue
        look = found[run.id]
        drawn.append(look)
        values += [value for _, value in pairs]
        figure.add_scatter(
            x=[position / max(run.horizon, 1) for position, _ in pairs],
            y=[value for _, value in pairs],
            mode="lines+markers",
            opacity=look.opacity,
            line={"color": look.colour, "width": look.width, "dash": look.dash},
            marker={"size": 7},
            text=[f"{hover(view, run)}<br>{score(view.metric.name, v)} at {p:,} {view.unit}" for p, v in pairs],
            hoverinfo="text",
            showlegend=False,
        )
    if not values:
        return None
    for look in dict.fromkeys(reversed(drawn)):
        legend_only(
            figure, look.group, mode="lines", line={"color": look.colour, "width": look.width, "dash": look.dash}
        )
    figure.update_yaxes(metric_axis(view), range=robust_range(values, view.metric.goal))
    figure.update_xaxes(title_text="share of the run's own training", tickformat=".0%", range=[0, 1.04])
    return finish(figure, 420)


def importance_bars(
    shares: dict[str, float], intervals: Mapping[str, tuple[float, float]] | None = None
) -> go.Figure | None:
    """Shares of variance explained with their intervals, the largest on top; None where there are none."""
    if not shares:
        return None
    names = list(shares)[::-1]
    figure = go.Figure()
    figure.add_bar(
        x=[shares[name] for name in names],
        y=list(range(len(names))),
        orientation="h",
        marker={"color": BLUE},
        showlegend=False,
        text=[_share_text(shares[name], intervals, name) for name in names],
        textposition="outside" if not intervals else "none",
        cliponaxis=False,
        hovertext=[f"{label(name)}: {_share_text(shares[name], intervals, name)} of the variance" for name in names],
        hoverinfo="text",
    )
    if intervals:
        ends = [intervals[name] for name in names]
        figure.add_scatter(
            x=[part for low, high in ends for part in (low, high, None)],
            y=[part for i in range(len(names)) for part in (i, i, None)],
            mode="lines+markers",
            line={"color": GREY, "width": 1.5},
            marker={"symbol": "line-ns-open", "size": 9},
            hoverinfo="skip",
            showlegend=False,
        )
        for i, name in enumerate(names):
            text = _share_text(shares[name], intervals, name)
            at = max(shares[name], intervals[name][1])
            figure.add_annotation(
                x=min(at, 0.84),
                y=i,
                text=text,
                showarrow=False,
                xanchor="left",
                xshift=8,
                yshift=11 if at > 0.84 else 0,
            )
    shown = [label(name if len(name) <= 28 else f"{name[:27]}…") for name in names]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=shown, ticklabelstandoff=6)
    figure.update_xaxes(title_text="share of variance explained", tickformat=".0%", range=[0, 1.08], dtick=0.25)
    return finish(figure, 110 + 34 * len(names))


def _share_text(share: float, intervals: Mapping[str, tuple[float, float]] | None, name: str) -> str:
    if not intervals:
        return f"{share:.0%}"
    low, high = intervals[name]
    return f"{share:.0%} ({low:.0%} to {high:.0%})"


def _marks(figure: go.Figure, view: StudyView, row: int, xs: Any, ends: Sequence[float]) -> None:
    """A symbol per run; those without a usable value stand at the panel's worse end."""
    worse = ends[0] if view.metric.goal == "max" else ends[1]
    runs = list(view.tree)
    for status, (colour, symbol) in STATUS_MARKS.items():
        here = [i for i, run in enumerate(runs) if view.status(run) == status]
        here = [i for i in here if _finite(_value(view, runs[i])) or status in ("failed", "diverged")]
        if not here:
            continue
        values = [_value(view, runs[i]) for i in here]
        figure.add_scatter(
            x=[xs[i] for i in here],
            y=[min(max(v, min(ends)), max(ends)) if _finite(v) else worse for v in values],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9 if len(runs) <= 60 else 6},
            name=status,
            legendgroup=status,
            showlegend=row == 1,
            text=[hover(view, runs[i]) for i in here],
            hoverinfo="text",
            cliponaxis=False,
            row=row,
            col=1,
        )


def _best_so_far(figure: go.Figure, view: StudyView, row: int, xs: Any) -> None:
    best = math.inf
    points: list[tuple[float, float]] = []
    for x, run in zip(xs, view.tree, strict=True):
        loss = view.finite_loss(run)
        if loss is not None and loss < best:
            best = loss
        if math.isfinite(best):
            points.append((x, best if view.metric.goal == "min" else -best))
    figure.add_scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        name="best finished run so far",
        legendgroup="best",
        showlegend=row == 1 and bool(points),
        hoverinfo="skip",
        row=row,
        col=1,
    )


def _curve(figure: go.Figure, view: StudyView, run: Run, curve: Reduced, look: Look, row: int) -> None:
    positions, values = line(curve)
    inherited = positions <= run.fork_position if run.parent is not None else np.zeros(positions.shape, dtype=bool)
    # The own part begins at the last inherited point, so that the two parts meet.
    own = positions >= positions[inherited][-1] if inherited.any() else ~inherited
    parts = [(inherited, 0.3), (own, 1.0)]
    for part, strength in parts:
        if not part.any():
            continue
        mode = "lines+markers" if part.sum() <= 40 else "lines"
        figure.add_scatter(
            x=positions[part].astype(np.int32) if positions[-1] < 2**31 else positions[part],
            y=values[part].astype(np.float32),
            mode=mode,
            marker={"size": 4},
            line={"color": look.colour, "width": look.width, "dash": look.dash},
            opacity=look.opacity * strength,
            name=label(run.id),
            text=hover(view, run),
            hovertemplate="%{y:.4~g} at %{x:,d}<br>%{text}<extra></extra>",
            showlegend=False,
            row=row,
            col=1,
        )
    broken = curve.num_nonfinite > 0
    if broken.any() and (finite := values[np.isfinite(values)]).size:
        figure.add_scatter(
            x=curve.first_position[broken][:200],
            y=np.full(min(int(broken.sum()), 200), finite[-1]),
            mode="markers",
            marker={"symbol": "x", "color": VERMILLION, "size": 9},
            text=f"not a finite number<br>{hover(view, run)}",
            hoverinfo="text",
            showlegend=False,
            row=row,
            col=1,
        )


def _history_panel(view: StudyView) -> Panel:
    caption = (
        f"Each mark is a run's last validation {view.metric.name}; the line is the best finished run so far. Paused and"
        " stopped runs were scored before the end of their training. Failed and diverged runs lie at the worse edge."
    )
    return _panel("history", "Search history", caption, history(view), "No run has been evaluated yet.")


def _curves_panel(view: StudyView, curves: Curves) -> Panel:
    caption = (
        "Every spike is drawn, whatever the zoom. What a fork inherits from its parent is pale; a red cross is a value"
        " that was not a finite number."
    )
    return _panel("curves", "Learning curves", caption, learning_curves(view, curves), "No run has logged a curve yet.")


def _tree_panel(view: StudyView) -> Panel:
    caption = "A line per run, from where it began to where it got; a fork leaves its parent's line at its fork point."
    return _panel("tree", "Tree of runs", caption, fork_tree(view), "There are no runs yet.")


def _rungs_panel(view: StudyView) -> Panel:
    caption = "Runs are compared at the same share of their own training, and the better ones are trained on."
    return _panel("rungs", "Rungs", caption, rungs(view), "No run has reached a rung yet.")


def _parallel_panel(view: StudyView) -> Panel:
    caption = (
        f"A line per run with a result, through its hyperparameters to its last validation {view.metric.name} on the"
        " right (best on top). Good regions are where the strong lines run together."
    )
    return _panel("parallel", "Hyperparameters", caption, parallel_coordinates(view), "No run has been evaluated yet.")


def _importance_panel(view: StudyView) -> Panel:
    found = importance(view)
    caption = (
        "How much of the differences between runs each hyperparameter explains (functional ANOVA), with 90% bootstrap"
        f" intervals. {found.basis}"
    )
    return _panel("importance", "Importance", caption, importance_bars(found.shares, found.intervals), found.basis)


def _cost_panel(view: StudyView) -> Panel:
    caption = "What each run cost, by what it was spent on. Hatched: runs that failed or diverged."
    return _panel("cost", "Cost", caption, costs(view), "Nothing has been spent yet.")


def _panel(key: str, title: str, caption: str, figure: go.Figure | None, otherwise: str) -> Panel:
    return Panel(key, title, caption if figure is not None else otherwise, figure)


def _value(view: StudyView, run: Run) -> float:
    value = result(run, view.metric)
    return math.nan if value is None else value


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _baseline_value(view: StudyView) -> float | None:
    baseline = view.baseline
    value = result(baseline, view.metric) if baseline is not None and baseline.status == "finished" else None
    return value if _finite(value) else None


def robust_range(values: Sequence[float], goal: str) -> list[float]:
    """Ends of an axis, the lesser one first: a far outlier at the worse end, which would flatten the rest, is cut."""
    low, high = min(values), max(values)
    first, third = np.quantile(values, [0.25, 0.75])
    reach = 4 * max(third - first, 1e-12)
    if goal == "max" and len(values) >= 5:
        low = max(low, first - reach)
    if goal == "min" and len(values) >= 5:
        high = min(high, third + reach)
    pad = 0.1 * (high - low) or 0.02 * abs(high) or 0.5
    return [low - pad, high + pad]


def _spans_decades(curves: Sequence[Reduced]) -> bool:
    lows = np.concatenate([curve.min for curve in curves])
    highs = np.concatenate([curve.max for curve in curves])
    lows, highs = lows[np.isfinite(lows)], highs[np.isfinite(highs)]
    return bool(lows.size and lows.min() > 0 and highs.max() / lows.min() > 30)
