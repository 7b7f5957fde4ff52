"""The picture of a two-stage search: early against final scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from thalweg.report.figures import Panel, robust_range
from thalweg.report.palette import BLUE, GREY, VERMILLION, finish, hover, label, tick_format
from thalweg.report.two_stage import NAME, Scored, scored, sentences
from thalweg.report.view import StudyView
from thalweg.report.wording import score


def two_stage_panels(view: StudyView) -> list[Panel]:
    """The section of the report: one panel for a two-stage search, none for another."""
    if view.strategy.get("name") != NAME:
        return []
    entries = scored(view)
    figure = stages(view, entries)
    caption = " ".join(sentences(view)) if entries else "No run has been scored at the end of stage 1 yet."
    if figure is not None:
        caption += " Open marks at the lower edge were not trained on; crosses diverged in stage 2."
    return [Panel("two-stage", "Two stages", caption, figure)]


def stages(view: StudyView, entries: Sequence[Scored]) -> go.Figure | None:
    """A mark per run at its early and its final score; None where no run has both."""
    entries = [entry for entry in entries if math.isfinite(entry.early)]
    finals = [entry.final for entry in entries if entry.final is not None and math.isfinite(entry.final)]
    if not finals:
        return None
    across, up = robust_range([entry.early for entry in entries], view.metric.goal), robust_range(finals, "min")
    figure = go.Figure()
    kinds = {
        "trained to the end": {"color": BLUE, "symbol": "circle", "size": 10},
        "not trained on": {"color": GREY, "symbol": "circle-open", "size": 9},
        "diverged in stage 2": {"color": VERMILLION, "symbol": "x", "size": 10},
    }
    for name, look in kinds.items():
        here = [entry for entry in entries if _kind(entry) == name]
        if not here:
            continue
        figure.add_scatter(
            x=[min(max(entry.early, across[0]), across[1]) for entry in here],
            y=[entry.final if name == "trained to the end" else up[0] for entry in here],
            mode="markers",
            marker=look,
            name=name,
            text=[_box(view, entry) for entry in here],
            hoverinfo="text",
            cliponaxis=False,
        )
    metric = label(view.metric.name)
    figure.update_xaxes(title_text=f"{metric} at the end of stage 1", range=across, tickformat=tick_format(view))
    figure.update_yaxes(title_text=f"{metric} at the end of stage 2", range=up, tickformat=tick_format(view))
    return finish(figure, 440)


def _kind(entry: Scored) -> str:
    if entry.final is None:
        return "not trained on"
    return "trained to the end" if math.isfinite(entry.final) else "diverged in stage 2"


def _box(view: StudyView, entry: Scored) -> str:
    name = view.metric.name
    late = "" if entry.final is None else f", {score(name, entry.final)} at the end"
    return f"{label(f'{score(name, entry.early)} early{late}')}<br>{hover(view, entry.run)}"
