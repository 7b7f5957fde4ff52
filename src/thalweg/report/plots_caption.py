"""What a plot of the dashboard carries beside its figure: a title, how to read it, its options, its points' runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from thalweg.errors import ConfigError, nearest
from thalweg.report.palette import hover
from thalweg.report.view import StudyView
from thalweg.report.wording import result
from thalweg.tree import Run, Tree

Options = Mapping[str, str]
"""A plot's options by name, as they stand in a URL's query."""


@dataclass(frozen=True)
class Control:
    """An option of a plot, with what it may be."""

    name: str
    title: str
    values: tuple[str, ...]
    value: str
    """The one that this figure was drawn with."""


def chosen(plot: str, options: Options, control: Control) -> Control:
    """The control with the value that the options give it, where they do.

    Raises:
        ConfigError: for a value that it may not have, naming the nearest.

    >>> chosen("pareto", {"against": "flops"}, Control("against", "cost", ("tokens", "flops"), "tokens")).value
    'flops'
    """
    given = options.get(control.name, control.value)
    if given not in control.values:
        raise ConfigError(f"plot {plot!r}: {control.name} = {given!r} is not there. {nearest(given, control.values)}")
    return dataclasses.replace(control, value=given)


def check_names(plot: str, options: Options, known: Sequence[str]) -> None:
    """Refuse an option that the plot does not have.

    Raises:
        ConfigError: naming the nearest.
    """
    for name in options:
        if name not in known:
            help_text = nearest(name, known) if known else "It has none."
            raise ConfigError(f"plot {plot!r} has no option {name!r}. {help_text}")


def captioned(figure: go.Figure, view: StudyView, title: str, note: str, controls: Sequence[Control] = ()) -> go.Figure:
    """The figure with its caption and options in `layout.meta`, and the run's id as `customdata` of a run's point."""
    figure.update_layout(
        meta={"title": title, "note": note, "options": [dataclasses.asdict(control) for control in controls]}
    )
    _link_points(figure, view)
    return figure


def scored_runs(view: StudyView, plot: str, least: int = 1) -> list[Run]:
    """Runs whose last evaluation is a finite number, in order of creation.

    Raises:
        ConfigError: there are fewer than `least`.
    """
    scored = [run for run in view.tree if (value := result(run, view.metric)) is not None and math.isfinite(value)]
    if len(scored) < least:
        runs = "one run" if least == 1 else f"{least} runs"
        raise ConfigError(
            f"plot {plot!r} needs at least {runs} with a result (a finite {view.metric.name});"
            f" {view.name!r} has {len(scored) or 'none'} so far"
        )
    return scored


def last_value(view: StudyView, run: Run) -> float:
    """The study's metric at the run's last evaluation; not-a-number without one."""
    value = result(run, view.metric)
    return math.nan if value is None else value


def best_of(view: StudyView, most: int) -> tuple[StudyView, str]:
    """The view with at most so many runs, those with the best results and the baseline; and a sentence where some went.

    A figure that draws a line per run is not readable with thousands, nor quickly drawn.
    """
    if len(view.tree) <= most:
        return view, ""

    def order(run: Run) -> tuple[bool, float, int]:
        value = last_value(view, run)
        loss = view.metric.loss(value)
        return run.origin != "baseline", loss, run.number

    kept = sorted(view.tree, key=order)[:most]
    note = f" Only the best {most:,} of {len(view.tree):,} runs are drawn."
    return dataclasses.replace(view, tree=Tree.of(kept)), note


def _link_points(figure: go.Figure, view: StudyView) -> None:
    """Name the run of each point: a point of a run shows the run's box, which begins with its id."""
    by_box: dict[str, str] = {hover(view, run): run.id for run in view.tree}
    for trace in figure.data:
        if trace.customdata is not None or getattr(trace, "text", None) is None:
            continue
        if isinstance(trace.text, str):
            ids: list[Any] = [by_box.get(trace.text)] * len(trace.x)
        else:
            ids = [by_box.get(text) for text in trace.text]
        if any(ids):
            trace.customdata = ids
