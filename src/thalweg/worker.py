"""What happens in a worker process: one run between its trainer, the store and its checkpoints.

This is `study.py`'s other half: the only other place where the stages meet.
"""

from __future__ import annotations

import math
import shutil
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from thalweg.budget import Cost, SpendKind
from thalweg.errors import CheckpointError, ConfigError, RunInterrupted
from thalweg.execute.executor import Control, Task
from thalweg.space import Hyperparameters
from thalweg.track.records import CheckpointRecord
from thalweg.track.store import Store
from thalweg.track.study_store import StudyStore
from thalweg.track.writer import RunWriter
from thalweg.train import checkpoint
from thalweg.trainer import Diverged, State, Trainer
from thalweg.tree import Run, Status

KEEP_CHECKPOINTS = 2
"""A run's newest checkpoints that stay: where the newest is damaged, the one before it is used."""


@dataclass
class StudyWorker:
    """`Work` for an executor: carries out one study's tasks."""

    trainer: Trainer
    metric: str
    store_location: str
    checkpoint_folder: Path
    checkpoint_seconds: float
    """Time between a run's checkpoints while it trains."""
    keep_checkpoints: Literal["needed", "all"]
    """Whether a run keeps more than its newest ones."""

    def setup(self) -> Mapping[str, Any]:
        """Load what runs share, and measure the speed of this worker."""
        started = time.perf_counter()
        self._store = Store.open(self.store_location)
        self.trainer.setup()
        flops_per_second = self.trainer.probe()
        # Entered into the ledger with the first run, as there is nothing else to enter it under.
        self._unentered_seconds = time.perf_counter() - started
        return {"flops_per_second": flops_per_second}

    def carry_out(self, task: Task, control: Control) -> None:
        """Train or test one run and record what became of it."""
        run = self._store.read_run(task.run)
        with self._store.writer(run.id) as writer:
            seconds, self._unentered_seconds = self._unentered_seconds, 0.0
            writer.spend("setup", Cost(seconds=seconds, device_seconds=seconds))
            if task.kind == "test":
                self._test(run, writer, control)
                return
            status, position, error = self._train(run, writer, control)
            writer.finish(status, position, error)

    def _train(self, run: Run, writer: RunWriter, control: Control) -> tuple[Status, int, str | None]:
        try:
            active = self._activate(run, writer, control)
        except Exception:
            return "failed", run.position, traceback.format_exc()
        return carry_on(self.trainer, run, active, self.metric)

    def _test(self, run: Run, writer: RunWriter, control: Control) -> None:
        active = self._activate(run, writer, control)
        # Interrupted, it is done again by the next session.
        with suppress(RunInterrupted):
            self._store.record_test(run.id, active.start, self.trainer.test(active))

    def _activate(self, run: Run, writer: RunWriter, control: Control) -> WorkerRun:
        saver = _FolderSaver(
            self._store,
            writer,
            run,
            self.checkpoint_folder / run.id,
            self.checkpoint_seconds,
            keep_all=self.keep_checkpoints == "all",
            stable_end=self.trainer.stable_end(run.hyperparameters),
        )
        last_position = self._store.last_position(run.id)
        return WorkerRun(run, self._newest_state(run), last_position, writer, control, saver)

    def _newest_state(self, run: Run) -> tuple[int, State | None]:
        """The newest checkpoint of the run that is whole; else the parent's at the fork point; else from scratch."""
        for record in reversed(self._store.checkpoints(run.id)):
            if record.position > run.position:
                continue  # from before the run was rewound; a fork of it begins there
            try:
                return record.position, checkpoint.read(Path(record.folder), record.digest)
            except CheckpointError:
                continue  # the record stays, so that `thalweg show` can tell; the work since the one before is repeated
        if run.parent is None:
            return 0, None
        record = fork_point(self._store, run.parent, run.fork_position)
        return record.position, checkpoint.read(Path(record.folder), record.digest)


class Recorder(Protocol):
    """What a run in a worker's hands writes into: the store's `RunWriter`, or what stands for it."""

    def log(self, position: int, metrics: Mapping[str, float], /) -> None: ...

    def report(self, position: int, metrics: Mapping[str, float], /) -> None: ...

    def spend(self, kind: SpendKind, cost: Cost, /) -> None: ...

    def flush(self) -> None: ...


class Saver(Protocol):
    """What keeps a run's checkpoints."""

    def due(self) -> bool:
        """Whether another one is worth its cost."""
        ...

    def save(self, position: int, state: State) -> float:
        """Write one. Returns the seconds that it took."""
        ...


def carry_on(trainer: Trainer, run: Run, active: WorkerRun, metric: str) -> tuple[Status, int, str | None]:
    """Train a run to its `until`.

    Returns:
        What became of it, the position reached, and the error where there was one.
    """
    try:
        trainer.train([active])
        active.require_report(metric)
    except RunInterrupted:
        return "interrupted", active.saved_position, None
    except Diverged as diverged:
        return "diverged", active.position, str(diverged)
    except Exception:
        return "failed", active.position, traceback.format_exc()
    arrived = active.position >= min(run.until, run.horizon)
    finished = active.position >= run.horizon or not arrived  # a function may end of its own accord
    return "finished" if finished else "paused", active.position, None


def fork_points(store: StudyStore, run_id: str) -> dict[int, CheckpointRecord]:
    """The checkpoints of a run and of the ancestors that it was itself forked from, by position."""
    found: dict[int, CheckpointRecord] = {}
    run: Run | None = store.read_run(run_id)
    limit = math.inf
    while run is not None:
        for record in store.checkpoints(run.id):
            if record.position <= limit:
                found.setdefault(record.position, record)
        limit = min(limit, run.fork_position)
        run = store.read_run(run.parent) if run.parent is not None else None
    return found


def fork_point(store: StudyStore, parent: str, position: int) -> CheckpointRecord:
    """The checkpoint of a run, or of the ancestor that it was itself forked from, at exactly this position.

    Raises:
        ConfigError: there is none; the message lists the positions that have one.
    """
    found = fork_points(store, parent)
    if position not in found:
        at = ", ".join(map(str, sorted(found)))
        known = f"it has them at {at}" if found else "it has none (of finished runs only the best few keep theirs)"
        raise ConfigError(f"run {parent} has no checkpoint at position {position}: {known}")
    return found[position]


class WorkerRun:
    """`ActiveRun` as a worker fills it in.

    Args:
        run: as the store has it.
        checkpoint: the position that it goes on from, and the state there; (0, None) from scratch.
        last_position: the highest that it has logged at.
        writer: what records it.
        control: what says when to stop.
        saver: what keeps its checkpoints.
    """

    def __init__(
        self,
        run: Run,
        checkpoint: tuple[int, State | None],
        last_position: int,
        writer: Recorder,
        control: Control,
        saver: Saver,
    ) -> None:
        start, state = checkpoint
        self.id = run.id
        self.hyperparameters: Hyperparameters = run.hyperparameters
        self.seed = run.seed
        self.start = start
        self.until = run.until
        self.horizon = run.horizon
        self.position = start
        self.saved_position = start
        self._state = state
        self._writer = writer
        self._control = control
        self._saver = saver
        self._trained_before = max(last_position, start)
        self._stepped = False
        # The position of each metric's last report.
        self._reported = {name: report.position for report in run.reports for name in report.metrics}

    def restore(self) -> State | None:
        return self._state

    def log(self, position: int, /, **metrics: float) -> None:
        self._stepped |= position > self.position
        self.position = max(self.position, position)
        self._writer.log(position, metrics)
        self._control.progress(position, metrics)

    def report(self, position: int, /, **metrics: float) -> None:
        self.position = max(self.position, position)
        self._reported.update(dict.fromkeys(metrics, position))
        self._writer.report(position, metrics)
        self._control.progress(position, metrics)
        broken = [name for name, value in metrics.items() if not math.isfinite(value)]
        if broken:
            raise Diverged(f"{', '.join(broken)} at position {position} is not a finite number")

    def save(self, position: int, state: State) -> None:
        self._writer.flush()
        seconds = self._saver.save(position, state)
        self.position = self.saved_position = position
        self._writer.spend("checkpoint", Cost(seconds=seconds, device_seconds=seconds))

    def checkpoint_due(self) -> bool:
        return self._saver.due()

    def should_stop(self) -> bool:
        return self._control.should_stop()

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        # Work entered before its step is logged leads to a later position than the last one.
        before = self._trained_before if self._stepped else self._trained_before - 1
        if kind == "train" and self.start <= self.position <= before and self._trained_before > self.start:
            kind = "repeated"
        self._stepped = False
        self._writer.spend(kind, cost)

    def require_report(self, metric: str) -> None:
        if metric not in self._reported:
            reported = ", ".join(sorted(self._reported)) or "nothing"
            raise ConfigError(
                f"the study's metric is {metric!r}, but the run reported {reported}:"
                f" call run.report({metric}=...) at the end, or return the value"
            )
        # Runs are compared where they were asked to train to: one without a result there would wait for ever.
        asked = min(self.position, self.until)
        if self._reported[metric] < asked:
            raise ConfigError(
                f"the run reported {metric!r} last at {self._reported[metric]:,}, but was trained to {asked:,}, where"
                f" runs are compared: call run.report({metric}=...) at the end, after the last position"
            )


@dataclass
class _FolderSaver:
    """Writes one run's checkpoints and lets go of those that nothing needs any more."""

    store: Store
    writer: RunWriter
    run: Run
    folder: Path
    every_seconds: float
    keep_all: bool
    stable_end: int | None
    """Where the run can be extended later."""
    saved_at: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.every_seconds

    def save(self, position: int, state: State) -> float:
        """See `Saver.save`."""
        started = time.perf_counter()
        folder = self.folder / str(position)
        digest, num_bytes = checkpoint.write(folder, state)
        self.writer.checkpoint(position, str(folder), digest, num_bytes)
        if not self.keep_all:
            for record in self.store.checkpoints(self.run.id)[:-KEEP_CHECKPOINTS]:
                if record.position != self.stable_end:
                    drop_checkpoint(self.store, self.run.id, record)
        self.saved_at = time.monotonic()
        return time.perf_counter() - started


def drop_checkpoint(store: StudyStore, run_id: str, record: CheckpointRecord) -> None:
    """Remove a checkpoint, unless a fork begins there."""
    if store.drop_checkpoint(run_id, record.position):
        shutil.rmtree(record.folder, ignore_errors=True)
