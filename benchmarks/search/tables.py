"""Tables of real training runs, which stand for training: what a configuration's losses are, at each fidelity.

Needs numpy alone, since every peer reads the tables in an environment of its own. Losses are to be minimised; a run
that diverged has infinity from there on. The README says where the data come from and how each table is made.
"""

from __future__ import annotations

import csv
import functools
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Hyperparameters = Mapping[str, Any]

VARIANTS = ("any", "unused")
"""A proposal is answered by the nearest row, or by the nearest one that the study has not used yet."""
PRIORS = ("good", "wrong")
"""Sensible defaults; or a learning rate off by a factor of 30, and all else drawn at random."""
WRONG_FACTOR = 30.0
FAMILIES = ("taskset", "steplaw", "lora")

_TASKSET_SPACE = {
    "lr": {"log": [1e-8, 10.0], "prior": 1e-3},
    "one_minus_beta1": {"log": [1e-4, 1.0], "prior": 0.1},
    "one_minus_beta2": {"log": [1e-6, 1.0], "prior": 1e-3},
    "epsilon": {"log": [1e-10, 1e3], "prior": 1e-8},
    "l1": {"log": [1e-8, 10.0], "prior": 1e-8},
    "l2": {"log": [1e-8, 10.0], "prior": 1e-8},
    "linear_decay": {"log": [1e-7, 1e-4], "prior": 1e-7},
    "exponential_decay": {"log": [1e-6, 1e-3], "prior": 1e-6},
}
"""The ranges that the rows were drawn from; Adam's own defaults, and no regularisation or decay."""
_LORA_RANKS = (2, 4, 8, 16, 32, 64)
_LORA_STEP_SAMPLES = 500
_NUM_RANDOM = 2_000
"""Points of an interpolated table from which its median is taken."""


@dataclass(frozen=True)
class Curve:
    """One run."""

    losses: Array
    """At each fidelity from the first on: `losses[k]` after k + 1 of the table's `num_fidelities` equal steps."""
    regret: float
    """Of its configuration, in [0, 1]: 0 for the table's best, 1 for its median and for all that is worse."""


class Lookup(Protocol):
    """A table as one study meets it."""

    def curve(self, hyperparameters: Hyperparameters, seed: int | None = None) -> Curve:
        """What a configuration does. `seed` is a run's own; None for the study's."""
        ...


class Table(Protocol):
    """A table of runs."""

    name: str
    family: str
    space: Mapping[str, Any]
    """As in a study file, with priors that anybody would give."""
    num_fidelities: int
    variants: Sequence[str]
    """Of `VARIANTS`, those that differ here."""

    def lookup(self, variant: str, seed: int) -> Lookup:
        """For a new study with this seed."""
        ...


def data_folder() -> Path:
    """Where the tables' data are."""
    return Path(os.environ.get("THALWEG_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data"))


@functools.lru_cache(maxsize=1)
def all_tables() -> dict[str, Table]:
    """Every table by its name."""
    folder = data_folder()
    tables: list[Table] = [TaskSet(path) for path in sorted((folder / "taskset").glob("*.npz"))]
    tables += _step_law(folder / "steplaw" / "dense_lr_bs_loss.csv")
    tables += _lora(folder / "lora_rank" / "results.csv")
    return {table.name: table for table in tables}


def with_priors(table: Table, priors: str, seed: int) -> dict[str, Any]:
    """The table's space with priors of a kind (see `PRIORS`)."""
    if priors == "good":
        return dict(table.space)
    rng = np.random.default_rng([seed, 30])
    space = {}
    for name, entry in table.space.items():
        low, high = range_of(entry)
        if name == "lr":
            # To whichever side, as long as the range allows it.
            sides = [p for p in (entry["prior"] / WRONG_FACTOR, entry["prior"] * WRONG_FACTOR) if low <= p <= high]
            prior = sides[int(rng.integers(len(sides)))] if sides else min(max(entry["prior"] * 30, low), high)
        else:
            prior = math.exp(math.log(low) + float(rng.random()) * (math.log(high) - math.log(low)))
            prior = round(prior) if "integer" in entry else prior
        space[name] = {**entry, "prior": prior}
    return space


def range_of(entry: Mapping[str, Any]) -> tuple[float, float]:
    """The ends of a dimension; all dimensions of the tables are logarithmic."""
    low, high = entry["integer"] if "integer" in entry else entry["log"]
    return low, high


def to_unit(space: Mapping[str, Any], hyperparameters: Hyperparameters) -> Array:
    """Coordinates in [0, 1], of the logarithms."""
    ends = [(name, *range_of(entry)) for name, entry in space.items()]
    return np.array([(math.log(hyperparameters[n]) - math.log(a)) / (math.log(b) - math.log(a)) for n, a, b in ends])


def from_unit(space: Mapping[str, Any], unit: Sequence[float]) -> dict[str, Any]:
    """The point at these coordinates."""
    point: dict[str, Any] = {}
    for (name, entry), share in zip(space.items(), unit, strict=True):
        low, high = range_of(entry)
        value = math.exp(math.log(low) + min(max(share, 0.0), 1.0) * (math.log(high) - math.log(low)))
        value = min(max(value, low), high)
        point[name] = round(value) if "integer" in entry else value
    return point


def prior_of(space: Mapping[str, Any]) -> dict[str, Any]:
    """The point of the priors."""
    return {name: entry["prior"] for name, entry in space.items()}


class TaskSet:
    """One task: 1,000 configurations of Adam with decay and regularisation, each with 51 validation losses."""

    family = "taskset"
    variants = VARIANTS
    space: Mapping[str, Any] = _TASKSET_SPACE

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        with np.load(path, allow_pickle=False) as data:
            hyperparameters, losses = data["hp"].astype(float), data["valid"].astype(float)
        columns = dict(zip(("lr", "beta1", "beta2", *list(self.space)[3:]), hyperparameters.T, strict=True))
        columns["one_minus_beta1"] = 1 - columns.pop("beta1")
        columns["one_minus_beta2"] = 1 - columns.pop("beta2")
        self.rows = [{name: float(columns[name][i]) for name in self.space} for i in range(len(losses))]
        self.units = np.array([to_unit(self.space, row) for row in self.rows])
        # The first of the 51 points is before any training.
        self.losses = _diverged_on(losses[:, 1:])
        self.num_fidelities = self.losses.shape[1]
        self.regrets = _normalised(self.losses[:, -1], self.losses[:, -1])

    def lookup(self, variant: str, seed: int) -> Lookup:
        return _NearestRow(self, variant)


class _NearestRow:
    """The row that is nearest in the space's own scale. A configuration that comes again keeps its row."""

    def __init__(self, table: TaskSet, variant: str) -> None:
        self._table = table
        self._may_repeat = variant == "any"
        self._seen: dict[tuple[Any, ...], int] = {}

    def curve(self, hyperparameters: Hyperparameters, seed: int | None = None) -> Curve:
        table = self._table
        key = tuple(hyperparameters[name] for name in table.space)
        if key not in self._seen:
            distances = ((table.units - to_unit(table.space, hyperparameters)) ** 2).sum(axis=1)
            if not self._may_repeat:
                distances[list(self._seen.values())] = math.inf
            self._seen[key] = int(distances.argmin())
        row = self._seen[key]
        return Curve(table.losses[row], float(table.regrets[row]))


class StepLaw:
    """Pre-training one size of model: loss over learning rate and batch size, for several numbers of tokens.

    What has been trained on fewer tokens stands for the beginning of the largest training. Between two numbers of
    tokens the loss is interpolated over their logarithm, inside a cell over the logarithms of both hyperparameters.
    """

    family = "steplaw"
    variants = VARIANTS[:1]

    def __init__(self, parameters: float, cells: Mapping[float, _Cell]) -> None:
        self.name = f"steplaw_{parameters / 1e6:.0f}M"
        self._tokens = np.array(sorted(cells))
        self._cells = [cells[tokens] for tokens in self._tokens]
        self.num_fidelities = round(self._tokens[-1] / self._tokens[0])
        ends = {
            "lr": [max(c.lrs[0] for c in self._cells), min(c.lrs[-1] for c in self._cells)],
            "batch_size": [max(c.batches[0] for c in self._cells), min(c.batches[-1] for c in self._cells)],
        }
        self.space = {
            "lr": {"log": ends["lr"], "prior": 1e-3},
            "batch_size": {"integer": [int(end) for end in ends["batch_size"]], "log": True, "prior": 256},
        }
        rng = np.random.default_rng(0)
        points = [from_unit(self.space, unit) for unit in rng.random((_NUM_RANDOM, 2))]
        finals = np.array([self._cells[-1].loss(p["lr"], p["batch_size"]) for p in points])
        last = self._cells[-1]
        nodes = [(lr, batch) for lr in (*last.lrs, *ends["lr"]) for batch in (*last.batches, *ends["batch_size"])]
        inside = [
            last.loss(lr, batch)
            for lr, batch in nodes
            if ends["lr"][0] <= lr <= ends["lr"][1] and ends["batch_size"][0] <= batch <= ends["batch_size"][1]
        ]
        self._best, self._median = min(inside), float(np.median(finals[np.isfinite(finals)]))

    def lookup(self, variant: str, seed: int) -> Lookup:
        return self

    def curve(self, hyperparameters: Hyperparameters, seed: int | None = None) -> Curve:
        """See `Lookup.curve`."""
        lr, batch = float(hyperparameters["lr"]), float(hyperparameters["batch_size"])
        at_cells = np.array([cell.loss(lr, batch) for cell in self._cells])
        tokens = self._tokens[-1] * np.arange(1, self.num_fidelities + 1) / self.num_fidelities
        losses = np.interp(np.log(tokens), np.log(self._tokens), at_cells)
        return Curve(np.where(np.isnan(losses), math.inf, losses), _share(at_cells[-1], self._best, self._median))


@dataclass(frozen=True)
class _Cell:
    """One grid."""

    lrs: Array
    batches: Array
    losses: Array

    def loss(self, lr: float, batch: float) -> float:
        """Bilinear over the logarithms."""
        i, u = _between(np.log(self.lrs), math.log(lr))
        j, v = _between(np.log(self.batches), math.log(batch))
        corners = ((i, j, (1 - u) * (1 - v)), (i + 1, j, u * (1 - v)), (i, j + 1, (1 - u) * v), (i + 1, j + 1, u * v))
        return float(sum(weight * self.losses[a, b] for a, b, weight in corners if weight > 0))


def _step_law(path: Path) -> list[Table]:
    """One table for each size of model. The smoothed loss is taken: two cells have outliers in the last one."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    cells: dict[float, dict[float, dict[tuple[float, float], float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        # Learning rates come in several roundings of the same powers of the square root of 2.
        lr = 2 ** (round(2 * math.log2(float(row["lr"]))) / 2)
        cells[float(row["N"])][float(row["D"])][lr, float(row["bs"])] = float(row["smooth loss"])
    return [StepLaw(size, {d: _cell(found) for d, found in by_d.items()}) for size, by_d in sorted(cells.items())]


def _cell(found: Mapping[tuple[float, float], float]) -> _Cell:
    """The grid of those found. What is missing between two others is interpolated over the learning rate."""
    lrs, batches = (np.array(sorted({key[i] for key in found})) for i in (0, 1))
    losses = np.full((len(lrs), len(batches)), math.inf)
    for j, batch in enumerate(batches):
        known = np.array([(math.log(lr), found[lr, batch]) for lr in lrs if (lr, batch) in found])
        inside = (np.log(lrs) >= known[0, 0]) & (np.log(lrs) <= known[-1, 0])
        losses[inside, j] = np.interp(np.log(lrs[inside]), known[:, 0], known[:, 1])
    return _Cell(lrs, batches, losses)


class LoraRank:
    """The rank of a LoRA adapter for one encoder and one task: few choices, and accuracies that vary with the seed.

    Trainings on fewer examples stand for the beginning of the one on 5,000. What counts is the mean over five seeds.
    """

    family = "lora"
    variants = VARIANTS[:1]
    space: Mapping[str, Any] = {"rank": {"integer": [2, 64], "log": True, "prior": 8}}

    def __init__(self, name: str, errors: Array, samples: Array) -> None:
        """`errors` by rank, seed and number of samples trained."""
        self.name = name
        self.num_fidelities = round(samples[-1] / _LORA_STEP_SAMPLES)
        steps = np.arange(1, self.num_fidelities + 1) * _LORA_STEP_SAMPLES
        between = [[np.interp(np.log(steps), np.log(samples), seed) for seed in rank] for rank in errors]
        self.losses = np.array(between)
        means = errors[:, :, -1].mean(axis=1)
        self.regrets = _normalised(means, means)

    def lookup(self, variant: str, seed: int) -> Lookup:
        return _SeededRow(self, seed)


class _SeededRow:
    def __init__(self, table: LoraRank, seed: int) -> None:
        self._table = table
        self._seed = seed

    def curve(self, hyperparameters: Hyperparameters, seed: int | None = None) -> Curve:
        index = int(np.abs(np.log(_LORA_RANKS) - math.log(hyperparameters["rank"])).argmin())
        row = (self._seed if seed is None else seed) % self._table.losses.shape[1]
        return Curve(self._table.losses[index, row], float(self._table.regrets[index]))


def _lora(path: Path) -> list[Table]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[f"lora_{row['model'].split('-')[0]}_{row['task']}"].append(row)
    tables: list[Table] = []
    for name, group in sorted(groups.items()):
        trained = sorted({int(row["n"]) * int(row["epochs"]) for row in group})
        seeds = sorted({int(row["seed"]) for row in group})
        errors = np.full((len(_LORA_RANKS), len(seeds), len(trained)), math.nan)
        for row in group:
            rank, seed = _LORA_RANKS.index(int(row["rank"])), seeds.index(int(row["seed"]))
            errors[rank, seed, trained.index(int(row["n"]) * int(row["epochs"]))] = 1 - float(row["accuracy"])
        assert not np.isnan(errors).any(), name
        tables.append(LoraRank(name, errors, np.array(trained, dtype=float)))
    return tables


def _diverged_on(losses: Array) -> Array:
    """Infinity from the first value on that is not a number."""
    bad = np.maximum.accumulate(~np.isfinite(losses), axis=1)
    return np.where(bad, math.inf, losses)


def _normalised(losses: Array, among: Array) -> Array:
    finite = among[np.isfinite(among)]
    return np.array([_share(float(loss), float(finite.min()), float(np.median(finite))) for loss in losses])


def _share(loss: float, best: float, median: float) -> float:
    return float(np.clip((loss - best) / (median - best), 0.0, 1.0)) if math.isfinite(loss) else 1.0


def _between(knots: Array, value: float) -> tuple[int, float]:
    """The knot before a value, and how far it is to the next; the ends where it lies beyond."""
    index = int(np.clip(np.searchsorted(knots, value) - 1, 0, len(knots) - 2))
    share = (value - knots[index]) / (knots[index + 1] - knots[index])
    return index, float(np.clip(share, 0.0, 1.0))
