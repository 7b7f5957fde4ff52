"""The best trade-offs, and what the report says of them and of stopping rules."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from thalweg.report.findings import summary_dict
from thalweg.report.front import front, hypervolume, non_dominated
from thalweg.report.page import render
from thalweg.report.search_plots import PLOTS
from thalweg.report.summary import summary
from thalweg.report.view import StudyView
from thalweg.tree import Report


def several(make: SimpleNamespace, config: dict[str, Any], *seeds: int) -> StudyView:
    """Accuracy and latency of four runs: 0 and 2 are on the front, 1 is worse than 0 in both, 3 has no latency."""
    rows = [(0.9, 7.0), (0.8, 8.0), (0.7, 2.0), (0.95, None)]
    runs = []
    for number, (accuracy, latency) in enumerate(rows):
        metrics = {"accuracy": accuracy} | ({} if latency is None else {"latency": latency})
        run = make.run(number)
        runs.append(dataclasses.replace(run, reports=(Report(run.position, metrics),)))
    for number, seed in enumerate(seeds, len(runs)):
        runs.append(dataclasses.replace(runs[0], id=f"imdb-{number}", number=number, seed=seed))
    return dataclasses.replace(make.view(runs), config=config)


def printed(view: StudyView) -> str:
    console = Console(width=120, no_color=True)
    with console.capture() as capture:
        console.print(summary(view))
    return capture.get()


def test_the_front_is_shown_everywhere(make: SimpleNamespace) -> None:
    view = several(make, {"objectives": ["min latency"]})
    assert [run.id for run in front(view)] == ["imdb-0", "imdb-2"]
    found = summary_dict(view)["front"]
    assert [each["run"] for each in found["runs"]] == ["imdb-0", "imdb-2"]
    # Up to the worst, accuracy 0.7 and latency 8: imdb-0 reaches 0.2 by 1; the others lie on the edge.
    assert found["hypervolume"] == pytest.approx(0.2)
    assert found["reference"] == pytest.approx([0.7, 8.0])
    assert "Best trade-offs" in printed(view)
    assert "Best trade-offs" in render(view, {})
    figure = PLOTS["pareto"](view, {})
    assert {run for trace in figure.data for run in trace.customdata} == {"imdb-0", "imdb-1", "imdb-2"}


def test_with_one_objective_the_front_is_the_best_run(make: SimpleNamespace) -> None:
    view = several(make, {})
    assert front(view) == [view.best]
    assert summary_dict(view)["front"] is None


def test_repetitions_and_stopping_rules_are_shown_everywhere(make: SimpleNamespace) -> None:
    view = several(make, {"stopping": {"target": 0.9}}, 5, 6)
    found = summary_dict(view)
    assert found["confirmation"]["configurations"][0]["runs"] == ["imdb-0", "imdb-4", "imdb-5"]
    assert found["stopped_by"]["rule"] == "target"
    for text in (printed(view), render(view, {})):
        assert "imdb-0, imdb-4, imdb-5" in text
        assert "has reached 0.95; the target was 0.9." in text


points = st.lists(st.tuples(*[st.integers(0, 6).map(float)] * 3), min_size=1, max_size=12)


@given(points=points)
def test_the_hypervolume_counts_cells(points: list[tuple[float, ...]]) -> None:
    """On a grid of whole numbers: the unit cells that some point lies below."""
    cells = itertools.product(range(7), repeat=3)
    count = sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)
    assert hypervolume(points, (7.0, 7.0, 7.0)) == count


@given(points=points)
def test_the_front_by_definition(points: list[tuple[float, ...]]) -> None:
    kept = [points[i] for i in non_dominated(points)]
    assert len(set(kept)) == len(kept)
    for point in points:
        beaten = any(np.all(np.less_equal(other, point)) and other != point for other in points)
        assert (point in kept) == (not beaten)
