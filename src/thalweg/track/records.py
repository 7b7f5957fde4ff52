"""What the store answers with, beside runs and curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thalweg.tree import Action


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study as it was created."""

    name: str
    config: Mapping[str, Any]
    created: float
    """Seconds since 1970."""
    wall_seconds: float
    """Time for which its loop was running, over all its sessions."""


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
    """An action that a person asked for from another process, and that waits for the study's loop."""

    id: int
    action: Action


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """A checkpoint that a run can go on from."""

    position: int
    folder: str
    digest: str
    num_bytes: int
    created: float
    """Seconds since 1970."""
