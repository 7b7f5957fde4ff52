"""Line charts: as a picture (PNG, SVG), as a page (HTML), or in the terminal.

One description, `Chart`, is drawn by Matplotlib, Plotly or plotext, so that what a command prints and what it writes
show the same thing. Study reports have figures of their own (`report/figures.py`).
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg.errors import ConfigError
from thalweg.report.palette import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION

COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY)
_INCHES = (9.0, 4.2)
_LARGE = 10_000
"""From here on positions are written as 10k, 2M."""
_MAX_INSIDE = 6
"""Curves whose legend has room within the axes."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve. Points that are not finite leave a gap."""

    name: str
    """In the legend; empty: not in it."""
    x: Sequence[float]
    y: Sequence[float]
    dash: bool = False
    colour: str | None = None
    """As #rrggbb; by default the next of the palette."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A position that is pointed out, by a dotted line and a label."""

    position: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over one axis."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    log_x: bool = False
    log_y: bool = False


def write_charts(charts: Sequence[Chart], path: Path) -> None:
    """Write charts below each other into one file.

    Args:
        path: ends in .png or .svg (a picture) or .html (a page that holds all it needs).
    Raises:
        ConfigError: another ending, or a folder that does not exist.
    """
    writers = {".png": _write_picture, ".svg": _write_picture, ".html": _write_page}
    if path.suffix not in writers:
        raise ConfigError(f"{path}: a chart is written as {', '.join(writers)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.absolute().parent}")
    writers[path.suffix](charts, path)


def chart_text(chart: Chart, *, width: int = 90, height: int = 20) -> str:
    """A chart for the terminal, without colours."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, height)
    plotext.title(chart.title)
    plotext.xlabel(chart.x_label)
    plotext.ylabel(chart.y_label)
    symbols = ("braille", "●", "+", "x", "○", "*")
    for i, line in enumerate(chart.lines):
        points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if _drawable(x, y, chart)]
        if points:
            plotext.plot(*zip(*points, strict=True), label=line.name or None, marker=symbols[i % len(symbols)])
    if chart.log_x:
        plotext.xscale("log")
    if chart.log_y:
        plotext.yscale("log")
    text: str = plotext.uncolorize(plotext.build())
    return "\n".join(line.rstrip() for line in text.splitlines())


def _drawable(x: float, y: float, chart: Chart) -> bool:
    finite = math.isfinite(x) and math.isfinite(y)
    return finite and (x > 0 or not chart.log_x) and (y > 0 or not chart.log_y)


def _colour(line: Line, index: int) -> str:
    return line.colour or COLOURS[index % len(COLOURS)]


def _write_picture(charts: Sequence[Chart], path: Path) -> None:
    # Not pyplot, which keeps every figure and looks for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES[0], _INCHES[1] * len(charts)), layout="constrained", dpi=130)
    for chart, axes in zip(charts, figure.subplots(len(charts), squeeze=False)[:, 0], strict=True):
        _draw(chart, axes)
    figure.savefig(path, format=path.suffix[1:])


def _draw(chart: Chart, axes: Any) -> None:
    from matplotlib.ticker import EngFormatter

    for i, line in enumerate(chart.lines):
        style, name = "--" if line.dash else "-", _plain(line.name) or None
        axes.plot(line.x, line.y, style, color=_colour(line, i), label=name, linewidth=1.5)
    axes.set_title(_plain(chart.title), fontsize=11, loc="left")
    axes.set_xlabel(_plain(chart.x_label))
    axes.set_ylabel(_plain(chart.y_label))
    if chart.log_y:
        axes.set_yscale("log")
    if chart.log_x:
        axes.set_xscale("log")
    elif max((abs(x) for line in chart.lines for x in line.x), default=0) >= _LARGE:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for mark in chart.marks:
        axes.axvline(mark.position, color=GREY, linestyle=":", linewidth=1)
        where = (mark.position, 0.98)
        label = {"rotation": 90, "va": "top", "ha": "right", "fontsize": 8, "color": "#555555"}
        axes.text(*where, _plain(mark.text), transform=axes.get_xaxis_transform(), **label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    num_named = sum(bool(line.name) for line in chart.lines)
    if num_named:
        # Beside the curves where it would cover them.
        beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if num_named > _MAX_INSIDE else {}
        axes.legend(frameon=False, fontsize=9, **beside)


def _plain(text: str) -> str:
    """A dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def _write_page(charts: Sequence[Chart], path: Path) -> None:
    parts = []
    for i, chart in enumerate(charts):
        figure = _plotly(chart)
        parts.append(figure.to_html(full_html=False, include_plotlyjs=i == 0, config={"displaylogo": False}))
    title = html.escape(charts[0].title if charts else "chart")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    path.write_text(f"{head}<body>{''.join(parts)}</body></html>", encoding="utf-8")


def _plotly(chart: Chart) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, line in enumerate(chart.lines):
        look = {"color": _colour(line, i), "dash": "dash" if line.dash else "solid", "width": 2}
        named = {"name": html.escape(line.name), "showlegend": bool(line.name)}
        figure.add_scatter(x=list(line.x), y=list(line.y), mode="lines", line=look, **named)
    for mark in chart.marks:
        text = {"text": html.escape(mark.text), "textangle": -90, "yanchor": "top", "font": {"size": 11}}
        figure.add_vline(x=mark.position, line={"color": GREY, "dash": "dot", "width": 1}, annotation=text)
    figure.update_layout(
        template="plotly_white",
        title=html.escape(chart.title),
        xaxis={"title": html.escape(chart.x_label), "type": "log" if chart.log_x else "linear"},
        yaxis={"title": html.escape(chart.y_label), "type": "log" if chart.log_y else "linear"},
        height=430,
    )
    return figure
