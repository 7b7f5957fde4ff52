"""Colours, symbols and texts of the figures.

Colours are Okabe and Ito's, which people with any kind of colour blindness can tell apart; a run's status is shown by
its symbol too. They are readable on white and on near-black.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thalweg.budget import SpendKind
from thalweg.report.view import StudyView
from thalweg.report.wording import SHARES, CostField, amount, number, plain, result, score
from thalweg.tree import Run

BLUE, ORANGE, GREEN, SKY, VERMILLION, PURPLE, GREY = (
    "#2b7fc3",
    "#e69f00",
    "#009e73",
    "#56b4e9",
    "#d55e00",
    "#cc79a7",
    "#8a9099",
)

STATUS_MARKS: dict[str, tuple[str, str]] = {
    "finished": (BLUE, "circle"),
    "paused": (SKY, "diamond"),
    "running": (GREEN, "triangle-right"),
    "pending": (GREY, "circle-open"),
    "interrupted": (ORANGE, "triangle-left"),
    "crashed": (ORANGE, "star"),
    "diverged": (VERMILLION, "x"),
    "failed": (PURPLE, "cross"),
    "stopped": (GREY, "square"),
}
"""Status -> colour and Plotly symbol."""

KIND_COLOURS: dict[SpendKind, str] = {
    "train": BLUE,
    "evaluate": ORANGE,
    "checkpoint": GREEN,
    "setup": GREY,
    "repeated": VERMILLION,
}


@dataclass(frozen=True)
class Look:
    """How a run is drawn in every figure, so that it is recognised from one to the next."""

    group: str
    colour: str
    width: float
    dash: str
    opacity: float


_BEST = Look("best run", BLUE, 3.0, "solid", 1.0)
_BEST_BASELINE = Look("best run, which is the baseline", BLUE, 3.0, "solid", 1.0)
_BASELINE = Look("baseline", ORANGE, 2.5, "dash", 1.0)
_GOOD = Look("other runs of the best fifth", GREEN, 1.5, "solid", 0.9)
_OTHER = Look("other runs", GREY, 1.2, "solid", 0.55)


def looks(view: StudyView) -> dict[str, Look]:
    """Run id -> look: the best run, the baseline, the best fifth of the finished runs, and the others."""
    ranked = view.ranked()
    good = {run.id for run in ranked[: len(ranked) // 5]}
    found = {run.id: _GOOD if run.id in good else _OTHER for run in view.tree}
    if (baseline := view.baseline) is not None:
        found[baseline.id] = _BASELINE
    if (best := view.best) is not None:
        found[best.id] = _BEST_BASELINE if best.origin == "baseline" else _BEST
    return found


def drawn_last(view: StudyView, found: Mapping[str, Look]) -> list[Run]:
    """The runs in drawing order: what matters most lies on top."""
    order = [_OTHER, _GOOD, _BASELINE, _BEST_BASELINE, _BEST]
    return sorted(view.tree, key=lambda run: order.index(found[run.id]))


def label(text: str) -> str:
    """Text that Plotly shows as it is: neither its small subset of HTML nor its %{templates} are read in it."""
    return html.escape(plain(text), quote=False).replace("{", "&#123;")


def hover(view: StudyView, run: Run) -> str:
    """The box of a run: its status, result, hyperparameters and cost, a line each."""
    name = view.metric.name
    lines = [f"{run.id} ({view.status(run)}, {run.origin})"]
    if (value := result(run, view.metric)) is not None:
        lines.append(f"{name} {score(name, value)} at {run.position:,} {view.unit}")
    lines += [f"{key} = {number(value)}" for key, value in list(run.hyperparameters.items())[:16]]
    field, _, _ = cost_axis(view)
    lines.append(f"cost {amount(field, getattr(view.ledger.of(run.id), field))}")
    if run.parent is not None:
        lines.append(f"fork of {run.parent} at {run.fork_position:,}")
    return "<br>".join(label(line) for line in lines)


def cost_axis(view: StudyView) -> tuple[CostField, float, str]:
    """What the cost figures count in: the field, what to divide it by, and the axis' title."""
    total = view.total_cost
    if total.device_seconds > 0:
        if total.device_seconds >= 36000:
            return "device_seconds", 3600.0, "device-hours"
        return ("device_seconds", 60.0, "device-minutes") if total.device_seconds >= 120 else _SECONDS
    if total.seconds > 0:
        return "seconds", 60.0, "minutes"
    if total.flops > 0:
        return "flops", 1.0, "FLOPs"
    return ("tokens", 1.0, "tokens") if total.tokens > 0 else ("samples", 1.0, "samples")


_SECONDS: tuple[CostField, float, str] = ("device_seconds", 1.0, "device-seconds")


def metric_axis(view: StudyView) -> dict[str, Any]:
    """Title and tick format of an axis that shows the study's metric."""
    name = view.metric.name
    better = "higher" if view.metric.goal == "max" else "lower"
    return {"title": {"text": f"{label(name)} ({better} is better)"}, "tickformat": tick_format(view)}


def tick_format(view: StudyView) -> str:
    """Trailing zeros are cut (~): a narrow range does not show 84% twice, nor a wide one 84.00%."""
    return "~%" if view.metric.name in SHARES else "~g"


def template(*, dark: bool) -> dict[str, Any]:
    """A Plotly template with the page's own colours."""
    ink, grid = ("#d6dae0", "#343a43") if dark else ("#2a2f36", "#e3e6ea")
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zerolinecolor": grid,
        "zeroline": False,
        "automargin": True,
        "ticklabelstandoff": 4,
        "title": {"standoff": 12, "font": {"size": 13}},
    }
    return {
        "layout": {
            "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            # What is written over lines needs a ground of the page's own colour.
            "annotationdefaults": {"bgcolor": "rgba(28,32,38,0.8)" if dark else "rgba(255,255,255,0.8)"},
            "hovermode": "closest",
            "hoverlabel": {
                "align": "left",
                "bgcolor": "#22262c" if dark else "#ffffff",
                "bordercolor": "#8a9099",
                "font": {"color": ink},
            },
            "margin": {"l": 64, "r": 24, "t": 24, "b": 48},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        }
    }


def legend_only(figure: Any, name: str, **look: Any) -> None:
    """An entry of the legend that stands for many traces."""
    figure.add_scatter(x=[None], y=[None], name=label(name), showlegend=True, hoverinfo="skip", **look)


def finish(figure: Any, height: int) -> Any:
    """The light template and a height in pixels; the width is the page's."""
    figure.update_layout(template=template(dark=False), height=height, autosize=True)
    return figure
