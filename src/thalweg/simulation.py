"""A whole study in virtual time: production's loop, store and strategies with simulated workers.

result = simulate(
    lambda hyperparameters, fraction: (math.log10(hyperparameters["lr"]) + 3) ** 2 + 1 / (1 + 9 * fraction),
    space={"lr": thalweg.log(1e-5, 1e-1)}, metric="loss", budget="20 runs", strategy="halving", workers=4,
)
result.best_value, result.makespan_seconds
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

from thalweg.budget import Budget, Cost, Ledger, SpendKind
from thalweg.errors import ConfigError
from thalweg.execute.executor import Task
from thalweg.execute.simulated import Metrics, Planned, SimulatedExecutor, SimulatedTrainer, VirtualClock
from thalweg.loop import Loop
from thalweg.scaling.stopping import Stopping
from thalweg.search.strategy import Earlier, Strategy
from thalweg.space import Hyperparameters, Space
from thalweg.study import Study, checkpoint_folder, enter
from thalweg.track.memory_store import MemoryStore
from thalweg.track.records import CheckpointRecord
from thalweg.track.store import Store
from thalweg.track.study_store import StudyStore
from thalweg.trainer import State, Trainer
from thalweg.tree import Metric, Run, Tree, Unit
from thalweg.worker import KEEP_CHECKPOINTS, WorkerRun, carry_on, drop_checkpoint, fork_point


@dataclass(frozen=True)
class TracePoint:
    """One evaluation, and how the study stood then."""

    seconds: float
    """Virtual time since the study began."""
    spent: Cost
    """What all runs had spent by then, this evaluation included."""
    num_roots: int
    """Runs that had begun from scratch."""
    run: str
    position: int
    value: float
    """The study's metric."""
    best: float
    """The best value of any evaluation so far, whatever its position."""
    best_finished: float | None
    """The best value at the end of a run so far; None before one has reached its horizon."""


@dataclass(frozen=True)
class Simulation:
    """A simulated study."""

    study: Study
    tree: Tree
    ledger: Ledger
    events: tuple[_Event, ...] = field(repr=False)
    """What happened in this session, by virtual time."""

    @property
    def makespan_seconds(self) -> float:
        """Virtual time that the whole study took, over all its sessions."""
        return self.ledger.wall_seconds

    @property
    def best(self) -> Run | None:
        """The finished run with the best last evaluation; None where none has finished."""
        return self.tree.best(self.study.metric)

    @property
    def best_value(self) -> float:
        """The metric of the best run.

        Raises:
            ConfigError: no run has finished.
        """
        if (best := self.best) is None:
            raise ConfigError(f"simulated study {self.study.name!r} has no finished run: give it a larger budget")
        return best.reports[-1].metrics[self.study.metric.name]

    @property
    def best_hyperparameters(self) -> dict[str, Any]:
        """Of the best run.

        Raises:
            ConfigError: no run has finished.
        """
        if (best := self.best) is None:
            raise ConfigError(f"simulated study {self.study.name!r} has no finished run: give it a larger budget")
        return dict(best.hyperparameters)

    @cached_property
    def trace(self) -> tuple[TracePoint, ...]:
        """The study at each of its evaluations, by virtual time."""
        return tuple(_trace(self.study.metric, self.tree, self.events))


@dataclass(frozen=True)
class _Event:
    """Something that a worker did, at a virtual time."""

    seconds: float
    run: str
    kind: SpendKind | None = None
    cost: Cost = field(default_factory=Cost)
    """With a kind: what was spent."""
    position: int = 0
    metrics: Mapping[str, float] | None = None
    """An evaluation, or None."""


def simulate(
    trainer: Trainer | Callable[[Hyperparameters, float], Metrics],
    *,
    space: Mapping[str, Any] | Space,
    metric: str | Metric,
    budget: str | Mapping[str, float] | Budget,
    strategy: str | Mapping[str, Any],
    name: str = "simulated",
    seed: int = 0,
    workers: int = 1,
    horizon: int | Callable[[Hyperparameters], int] | None = None,
    unit: Unit | None = None,
    store: str | Path | None = None,
    objectives: Sequence[str | Metric] = (),
    stopping: Mapping[str, Any] | Stopping | None = None,
    earlier: Sequence[Earlier] = (),
    **options: Any,
) -> Simulation:
    """Run a study in virtual time, by the loop and the strategies of a real one.

    Args:
        trainer: a `SimulatedTrainer` (see there for what it can be made of), or a function of (hyperparameters, share
            of the horizon) that gives the metric, or several by name. A run takes a virtual second per position unless
            the trainer says otherwise.
        space, metric, budget, strategy, name, seed: as for `thalweg.tune`. Seconds in a budget are virtual.
        workers: virtual workers.
        horizon: for a function: the position at which a run is complete (100 by default), or a function that gives it.
        unit: for a function: what its positions count, so that a budget can limit them.
        store: a file, in which the study stays and can be looked at as any other; it goes on where it was. By default
            it is kept in memory and gone afterwards, which is many times as fast.
        objectives, stopping: as for `thalweg.tune`.
        earlier: results of earlier studies to learn from, such as simulated ones'.
        options: of `Study`: `baseline`, `feasible`, `max_memory_bytes`, `keep_checkpoints` (here `all` unless told
            otherwise, so that forks can begin wherever a run has stopped) ...
    Raises:
        ConfigError: something in the above cannot work.
        StudyFailed: runs keep failing with the same error, or (`NothingBegun`) the budget has no room for the first run
            that the strategy proposes.
    """
    made: Trainer
    if not hasattr(trainer, "train"):
        extra: dict[str, Any] = {} if horizon is None else {"horizon_positions": horizon}
        made = SimulatedTrainer.of_points(trainer, **extra, **({} if unit is None else {"unit": unit}))
    elif horizon is not None or unit is not None:
        raise ConfigError("horizon and unit are for functions: this trainer knows its own")
    else:
        made = cast(Trainer, trainer)
    settings: dict[str, Any] = {"hold_back": False, "keep_checkpoints": "all", **options}
    study = Study(
        name=name,
        space=Space.parse(space),
        metric=Metric.parse(metric),
        trainer=made,
        budget=Budget.parse(budget),
        strategy={"name": strategy} if isinstance(strategy, str) else dict(strategy),
        seed=seed,
        workers=workers,
        objectives=tuple(map(Metric.parse, objectives)),
        stopping=None if stopping is None else Stopping.parse(stopping),
        earlier=tuple(earlier),
        **settings,
    )
    return simulate_study(study, store)


def simulate_study(study: Study, store: str | Path | None = None) -> Simulation:
    """Run a study in virtual time; see `simulate`.

    The study's trainer may be any: what it enters as spent is the time that passes.
    """
    strategy = study.check()
    with _opened(study, store) as opened:
        return _run(study, strategy, opened, _Memory() if store is None else _Folders(checkpoint_folder(store)))


def _run(study: Study, strategy: Strategy, store: StudyStore, keeper: _Keeper) -> Simulation:
    ledger = store.read_ledger(study.name)
    clock = VirtualClock(ledger.wall_seconds)
    work = _Work(study, store, keeper, clock)
    executor = SimulatedExecutor(
        work, num_workers=study.workers or 1, clock=clock, deadline_seconds=study.budget.seconds
    )
    session = store.open_session(study.name)
    try:
        loop = Loop(study, strategy, store, session, executor, _Nobody(), clock=clock, tick_seconds=0.0)
        loop.run()
    finally:
        executor.close(grace_seconds=0.0)
        session.close()
    events = tuple(sorted(work.events, key=lambda event: event.seconds))
    return Simulation(study, store.read_tree(study.name), store.read_ledger(study.name), events)


@contextmanager
def _opened(study: Study, location: str | Path | None) -> Iterator[StudyStore]:
    """The study's store, with the study in it."""
    if location is None:
        memory = MemoryStore()
        memory.create_study(study.name, {})
        yield memory
        return
    with Store.open(location) as store:
        enter(study, store)
        yield store


class _Nobody:
    """Looks on and says nothing."""

    def update(self, *_: object) -> None:
        """Nothing to show."""


class _Keeper(Protocol):
    """Keeps the states of checkpoints."""

    def write(self, run_id: str, position: int, state: State) -> tuple[str, str, int]:
        """Returns the folder, the digest and the size in bytes, as a store records them."""
        ...

    def read(self, record: CheckpointRecord) -> State: ...


class _Memory:
    """States as they are; a trainer that changes one in place copies it first."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    def write(self, run_id: str, position: int, state: State) -> tuple[str, str, int]:
        name = f"{run_id}/{position}"
        self._states[name] = state
        return name, "", 0

    def read(self, record: CheckpointRecord) -> State:
        return self._states[record.folder]


class _Folders:
    """Real checkpoints beside a real store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, run_id: str, position: int, state: State) -> tuple[str, str, int]:
        from thalweg.train import checkpoint

        folder = self._folder / run_id / str(position)
        digest, num_bytes = checkpoint.write(folder, state)
        return str(folder), digest, num_bytes

    def read(self, record: CheckpointRecord) -> State:
        from thalweg.train import checkpoint

        return checkpoint.read(Path(record.folder), record.digest)


@dataclass
class _Recording:
    """What a run does in its virtual worker and when: recorder, saver and control in one."""

    stop_after_seconds: float | None
    elapsed_seconds: float = 0.0
    done: list[tuple[float, str, Any, Any]] = field(default_factory=list)

    def log(self, position: int, metrics: Mapping[str, float]) -> None:
        self.done.append((self.elapsed_seconds, "log", position, metrics))

    def report(self, position: int, metrics: Mapping[str, float]) -> None:
        self.done.append((self.elapsed_seconds, "report", position, metrics))

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        self.elapsed_seconds += cost.seconds
        self.done.append((self.elapsed_seconds, "spend", kind, cost))

    def flush(self) -> None:
        """All is recorded at once, at the end."""

    def due(self) -> bool:
        return False

    def save(self, position: int, state: State) -> float:
        self.done.append((self.elapsed_seconds, "save", position, state))
        return 0.0

    def should_stop(self) -> bool:
        return self.stop_after_seconds is not None and self.elapsed_seconds >= self.stop_after_seconds

    def progress(self, position: int, metrics: Mapping[str, float]) -> None:
        """Nobody looks on."""


class _VirtualRun(WorkerRun):
    """A run in a virtual worker."""

    def __init__(self, run: Run, start: tuple[int, State | None], last_position: int, recording: _Recording) -> None:
        super().__init__(run, start, last_position, recording, recording, recording)
        self._recording = recording

    @property
    def seconds_left(self) -> float:
        """Virtual time until it is asked to stop."""
        stop = self._recording.stop_after_seconds
        return math.inf if stop is None else stop - self._recording.elapsed_seconds


class _Work:
    """`VirtualWork` for a study."""

    def __init__(self, study: Study, store: StudyStore, keeper: _Keeper, clock: VirtualClock) -> None:
        self.events: list[_Event] = []
        self._study = study
        self._store = store
        self._keeper = keeper
        self._clock = clock
        self._began: dict[str, float] = {}
        study.trainer.setup()

    def plan(self, task: Task, stop_after_seconds: float | None) -> Planned:
        """See `VirtualWork.plan`. A task that was asked to stop is carried out again, up to there."""
        if stop_after_seconds is None:
            self._began[task.run] = self._clock.seconds
        began = self._began[task.run]
        run = self._store.read_run(task.run)
        recording = _Recording(stop_after_seconds)
        active = _VirtualRun(run, self._state(run), self._store.last_position(run.id), recording)
        if task.kind == "test":
            tests = self._study.trainer.test(active)
            return Planned(0.0, lambda: self._store.record_test(run.id, active.start, tests))
        outcome = carry_on(self._study.trainer, run, active, self._study.metric.name)
        return Planned(recording.elapsed_seconds, lambda: self._record(run, began, recording, outcome))

    def _state(self, run: Run) -> tuple[int, State | None]:
        """Where it goes on from: its newest checkpoint that no rewind has hidden, its parent's, or nothing."""
        own = [record for record in self._store.checkpoints(run.id) if record.position <= run.position]
        if own:
            return own[-1].position, self._keeper.read(own[-1])
        if run.parent is None:
            return 0, None
        record = fork_point(self._store, run.parent, run.fork_position)
        return record.position, self._keeper.read(record)

    def _record(self, run: Run, began: float, recording: _Recording, outcome: tuple[Any, int, str | None]) -> None:
        writer = self._store.writer(run.id)
        try:
            for seconds, what, one, other in recording.done:
                match what:
                    case "log":
                        writer.log(one, other)
                    case "report":
                        writer.report(one, other)
                        self.events.append(_Event(began + seconds, run.id, position=one, metrics=other))
                    case "spend":
                        writer.spend(one, other)
                        self.events.append(_Event(began + seconds, run.id, kind=one, cost=other))
                    case "save":
                        writer.checkpoint(one, *self._keeper.write(run.id, one, other))
            writer.finish(*outcome)
        finally:
            writer.close()
        if self._study.keep_checkpoints != "all":
            stable_end = self._study.trainer.stable_end(run.hyperparameters)
            for record in self._store.checkpoints(run.id)[:-KEEP_CHECKPOINTS]:
                if record.position != stable_end:
                    drop_checkpoint(self._store, run.id, record)


def _trace(metric: Metric, tree: Tree, events: tuple[_Event, ...]) -> Iterator[TracePoint]:
    spent, best, best_finished = Cost(), math.nan, None
    roots: set[str] = set()
    for event in events:
        run = tree[event.run]
        if run.parent is None:
            roots.add(run.id)
        spent = spent + event.cost
        if event.metrics is None or metric.name not in event.metrics:
            continue
        value = event.metrics[metric.name]
        if math.isnan(best) or metric.loss(value) < metric.loss(best):
            best = value
        if event.position >= run.horizon and math.isfinite(value):
            is_better = best_finished is None or metric.loss(value) < metric.loss(best_finished)
            best_finished = value if is_better else best_finished
        yield TracePoint(event.seconds, spent, len(roots), run.id, event.position, value, best, best_finished)
