"""Is the process that wrote a heartbeat still there?"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

import psutil

BEAT_SECONDS = 2.0
"""How often a live writer or session says that it is alive."""

DEAD_AFTER_SECONDS = 30.0
"""A heartbeat older than this is a dead one."""


@dataclass(frozen=True)
class Process:
    """A process, told apart from a later one that was given the same number."""

    host: str
    pid: int
    started: float
    """When it began, in seconds since 1970."""


def this_process() -> Process:
    """The process that calls."""
    pid = os.getpid()
    return Process(socket.gethostname(), pid, psutil.Process(pid).create_time())


def is_live(process: Process, heartbeat: float | None) -> bool:
    """Whether its last beat is recent and, where that can be seen from here, it still runs."""
    if heartbeat is None or time.time() - heartbeat > DEAD_AFTER_SECONDS:
        return False
    return process.host != socket.gethostname() or runs_here(process)


def runs_here(process: Process) -> bool:
    """Whether a process of this machine is still there."""
    try:
        found = psutil.Process(process.pid)
        # The start time is worked out from the clock at each look: allow for small corrections of it.
        same = abs(found.create_time() - process.started) < 2.0
        return same and bool(found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
