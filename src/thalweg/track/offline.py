"""A run whose store cannot be opened: all goes into a spool, and into the store once it is there."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from thalweg.track import terminate
from thalweg.track.calls import CallBuffer
from thalweg.track.spool import Spool, spool_folders
from thalweg.track.writer import COMMIT_SECONDS
from thalweg.tree import Status

_log = logging.getLogger("thalweg")


class SpoolWriter:
    """What `RunWriter` is, for a run that no store has yet."""

    def __init__(self, place: str, create: Mapping[str, Any], *, strict: bool) -> None:
        """
        Args:
            place: the store's.
            create: what it takes to enter the run: `project` and `run`.
            strict: write at each call.
        """
        self.uid = uuid.uuid4().hex
        self._strict = strict
        self._buffer = CallBuffer()
        self._spool = Spool(spool_folders(place), self.uid, {"store": place, "run": None, "create": create})
        self._writing = threading.Lock()
        self._writer: int | None = None
        self._closing = threading.Event()
        self._failed = False
        self._keep(first=True)
        self._thread = threading.Thread(target=self._work, name="thalweg-spool", daemon=True)
        self._thread.start()
        terminate.watch(self)

    @property
    def path(self) -> Path | None:
        """The spool's file."""
        return self._spool.path

    def log(self, position: int, metrics: Mapping[str, float]) -> None:
        """As `RunWriter.log`."""
        self._buffer.log(position, metrics)
        if self._strict:
            self._keep()

    @property
    def log_call(self) -> Callable[[int, Mapping[str, float]], None]:
        """As `RunWriter.log_call`."""
        return self.log

    def flush(self) -> None:
        """All that was logged is in the spool."""
        self._keep()

    def leave(self, status: Status, error: str | None = None) -> None:
        """Write the end of the run and close."""
        self._keep({"status": status, "error": error, "ended": time.time()})
        self.close()

    def close(self) -> None:
        """Write all that was logged and stop the thread. Closing twice does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        terminate.unwatch(self)
        self._keep()

    def commit_from_signal(self, seconds: float) -> bool:
        """Write what there is, unless the interrupted code does so itself."""
        if self._writer == threading.get_ident():
            return False
        self._keep()
        return True

    def _keep(self, end: Mapping[str, Any] | None = None, *, first: bool = False) -> None:
        with self._writing:
            self._writer = threading.get_ident()
            try:
                # The first batch, with nothing in it, makes the file: a run that logs nothing is a run, too.
                batch = self._buffer.take(end if end is not None else {} if first else None)
                if batch is None:
                    return
                if first:
                    batch.end = None
                self._spool.append(batch)
            except OSError as error:
                if not self._failed:
                    _log.warning("neither the store nor a spool takes points, so they are lost: %s", error)
                self._failed = True
            finally:
                self._writer = None
        terminate.deliver_deferred()

    def _work(self) -> None:
        while not self._closing.wait(COMMIT_SECONDS):
            if self._buffer:
                self._keep()
