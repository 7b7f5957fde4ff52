"""Writes the benchmark's numbers into docs/strategies.md: `python docs/figures/strategies_table.py`.

Reads benchmarks/search/curves.json, which `benchmarks/search/run.py` writes, and replaces what stands between the two
marks of the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "strategies.md"
CURVES = ROOT / "benchmarks" / "search" / "curves.json"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
BUDGETS = (5.0, 10.0, 20.0)
FIRST = "auto"
NAMES = {
    "random_uniform": "random, no priors",
    "halving_uniform": "halving, no priors",
    "auto_warm": "auto, warm start",
}
"""What studies of the benchmark are called in the page, where it is not their label."""


def table(curves: Mapping[str, object], group: str) -> str:
    """A group of tables, such as "taskset, unused": a row per study, the best at the middle budget first.

    Studies that have no number at a budget (too few studies finished a run) have a dash there.
    """
    places = [list(curves["full_trainings"]).index(budget) for budget in BUDGETS]  # type: ignore[call-overload]
    studies: Mapping[str, Sequence[Sequence[float]]] = curves[group]  # type: ignore[assignment]
    medians = {label: [rows[place][0] for place in places] for label, rows in studies.items()}
    order = sorted(medians, key=lambda label: (not medians[label][1] <= 1e9, medians[label][1], label))
    head = "| study | " + " | ".join(f"{budget:g} whole runs" for budget in BUDGETS) + " |"
    lines = [head, "|---" * (1 + len(BUDGETS)) + "|"]
    for label in order:
        shown = [f"{value:.2f}" if value <= 1e9 else "-" for value in medians[label]]
        name = NAMES.get(label, label)
        lines.append("| " + " | ".join([f"**{name}**" if label == FIRST else name, *shown]) + " |")
    return "\n".join(lines)


def written(page: str, curves: Mapping[str, object]) -> str:
    """The page with the tables of all groups between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    groups = [name for name in curves if name not in ("full_trainings", "columns")]
    parts = [f"**{group}**\n\n{table(curves, group)}" for group in groups]
    return before + BEGIN + "\n" + "\n\n".join(parts) + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), json.loads(CURVES.read_text())))
    print(PAGE)
