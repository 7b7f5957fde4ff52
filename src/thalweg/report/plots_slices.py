"""The study's metric over one hyperparameter each, and over two at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from thalweg.errors import ConfigError
from thalweg.report.figures import robust_range
from thalweg.report.palette import GREY, STATUS_MARKS, finish, hover, label, metric_axis, tick_format
from thalweg.report.plots_caption import Control, Options, captioned, check_names, chosen, last_value, scored_runs
from thalweg.report.view import StudyView
from thalweg.report.wording import number, score
from thalweg.space import Choice, Dimension, Integer, Value
from thalweg.tree import Run

MIN_RUNS = 4
"""Fewer points than this span no surface worth drawing."""
_GRID = 60
_SCALE = "Viridis"
_COLUMNS = 3
_ROW_HEIGHT = 240


@dataclass(frozen=True)
class _Axis:
    """Where values of a hyperparameter stand on an axis of a figure."""

    name: str
    kind: str
    """`linear`, `log` or `category`."""
    options: tuple[Value, ...] = ()
    ticks: Mapping[str, Any] = field(default_factory=dict)

    def at(self, value: Value) -> float:
        """The place of a value on the axis as Plotly counts: a category's number, or the value itself."""
        if self.kind == "category":
            return float(self.options.index(value))
        return float(value)

    def layout(self) -> dict[str, object]:
        title = {"title_text": label(self.name if len(self.name) <= 40 else f"{self.name[:39]}…")}
        if self.kind != "category":
            return {**title, "type": self.kind, **self.ticks}
        names = [number(option) for option in self.options]
        return {
            **title,
            "tickvals": list(range(len(names))),
            "ticktext": [label(name if len(name) <= 16 else f"{name[:15]}…") for name in names],
            "range": [-0.5, len(names) - 0.5],
        }


def slices(view: StudyView, options: Options) -> go.Figure:
    """The metric over each hyperparameter that is searched, a panel each: results as marks, failures at the worse edge.

    Raises:
        ConfigError: no run has a result, or nothing is searched.
    """
    check_names("slices", options, ())
    scored = scored_runs(view, "slices")
    names = _searched(view, "slices", 1)
    ends = robust_range([last_value(view, run) for run in scored], view.metric.goal)
    num_rows = math.ceil(len(names) / _COLUMNS)
    num_columns = min(len(names), _COLUMNS)
    # Plotly takes spacing as a share of the figure: what is constant in pixels shrinks with the number of rows.
    spacing = 0.0 if num_rows == 1 else min(80 / (_ROW_HEIGHT * num_rows), 1 / (num_rows - 1) - 1e-6)
    figure = make_subplots(
        rows=num_rows, cols=num_columns, shared_yaxes=True, vertical_spacing=spacing, horizontal_spacing=0.04
    )
    seen: set[str] = set()
    for i, name in enumerate(names):
        row, column = divmod(i, _COLUMNS)
        axis = _axis(name, view.space.dimensions[name], [run for run in view.tree if name in run.hyperparameters])
        _slice(figure, view, axis, ends, seen, (row + 1, column + 1))
        figure.update_xaxes(**axis.layout(), row=row + 1, col=column + 1)
    figure.update_yaxes(range=ends, tickformat=tick_format(view))
    figure.update_yaxes(metric_axis(view), col=1)
    note = (
        f"The last validation {view.metric.name} of every run over each hyperparameter by itself. A band that slopes or"
        " bends shows an effect; a level one shows none. Runs that failed without a result lie at the worse edge."
    )
    return captioned(finish(figure, 90 + _ROW_HEIGHT * num_rows), view, "Slices", note)


def contour(view: StudyView, options: Options) -> go.Figure:
    """The metric over two hyperparameters: the runs as points and, where both are numbers, what lies between them.

    The surface is linear between the runs (over Delaunay's triangles) and is not drawn beyond them.

    Args:
        view: the study.
        options: `x` and `y`, hyperparameters that are searched.

    Raises:
        ConfigError: fewer than 4 runs have a result and both hyperparameters, fewer than two are searched, or x = y.
    """
    check_names("contour", options, ("x", "y"))
    names = _searched(view, "contour", 2)
    # Surfaces are drawn over numbers: these come first.
    numbers_first = sorted(names, key=lambda name: isinstance(view.space.dimensions[name], Choice))
    x = chosen("contour", options, Control("x", "across", tuple(names), numbers_first[0]))
    others = [name for name in numbers_first if name != x.value]
    y = chosen("contour", options, Control("y", "upwards", tuple(names), others[0]))
    if x.value == y.value:
        raise ConfigError(f"plot 'contour': x and y are both {x.value!r}; choose another for y, such as {others[0]!r}")
    both = [r for r in scored_runs(view, "contour") if x.value in r.hyperparameters and y.value in r.hyperparameters]
    if len(both) < MIN_RUNS:
        raise ConfigError(
            f"plot 'contour' needs at least {MIN_RUNS} runs with a result, {x.value!r} and {y.value!r};"
            f" {view.name!r} has {len(both) or 'none'} so far"
        )
    axes = (_axis(x.value, view.space.dimensions[x.value], both), _axis(y.value, view.space.dimensions[y.value], both))
    figure = go.Figure()
    ends = robust_range([last_value(view, run) for run in both], view.metric.goal)
    note = _surface(figure, view, axes, both, ends)
    _points(figure, view, axes, both, ends)
    figure.update_xaxes(axes[0].layout())
    figure.update_yaxes(axes[1].layout())
    return captioned(finish(figure, 520), view, "Two hyperparameters", note, (x, y))


def _slice(
    figure: go.Figure, view: StudyView, axis: _Axis, ends: Sequence[float], seen: set[str], cell: tuple[int, int]
) -> None:
    worse = ends[0] if view.metric.goal == "max" else ends[1]
    for status, (colour, symbol) in STATUS_MARKS.items():
        here = [run for run in view.tree if view.status(run) == status and axis.name in run.hyperparameters]
        values = [last_value(view, run) for run in here]
        # A run that is not over and has no result yet is not at the worse edge: it is nowhere.
        kept = [i for i, v in enumerate(values) if math.isfinite(v) or status in ("failed", "diverged")]
        if not kept:
            continue
        figure.add_scatter(
            x=[axis.at(here[i].hyperparameters[axis.name]) for i in kept],
            y=[min(max(values[i], ends[0]), ends[1]) if math.isfinite(values[i]) else worse for i in kept],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 8 if len(view.tree) <= 100 else 5},
            opacity=0.85,
            name=status,
            legendgroup=status,
            showlegend=status not in seen,
            text=[hover(view, here[i]) for i in kept],
            hoverinfo="text",
            cliponaxis=False,
            row=cell[0],
            col=cell[1],
        )
        seen.add(status)


def _surface(
    figure: go.Figure, view: StudyView, axes: tuple[_Axis, _Axis], runs: Sequence[Run], ends: Sequence[float]
) -> str:
    """Draw what lies between the runs, and say what is drawn."""
    points = "Every point is a run, brighter where it is better. "
    if any(axis.kind == "category" for axis in axes):
        return points + "Nothing is drawn between choices: there is nothing between them."
    plane = np.array([[_on(axis, run) for axis in axes] for run in runs])
    values = np.clip([last_value(view, run) for run in runs], ends[0], ends[1])
    shares, spans = _to_unit(plane)
    try:
        surface = LinearNDInterpolator(*_averaged(shares, values))
    except (QhullError, ValueError):
        return points + "The runs lie on one line: no surface can be drawn."
    steps = np.linspace(0.0, 1.0, _GRID)
    grid = surface(*np.meshgrid(steps, steps))
    places = [low + steps * span for low, span in zip(plane.min(axis=0), spans, strict=True)]
    xs, ys = (10.0**at if axis.kind == "log" else at for axis, at in zip(axes, places, strict=True))
    # As lists with None: Plotly takes not-a-number in a packed array for a height.
    heights = [[height if math.isfinite(height) else None for height in row] for row in grid.tolist()]
    size = (ends[1] - ends[0]) / 14
    figure.add_contour(
        x=xs,
        y=ys,
        z=heights,
        zmin=ends[0],
        zmax=ends[1],
        contours={"start": ends[0], "end": ends[1], "size": size},
        colorscale=_SCALE,
        reversescale=view.metric.goal == "min",
        showscale=False,
        opacity=0.75,
        line={"width": 0},
        hoverinfo="skip",
    )
    return points + "The surface is linear between neighbouring runs, and ends where they end."


def _points(
    figure: go.Figure, view: StudyView, axes: tuple[_Axis, _Axis], runs: Sequence[Run], ends: Sequence[float]
) -> None:
    name = view.metric.name
    figure.add_scatter(
        x=[axes[0].at(run.hyperparameters[axes[0].name]) for run in runs],
        y=[axes[1].at(run.hyperparameters[axes[1].name]) for run in runs],
        mode="markers",
        marker={
            "color": [last_value(view, run) for run in runs],
            "colorscale": _SCALE,
            "cmin": ends[0],
            "cmax": ends[1],
            "reversescale": view.metric.goal == "min",
            # Not a colour axis shared with the surface: with one, Plotly 3 never finishes to draw the two.
            "colorbar": {"title": {"text": label(name), "side": "right"}, "tickformat": tick_format(view)},
            "size": 9 if len(runs) <= 200 else 6,
            "line": {"color": GREY, "width": 1},
        },
        text=[f"{score(name, last_value(view, run))}<br>{hover(view, run)}" for run in runs],
        customdata=[run.id for run in runs],
        hoverinfo="text",
        showlegend=False,
    )


def _on(axis: _Axis, run: Run) -> float:
    """Where a run stands on an axis that is level in what is searched: by its logarithm where that is."""
    value = axis.at(run.hyperparameters[axis.name])
    return math.log10(value) if axis.kind == "log" else value


def _to_unit(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points scaled to the unit square, so that triangles do not depend on the units; and the spans."""
    spans = np.ptp(plane, axis=0)
    return (plane - plane.min(axis=0)) / np.where(spans > 0, spans, 1.0), spans


def _averaged(places: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every place once, with the mean of its values: of two runs at one place, neither counts alone."""
    unique, inverse = np.unique(places, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    return unique, np.bincount(inverse, weights=values) / np.bincount(inverse)


def _searched(view: StudyView, plot: str, least: int) -> list[str]:
    names = list(view.space.dimensions)
    if len(names) < least:
        wanted = "a hyperparameter" if least == 1 else f"{least} hyperparameters"
        raise ConfigError(f"plot {plot!r} needs {wanted} to be searched; {view.name!r} searches {len(names) or 'none'}")
    return names


def _axis(name: str, dimension: Dimension, runs: Sequence[Run]) -> _Axis:
    """The axis of a hyperparameter. A baseline or a fork by hand may have values that are not in the space."""
    values = [run.hyperparameters[name] for run in runs]
    if isinstance(dimension, Choice) or any(isinstance(value, str | bool) for value in values):
        listed = dimension.options if isinstance(dimension, Choice) else ()
        # `options.index` takes 1 and True for the same, and so does `dict`: nobody searches both.
        return _Axis(name, "category", tuple(dict.fromkeys([*listed, *values])))
    numbers = [float(value) for value in values] or [dimension.low, dimension.high]
    if dimension.log and min(numbers) > 0:
        decades = {"dtick": 1} if max(numbers) / min(numbers) >= 100 else {}
        return _Axis(name, "log", ticks={"tickformat": "~e" if min(numbers) < 1e-3 else "~g", **decades})
    if isinstance(dimension, Integer):
        return _Axis(name, "linear", ticks={"tickformat": ",d"} | ({"dtick": 1} if np.ptp(numbers) <= 10 else {}))
    return _Axis(name, "linear")
