"""Commit what writers hold when the process is told to end: by SIGTERM, or by reaching its end without closing them."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from types import FrameType
from typing import Any, Protocol

WAIT_SECONDS = 5.0
"""How long a termination waits for a writer's commit."""


class Pending(Protocol):
    """Something that may hold data which is not committed yet."""

    def commit_from_signal(self, seconds: float) -> bool:
        """Commit in another thread and wait for it; False if the interrupted code itself is in a commit."""
        ...

    def close(self) -> None: ...


_pending: list[Pending] = []
_previous: Any = None
_deferred: int | None = None


def watch(pending: Pending) -> None:
    """Commit it at the process's end, until `unwatch`."""
    global _previous
    _pending.append(pending)
    # Python allows handlers to be set in the main thread only; elsewhere the end of the process is all that is watched.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is not _on_signal:
        _previous = signal.signal(signal.SIGTERM, _on_signal)


def unwatch(pending: Pending) -> None:
    """It holds nothing any more. The last one gives SIGTERM back to who had it before."""
    if pending in _pending:
        _pending.remove(pending)
    is_main = threading.current_thread() is threading.main_thread()
    if not _pending and is_main and signal.getsignal(signal.SIGTERM) is _on_signal:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if _previous is None else _previous)


def deliver_deferred() -> None:
    """After a commit in the main thread: take up the signal that came during it."""
    global _deferred
    if _deferred is not None and threading.current_thread() is threading.main_thread():
        signum, _deferred = _deferred, None
        _on_signal(signum, None)


def _on_signal(signum: int, frame: FrameType | None) -> None:
    global _deferred
    committed = [pending.commit_from_signal(WAIT_SECONDS) for pending in _pending]
    if not all(committed):
        _deferred = signum
        return
    if callable(_previous):
        _previous(signum, frame)
    elif _previous is not signal.SIG_IGN:
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


@atexit.register
def _at_exit() -> None:
    while _pending:
        _pending[-1].close()
