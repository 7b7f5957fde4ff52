"""The picture of a schedule of hyperparameters: what a lineage was trained under, from position to position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from thalweg.report.chart import Chart, Line
from thalweg.report.palette import BLUE
from thalweg.report.wording import number, plain

Steps = Sequence[tuple[int, int, Mapping[str, Any]]]
"""From, to, and the hyperparameters between."""


def schedule_charts(steps: Steps, names: Sequence[str], *, run: str, unit: str) -> list[Chart]:
    """A chart for each hyperparameter that is a number; a ratio between its values counts as a distance where all are
    above zero and they span more than a factor of three.

    Args:
        steps: the schedule.
        names: what to draw.
        run: whose schedule it is, and `unit` its axis, for the labels.
    """
    charts = []
    for name in names:
        parts = [(start, end, values[name]) for start, end, values in steps if _is_number(values.get(name))]
        if not parts:
            continue
        amounts = [float(value) for _, _, value in parts]
        line = Line(
            name="",
            x=[float(x) for start, end, _ in parts for x in (start, end)],
            y=[float(value) for _, _, value in parts for _ in range(2)],
            colour=BLUE,
        )
        log_y = min(amounts) > 0 and max(amounts) > 3 * min(amounts)
        charts.append(Chart(title=f"{run}: {name}", x_label=unit, y_label=name, lines=[line], log_y=log_y))
    return charts


def schedule_table(steps: Steps, names: Sequence[str], *, unit: str) -> Table:
    """The schedule as a table: a row per stretch, a column per hyperparameter that changes."""
    table = Table(box=None, pad_edge=False)
    table.add_column("from", justify="right")
    table.add_column(f"to ({unit})", justify="right")
    for name in names:
        table.add_column(Text(plain(name)), justify="right")
    for start, end, values in steps:
        cells = (number(values[name]) if name in values else "-" for name in names)
        table.add_row(f"{start:,}", f"{end:,}", *(Text(plain(cell)) for cell in cells))
    return table


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
