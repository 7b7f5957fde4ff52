"""What the studies show: regrets, ranks, the budgets at which a regret is reached; the claims, curves and figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import Found, why_none
from meter import regret_at
from tables import all_tables

AT = 10.0
"""Full trainings at which the claims are made."""
PARALLEL = ("auto",)
NUM_WORKERS = 4
MISLED = ("auto", "auto_warm", "halving_uniform", "lr_race", "prior_band", "tpe")
"""Studied under wrong priors too."""
Case = tuple[str, str, str]
"""Table, variant, priors."""


class Regrets:
    """The traces of all studies with one worker, by what was studied."""

    def __init__(self, found: Sequence[Found]) -> None:
        self._traces: dict[tuple[str, Case, int], dict[float, Any]] = defaultdict(dict)
        self.labels: list[str] = []
        for entry in found:
            cell = entry.cell
            if why_none(entry) or cell.workers > 1:
                continue
            label = cell.study if cell.tool == "thalweg" else f"{cell.tool}:{cell.study}"
            if label not in self.labels:
                self.labels.append(label)
            for seed, study in entry.studies.items():
                case = (cell.table, cell.variant, cell.priors)
                self._traces[label, case, seed][cell.budget] = study["trace"]

    def seeds(self, label: str) -> list[int]:
        """Those of a study."""
        return sorted({seed for name, _, seed in self._traces if name == label})

    def cases(self, priors: str = "good") -> list[Case]:
        """Those with priors of this kind."""
        return sorted({case for _, case, _ in self._traces if case[2] == priors})

    def groups(self) -> set[tuple[str, str, str]]:
        """Family, variant, priors."""
        return {(all_tables()[table].family, *rest) for _, (table, *rest), _ in self._traces}  # type: ignore[misc]

    def trace(self, label: str, case: Case, seed: int, budget: float) -> Any | None:
        """Of the study with this budget, or else the next larger; None where there is none."""
        traces = self._traces.get((label, case, seed), {})
        larger = [known for known in traces if known >= budget]
        return traces[min(larger)] if larger else None

    def at(self, label: str, case: Case, seed: int, budget: float) -> float | None:
        """The regret at a budget."""
        trace = self.trace(label, case, seed, budget)
        return None if trace is None else regret_at(trace, budget)

    def pooled(self, label: str, family: str, variant: str, priors: str, budget: float) -> list[float]:
        """Over the tables of a family and all seeds."""
        cases = [c for c in self.cases(priors) if all_tables()[c[0]].family == family and c[1] == variant]
        values = (self.at(label, case, seed, budget) for case in cases for seed in self.seeds(label))
        return [value for value in values if value is not None]


def write(found: Sequence[Found], folder: Path) -> None:
    """The results, the curves and the figures."""
