"""Whether the driver of our strategies (`own.py`) grows the same trees as the loop that real studies run in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import own
from tables import all_tables

from thalweg.execute.simulated import SimulatedTrainer
from thalweg.simulation import simulate

STUDIES = ("random", "halving", "lr_race", "auto")
TABLES = ("imdb_patch32_GRU64_avg_bs128", "imdb_patch128_LSTM128_bs64", "steplaw_268M")
SEEDS = (0, 1)
BUDGET = 5.0


def compare() -> dict[str, bool]:
    """For each study, table and seed: whether all runs have equal hyperparameters, positions and states."""
    known = [study for study in STUDIES if study in own.available()]
    return {
        f"{study}, {table}, seed {seed}": _is_same(study, table, seed)
        for study in known
        for table in TABLES
        for seed in SEEDS
    }


def _is_same(study: str, table_name: str, seed: int) -> bool:
    table = all_tables()[table_name]
    setting = own.Setting(table=table, seed=seed, budget=BUDGET)
    driven = own.grow(study, setting)
    lookup = table.lookup("any", seed)

    def loss(hyperparameters: Mapping[str, Any], position: int, _seed: int) -> dict[str, float]:
        value = float(lookup.curve(hyperparameters).losses[position - 1])
        return {own.METRIC.name: value if math.isfinite(value) else math.nan}

    name, options = own.STUDIES[study]
    whole = table.num_fidelities
    simulated = simulate(
        SimulatedTrainer.of_curve(loss, horizon_positions=whole, unit="samples", report_every=1),
        space=table.space,
        metric=own.METRIC,
        budget={"samples": BUDGET * whole},
        strategy={"name": name, **options},
        seed=seed,
    )
    trees = (driven, simulated.tree)
    first, second = ([(r.hyperparameters, r.position, r.status) for r in sorted(t, key=_number)] for t in trees)
    return first == second


def _number(run: Any) -> int:
    return int(run.number)
