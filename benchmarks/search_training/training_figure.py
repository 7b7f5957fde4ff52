"""The figure: how validation falls with the tokens spent, and what the test split says of what is returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from training_findings import by_seed, interval
from training_studies import DEFAULTS, OPTUNA, STRATEGIES
from training_tasks import METRIC, TASKS

COLOURS = {"auto": "#0072b2", "lr_race": "#e69f00", "random": "#000000", OPTUNA: "#d55e00", DEFAULTS: "#999999"}
TITLES = {OPTUNA: "Optuna TPE\n+ Hyperband", DEFAULTS: "defaults,\none run"}


def write(studies: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Two panels a task."""
    figure = Figure(figsize=(11, 8), layout="constrained", dpi=110)
    rows = figure.subplots(len(TASKS), 2, squeeze=False)
    for task, (left, right) in zip(TASKS, rows, strict=True):
        _paths(left, task, studies)
        _tests(right, task, studies)
        left.set_title(TASKS[task].title, fontsize=10, loc="left")
        right.set_title("test split, each seed; mean and 95% interval", fontsize=10, loc="left")
    figure.savefig(path)


def _paths(axes: Any, task: str, studies: Sequence[Mapping[str, Any]]) -> None:
    """Means over seeds, from where every seed has a run that was trained to the end."""
    for name in STRATEGIES:
        chosen = [study for study in studies if study["task"] == task and study["strategy"] == name]
        if not chosen or name == DEFAULTS:
            continue
        budget = chosen[0]["budget_tokens"]
        grid = np.linspace(0, budget, 201)
        curves = np.array([_step(study["path"], grid) for study in chosen])
        label = TITLES.get(name, name).replace("\n", " ")
        axes.plot(grid / budget * TASKS[task].whole_runs, curves.mean(axis=0), color=COLOURS[name], label=label)
    axes.set(xlabel="tokens spent, in whole runs", ylabel="best validation loss of a whole run")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _step(path: Sequence[Sequence[float]], grid: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    tokens = [entry[0] for entry in path]
    values = np.array([np.nan, *(entry[1] for entry in path)])
    return values[np.searchsorted(tokens, grid, side="right")]


def _tests(axes: Any, task: str, studies: Sequence[Mapping[str, Any]]) -> None:
    present = [name for name in STRATEGIES if by_seed(studies, task, name, "test", METRIC)]
    for place, name in enumerate(present):
        losses = list(by_seed(studies, task, name, "test", METRIC).values())
        axes.plot([place - 0.12] * len(losses), losses, "o", color=COLOURS[name], alpha=0.5, markersize=5)
        if len(losses) > 1:
            mean, low, high = interval(losses)
            axes.errorbar(place + 0.12, mean, [[mean - low], [high - mean]], fmt="s", color=COLOURS[name], capsize=4)
    axes.set_xticks(range(len(present)), [TITLES.get(name, name) for name in present], fontsize=8)
    axes.set(ylabel="test loss of what is returned")
    axes.grid(alpha=0.3, axis="y")
