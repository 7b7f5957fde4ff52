"""What the studies say: means with intervals over seeds, and which differences are more than noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from training_studies import DEFAULTS, STRATEGIES
from training_tasks import METRIC, TASKS

import result

AUTO = "auto"

Studies = Sequence[Mapping[str, Any]]


class Interval(NamedTuple):
    """A mean with its 95% interval, Student's."""

    mean: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        return self.low <= 0 <= self.high


def interval(values: Sequence[float]) -> Interval:
    """Of at least two values."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def differences(studies: Studies, task: str, split: str = "test") -> dict[tuple[str, str], Interval]:
    """First less second in their losses, for each pair of strategies, over the seeds that both have.

    Studies of one seed begin all their runs with the same weights and the same order of the data, so they are compared
    in pairs.
    """
    losses = {name: by_seed(studies, task, name, split, METRIC) for name in STRATEGIES}
    found = {}
    for first, second in itertools.combinations(STRATEGIES, 2):
        seeds = sorted(losses[first].keys() & losses[second].keys())
        if len(seeds) > 1:
            found[first, second] = interval([losses[first][seed] - losses[second][seed] for seed in seeds])
    return found


def by_seed(studies: Studies, task: str, strategy: str, split: str, metric: str) -> dict[int, float]:
    """One metric on a split, of what the studies of a strategy return."""
    chosen = [study for study in studies if study["task"] == task and study["strategy"] == strategy]
    return {study["seed"]: study[split][metric] for study in chosen}


def claims(task: str, studies: Studies) -> list[dict[str, Any]]:
    """All strategies' results; what differs; and `auto` against each of the others."""
    present = [name for name in STRATEGIES if len(by_seed(studies, task, name, "test", METRIC)) > 1]
    if not present:
        return []
    pairs = differences(studies, task)
    own = [_against(task, studies, other, pair) for (first, other), pair in pairs.items() if first == AUTO]
    return [_results(task, studies, present), _pairs(task, pairs), *own]


def _results(task: str, studies: Studies, present: Sequence[str]) -> dict[str, Any]:
    also = TASKS[task].also
    measured: dict[str, Any] = {}
    for name in present:
        chosen = [study for study in studies if study["task"] == task and study["strategy"] == name]
        measured[name] = {
            "test_loss": _rounded(interval(list(by_seed(studies, task, name, "test", METRIC).values()))),
            f"test_{also}": _rounded(interval(list(by_seed(studies, task, name, "test", also).values()))),
            "validation_loss": _rounded(interval(list(by_seed(studies, task, name, "validation", METRIC).values()))),
            "mean_configurations": round(float(np.mean([study["num_configurations"] for study in chosen])), 1),
            "mean_trained_to_the_end": round(float(np.mean([study["num_finished"] for study in chosen])), 1),
            "mean_tokens": round(float(np.mean([study["tokens"] for study in chosen]))),
            "seeds": sorted(study["seed"] for study in chosen),
        }
    searches = [name for name in present if name != DEFAULTS]
    measured["budget_tokens"] = next(study["budget_tokens"] for study in studies if study["task"] == task)
    text = (
        f"{TASKS[task].title}: means with 95% intervals over seeds, of what each search returns at"
        f" {TASKS[task].whole_runs} whole runs' tokens; largest less smallest mean test loss of a search"
    )
    means = [measured[name]["test_loss"]["mean"] for name in searches] or [0.0]
    within = all(study["tokens"] <= study["budget_tokens"] for study in studies if study["task"] == task)
    return result.claim(text, measured, max(means) - min(means), holds=within)


def _pairs(task: str, pairs: Mapping[tuple[str, str], Interval]) -> dict[str, Any]:
    measured = {
        f"{first} - {second}": {**_rounded(pair), "beyond_noise": not pair.holds_zero}
        for (first, second), pair in pairs.items()
    }
    beyond = [_sentence(names, pair) for names, pair in pairs.items() if not pair.holds_zero]
    said = "; ".join(beyond) if beyond else "none"
    text = (
        f"{TASKS[task].title}: differences in test loss, seed by seed, with 95% intervals (each pair by itself, not"
        f" corrected for their number). Beyond noise: {said}. Number of pairs beyond noise"
    )
    return result.claim(text, measured, len(beyond))


def _sentence(names: tuple[str, str], pair: Interval) -> str:
    first, second = names if pair.mean < 0 else names[::-1]
    return f"{first} below {second} by {abs(pair.mean):.4f}"


def _against(task: str, studies: Studies, other: str, pair: Interval) -> dict[str, Any]:
    verdict = "within noise" if pair.holds_zero else ("auto is better" if pair.mean < 0 else "auto is worse")
    validation = differences(studies, task, "validation")[AUTO, other]
    measured = {"test": _rounded(pair), "validation": _rounded(validation), "verdict": verdict}
    text = f"{TASKS[task].title}: auto is not worse than {other} beyond noise; its test loss less the other's"
    return result.claim(text, measured, pair.mean, holds=pair.low <= 0)


def _rounded(values: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values._asdict().items()}
