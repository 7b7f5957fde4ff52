"""Replaying a run: the schedule of hyperparameters that its lineage went through, trained again from scratch.

A run that was forked from another has lived under several sets of hyperparameters, one after the other:
population-based training finds schedules in this way. A replay is a root under the first of them and a fork of itself
for each change, at the recorded positions. With the same seed it is the same training, bit for bit on an exact trainer;
with another seed it shows what the schedule is worth by itself.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from thalweg.budget import Budget, Left
from thalweg.errors import ConfigError
from thalweg.loop import Loop
from thalweg.report.progress import Progress
from thalweg.space import Hyperparameters
from thalweg.study import Study, start_workers
from thalweg.track.store import Store
from thalweg.tree import Action, Continue, Fork, Run, Start, Tree

ORIGIN = "hand"
"""A person asks for it: no strategy takes its runs for its own."""


@dataclass(frozen=True)
class Stretch:
    """What a lineage was trained under between two positions."""

    start: int
    end: int
    hyperparameters: Hyperparameters


def schedule(tree: Tree, run_id: str) -> list[Stretch]:
    """The schedule of hyperparameters of a run's lineage, from position 0 to where the run stands.

    Neighbours differ: what was forked without a change is one stretch, and an ancestor of which nothing was kept, as
    its child was forked where it began itself, is left out.

    Raises:
        ConfigError: nothing of the run has been trained.
    """
    lineage = tree.lineage(run_id)
    ends = [*(child.fork_position for child in lineage[1:]), lineage[-1].position]
    stretches: list[Stretch] = []
    for run, end in zip(lineage, ends, strict=True):
        if end <= run.fork_position:
            continue
        if stretches and stretches[-1].hyperparameters == run.hyperparameters:
            stretches[-1] = dataclasses.replace(stretches[-1], end=end)
        else:
            stretches.append(Stretch(run.fork_position, end, dict(run.hyperparameters)))
    if not stretches:
        raise ConfigError(f"run {run_id} has not been trained, so there is nothing to replay")
    return stretches


def changes(stretches: Sequence[Stretch]) -> list[str]:
    """The names of the hyperparameters that change on the way, in their own order."""
    names = dict.fromkeys(name for stretch in stretches for name in stretch.hyperparameters)
    return [name for name in names if len({_shown(stretch.hyperparameters.get(name)) for stretch in stretches}) > 1]


def export(path: Path, run: Run, unit: str, stretches: Sequence[Stretch]) -> None:
    """Write a schedule for other programs: .toml or .json.

    Raises:
        ConfigError: another ending, or a folder that does not exist.
    """
    writers = {".toml": _as_toml, ".json": _as_json}
    if path.suffix not in writers:
        raise ConfigError(f"{path}: a schedule is written as {' or '.join(writers)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.absolute().parent}")
    head = {"run": run.id, "unit": unit, "horizon": run.horizon, "seed": run.seed}
    path.write_text(writers[path.suffix](head, stretches), encoding="utf-8")


class Replaying:
    """The strategy of a session that replays one schedule: a chain of runs, one per stretch.

    It finds its chain in the tree by what the runs are, so that one that was interrupted goes on, and one that is
    complete is not trained again.

    Args:
        stretches: what to go through.
        after: the number of the run that is replayed; a replay is younger.
        seed: of the replay.
    """

    share = 1.0
    num_roots: int | None = 1

    def __init__(self, stretches: Sequence[Stretch], *, after: int, seed: int) -> None:
        self._stretches = stretches
        self._after = after
        self._seed = seed

    def chain(self, tree: Tree) -> list[Run]:
        """The runs of the replay that there are, the root first."""
        chain: list[Run] = []
        for stretch in self._stretches:
            parent = chain[-1].id if chain else None
            found = next((run for run in _by_number(tree) if self._is_part(run, parent, stretch)), None)
            if found is None:
                break
            chain.append(found)
        return chain

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        chain = self.chain(tree)
        if not chain:
            first = self._stretches[0]
            return [Start(first.hyperparameters, first.end, ORIGIN, self._seed)]
        last, stretch = chain[-1], self._stretches[len(chain) - 1]
        if last.status not in ("paused", "finished"):
            return []
        if last.position < stretch.end:
            return [Continue(last.id, stretch.end, ORIGIN)] if last.status == "paused" else []
        if len(chain) == len(self._stretches):
            return []
        following = self._stretches[len(chain)]
        changed = _changes(last.hyperparameters, following.hyperparameters)
        return [Fork(last.id, following.start, changed, following.end, ORIGIN)]

    def _is_part(self, run: Run, parent: str | None, stretch: Stretch) -> bool:
        same = run.parent == parent and run.fork_position == stretch.start and run.seed == self._seed
        asked = run.origin == ORIGIN and run.number > self._after and run.status not in ("failed", "stopped")
        return same and asked and dict(run.hyperparameters) == dict(stretch.hyperparameters)


def replay(
    run_id: str,
    study: Study,
    location: str | Path,
    *,
    seed: int | None = None,
    console: Console | None = None,
    quiet: bool = False,
) -> list[Run]:
    """Train a run's schedule from scratch. What it takes is entered into the study's ledger, beyond its budget.

    Args:
        run_id: whose lineage is replayed.
        study: the run's study, which is not running.
        location: its store.
        seed: of the replay; by default the run's own, which gives the same training again.
        console, quiet: see `run_study`.
    Returns:
        The replay, a run per stretch of the schedule. The last one's curve is the replay's.
    Raises:
        ConfigError: nothing to replay, other runs of the study are under way, or the replay did not come to its end.
        StoreError: another process runs the study.
        KeyboardInterrupt: after the run has written its checkpoint; the same call goes on with it.
    """
    console = console or Console(quiet=quiet)
    with Store.open(location) as store, store.open_session(study.name) as session:
        before = store.read_tree(study.name)
        original = before[run_id]
        stretches = schedule(before, run_id)
        again = Replaying(stretches, after=original.number, seed=original.seed if seed is None else seed)
        own = {run.id for run in again.chain(before)}
        if under_way := [run.id for run in before.active() if run.id not in own]:
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
            with watch:
                Loop(unlimited, again, store, session, executor, watch).run()
        finally:
            executor.close(grace_seconds=1.0)
        chain = again.chain(store.read_tree(study.name))
    return _complete(chain, stretches, run_id)


def _complete(chain: list[Run], stretches: Sequence[Stretch], run_id: str) -> list[Run]:
    if len(chain) == len(stretches) and chain[-1].position >= stretches[-1].end:
        return chain
    last = chain[-1] if chain else None
    where = "it failed before its first step" if last is None else f"{last.id} is {last.status} at {last.position:,}"
    raise ConfigError(f"the replay of {run_id} did not come to its end: {where}; thalweg show says more")


def _by_number(tree: Tree) -> list[Run]:
    return sorted(tree, key=lambda run: run.number)


def _changes(before: Hyperparameters, after: Hyperparameters) -> dict[str, Any]:
    return {name: value for name, value in after.items() if name not in before or before[name] != value}


def _shown(value: object) -> str:
    # 1, 1.0 and True are equal in Python.
    return repr(value)


def _as_json(head: Mapping[str, Any], stretches: Sequence[Stretch]) -> str:
    return json.dumps({**head, "stretches": [dataclasses.asdict(stretch) for stretch in stretches]}, indent=2) + "\n"


def _as_toml(head: Mapping[str, Any], stretches: Sequence[Stretch]) -> str:
    # A JSON string, number or truth value is one of TOML too; TOML's keys may need quotes.
    lines = [f"{name} = {json.dumps(value)}" for name, value in head.items()]
    for stretch in stretches:
        lines += ["", "[[stretches]]", f"start = {stretch.start}", f"end = {stretch.end}", ""]
        lines += ["[stretches.hyperparameters]"]
        lines += [f"{json.dumps(name)} = {_toml_value(value)}" for name, value in stretch.hyperparameters.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
