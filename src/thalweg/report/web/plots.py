"""A study's plots, drawn on the server and sent as Plotly's JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from thalweg.errors import nearest
from thalweg.report.view import read_view
from thalweg.report.web.answers import Refused

if TYPE_CHECKING:
    from thalweg.report.view import StudyView
    from thalweg.track.store import Store

Draw = Callable[["StudyView", Mapping[str, str]], Any]


def known_plots() -> Mapping[str, Draw]:
    """The plots that there are, by name. Plotly takes a second to import, so not before somebody asks for one."""
    from thalweg.report.search_plots import PLOTS

    return PLOTS


def plot_json(store: Store, name: str, kind: str, options: Mapping[str, str]) -> bytes:
    """`{"figure": ...}` of a plot of a study.

    Raises:
        Refused: no such plot, or one of a project, which has nothing that it searches.
        ConfigError: it needs more runs, or an option cannot be.
        StoreError: no such study.
    """
    plots = known_plots()
    if kind not in plots:
        raise Refused(404, f"unknown plot {kind!r}. {nearest(kind, plots)}")
    if store.study(name).kind != "study":
        raise Refused(422, f"{name!r} is a project: plots of a search need a study with a metric and a space")
    figure = plots[kind](read_view(store, name), options)
    text: str = figure.to_json()
    return b'{"figure":' + text.encode() + b"}"
