"""Thalweg's strategies beside the tools that people use, on tables of real training runs.

    python benchmarks/search/run.py                        # everything; the peers' results are kept under build/
    python benchmarks/search/run.py --only auto,lr_race --tables taskset --peers none --jobs 2
    python benchmarks/search/run.py --quick                # a few seeds, to see that everything runs

Prints medians and means of the normalised regret. A whole run writes result.json, curves.json and figures beside this
file; a part of it (--only, --tables, --quick) writes nothing but what --out names. README.md says what is compared.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import claims
import environments
import findings
import numpy as np
import own
from cells import Cell, Found, carry_out, why_none
from tables import FAMILIES, PRIORS, VARIANTS, Table, all_tables

PEER_BUDGET = 20.0
"""Full trainings of a peer's study. Peers are not told budgets: what one returns at less is read from its trace."""
BUDGETS = (5.0, 10.0, 20.0)
QUICK_SEEDS = 2
HERE = Path(__file__).parent


def main() -> None:
    options = parse()
    studies = options.only.split(",") if options.only else own.available()
    tables = [t for t in all_tables().values() if {t.name, t.family} & set(options.tables.split(","))]
    budgets = [float(budget) for budget in options.budgets.split(",")]
    tools = [] if options.peers == "none" else options.peers.split(",")
    for tool, why in environments.make_all(tools).items():
        print(f"{tool}: {why}", flush=True)
    variants = options.variants.split(",")
    cells = own_cells(studies, tables, variants, options.priors.split(","), budgets)
    peers = peer_cells(tools, tables, variants)
    if options.peer_studies:
        peers = [cell for cell in peers if cell.study in options.peer_studies.split(",")]
    seeds = range(QUICK_SEEDS if options.quick else options.seeds)
    found = carry_out([*peers, *cells], seeds, environments.ROOT / "results", options.jobs)
    show(found, budgets)
    whole = not (options.only or options.quick or options.peer_studies) and tools and len(tables) == len(all_tables())
    folder = options.out or (HERE if whole else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        claims.write(found, folder)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="our studies, by commas; all by default")
    parser.add_argument("--peers", default=",".join(environments.STUDIES), help="tools, by commas, or none")
    parser.add_argument("--peer-studies", help="of these tools, by commas; all by default")
    parser.add_argument("--tables", default=",".join(FAMILIES), help="families or tables, by commas")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--priors", default=",".join(PRIORS), help="the wrong ones are for a few studies only")
    parser.add_argument("--budgets", default="5,10,20", help="full trainings; a study of its own for each")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--out", type=Path, help="a folder for result.json, curves.json and the figures")
    return parser.parse_args()


def own_cells(
    studies: Sequence[str],
    tables: Sequence[Table],
    variants: Sequence[str],
    priors: Sequence[str],
    budgets: Sequence[float],
) -> list[Cell]:
    """Each study at each budget; some under wrong priors; and the default with several workers."""
    cells = []
    for study, table in itertools.product(studies, tables):
        for variant in set(table.variants) & set(variants):
            where = {"tool": "thalweg", "study": study, "table": table.name, "variant": variant}
            if "good" in priors:
                cells += [Cell(**where, budget=budget) for budget in budgets]
                if study in findings.PARALLEL:
                    cells.append(Cell(**where, budget=findings.AT, workers=findings.NUM_WORKERS))
            if "wrong" in priors and study in findings.MISLED:
                cells.append(Cell(**where, priors="wrong", budget=findings.AT))
    return cells


def peer_cells(tools: Sequence[str], tables: Sequence[Table], variants: Sequence[str]) -> list[Cell]:
    """Each peer's studies, by families of tables, the slow ones last."""
    cells = []
    for tool, table in itertools.product(tools, tables):
        for study in environments.STUDIES[tool]:
            is_slow = (tool, study) in environments.SLOW
            if is_slow and table.family == "lora":
                continue
            budget = findings.AT if is_slow else PEER_BUDGET
            cells += [
                Cell(tool=tool, study=study, table=table.name, variant=variant, budget=budget)
                for variant in table.variants
                if variant in variants
            ]
    families = {table.name: FAMILIES.index(table.family) for table in tables}
    return sorted(cells, key=lambda cell: ((cell.tool, cell.study) in environments.SLOW, families[cell.table]))


def show(found: Sequence[Found], budgets: Sequence[float]) -> None:
    """Medians and means, a line for each study, family, variant and kind of priors."""
    regrets = findings.Regrets(found)
    head = f"{'family':9}{'variant':8}{'priors':7}{'study':28}{'seeds':>5}"
    print(head + "".join(f"{budget:>7g} (mean)" for budget in budgets))
    for family, variant, priors in sorted(regrets.groups()):
        lines = []
        for label in regrets.labels:
            values = [regrets.pooled(label, family, variant, priors, budget) for budget in budgets]
            if any(len(each) for each in values):
                num_seeds = len(regrets.seeds(label))
                lines.append((np.median(values[-1]) if len(values[-1]) else 2.0, label, num_seeds, values))
        for _, label, num_seeds, values in sorted(lines, key=lambda line: line[:2]):
            shown = "".join(f"{np.median(v):7.3f} {np.mean(v):.3f}" + " " if len(v) else " " * 14 for v in values)
            print(f"{family:9}{variant:8}{priors:7}{label:28}{num_seeds:>5}{shown}")
    for entry in found:
        if why := why_none(entry):
            print(f"no result: {entry.cell.name}: {why}")


if __name__ == "__main__":
    main()
