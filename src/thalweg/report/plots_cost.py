"""What results cost, and what was spent of the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
import plotly.graph_objects as go

from thalweg.budget import SPEND_KINDS, Cost
from thalweg.errors import ConfigError
from thalweg.report.figures import robust_range
from thalweg.report.lineage_costs import costs_to_reach
from thalweg.report.palette import GREY, KIND_COLOURS, VERMILLION, finish, hover, label, metric_axis
from thalweg.report.plots_caption import Control, Options, captioned, check_names, chosen, last_value, scored_runs
from thalweg.report.view import StudyView
from thalweg.report.wording import CostField, amount
from thalweg.tree import Run

FIELDS: tuple[CostField, ...] = get_args(CostField)

_TITLES: dict[CostField, str] = {
    "device_seconds": "device time",
    "seconds": "time, summed over the runs",
    "flops": "FLOPs",
    "tokens": "tokens",
    "samples": "samples",
}


def pareto(view: StudyView, options: Options) -> go.Figure:
    """Results against what they cost, with the front: runs that none beats at no more cost.

    What a fork took over from its ancestors counts as its share of what they spent.

    Args:
        view: the study.
        options: `against`, a part of a cost: `device_seconds`, `seconds`, `flops`, `tokens` or `samples`.

    Raises:
        ConfigError: no run has a result, or nothing was spent.
    """
    check_names("pareto", options, ("against",))
    scored = scored_runs(view, "pareto")
    against = chosen("pareto", options, _spent_fields(view, "pareto", "against"))
    field: CostField = against.value  # type: ignore[assignment]
    spent = costs_to_reach(view, field)
    factor, unit = _scale(field, max(spent[run.id] for run in scored))
    front = pareto_front([(spent[run.id], view.metric.loss(last_value(view, run))) for run in scored])
    on_front = {scored[i].id for i in front}
    figure = go.Figure()
    ends = robust_range([last_value(view, run) for run in scored], view.metric.goal)
    figure.add_scatter(
        x=[spent[scored[i].id] / factor for i in front],
        y=[last_value(view, scored[i]) for i in front],
        mode="lines",
        line={"color": VERMILLION, "width": 1.5, "shape": "hv"},
        name="front",
        hoverinfo="skip",
        showlegend=False,
    )
    rest = [run for run in scored if run.id not in on_front]
    for name, runs, look in (
        ("other runs", rest, {"color": GREY, "symbol": "circle-open", "size": 7}),
        ("on the front: none is better at no more cost", [scored[i] for i in front], {"color": VERMILLION, "size": 10}),
    ):
        if runs:
            figure.add_scatter(
                x=[spent[run.id] / factor for run in runs],
                y=[min(max(last_value(view, run), ends[0]), ends[1]) for run in runs],
                mode="markers",
                marker=look,
                name=name,
                text=[_priced(view, run, field, spent[run.id]) for run in runs],
                customdata=[run.id for run in runs],
                hoverinfo="text",
                cliponaxis=False,
            )
    figure.update_xaxes(title_text=f"{unit} spent on the run", rangemode="tozero", tickformat=_ticks(field))
    figure.update_yaxes(metric_axis(view), range=ends)
    note = (
        f"The last validation {view.metric.name} of every run against what it cost. A fork's cost includes its share of"
        " what its ancestors spent until the fork."
    )
    return captioned(finish(figure, 460), view, "Result against cost", note, (against,))


def ledger(view: StudyView, options: Options) -> go.Figure:
    """What was spent, by kind, added up over the runs in order of creation, against the budget's limit.

    The ledger keeps amounts and no times: the order of the runs stands for the passing of time.

    Args:
        view: the study.
        options: `field`, a part of a cost, as for `pareto`.

    Raises:
        ConfigError: nothing was spent.
    """
    check_names("ledger", options, ("field",))
    control = chosen("ledger", options, _spent_fields(view, "ledger", "field"))
    field: CostField = control.value  # type: ignore[assignment]
    limit = view.budget.limits().get(field) if field != "seconds" else None
    total = getattr(view.total_cost, field)
    factor, unit = _scale(field, max(total, limit or 0.0))
    figure = go.Figure()
    numbers = [run.number for run in view.tree]
    for kind in SPEND_KINDS:
        each = [getattr(view.ledger.spent.get(run.id, {}).get(kind, Cost()), field) / factor for run in view.tree]
        if any(each):
            _layer(figure, view, kind, numbers, np.cumsum(each))
    if limit is not None:
        figure.add_hline(y=limit / factor, line={"color": VERMILLION, "dash": "dash", "width": 1.5})
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=limit / factor, yanchor="bottom", showarrow=False, text="budget"
        )
    figure.update_xaxes(title_text="run number, in order of creation", tickformat="d")
    figure.update_yaxes(
        title_text=unit, rangemode="tozero", tickformat=_ticks(field), range=[0, 1.1 * max(total, limit or 0) / factor]
    )
    return captioned(finish(figure, 420), view, "Spent against the budget", _ledger_note(view, field), (control,))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other point beats: in cost or loss, without being worse in the other.

    Args:
        points: cost and loss, both better the smaller.

    Returns:
        indices by rising cost; of equal points the first.

    >>> pareto_front([(2.0, 0.5), (1.0, 0.7), (3.0, 0.6), (4.0, 0.1)])
    [1, 0, 3]
    """
    order = sorted(range(len(points)), key=lambda i: (*points[i], i))
    front: list[int] = []
    best = math.inf
    for i in order:
        if points[i][1] < best:
            front.append(i)
            best = points[i][1]
    return front


def _layer(figure: go.Figure, view: StudyView, kind: str, numbers: Sequence[int], spent: np.ndarray) -> None:
    colour = KIND_COLOURS[kind]  # type: ignore[index]
    figure.add_scatter(
        x=numbers,
        y=spent,
        mode="lines" if len(numbers) > 1 else "lines+markers",
        line={"color": colour, "width": 1, "shape": "hv"},
        stackgroup="spent",
        name=kind,
        customdata=[run.id for run in view.tree],
        hovertemplate=f"{kind}: %{{y:.4~g}} up to %{{customdata}}<extra></extra>",
    )


def _ledger_note(view: StudyView, field: CostField) -> str:
    note = "Added up over the runs in the order in which they were created: the ledger keeps no times."
    left = view.budget.left(view.ledger).amounts
    limits = view.budget.limits()
    if field == "seconds" or field not in limits:
        parts = [
            f"{limit - left[name]:,.6g} of {limit:,.6g} {name.replace('_', ' ')}" for name, limit in limits.items()
        ]
        if parts:
            note += f" The budget counts otherwise. Used of it: {', '.join(parts)}."
        return note
    return f"{note} Left of the budget: {amount(field, left[field])}."


def _spent_fields(view: StudyView, plot: str, name: str) -> Control:
    """The parts of a cost that were spent at all; at first the one that the budget limits, else time."""
    spent = tuple(field for field in FIELDS if getattr(view.total_cost, field))
    if not spent:
        raise ConfigError(f"plot {plot!r} needs a run that has cost something; nothing was spent in {view.name!r} yet")
    limited = [field for field in spent if field in view.budget.limits() and field != "seconds"]
    return Control(name, "counted in", spent, [*limited, *spent][0])


def _scale(field: CostField, largest: float) -> tuple[float, str]:
    """What to divide amounts by, and the axis' title."""
    if field not in ("device_seconds", "seconds"):
        return 1.0, _TITLES[field]
    factor, unit = (3600.0, "hours") if largest >= 36000 else (60.0, "minutes") if largest >= 120 else (1.0, "seconds")
    return factor, f"{_TITLES[field]}, {unit}"


def _ticks(field: CostField) -> str:
    return "~g" if field in ("device_seconds", "seconds") else "~s"


def _priced(view: StudyView, run: Run, field: CostField, spent: float) -> str:
    return f"{label(amount(field, spent))} in all<br>{hover(view, run)}"
