"""The tree of runs as a figure: position to the right, a line per run."""

from __future__ import annotations

import plotly.graph_objects as go

from thalweg.report.palette import GREY, STATUS_MARKS, finish, hover, label
from thalweg.report.view import StudyView
from thalweg.tree import Run

MAX_LABELS = 50
"""Runs beyond this are named only by hovering: their labels would overlap."""


def fork_tree(view: StudyView) -> go.Figure | None:
    """A line per run with its forks as elbows; None without runs."""
    if not len(view.tree):
        return None
    rows = _rows(view)
    num_rows = len(rows)
    figure = go.Figure()
    _lines(figure, view, rows)
    _evaluations(figure, view, rows)
    for status, (colour, symbol) in STATUS_MARKS.items():
        here = [run for run in view.tree if view.status(run) == status]
        if here:
            figure.add_scatter(
                x=[run.position for run in here],
                y=[rows[run.id] for run in here],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 10 if num_rows <= MAX_LABELS else 6},
                name=status,
                showlegend=True,
                text=[hover(view, run) for run in here],
                hoverinfo="text",
                cliponaxis=False,
            )
    figure.update_xaxes(title_text=f"position ({view.unit})", rangemode="tozero", tickformat=",d")
    figure.update_yaxes(range=[num_rows - 0.4, -0.6], showgrid=False)
    if num_rows <= MAX_LABELS:
        names = {rows[run.id]: label(_short_name(run)) for run in view.tree}
        figure.update_yaxes(tickvals=list(names), ticktext=list(names.values()), ticklabelstandoff=8)
    else:
        figure.update_yaxes(showticklabels=False, title_text=f"{num_rows} runs, forks below their parents")
    per_row = 24 if num_rows <= MAX_LABELS else max(1000 / num_rows, 4)
    return finish(figure, round(130 + per_row * num_rows))


def _rows(view: StudyView) -> dict[str, int]:
    """Run id -> row: roots in order of creation, each followed by its forks, those of forks after them."""
    children: dict[str | None, list[Run]] = {}
    for run in view.tree:
        children.setdefault(run.parent, []).append(run)
    rows: dict[str, int] = {}
    # A stack and not a recursion: lineages can be a thousand forks deep.
    waiting = children.get(None, [])[::-1]
    while waiting:
        run = waiting.pop()
        rows[run.id] = len(rows)
        waiting += children.get(run.id, [])[::-1]
    return rows


def _lines(figure: go.Figure, view: StudyView, rows: dict[str, int]) -> None:
    """All runs of a status as one trace with gaps; the elbow of a fork belongs to the fork."""
    for status, (colour, _) in STATUS_MARKS.items():
        xs: list[int | None] = []
        ys: list[int | None] = []
        for run in view.tree:
            if view.status(run) != status:
                continue
            row = rows[run.id]
            if run.parent is not None:
                xs.append(run.fork_position)
                ys.append(rows[run.parent])
            xs += [run.fork_position, max(run.position, run.fork_position), None]
            ys += [row, row, None]
        if xs:
            line = {"color": colour, "width": 2.5 if len(rows) <= MAX_LABELS else 1.2}
            figure.add_scatter(x=xs, y=ys, mode="lines", line=line, showlegend=False, hoverinfo="skip")


def _evaluations(figure: go.Figure, view: StudyView, rows: dict[str, int]) -> None:
    points = [(r.position, rows[run.id]) for run in view.tree for r in run.reports if r.position < run.position]
    if points:
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="markers",
            marker={
                "symbol": "line-ns",
                "size": 9 if len(rows) <= MAX_LABELS else 4,
                "line": {"width": 2, "color": GREY},
            },
            name="evaluated",
            showlegend=True,
            hoverinfo="skip",
        )


def _short_name(run: Run) -> str:
    name = run.id if len(run.id) <= 16 else f"run {run.number}"
    return f"{name} (baseline)" if run.origin == "baseline" else name
