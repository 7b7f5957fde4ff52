"""Thalweg's strategies beside the tools that people use, on tables of real training runs.

    python benchmarks/search/run.py [--only auto,lr_race] [--tables taskset] [--jobs 2] [--seeds 20] [--quick]

Prints medians of the normalised regret, by family of tables. README.md beside this file says what is compared and how.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Sequence

import environments
import numpy as np
import own
from cells import Cell, Found, carry_out, why_none
from meter import regret_at
from tables import FAMILIES, PRIORS, VARIANTS, all_tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="studies, by commas; all by default")
    parser.add_argument("--tables", default=",".join(FAMILIES), help="families or tables, by commas")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--priors", default=PRIORS[0], help=f"of {', '.join(PRIORS)}")
    parser.add_argument("--budgets", default="5,10,20", help="full trainings; a study of its own for each")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    options = parser.parse_args()
    studies = options.only.split(",") if options.only else own.available()
    tables = [t for t in all_tables().values() if {t.name, t.family} & set(options.tables.split(","))]
    budgets = [float(budget) for budget in options.budgets.split(",")]
    cells = [
        Cell(tool="thalweg", study=study, table=table.name, variant=variant, priors=priors, budget=budget)
        for study, table, priors, budget in itertools.product(studies, tables, options.priors.split(","), budgets)
        for variant in table.variants
        if variant in options.variants.split(",")
    ]
    found = carry_out(cells, range(options.seeds), environments.ROOT / "results", options.jobs)
    show(found, budgets)


def show(found: Sequence[Found], budgets: Sequence[float]) -> None:
    """The medians, a line for each study, family, variant and kind of priors."""
    tables = all_tables()
    lines: dict[tuple[str, ...], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in found:
        cell = entry.cell
        if why_none(entry):
            continue
        key = (tables[cell.table].family, cell.variant, cell.priors, cell.study)
        for study in entry.studies.values():
            lines[key][cell.budget].append(regret_at(study["trace"], cell.budget))
    print(f"{'family':10}{'variant':9}{'priors':8}{'study':22}" + "".join(f"{b:>8g} (mean)" for b in budgets))
    for key, by_budget in sorted(lines.items(), key=lambda line: (line[0][:3], np.median(line[1][budgets[-1]]))):
        values = "".join(f"{np.median(by_budget[b]):8.3f}  {np.mean(by_budget[b]):.3f}" for b in budgets)
        print(f"{key[0]:10}{key[1]:9}{key[2]:8}{key[3]:22}{values}")


if __name__ == "__main__":
    main()
