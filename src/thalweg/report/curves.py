"""Learning curves, reduced for drawing: every spike stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from thalweg.report.view import StudyView

if TYPE_CHECKING:
    from thalweg.track.series import Reduced
    from thalweg.track.store import Store

NUM_POINTS = 36_000
"""Points of all curves together that a report holds: 12 bytes each in the file."""

NUM_BUCKETS = (16, 1000)
"""Least and most buckets per curve."""


def line(curve: Reduced) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Positions and values to draw: a point for a bucket of equal values, low-high-low across any other."""
    first, last = curve.first_position, curve.last_position
    positions = np.stack([first, first + (last - first) // 2, last], axis=1).ravel()
    values = np.stack([curve.min, curve.max, curve.min], axis=1).ravel()
    kept = np.ones(positions.shape, dtype=bool)
    flat = (curve.min == curve.max) | np.isnan(curve.min)
    kept[1::3] = ~flat
    kept[2::3] = ~(flat & (first == last))
    return positions[kept], values[kept]


Curves = Mapping[str, Mapping[str, "Reduced"]]
"""Metric -> run id -> curve."""


def read_curves(store: Store, view: StudyView) -> dict[str, dict[str, Reduced]]:
    """The curves that a report draws: the study's metric on the validation split, training loss, gradient norm."""
    found = [(run.id, set(store.metrics(run.id))) for run in view.tree]
    present = set().union(*(names for _, names in found))
    chosen = panel_metrics(view, present)
    pairs = [(metric, run_id) for metric in chosen for run_id, names in found if metric in names]
    least, most = NUM_BUCKETS
    num_buckets = min(max(NUM_POINTS // (3 * max(len(pairs), 1)), least), most)
    curves: dict[str, dict[str, Reduced]] = {metric: {} for metric in chosen}
    for metric, run_id in pairs:
        curves[metric][run_id] = store.reduced(run_id, metric, num_buckets=num_buckets)
    return curves


def panel_metrics(view: StudyView, present: set[str]) -> Sequence[str]:
    """Names of the curves to draw, in order from top to bottom."""
    name = view.metric.name
    validation = next((n for n in (f"validation/{name}", name) if n in present), None)
    loss = next((n for n in ("train/loss", "loss") if n in present and n != validation), None)
    gradient = next((n for n in ("train/gradient_norm", "gradient_norm") if n in present), None)
    return [n for n in (validation, loss, gradient) if n is not None]
