"""The picture of the loss along the line between two checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg.report.chart import Chart, Line, Mark


def landscape_chart(alphas: Sequence[float], losses: Sequence[float], *, ends: tuple[str, str], metric: str) -> Chart:
    """The loss over the way from A, at 0, to B, at 1; `ends` are their names."""
    return Chart(
        title=f"From {ends[0]} to {ends[1]}",
        x_label=f"share of the way from {ends[0]} to {ends[1]}",
        y_label=metric,
        lines=[Line(name="", x=list(alphas), y=list(losses))],
        marks=[Mark(position=0.0, text=ends[0]), Mark(position=1.0, text=ends[1])],
    )
