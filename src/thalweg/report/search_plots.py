"""The plots of a search, by name: what the dashboard draws of a study.

Each is a pure function of the study as read from the store and of a few options, and gives a Plotly figure. Its
`layout.meta` holds `title`, `note` (how to read it) and `options` (what may be chosen); a run's point has the run's id
as its `customdata`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from thalweg.errors import ConfigError
from thalweg.report import figures
from thalweg.report.importance import importance as read_importance
from thalweg.report.parallel import parallel_coordinates
from thalweg.report.plots_caption import Options, best_of, captioned, check_names, scored_runs
from thalweg.report.plots_cost import ledger
from thalweg.report.plots_cost import pareto as against_cost
from thalweg.report.plots_front import trade_offs
from thalweg.report.plots_rungs import rungs
from thalweg.report.plots_slices import contour, slices
from thalweg.report.view import StudyView

_MOST_LINES = 300
"""Runs in a figure that draws a line each: more are neither told apart nor drawn within a second."""


def history(view: StudyView, options: Options) -> go.Figure:
    """Results in order of the runs and against the cost so far, and the best of them.

    Raises:
        ConfigError: no run has a result.
    """
    check_names("history", options, ())
    scored_runs(view, "history")
    note = (
        f"Each mark is a run's last validation {view.metric.name}; the line is the best finished run so far. Paused and"
        " stopped runs were scored before the end of their training. Failed and diverged runs lie at the worse edge."
    )
    return captioned(figures.history(view), view, "History", note)


def parallel(view: StudyView, options: Options) -> go.Figure:
    """Runs as lines through their hyperparameters to their result.

    Raises:
        ConfigError: no run has a result.
    """
    check_names("parallel", options, ())
    scored_runs(view, "parallel")
    shown, cut = best_of(view, _MOST_LINES)
    note = (
        f"A line per run with a result, through its hyperparameters to its last validation {view.metric.name} on the"
        f" right (best on top). Good regions are where the strong lines run together.{cut}"
    )
    return captioned(parallel_coordinates(shown), shown, "Parallel coordinates", note)


def importance(view: StudyView, options: Options) -> go.Figure:
    """Shares of the results' variance that hyperparameters explain.

    Raises:
        ConfigError: it cannot be told; the message says why.
    """
    check_names("importance", options, ())
    found = read_importance(view)
    if not found.shares:
        raise ConfigError(f"plot 'importance': {found.basis}")
    note = (
        "How much of the differences between runs each hyperparameter explains (functional ANOVA), with 90% bootstrap"
        f" intervals. {found.basis}"
    )
    return captioned(figures.importance_bars(found.shares, found.intervals), view, "Importance", note)


def pareto(view: StudyView, options: Options) -> go.Figure:
    """Results against the study's other objectives, or against what runs cost where it has none.

    Raises:
        ConfigError: no run has a result.
    """
    return trade_offs(view, options) if view.objectives else against_cost(view, options)


PLOTS: dict[str, Callable[[StudyView, Mapping[str, str]], go.Figure]] = {
    "history": history,
    "parallel": parallel,
    "importance": importance,
    "slices": slices,
    "contour": contour,
    "rungs": rungs,
    "pareto": pareto,
    "ledger": ledger,
}
"""Name -> function of the study and the plot's options."""
