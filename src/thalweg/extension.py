"""What a person asks for beyond the search: to extend a run, forked where its learning rate has not decayed yet."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from thalweg.budget import Budget, Left
from thalweg.errors import ConfigError
from thalweg.loop import Loop
from thalweg.report.progress import Progress
from thalweg.space import Hyperparameters
from thalweg.study import Study, start_workers
from thalweg.track.store import Store
from thalweg.trainer import Trainer
from thalweg.tree import Action, Fork, Run, Tree
from thalweg.worker import fork_points

ORIGIN = "extend"


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
    if end is None:
        raise ConfigError(
            f"the learning rate of run {run.id} is not held before it falls, so there is no place to extend it from:"
            " schedules wsd, constant and the cyclic ones have one"
        )
    if is_cyclic := "cycle_start" in extended:
        usable = [point for point in points if point == end]
        where = f"at its end, {end}, from which it goes on"
    else:
        new_end = trainer.stable_end({**run.hyperparameters, **extended})
        usable = [point for point in points if point <= min(end, end if new_end is None else new_end)]
        where = f"at or before {end}, where its learning rate begins to decay"
    if not usable:
        known = f"it has them at {', '.join(map(str, points))}" if points else "it has none"
        raise ConfigError(f"run {run.id} has no checkpoint {where}; {known}")
    if is_cyclic:
        extended = {**extended, "cycle_start": end}
    return Fork(run.id, usable[-1], extended, to, ORIGIN)


class _NothingMore:
    """The strategy of a session that does what a person asks for, and no more."""

    share = 1.0
    num_roots = 0

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        return []


def carry_out(
    action: Action, study: Study, location: str | Path, *, console: Console | None = None, quiet: bool = False
) -> list[Run]:
    """Carry out one action on a study that is not running, and nothing else of it.

    What it takes is entered into the study's ledger. The study's budget, which is the search's, does not limit it.

    Returns:
        The runs that it made.
    Raises:
        ConfigError: the study has runs under way, or the action cannot be carried out.
        StoreError: another process runs the study.
        KeyboardInterrupt: after the run has written its checkpoint; `thalweg resume` goes on with it.
    """
    console = console or Console(quiet=quiet)
    with Store.open(location) as store, store.open_session(study.name) as session:
        before = store.read_tree(study.name)
        if under_way := [run.id for run in before.active()]:
            raise ConfigError(
                f"study {study.name!r} has runs under way: {', '.join(under_way)}. Bring them to an end first:"
                f" thalweg resume {study.name}"
            )
        unlimited = dataclasses.replace(study, budget=Budget(), baseline=None, workers=1)
        with console.status("loading the model and the data ..."):
            study.trainer.check(study.space, study.metric.name)
            executor = start_workers(unlimited, location)
        try:
            watch = Progress(study.name, study.metric, study.trainer.unit, Budget(), console=console, quiet=quiet)
            loop = Loop(unlimited, _NothingMore(), store, session, executor, watch)
            loop.apply(action)
            with watch:
                loop.run()
        finally:
            executor.close(grace_seconds=1.0)
        return [run for run in store.read_tree(study.name) if run.id not in before.runs]
