"""The time of `strategy.decide` with 1,000 runs in the tree, beside Optuna's own `ask` with the same 1,000 trials.

As in a study that goes on: a result is added, then the next point is asked for. Optuna gets the same space, the same
results, and the sampler with the same options; its time is that of `study.ask()` with the `suggest` calls for all six
parameters, as a user of define-by-run writes it. Telling Optuna a result is not counted; our strategies read theirs
from the tree within `decide`. All take turns. For GP there is also Optuna with a sampler made anew, as after a restart:
its process begins to fit its kernel where the ask before ended, which a pure function of the tree does not know.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import torch

from thalweg.budget import Left
from thalweg.search import Problem, Strategy, strategy
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Continue, Metric, Report, Run, Status, Tree

NUM_RUNS = 1000
HORIZON = 900
SPACE = Space.parse(
    {
        "lr": {"log": [1e-6, 1e-2]},
        "weight_decay": {"linear": [0.0, 0.3]},
        "warmup_fraction": {"linear": [0.0, 0.2]},
        "epochs": {"integer": [1, 5]},
        "batch_size": {"choice": [8, 16, 32, 64]},
        "dropout": {"linear": [0.0, 0.4]},
    }
)
PROBLEM = Problem(space=SPACE, metric=Metric.parse("loss"), horizon=lambda hyperparameters: HORIZON, seed=0)
LEFT = Left({"runs": 10_000})
OPTUNA_SPACE: dict[str, optuna.distributions.BaseDistribution] = {
    "lr": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True),
    "weight_decay": optuna.distributions.FloatDistribution(0.0, 0.3),
    "warmup_fraction": optuna.distributions.FloatDistribution(0.0, 0.2),
    "epochs": optuna.distributions.IntDistribution(1, 5),
    "batch_size": optuna.distributions.CategoricalDistribution([8, 16, 32, 64]),
    "dropout": optuna.distributions.FloatDistribution(0.0, 0.4),
}


def loss_of(point: Hyperparameters, rng: np.random.Generator) -> float:
    """A bowl with noise."""
    lr, dropout = float(point["lr"]), float(point["dropout"])
    return float((np.log10(lr) + 4) ** 2 + (dropout - 0.1) ** 2 + 0.1 * rng.normal())


class Ours:
    """A tree that grows by a run at a time."""

    def __init__(self, name: str, options: dict[str, Any], *, num_runs: int = NUM_RUNS) -> None:
        self.strategy: Strategy = strategy(name, options, PROBLEM)
        self.name = name
        self.tree = Tree()
        self.rng = np.random.default_rng(1)
        for _ in range(num_runs):
            self.add(SPACE.sample(self.rng))

    def add(self, point: Hyperparameters) -> None:
        """Add a run that has reached what a root is first asked for: its horizon, or halving's first rung."""
        number, until = len(self.tree), 100 if self.name == "halving" else HORIZON
        run = Run(
            id=f"study-{number}",
            number=number,
            hyperparameters=point,
            horizon=HORIZON,
            until=until,
            origin=self.name,
        )
        self._reach(run, until, loss_of(point, self.rng))

    def promote(self) -> int:
        """Carry out what the strategy continues, until it would begin a new root; how many runs that were."""
        num_promoted = 0
        while isinstance(action := self.strategy.decide(self.tree, free_slots=1, left=LEFT)[0], Continue):
            run = self.tree[action.run]
            self._reach(run, action.until, run.reports[-1].metrics["loss"])
            num_promoted += 1
        return num_promoted

    def seconds(self) -> float:
        """The time of a decision, of which something must come."""
        start = time.perf_counter()
        actions = self.strategy.decide(self.tree, free_slots=1, left=LEFT)
        seconds = time.perf_counter() - start
        assert actions
        return seconds

    def _reach(self, run: Run, position: int, loss: float) -> None:
        status: Status = "finished" if position == HORIZON else "paused"
        reports = (*run.reports, Report(position, {"loss": loss}))
        self.tree.absorb(dataclasses.replace(run, status=status, position=position, until=position, reports=reports))


class Theirs:
    """An Optuna study in memory."""

    def __init__(self, sampler: optuna.samplers.BaseSampler, runs: Tree) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.study = optuna.create_study(sampler=sampler)
        self.study.add_trials([self._trial(run) for run in runs])

    def add(self, run: Run) -> None:
        self.study.add_trial(self._trial(run))

    def seconds(self) -> float:
        start = time.perf_counter()
        trial = self.study.ask()
        point = {
            "lr": trial.suggest_float("lr", 1e-6, 1e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 0.0, 0.3),
            "warmup_fraction": trial.suggest_float("warmup_fraction", 0.0, 0.2),
            "epochs": trial.suggest_int("epochs", 1, 5),
            "batch_size": trial.suggest_categorical("batch_size", [8, 16, 32, 64]),
            "dropout": trial.suggest_float("dropout", 0.0, 0.4),
        }
        seconds = time.perf_counter() - start
        assert set(point) == set(OPTUNA_SPACE)
        # Not part of the data: both are asked with the same results.
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return seconds

    @staticmethod
    def _trial(run: Run) -> optuna.trial.FrozenTrial:
        value = run.reports[-1].metrics["loss"]
        return optuna.trial.create_trial(params=dict(run.hyperparameters), distributions=OPTUNA_SPACE, value=value)


def alone(name: str, options: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Milliseconds of a decision, a result being added before each. All promotions that are due are carried out before
    the first, and after each: so halving's decisions are new roots for the most part, the longer way through it."""
    ours = Ours(name, options)
    promoted = ours.promote()
    times, later = [], 0
    for _ in range(repeats):
        ours.add(SPACE.sample(ours.rng))
        times.append(1e3 * ours.seconds())
        later += ours.promote()
    found = {"median_ms": statistics.median(times), "max_ms": max(times), "runs": len(ours.tree)}
    return found | ({"promotions_before": promoted, "promotions_since": later} if promoted else {})


def beside_optuna(name: str, repeats: int) -> dict[str, Any]:
    """Milliseconds of a decision and of Optuna's `ask`, in turns."""
    torch.set_num_threads(1)
    ours = Ours(name, {})
    peers = {kind: Theirs(make(), ours.tree) for kind, make in SAMPLERS[name].items()}
    times: dict[str, list[float]] = {"thalweg": [], **{kind: [] for kind in peers}}
    for repeat in range(repeats + 1):
        ours.add(SPACE.sample(ours.rng))
        newest = ours.tree[f"study-{len(ours.tree) - 1}"]
        for kind, peer in peers.items():
            peer.add(newest)
            if kind == "optuna_new_sampler":
                peer.study.sampler = SAMPLERS[name][kind]()
        turns: list[tuple[str, Ours | Theirs]] = [("thalweg", ours), *peers.items()]
        for kind, asked in turns if repeat % 2 else turns[::-1]:
            seconds = asked.seconds()
            if repeat:  # the first of each builds caches and imports
                times[kind].append(1e3 * seconds)
    return {f"{kind}_median_ms": statistics.median(values) for kind, values in times.items()} | {"repeats": repeats}


# Optuna with the options that ours has, and as it is out of the box.
SAMPLERS: dict[str, dict[str, Callable[[], optuna.samplers.BaseSampler]]] = {
    "tpe": {
        "optuna": lambda: optuna.samplers.TPESampler(seed=0, n_startup_trials=1, multivariate=True, constant_liar=True),
        "optuna_defaults": lambda: optuna.samplers.TPESampler(seed=0),
    },
    "gp": {
        "optuna": lambda: optuna.samplers.GPSampler(seed=0, n_startup_trials=1),
        "optuna_new_sampler": lambda: optuna.samplers.GPSampler(seed=0, n_startup_trials=1),
    },
}
