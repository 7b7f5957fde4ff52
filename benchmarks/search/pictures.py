"""Regret against budget, and mean ranks: as numbers and as figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from findings import Regrets
from matplotlib.figure import Figure
from tables import all_tables

GRID = [float(budget) for budget in (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20)]
"""Full trainings."""
SHOWN = {
    "auto": "#0072b2",
    "auto_warm": "#56b4e9",
    "lr_race": "#e69f00",
    "halving_uniform": "#999999",
    "random_uniform": "#000000",
    "optuna:tpe_hyperband": "#d55e00",
    "ray:bohb": "#009e73",
    "syne_tune:asha": "#8c564b",
    "neps:prior_band": "#cc79a7",
    "smac:hyperband": "#bcbd22",
}
"""Of each tool one study, with its colour."""
BANDS = ("auto", "lr_race", "neps:prior_band", "optuna:tpe_hyperband")


def curves(regrets: Regrets) -> dict[str, Any]:
    """Median, quartiles and mean at the budgets of the grid, of the studies with the largest budget."""
    found: dict[str, Any] = {"full_trainings": GRID, "columns": ["median", "quartile_1", "quartile_3", "mean"]}
    for family, variant, priors in sorted(regrets.groups()):
        if priors != "good":
            continue
        for label in regrets.labels:
            table = _table(regrets, label, family, variant)
            if table is not None:
                found.setdefault(f"{family}, {variant}", {})[label] = table.round(4).tolist()
    return found


def write(regrets: Regrets, folder: Path) -> None:
    """A figure of regrets for each family and variant."""
    for family, variant, priors in sorted(regrets.groups()):
        if priors == "good":
            _regrets(regrets, family, variant).savefig(folder / f"regret_{family}_{variant}.png")


def write_ranks(claims: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """A figure of the mean ranks that the claims hold, of all that were run under all seeds."""
    known: dict[float, Mapping[str, float]] = {}
    for claim in claims:
        found = re.fullmatch(r"mean rank at (\d+) full trainings .*, peers with all seeds", str(claim["claim"]))
        if found:
            known[float(found[1])] = claim["measured"]["mean_ranks"]
    if not known:
        return
    figure = Figure(figsize=(9, 5), layout="constrained", dpi=110)
    axes = figure.subplots()
    budgets = sorted(known)
    for label in known[budgets[0]]:
        ranks = [known[budget][label] for budget in budgets]
        axes.plot(budgets, ranks, color=SHOWN.get(label), marker="o", label=label, linewidth=1.6)
    title = "Mean rank among these, lower is better; families of tables count equally"
    axes.set(xlabel="budget, full trainings", ylabel="mean rank", xticks=budgets, title=title)
    _finish(axes)
    figure.savefig(folder / "mean_rank.png")


def _table(regrets: Regrets, label: str, family: str, variant: str) -> Any | None:
    cases = [case for case in regrets.cases() if all_tables()[case[0]].family == family and case[1] == variant]
    traces = [regrets.trace(label, case, seed, GRID[-1]) for case in cases for seed in regrets.seeds(label)]
    rows = [[_at(trace, budget) for budget in GRID] for trace in traces if trace is not None]
    if not rows:
        return None
    values = np.array(rows)
    return np.stack([*np.quantile(values, [0.5, 0.25, 0.75], axis=0), values.mean(axis=0)])


def _at(trace: Any, budget: float) -> float:
    return float(next((regret for spent, regret in reversed(trace) if spent <= budget + 1e-9), 1.0))


def _regrets(regrets: Regrets, family: str, variant: str) -> Figure:
    figure = Figure(figsize=(9, 5), layout="constrained", dpi=110)
    axes = figure.subplots()
    for label, colour in SHOWN.items():
        table = _table(regrets, label, family, variant) if label in regrets.labels else None
        if table is None:
            continue
        axes.plot(GRID, table[0], color=colour, label=label, linewidth=1.6)
        if label in BANDS:
            axes.fill_between(GRID, table[1], table[2], color=colour, alpha=0.12, linewidth=0)
    mapped = {"any": "", "unused": ", each row at most once"}[variant]
    title = f"{family}{mapped}: normalised regret, median (bands: quartiles)"
    axes.set(xlabel="budget, full trainings", ylabel="normalised regret", ylim=(0, 1), title=title)
    _finish(axes)
    return figure


def _finish(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
