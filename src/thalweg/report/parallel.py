"""Parallel coordinates: an upright axis per hyperparameter and one for the result, a line per run.

Drawn by hand and not as Plotly's `parcoords`, which can neither show a box on hovering nor follow a page's colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from thalweg.report.palette import GREY, drawn_last, finish, hover, label, legend_only, looks
from thalweg.report.view import StudyView
from thalweg.report.wording import number, result, score
from thalweg.space import Choice, Dimension, Integer, Value
from thalweg.tree import Run

ABSENT = -0.12
"""Height of the mark for a conditional hyperparameter that a run does not have."""


@dataclass(frozen=True)
class _Axis:
    name: str
    heights: dict[str, float]
    """Run id -> height in [0, 1], or ABSENT."""
    ticks: list[tuple[float, str]]


def parallel_coordinates(view: StudyView) -> go.Figure | None:
    """Runs as lines through their hyperparameters to their result; None before the first finite result."""
    values = {run.id: result(run, view.metric) for run in view.tree}
    found = looks(view)
    runs = [run for run in drawn_last(view, found) if (v := values[run.id]) is not None and math.isfinite(v)]
    if not runs:
        return None
    axes = [_dimension_axis(name, dimension, runs) for name, dimension in view.space.dimensions.items()]
    axes.append(_metric_axis(view, runs))
    figure = go.Figure()
    for run in runs:
        look = found[run.id]
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[axis.heights[run.id] for axis in axes],
            mode="lines",
            line={"color": look.colour, "width": look.width, "dash": look.dash},
            opacity=look.opacity if len(runs) <= 60 or look.width > 2 else look.opacity * 0.6,
            text=hover(view, run),
            hoverinfo="text",
            showlegend=False,
        )
    for look in dict.fromkeys(found[run.id] for run in reversed(runs)):
        legend_only(
            figure, look.group, mode="lines", line={"color": look.colour, "width": look.width, "dash": look.dash}
        )
    _draw_axes(figure, axes)
    return finish(figure, 440)


def _dimension_axis(name: str, dimension: Dimension, runs: Sequence[Run]) -> _Axis:
    present: dict[str, Any] = {run.id: run.hyperparameters[name] for run in runs if name in run.hyperparameters}
    if isinstance(dimension, Choice):
        options: list[Value] = list(dict.fromkeys([*dimension.options, *present.values()]))
        heights = {run_id: _share(options.index(value), 0, len(options) - 1) for run_id, value in present.items()}
        ticks = [(_share(i, 0, len(options) - 1), number(option)) for i, option in enumerate(options)]
    else:
        low, high = min([dimension.low, *present.values()]), max([dimension.high, *present.values()])
        log = dimension.log and low > 0
        scaled = _log_share if log else _share
        heights = {run_id: scaled(value, low, high) for run_id, value in present.items()}
        marks = _log_ticks(low, high) if log else _ticks(low, high, whole=isinstance(dimension, Integer))
        ticks = [(scaled(mark, low, high), number(mark)) for mark in marks]
    absent = {run.id: ABSENT for run in runs if run.id not in present}
    return _Axis(name, heights | absent, ticks + ([(ABSENT, "unused")] if absent else []))


def _metric_axis(view: StudyView, runs: Sequence[Run]) -> _Axis:
    name = view.metric.name
    values = {run.id: value for run in runs if (value := result(run, view.metric)) is not None}
    # The better end is on top whatever the goal; a far outlier at the worse end shall not flatten all others.
    losses = sorted(view.metric.loss(value) for value in values.values())
    worst = losses[-1]
    if len(losses) >= 5:
        quarter, upper = losses[len(losses) // 4], losses[(3 * len(losses)) // 4]
        worst = min(worst, upper + 4 * max(upper - quarter, 1e-12))
    best = losses[0]
    heights = {run_id: max(_share(view.metric.loss(v), worst, best), 0.0) for run_id, v in values.items()}
    sign = 1.0 if view.metric.goal == "min" else -1.0
    ticks = [(share, score(name, sign * (worst + share * (best - worst)))) for share in (0.0, 0.5, 1.0)]
    return _Axis(name, heights, ticks if worst != best else [(0.5, score(name, sign * best))])


def _draw_axes(figure: go.Figure, axes: Sequence[_Axis]) -> None:
    lowest = ABSENT if any(ABSENT in axis.heights.values() for axis in axes) else 0.0
    room = 14 if len(axes) <= 5 else 9
    for i, axis in enumerate(axes):
        figure.add_shape(type="line", x0=i, x1=i, y0=0, y1=1, line={"color": GREY, "width": 1}, layer="below")
        last = i == len(axes) - 1
        for height, text in axis.ticks:
            figure.add_annotation(
                x=i,
                y=height,
                text=label(text if len(text) <= room else f"{text[: room - 1]}…"),
                showarrow=False,
                xanchor="left" if last else "right",
                xshift=6 if last else -6,
                font={"size": 11},
            )
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[label(axis.name if len(axis.name) <= 18 else f"{axis.name[:17]}…") for axis in axes],
        range=[-0.6, len(axes) - 0.5],
        showgrid=False,
        showline=False,
    )
    figure.update_yaxes(visible=False, range=[lowest - 0.06, 1.06])
    figure.update_layout(margin={"l": 24, "r": 24})


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if low == high else (value - low) / (high - low)


def _log_share(value: float, low: float, high: float) -> float:
    return _share(math.log(value), math.log(low), math.log(high))


def _log_ticks(low: float, high: float) -> list[float]:
    """Both ends and the powers of ten between them that are not too close to either, at most six ticks."""
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    stride = max(1, math.ceil(len(powers) / 4))
    inner = [10.0**p for p in powers if p % stride == 0 and 0.07 < _log_share(10.0**p, low, high) < 0.93]
    return [low, *inner, high]


def _ticks(low: float, high: float, *, whole: bool) -> list[float]:
    if whole and high - low <= 8:
        return [float(v) for v in range(int(low), int(high) + 1)]
    middle = (low + high) / 2
    return [low, round(middle) if whole else middle, high]
