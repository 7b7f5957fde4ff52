"""The learning rates that populations found, beside those of the best cosines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[2] / "docs" / "figures"))
from picture import reduce

from thalweg.report.palette import BLUE, ORANGE
from thalweg.schedules import cosine


def draw(measured: Mapping[str, Any], path: Path) -> None:
    """A panel for each seed: the rate of every step, and the losses that the two came to.

    Args:
        measured: of the claim about the runs as they were found.
        path: of the picture, a PNG.
    """
    steps, warmup = measured["steps_of_a_run"], measured["warmup_steps"]
    found = measured["schedules_of_populations"]
    figure = Figure(figsize=(3.4 * len(found), 3.2), layout="constrained", dpi=110)
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    grid = np.arange(steps + 1)
    shape = cosine(warmup=warmup, horizon=steps)
    for seed, axes in enumerate(panels):
        peak = measured["best_peak_rates"][seed]
        axes.plot(grid, [peak * shape(step) for step in grid], color=ORANGE, label="best cosine")
        axes.plot(grid, rates(found[seed], grid, warmup), color=BLUE, label="population", drawstyle="steps-post")
        losses = measured["population_losses"][seed], measured["cosine_losses"][seed]
        axes.set(title=f"seed {seed}: loss {losses[0]:.3f}, cosine {losses[1]:.3f}", xlabel="step")
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="learning rate")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    figure.savefig(path)
    reduce(path)


def rates(stretches: list[tuple[int, int, float]], grid: np.ndarray, warmup: int) -> list[float]:
    """The rate at each step of a schedule of constant rates, which rises over the warm-up."""

    def rate(step: int) -> float:
        return next((rate for start, end, rate in stretches if start <= step < end), stretches[-1][2])

    return [rate(step) * min(1.0, step / warmup) for step in grid]
