"""What the studies show: regrets, ranks, and the budgets at which a regret is reached."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from cells import Found, why_none
from meter import regret_at
from scipy import stats
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

    def matrix(self, labels: Sequence[str], cases: Sequence[Case], budget: float) -> tuple[list[tuple[Case, int]], Any]:
        """Regrets by (case, seed) and label, of the seeds that all these labels have."""
        rows, keys = [], []
        common = set.intersection(*(set(self.seeds(label)) for label in labels))
        for case in cases:
            for seed in sorted(common):
                values = [self.at(label, case, seed, budget) for label in labels]
                if all(value is not None for value in values):
                    rows.append(values)
                    keys.append((case, seed))
        return keys, np.array(rows, dtype=float).reshape(-1, len(labels))

    def mean_ranks(self, labels: Sequence[str], cases: Sequence[Case], budget: float) -> dict[str, float]:
        """Mean rank of each, 1 the best, ties shared; families count equally, and tables within them."""
        keys, values = self.matrix(labels, cases, budget)
        if not len(values):
            return {}
        ranks = stats.rankdata(np.round(values, 9), axis=1)
        by_case: dict[str, dict[Case, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for (case, _), row in zip(keys, ranks, strict=True):
            by_case[all_tables()[case[0]].family][case].append(row)
        families = [np.mean([np.mean(rows, axis=0) for rows in cases.values()], axis=0) for cases in by_case.values()]
        return dict(zip(labels, map(float, np.mean(families, axis=0)), strict=True))

    def reached(self, label: str, case: Case, seed: int, regret: float, within: float) -> float:
        """Full trainings after which a study of this budget returns as little until its end; infinite if it never does.

        Not when it first does: what is best early, by chance, may be given up for something worse.
        """
        since = math.inf
        for spent, value in self.trace(label, case, seed, within) or []:
            if spent <= within + 1e-9:
                since = math.inf if value > regret + 1e-9 else min(since, spent)
        return since
