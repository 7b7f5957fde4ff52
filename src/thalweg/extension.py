"""Branches and extensions: the same run with another horizon, forked where its learning rate has not decayed yet."""

from __future__ import annotations

from thalweg.errors import ConfigError
from thalweg.search.strategy import Branch
from thalweg.space import Hyperparameters
from thalweg.track.store import Store
from thalweg.trainer import Trainer
from thalweg.tree import Fork, Run
from thalweg.worker import fork_points

ORIGIN = "extend"


def branch_of(trainer: Trainer, hyperparameters: Hyperparameters, budget: int) -> Branch | None:
    """Where and how a run is forked to be decayed and evaluated at a budget, a position.

    Returns:
        None where the run's schedule does not hold the learning rate before a decay.
    """
    if trainer.stable_end(hyperparameters) is None:
        return None
    changes = trainer.extended(hyperparameters, budget)
    at = trainer.stable_end({**hyperparameters, **changes})
    return None if at is None or at >= budget else Branch(at, changes)


def extension(trainer: Trainer, store: Store, run: Run, to: int, changes: Hyperparameters | None = None) -> Fork:
    """The fork that extends a run to a larger horizon.

    Where the run holds its learning rate before a final decay, the fork begins at the newest checkpoint of that stable
    phase and holds the rate on: nothing of the stable phase is trained again. Where its schedule is cyclic, the fork
    begins at the run's end, with the decayed weights, and goes through a new cycle.

    Args:
        to: the new horizon, a position in the trainer's unit.
        changes: further hyperparameters to change.
    Raises:
        ConfigError: the new horizon is not beyond what is trained, the schedule cannot be extended, or there is no
            checkpoint to begin from.
    """
    if to <= run.horizon:
        raise ConfigError(f"{to} is not beyond the horizon of run {run.id}, {run.horizon}: give a larger position")
    extended = {**trainer.extended(run.hyperparameters, to), **(changes or {})}
    points = sorted(fork_points(store, run.id))
    end = trainer.stable_end(run.hyperparameters)
    if end is not None:
        new_end = trainer.stable_end({**run.hyperparameters, **extended})
        usable = [point for point in points if point <= min(end, end if new_end is None else new_end)]
        where = f"at or before {end}, where its learning rate begins to decay"
    else:
        usable = [point for point in points if point >= run.horizon]
        where = f"at its horizon, {run.horizon}: bring it to its end first"
    if not usable:
        known = f"it has them at {', '.join(map(str, points))}" if points else "it has none"
        raise ConfigError(f"run {run.id} has no checkpoint {where}; {known}")
    if end is None:
        extended = {**extended, "cycle_start": usable[-1]}
    return Fork(run.id, usable[-1], extended, to, ORIGIN)
