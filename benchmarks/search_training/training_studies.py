"""One study: a strategy, a task, a seed, a budget of tokens; what it returns, and how that does on the test split."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training_tasks import METRIC, HereRun, Loaded, StayingTrainer, load, tested

from thalweg.budget import Budget, Cost
from thalweg.scaling.repetitions import best_run
from thalweg.simulation import simulate_study
from thalweg.space import Choice, Float, Hyperparameters
from thalweg.study import Study
from thalweg.tree import Metric

OPTUNA = "optuna_tpe_hyperband"
DEFAULTS = "defaults"
OWN = ("auto", "lr_race", "random")
STRATEGIES = (*OWN, OPTUNA, DEFAULTS)
"""Ours by their names, Optuna's TPE with its Hyperband pruner, and no search: one run of the suggested defaults."""

_REDUCTION = 3
_STEPS = 9
"""Optuna's resource: ninths of a run. Its Hyperband then has the rungs 1, 3 and 9."""
_MAX_TRIALS = 1_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a study."""

    task: str
    strategy: str
    seed: int
    hyperparameters: Mapping[str, Any]
    """Of the run that it returns."""
    validation: Mapping[str, float]
    """Its last evaluation."""
    test: Mapping[str, float]
    budget_tokens: int
    tokens: int
    """That the search took, evaluations included."""
    num_configurations: int
    """Begun from scratch."""
    num_finished: int
    """Runs that were trained to the end."""
    path: tuple[tuple[int, float], ...]
    """(tokens spent, best validation loss of a run trained to the end), wherever that has changed."""
    cpu_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def carry_out(task: str, strategy: str, seed: int, folder: str) -> Outcome:
    """Run a study in this process, on one thread.

    Args:
        folder: for tokenised text.
    """
    import torch

    torch.set_num_threads(1)
    loaded = load(task, Path(folder))
    began = time.process_time()
    if strategy == OPTUNA:
        parts = _optuna(loaded, seed)
    elif strategy == DEFAULTS:
        parts = _defaults(loaded, seed)
    else:
        parts = _own(loaded, strategy, seed)
    return Outcome(
        task=task,
        strategy=strategy,
        seed=seed,
        budget_tokens=loaded.budget_tokens,
        cpu_seconds=round(time.process_time() - began, 1),
        **parts,
    )


def _own(loaded: Loaded, strategy: str, seed: int) -> dict[str, Any]:
    """One of ours, by the loop of a real study with one worker: only its store is in memory, and its worker here."""
    trainer = StayingTrainer(loaded.trainer)
    study = Study(
        name=f"{strategy}-{seed}".replace("_", "-"),
        space=loaded.space,
        metric=Metric.parse(METRIC),
        trainer=trainer,  # type: ignore[arg-type]
        budget=Budget(tokens=loaded.budget_tokens),
        strategy={"name": strategy},
        seed=seed,
        workers=1,
        hold_back=False,
    )
    simulation = simulate_study(study)
    failed = [run for run in simulation.tree if run.status == "failed"]
    assert not failed, failed[0].error
    best = best_run(simulation.tree, study.metric)
    assert best is not None, f"{study.name} has no finished run"
    run = HereRun(best.id, best.hyperparameters, best.horizon, best.seed, _nobody)
    run.save(*trainer.newest[best.id])
    whole = loaded.trainer.horizon(loaded.defaults)
    at_the_end = [(point.spent.tokens, point.value) for point in simulation.trace if point.position >= whole]
    return {
        "hyperparameters": dict(best.hyperparameters),
        "validation": dict(best.reports[-1].metrics),
        "test": tested(loaded.trainer, run),
        "tokens": simulation.ledger.total().tokens,
        "num_configurations": len(simulation.tree.roots()),
        "num_finished": sum(run.status == "finished" and run.position >= whole for run in simulation.tree),
        "path": _path(at_the_end),
    }


def _defaults(loaded: Loaded, seed: int) -> dict[str, Any]:
    """No search: one run."""
    hyperparameters = loaded.defaults
    spent: list[Cost] = []
    run = HereRun("defaults", hyperparameters, loaded.trainer.horizon(hyperparameters), seed, spent.append)
    loaded.trainer.train([run])
    tokens = sum(cost.tokens for cost in spent)
    return {
        "hyperparameters": hyperparameters,
        "validation": dict(run.metrics),
        "test": tested(loaded.trainer, run),
        "tokens": tokens,
        "num_configurations": 1,
        "num_finished": 1,
        "path": ((tokens, run.metrics[METRIC]),),
    }


def _optuna(loaded: Loaded, seed: int) -> dict[str, Any]:
    """Optuna as its documentation has it: ask, train, report, prune; the priors are enqueued as the first trial.

    A trial is trained in one go, by the same trainer with the same seed. A step is taken if the tokens left have room
    for it; what the last trial has not finished is lost.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=_STEPS, reduction_factor=_REDUCTION)
    study = optuna.create_study(sampler=sampler, pruner=pruner, study_name=f"study-{seed}")
    study.enqueue_trial({name: loaded.defaults[name] for name in loaded.space.dimensions})
    left = _Purse(loaded.budget_tokens)
    finished: list[tuple[HereRun, float]] = []
    points: list[tuple[int, float]] = []
    num_trials = 0
    for num_trials in range(1, _MAX_TRIALS + 1):
        trial = study.ask()
        hyperparameters = _suggest(loaded, trial)
        run = HereRun(str(trial.number), hyperparameters, loaded.trainer.horizon(hyperparameters), seed, left.spend)
        state = optuna.trial.TrialState.FAIL
        loss = math.inf
        for step, loss in _steps(loaded, run, left):
            trial.report(loss, step)
            if step == _STEPS:
                state = optuna.trial.TrialState.COMPLETE
                finished.append((run, loss))
                points.append((left.spent, loss))
            elif trial.should_prune():
                state = optuna.trial.TrialState.PRUNED
                break
        study.tell(trial, loss if state == optuna.trial.TrialState.COMPLETE else None, state=state)
        if state == optuna.trial.TrialState.FAIL:
            # It was begun where the budget had room for a step of it.
            num_trials -= run.start == 0
            break
    best, _ = min(finished, key=lambda entry: entry[1])
    spent = left.spent  # and not the test
    return {
        "hyperparameters": dict(best.hyperparameters),
        "validation": dict(best.metrics),
        "test": tested(loaded.trainer, best),
        "tokens": spent,
        "num_configurations": num_trials,
        "num_finished": len(finished),
        "path": _path(points),
    }


class _Purse:
    """Tokens to spend."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.spent = 0

    def spend(self, cost: Cost) -> None:
        """Take them out."""
        self.spent += cost.tokens

    def has(self, cost: Cost) -> bool:
        """Whether there are as many left."""
        return self.spent + cost.tokens <= self.tokens


def _steps(loaded: Loaded, run: HereRun, left: _Purse) -> Iterator[tuple[int, float]]:
    """Train a run rung by rung, as far as the tokens go: each rung with the loss there."""
    from thalweg.trainer import Diverged

    for step in (1, 3, 9):
        until = max(1, round(run.horizon * step / _STEPS))
        if not left.has(loaded.trainer.cost(run.hyperparameters, run.start, until)):
            return
        run.until = until
        try:
            loaded.trainer.train([run])
        except Diverged:
            # Optuna takes no infinite value: one that is worse than any other, at every rung that is left.
            run.start = run.horizon
            yield from ((each, 1e3) for each in (1, 3, 9) if each >= step)
            return
        yield step, run.metrics[METRIC]


def _suggest(loaded: Loaded, trial: Any) -> Hyperparameters:
    chosen = {}
    for name, dimension in loaded.space.dimensions.items():
        if isinstance(dimension, Choice):
            chosen[name] = trial.suggest_categorical(name, dimension.options)
        elif isinstance(dimension, Float):
            chosen[name] = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
        else:
            chosen[name] = trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
    return loaded.space.complete(chosen)


def _path(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """The points that are better than all before them."""
    path: list[tuple[int, float]] = []
    for tokens, loss in points:
        if not path or loss < path[-1][1]:
            path.append((tokens, loss))
    return tuple(path)


def _nobody(cost: Cost) -> None:
    """The test is no part of the search."""
