"""What has changed in a store since the last look: cheap enough to be asked ten times a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg.track.store import Store

OVERLAP_SECONDS = 10.0
"""How far back a look goes beyond the last one: a change may be entered some time after the moment that it bears."""

QUIET_SECONDS = (3.0, 10.0, 35.0)
"""A run that has said nothing for so long is worth another look: its process may be gone, which nothing announces."""

STUDY_SECONDS = 0.5
"""Time between two looks at what was asked of a study, and who runs it."""

STUDY_SHARE = 0.1
"""Of the time, the most that goes into those looks, however many studies there are."""


@dataclass
class Watch:
    """Looks at one store, from one thread at a time."""

    store: Store
    clock: Callable[[], float] = time.monotonic
    """Seconds that only ever grow: what silence is measured by."""
    _newest: float = field(default_factory=time.time)
    _seen: dict[str, float] = field(default_factory=dict)
    _spoke: dict[str, tuple[str, float, int]] = field(default_factory=dict)
    """Run -> its project, when it last said something by our clock, how often its silence was noticed."""
    _studies: dict[str, Any] = field(default_factory=dict)
    _next_studies: float = 0.0

    def runs(self) -> list[tuple[str, str]]:
        """The runs that something was written into, or that have fallen silent, as (project, run)."""
        since = min(self._newest, time.time()) - OVERLAP_SECONDS
        changes = self.store.changes(since)
        fresh = [(study, run, at) for study, run, at in changes if self._seen.get(run) != at]
        self._seen = {run: at for _, run, at in changes}
        self._newest = max([self._newest, *(at for _, _, at in fresh)])
        now = self.clock()
        self._spoke.update({run: (study, now, 0) for study, run, _ in fresh})
        return [(study, run) for study, run, _ in fresh] + self._silent(now)

    def _silent(self, now: float) -> list[tuple[str, str]]:
        found = []
        for run, (study, at, times) in list(self._spoke.items()):
            if now - at < QUIET_SECONDS[times]:
                continue
            found.append((study, run))
            if times + 1 == len(QUIET_SECONDS):
                del self._spoke[run]
            else:
                self._spoke[run] = (study, at, times + 1)
        return found

    def studies(self, names: Collection[str] | None) -> list[str]:
        """Those of the named studies (None: all) of which requests, pause or session have changed.

        Empty where the last look was a moment ago.
        """
        started = self.clock()
        if started < self._next_studies:
            return []
        found = []
        for record in self.store.studies():
            name = record.name
            if names is not None and name not in names:
                continue
            requests = [(request.id, request.answered) for request in self.store.requests(name, limit=20)]
            session = self.store.live_session(name)
            process = None if session is None else (session.host, session.pid)
            state = (requests, self.store.is_paused(name), process, record.config)
            if name in self._studies and self._studies[name] != state:
                found.append(name)
            self._studies[name] = state
        took = self.clock() - started
        self._next_studies = started + max(STUDY_SECONDS, took / STUDY_SHARE)
        return found
