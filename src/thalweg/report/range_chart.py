"""The picture of a learning-rate range test."""

from __future__ import annotations

import numpy as np

from thalweg.report.chart import Chart, Line, Mark
from thalweg.report.palette import BLUE, GREY
from thalweg.report.wording import number
from thalweg.scaling.lr_range import LRRange


def range_chart(found: LRRange, title: str) -> Chart:
    """Loss over the learning rate, as it was and smoothed, with what was read from it.

    Once it has risen far above where it began the loss is left out: there the scale would hide everything else.
    """
    start, least = float(found.smoothed[0]), float(np.min(found.smoothed))
    high = np.flatnonzero(found.smoothed > start + max(start - least, 0.1 * abs(start)))
    end = int(high[0]) if len(high) else len(found.rates)
    rates = found.rates[:end].tolist()
    places = {
        "steepest": found.steepest,
        "least loss": found.minimum,
        "diverges": found.diverges,
        "suggestion": found.suggestion,
    }
    at: dict[float, list[str]] = {}
    for text, rate in places.items():
        if rate is not None:
            at.setdefault(rate, []).append(text)
    return Chart(
        title=title,
        x_label="learning rate",
        y_label="training loss",
        lines=[
            Line(name="as trained", x=rates, y=found.losses[:end].tolist(), colour=GREY),
            Line(name="smoothed", x=rates, y=found.smoothed[:end].tolist(), colour=BLUE),
        ],
        marks=[Mark(position=rate, text=f"{' and '.join(texts)} {number(rate)}") for rate, texts in at.items()],
        log_x=True,
    )
