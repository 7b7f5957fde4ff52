"""The claim of a process on a study: one loop at a time, with a heartbeat."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from thalweg.track import studies
from thalweg.track.database import Database
from thalweg.track.liveness import BEAT_SECONDS, this_process

_log = logging.getLogger("thalweg")


class Session:
    """A study's loop while it runs. Use it as a context manager; made by `Store.open_session`."""

    def __init__(self, database: Database, study: str) -> None:
        self.study = study
        self._database = database
        with database.write() as connection:
            self._key = studies.open_session(connection, study, this_process())
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"thalweg-session-{study}", daemon=True)
        self._thread.start()

    def add_wall_seconds(self, seconds: float) -> None:
        """Add to the time for which the study's loop was running."""
        with self._database.write() as connection:
            studies.add_wall_seconds(connection, self._key, seconds)

    def close(self) -> None:
        """Let another process run the study. Closing twice does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        with self._database.write() as connection:
            studies.close_session(connection, self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _beat(self) -> None:
        while not self._closing.wait(BEAT_SECONDS):
            try:
                with self._database.write() as connection:
                    studies.beat_session(connection, self._key)
            except Exception as error:
                # A missed beat is nothing yet; the next one may succeed.
                _log.warning("study %s: no heartbeat: %s", self.study, error)
