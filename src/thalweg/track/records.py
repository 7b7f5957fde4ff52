"""What the store answers with, beside runs and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from thalweg.tree import Ask, Status


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study as it was created."""

    name: str
    config: Mapping[str, Any]
    created: float
    """Seconds since 1970."""
    wall_seconds: float
    """Time for which its loop was running, over all its sessions."""
    kind: Literal["study", "project"] = "study"
    """A search that a loop runs, or runs that are tracked from a person's own training code."""
    unit: str = "steps"
    """What positions count."""
    decimals: int = 0
    """A position is a step times ten to this."""

    @property
    def scale(self) -> int:
        """Positions per step."""
        return int(10**self.decimals)


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """A process that runs, or ran, a study's loop."""

    study: str
    host: str
    pid: int
    opened: float
    """Seconds since 1970."""
    heartbeat: float


@dataclass(frozen=True, kw_only=True)
class RunTimes:
    """When things happened to a run, in seconds since 1970; None for what has not."""

    created: float
    started: float | None
    """When its first writer opened."""
    ended: float | None
    """When it finished, diverged, failed or was stopped."""
    heartbeat: float | None
    live: bool
    """A process has it and beats. A run with status `running` that is not live has crashed."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked for from another process, and that waits for the study's loop."""

    id: int
    ask: Ask
    author: str | None = None


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """A request with what became of it."""

    id: int
    ask: Ask
    author: str | None
    """Who asked, where that is known."""
    created: float
    """Seconds since 1970."""
    answered: float | None
    outcome: str | None
    """`done`, or why not; None while it waits."""


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """A run that is tracked from a person's own code, or brought in from another tracker."""

    uid: str
    """What it is called where it comes from; unique in its project."""
    name: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    """The id or uid of the run that it is a fork of; one that is not there yet is waited for."""
    fork_position: int = 0
    tags: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Where it was made: code version, environment, source."""
    status: Status = "running"
    created: float | None = None
    """Seconds since 1970; None: now."""
    started: float | None = None
    ended: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run in a list: what is known of it without reading a curve."""

    id: str
    number: int
    name: str | None
    uid: str
    status: str
    """As `tree.Status`, or `crashed` where a running one's process is gone."""
    parent: str | None
    waiting_parent: str | None
    """A parent that is not in the store yet."""
    fork_position: int
    position: int
    horizon: int
    """0 where it is not known."""
    origin: str
    tags: tuple[str, ...]
    hyperparameters: Mapping[str, Any]
    latest: Mapping[str, tuple[int, float]]
    """Metric -> (position, value) of the run's own last point."""
    created: float
    """Seconds since 1970."""
    started: float | None
    ended: float | None
    updated: float | None
    """When something was last written into it."""
    num_notes: int
    error: str | None


@dataclass(frozen=True)
class Note:
    """What a person wrote about a run."""

    text: str
    author: str | None
    created: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class SavedFile:
    """A file or folder that a training script saved."""

    run: str
    """The run that saved it: an ancestor's is inherited up to the fork."""
    name: str
    position: int
    path: Path
    num_bytes: int
    digest: str | None
    """SHA-256 of a copied file, in hexadecimal; None for a folder and for what was not copied."""
    created: float
    """Seconds since 1970."""
    copied: bool
    """Whether it is kept beside the store; else it is where the script left it."""


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """All about one run, its curves excepted."""

    row: RunRow
    study: str
    facts: Mapping[str, Any]
    notes: tuple[Note, ...]
    files: tuple[SavedFile, ...]
    """Those that it inherits, too."""
    lineage: tuple[str, ...]
    """The root first, the run itself last."""
    children: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """A checkpoint that a run can go on from."""

    position: int
    folder: str
    digest: str
    num_bytes: int
    created: float
    """Seconds since 1970."""
