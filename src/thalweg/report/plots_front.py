"""The best trade-offs of a study with several objectives, drawn."""

from __future__ import annotations

import plotly.graph_objects as go

from thalweg.errors import ConfigError
from thalweg.report.front import front, objective_values, value_text
from thalweg.report.palette import GREY, VERMILLION, finish, hover, label, metric_axis
from thalweg.report.plots_caption import Control, Options, captioned, check_names, chosen
from thalweg.report.view import StudyView


def trade_offs(view: StudyView, options: Options) -> go.Figure:
    """The metric against an objective, with the front over all objectives.

    Args:
        view: a study with several objectives.
        options: `against`, an objective's name.

    Raises:
        ConfigError: no finished run has them all.
    """
    check_names("pareto", options, ("against",))
    values = objective_values(view)
    if not values:
        raise ConfigError(
            f"plot 'pareto' needs a finished run with every objective, {', '.join(m.name for m in view.objectives)};"
            f" {view.name!r} has none so far"
        )
    names = tuple(metric.name for metric in view.objectives)
    against = chosen("pareto", options, Control("against", "against", names, names[0]))
    place = 1 + names.index(against.value)
    best = front(view)
    on_front = {run.id for run in best}
    figure = go.Figure()
    for title, runs, look in (
        ("other runs", [r for r in view.tree if r.id in values and r.id not in on_front], (GREY, "circle-open", 7)),
        ("on the front: none is better in one and not worse in another", best, (VERMILLION, "circle", 10)),
    ):
        if runs:
            figure.add_scatter(
                x=[values[run.id][place] for run in runs],
                y=[values[run.id][0] for run in runs],
                mode="markers",
                marker=dict(zip(("color", "symbol", "size"), look, strict=True)),
                name=title,
                text=[f"{_shown(view, place, values[run.id])}<br>{hover(view, run)}" for run in runs],
                customdata=[run.id for run in runs],
                hoverinfo="text",
                cliponaxis=False,
            )
    figure.update_xaxes(title_text=label(against.value), tickformat="~s")
    figure.update_yaxes(metric_axis(view))
    note = f"Finished runs by {view.metric.name} and {against.value}."
    if len(names) > 1:
        note += f" The front is over all {1 + len(names)} objectives, so that a run on it may look beaten here."
    return captioned(finish(figure, 460), view, "Best trade-offs", note, (against,))


def _shown(view: StudyView, place: int, values: tuple[float, ...]) -> str:
    return label(value_text(view, view.objectives[place - 1], values[place]))
