"""Writes the benchmark's numbers into docs/strategies.md: `python docs/figures/strategies_table.py`.

Reads benchmarks/search/result.json, which `benchmarks/search/run.py` writes, and replaces what stands between the two
marks of the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "strategies.md"
RESULT = ROOT / "benchmarks" / "search" / "result.json"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
CLAIM = "normalised regret at 5, 10 and 20 full trainings"
FIRST = "auto"
NAMES = {
    "random_uniform": "random, no priors",
    "halving_uniform": "halving, no priors",
    "auto_warm": "auto, warm start",
}
"""What studies of the benchmark are called in the page, where it is not their label."""


def table(studies: Mapping[str, Mapping[str, Sequence[float | None]]]) -> str:
    """A group of tables: a row per study, the best at the middle budget first.

    Studies that have no number at a budget (they were run with a smaller one) have a dash there.
    """
    medians = {label: numbers["median"] for label, numbers in studies.items()}

    def place(label: str) -> tuple[float, str]:
        middle = medians[label][1]
        return (math.inf if middle is None else middle), label

    lines = ["| study | 5 whole runs | 10 whole runs | 20 whole runs |", "|---|---|---|---|"]
    for label in sorted(medians, key=place):
        shown = ["-" if value is None else f"{value:.2f}" for value in medians[label]]
        name = NAMES.get(label, label)
        lines.append("| " + " | ".join([f"**{name}**" if label == FIRST else name, *shown]) + " |")
    return "\n".join(lines)


def written(page: str, claims: Sequence[Mapping[str, Any]]) -> str:
    """The page with the tables of all groups between its marks.

    Raises:
        ValueError: a mark is missing.
        StopIteration: the claim is missing.
    """
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    groups = next(claim["measured"] for claim in claims if claim["claim"].startswith(CLAIM))
    parts = [f"**{group}**\n\n{table(studies)}" for group, studies in groups.items()]
    return before + BEGIN + "\n" + "\n\n".join(parts) + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), json.loads(RESULT.read_text())))
    print(PAGE)
