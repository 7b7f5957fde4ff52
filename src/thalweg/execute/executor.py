"""What the loop needs of an executor, and what an executor needs of the work that it carries out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Task:
    """One run for one worker. All else about the run is in the store."""

    run: str
    kind: Literal["train", "test"] = "train"
    """`train` carries the run on to its `until`; `test` evaluates its last checkpoint on the held-back data."""


@dataclass(frozen=True)
class Ready:
    """A worker has loaded what its runs share."""

    worker: int
    facts: Mapping[str, Any]
    """What its `setup` returned."""


@dataclass(frozen=True)
class Progress:
    """A sign of life from a run, for people to look at."""

    run: str
    position: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A worker has finished with a task; what became of the run is in the store."""

    task: Task


@dataclass(frozen=True)
class Lost:
    """A worker's process died with a task in its hands, or before it was ready (then `task` is None)."""

    task: Task | None
    reason: str


Event = Ready | Progress | Done | Lost


class Control(Protocol):
    """What a task may ask of the worker that it runs in."""

    def should_stop(self) -> bool:
        """Whether this task was asked to end, or the study's process is gone."""
        ...

    def progress(self, position: int, metrics: Mapping[str, float]) -> None:
        """Show where the run is; sent at most a few times a second."""
        ...


class Work(Protocol):
    """What a worker process does. It is sent there once."""

    def setup(self) -> Mapping[str, Any]:
        """Load what tasks share; the result reaches the loop as `Ready.facts`."""
        ...

    def carry_out(self, task: Task, control: Control) -> None:
        """Do one task and record its outcome in the store. What it raises kills the worker."""
        ...


class Executor(Protocol):
    """Carries tasks out in worker processes."""

    @property
    def num_workers(self) -> int:
        """Workers that there are; one that could not even start is none."""
        ...

    @property
    def free_slots(self) -> int:
        """Tasks that would start at once, workers that are still loading included."""
        ...

    def submit(self, task: Task) -> None:
        """Hand a task to a free worker."""
        ...

    def stop(self, run: str) -> None:
        """Ask a run to checkpoint and end; `Done` follows."""
        ...

    def wait(self, timeout_seconds: float) -> Sequence[Event]:
        """What has happened, as soon as something has; empty after the timeout."""
        ...

    def close(self, grace_seconds: float) -> None:
        """Ask all tasks to stop, give them this long, then end the workers."""
        ...
