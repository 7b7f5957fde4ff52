"""The claims about the default strategy, each with what was measured; result.json, curves.json and the figures."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import environments
import numpy as np
import pictures
import same_as_loop
from cells import Found, why_none
from findings import AT, NUM_WORKERS, Case, Regrets
from tables import FAMILIES, all_tables

sys.path.append(str(Path(__file__).parents[1]))
import result

DEFAULT, WARM = "auto", "auto_warm"
OURS_IN_THE_FIELD = ("auto", "lr_race", "random_uniform", "halving_uniform")
"""Of our own studies, those that are ranked with the peers: the default, and three that any tool could have. More of
them would push others down."""
THRESHOLDS = (0.5, 0.3, 0.1, 0.05)
LEAST_SPEED_UP = 3.5
EXPECTED = {
    "random_uniform": (0.84, 0.61, 0.41),
    "optuna:tpe_hyperband_plain": (0.55, 0.37, 0.28),
    "halving_uniform": (0.25, 0.16, 0.11),
}
"""Median regrets on TaskSet, any row, at 5, 10 and 20 full trainings, as measured once elsewhere."""


def write(found: Sequence[Found], folder: Path) -> None:
    """Everything that the folder shows."""
    regrets = Regrets(found)
    made = claims(regrets, found)
    result.write(folder / "result.json", made, ["optuna", "numpy", "scipy"])
    pictures.write_ranks(made, folder)
    (folder / "curves.json").write_text(json.dumps(pictures.curves(regrets)) + "\n")
    pictures.write(regrets, folder)


def claims(regrets: Regrets, found: Sequence[Found]) -> list[dict[str, Any]]:
    """All that can be made of these studies."""
    made = [_known(regrets), _loop(), _missing(found), _regrets(regrets), _thresholds(regrets)]
    if DEFAULT in regrets.labels:
        made += _ranks(regrets)
        made += [*_budget_ratios(regrets, DEFAULT), *_misled(regrets), *_speed_ups(found)]
    if WARM in regrets.labels:
        made += _budget_ratios(regrets, WARM)
    return made


def peers_of(regrets: Regrets) -> list[str]:
    """Tools of others, and the race."""
    return [label for label in regrets.labels if ":" in label or label == "lr_race"]


def fast(labels: Sequence[str]) -> list[str]:
    """Without those that got fewer seeds."""
    slow = {f"{tool}:{study}" for tool, study in environments.SLOW}
    return [label for label in labels if label not in slow]


def _known(regrets: Regrets) -> dict[str, Any]:
    """Whether this simulator gives the numbers of another."""
    measured = {
        label: {
            "expected": list(expected),
            "measured": [
                _median(regrets.pooled(label, "taskset", "any", "good", budget)) for budget in (5.0, 10.0, 20.0)
            ],
        }
        for label, expected in EXPECTED.items()
        if label in regrets.labels
    }
    off = [
        abs(a - b)
        for entry in measured.values()
        for a, b in zip(entry["expected"], entry["measured"], strict=True)
        if b is not None
    ]
    text = (
        "median normalised regret on TaskSet (any row) at 5, 10 and 20 full trainings, beside a measurement with"
        " another simulator: largest difference"
    )
    return result.claim(text, measured, max(off, default=0.0))


def _loop() -> dict[str, Any]:
    same = same_as_loop.compare()
    text = "share of studies whose tree equals that of the loop that real studies run in"
    different = [name for name, is_same in same.items() if not is_same]
    share = sum(same.values()) / len(same)
    return result.claim(text, {"studies": len(same), "different": different}, share, at_least=1.0)


def _missing(found: Sequence[Found]) -> dict[str, Any]:
    whys = {f"{f.cell.tool}:{f.cell.study} on {f.cell.table}": why for f in found if (why := why_none(f))}
    versions = {tool: environments.REQUIREMENTS[tool][0] for tool in environments.STUDIES}
    slow = [f"{tool}:{study}" for tool, study in sorted(environments.SLOW)]
    measured = {
        "peers": versions,
        "with_fewer_seeds": {"seeds": environments.NUM_SLOW_SEEDS, "studies": slow},
        "without_result": whys,
    }
    return result.claim("peers' studies that could not be run", measured, float(len(whys)))


def _regrets(regrets: Regrets) -> dict[str, Any]:
    """By family and variant: median and mean at 5, 10 and 20."""
    measured: dict[str, Any] = {}
    for family, variant, priors in sorted(regrets.groups()):
        for label in regrets.labels:
            values = [regrets.pooled(label, family, variant, priors, budget) for budget in (5.0, 10.0, 20.0)]
            if any(values):
                entry = {"median": [_median(v) for v in values], "mean": [_mean(v) for v in values]}
                measured.setdefault(f"{family}, {variant}, {priors} priors", {})[label] = entry
    text = f"normalised regret at 5, 10 and 20 full trainings; in ratio: {DEFAULT}'s median on TaskSet at 10"
    ratio = _median(regrets.pooled(DEFAULT, "taskset", "any", "good", AT)) if DEFAULT in regrets.labels else None
    return result.claim(text, measured, 1.0 if ratio is None else ratio)


def _thresholds(regrets: Regrets) -> dict[str, Any]:
    """From where on the median study keeps a regret within 20 full trainings."""
    measured: dict[str, Any] = {}
    for family in FAMILIES:
        cases = [case for case in regrets.cases() if all_tables()[case[0]].family == family]
        for label in regrets.labels:
            reached = {
                f"{threshold:g}": float(np.median(budgets))
                for threshold in THRESHOLDS
                if (budgets := _all_reached(regrets, label, cases, threshold))
            }
            if reached:
                shown = {name: round(value, 2) if np.isfinite(value) else None for name, value in reached.items()}
                measured.setdefault(family, {})[label] = shown
    text = "full trainings after which the median study keeps a regret (null: not within 20)"
    return result.claim(text, measured, float(len(measured)))


def _all_reached(regrets: Regrets, label: str, cases: Sequence[Case], threshold: float) -> list[float]:
    return [
        regrets.reached(label, case, seed, threshold, 20.0)
        for case in cases
        for seed in regrets.seeds(label)
        if regrets.trace(label, case, seed, 20.0) is not None
    ]


def _ranks(regrets: Regrets) -> list[dict[str, Any]]:
    """At 10 full trainings: with all peers on the seeds of the slow ones, and without those on all seeds."""
    field = [label for label in regrets.labels if ":" in label or label in OURS_IN_THE_FIELD]
    made = []
    for what, labels in (("all peers, fewer seeds", field), ("peers with all seeds", fast(field))):
        for budget in (5.0, AT, 20.0):
            ranks = regrets.mean_ranks(labels, regrets.cases(), budget)
            if not ranks:
                continue
            others = min(rank for label, rank in ranks.items() if label != DEFAULT)
            by_family = {
                family: _rounded(
                    regrets.mean_ranks(
                        labels, [c for c in regrets.cases() if all_tables()[c[0]].family == family], budget
                    )
                )
                for family in FAMILIES
            }
            measured = {"mean_ranks": _rounded(ranks), "by_family": by_family}
            text = f"mean rank at {budget:g} full trainings over that of the best other, {what}"
            made.append(result.claim(text, measured, ranks[DEFAULT] / others, at_most=1.0))
    return [*made, _leave_out(regrets, fast(field))]


def _leave_out(regrets: Regrets, labels: Sequence[str]) -> dict[str, Any]:
    """How the ranks change where one table is not counted."""
    tables = sorted({case[0] for case in regrets.cases()})
    first = {}
    for table in tables:
        ranks = regrets.mean_ranks(labels, [case for case in regrets.cases() if case[0] != table], AT)
        if ranks:
            first[table] = min(ranks, key=ranks.__getitem__)
    alone = {
        table: _rounded(regrets.mean_ranks(labels, [case for case in regrets.cases() if case[0] == table], AT))
        for table in tables
    }
    share = sum(label == DEFAULT for label in first.values()) / max(len(first), 1)
    text = f"share of tables without which {DEFAULT} still has the best mean rank of all"
    return result.claim(text, {"first_without": first, "ranks_on_one_table": alone}, share, at_least=1.0)


def _budget_ratios(regrets: Regrets, label: str) -> list[dict[str, Any]]:
    """The budget from which on a study returns what the best peer returns at its end."""
    peers = fast(peers_of(regrets))
    made = []
    for what, among in (("peer", peers), ("peer, the race apart", [peer for peer in peers if ":" in peer])):
        ranks = regrets.mean_ranks(among, regrets.cases(), AT) if among else {}
        if not ranks:
            continue
        best = min(ranks, key=ranks.__getitem__)
        ratios: dict[str, list[float]] = defaultdict(list)
        for case in regrets.cases():
            for seed in regrets.seeds(label):
                goal = regrets.at(best, case, seed, AT)
                if goal is not None and regrets.trace(label, case, seed, AT) is not None:
                    # 2 stands for never: the median is what counts.
                    reached = min(regrets.reached(label, case, seed, goal, AT) / AT, 2.0)
                    ratios[all_tables()[case[0]].family].append(reached)
        pooled = [ratio for family in ratios.values() for ratio in family]
        if pooled:
            measured = {
                "best_peer": best,
                "median_by_family": {family: _median(each) for family, each in ratios.items()},
                "quartiles": [round(float(q), 3) for q in np.quantile(pooled, [0.25, 0.75])],
                "never_within_10": round(float(np.mean(np.array(pooled) >= 2)), 3),
            }
            text = f"budget from which on {label} returns what the best {what} does at 10, over 10: median"
            made.append(result.claim(text, measured, float(np.median(pooled)), at_most=0.5))
    return made


def _misled(regrets: Regrets) -> list[dict[str, Any]]:
    """Under wrong priors, beside halving that knows of none."""
    made = []
    for family in FAMILIES:
        cases = [case for case in regrets.cases("wrong") if all_tables()[case[0]].family == family]
        if not cases or "halving_uniform" not in regrets.labels:
            continue
        labels = [DEFAULT, "halving_uniform"]
        _, values = regrets.matrix(labels, cases, AT)
        if not len(values):
            continue
        means, medians = values.mean(axis=0), np.median(values, axis=0)
        measured = {
            "mean": dict(zip(labels, map(float, means.round(4)), strict=True)),
            "median": dict(zip(labels, map(float, medians.round(4)), strict=True)),
        }
        text = f"mean regret of {DEFAULT} at 10 under wrong priors over that of halving without any, {family}"
        ratio = float(means[0] / max(means[1], 1e-9))
        made.append(result.claim(text, measured, ratio, at_most=1.0))
    return made


def _speed_ups(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Of several workers: the virtual time of a study of the same budget."""
    times: dict[tuple[str, str, int], dict[int, float]] = defaultdict(dict)
    for entry in found:
        cell = entry.cell
        if cell.study == DEFAULT and cell.budget == AT and cell.priors == "good" and not why_none(entry):
            for seed, study in entry.studies.items():
                times[cell.table, cell.variant, seed][cell.workers] = study["makespan"]
    pairs = [(t[1], t[NUM_WORKERS]) for t in times.values() if {1, NUM_WORKERS} <= set(t)]
    if not pairs:
        return []
    ratios = np.array([one / several for one, several in pairs])
    measured = {
        "workers": NUM_WORKERS,
        "mean_makespans": [float(np.mean([pair[i] for pair in pairs]).round(3)) for i in (0, 1)],
        "quartiles": [round(float(q), 3) for q in np.quantile(ratios, [0.25, 0.75])],
    }
    text = f"makespan of {DEFAULT} with one worker over that with {NUM_WORKERS}, 10 full trainings: median"
    return [result.claim(text, measured, float(np.median(ratios)), at_least=LEAST_SPEED_UP)]


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {label: round(value, 2) for label, value in sorted(values.items(), key=lambda entry: entry[1])}


def _median(values: Sequence[float]) -> float | None:
    return round(float(np.median(values)), 3) if len(values) else None


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 3) if len(values) else None
