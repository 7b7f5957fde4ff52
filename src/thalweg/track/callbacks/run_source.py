"""The run that a callback writes: one that it was given, or one that it makes when it is first needed."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalweg.errors import ConfigError, StoreError
from thalweg.track.callbacks.checkpoints import CHECKPOINT, newest, newest_checkpoint, store_location
from thalweg.track.client import TrackedRun, init
from thalweg.track.positions import to_position, to_step
from thalweg.track.records import SavedFile
from thalweg.track.store import Store
from thalweg.tree import Status

_FIRST_ONLY = ("fork_of", "at", "hyperparameters", "name", "tags", "notes")
"""Options that describe a run as it begins. Taken up again, it has them already."""


class RunSource:
    """What a callback was told about its run.

    Args:
        who: the callback's name, for messages.
        target: a project's name, or a run that somebody else begins and ends.
        run: a run, or with `project` the id or uid of one that is to go on.
        project: as `target`, by name.
        options: for `thalweg.init`.
        at_checkpoint: a fork that does not say where begins at its parent's newest checkpoint, not at its last step.
    Raises:
        ConfigError: neither a project nor a run, or both at odds; options for a run that is there already.
    """

    def __init__(
        self,
        who: str,
        target: str | TrackedRun | None,
        *,
        run: str | TrackedRun | None,
        project: str | None,
        options: Mapping[str, Any],
        at_checkpoint: bool = False,
    ) -> None:
        given, name = _sort_out(who, target, run, project)
        if isinstance(given, TrackedRun) and options:
            raise ConfigError(f"{who}: {', '.join(sorted(options))} belong to thalweg.init, which has made this run")
        self.options = dict(options) if not isinstance(given, str) else {**options, "run": given}
        """What the run is made with."""
        self.project = name
        self.own = not isinstance(given, TrackedRun)
        """Whether the callback made the run, and so ends it."""
        self.begun = not self.own
        """Whether there is a run yet."""
        self._run: TrackedRun | None = given if isinstance(given, TrackedRun) else None
        self._ended = False
        self._process = os.getpid()
        self._at_checkpoint = at_checkpoint
        # Trials and data loaders may ask from several threads.
        self._lock = threading.RLock()

    @property
    def ended(self) -> bool:
        """Whether the callback has ended its run."""
        return self._ended

    def run(self) -> TrackedRun:
        """The run, made now where there is none. It may have ended."""
        with self._lock:
            return self._run if self._run is not None else self.live()

    def live(self) -> TrackedRun:
        """The run, to write to: made now where there is none, taken up again where the callback has ended it."""
        with self._lock:
            if self._run is None:
                self._place_fork()
                self._run = init(self.project, **self.options)
                atexit.register(self._end_with_process)
            elif self._ended:
                kept = {key: value for key, value in self.options.items() if key not in _FIRST_ONLY}
                # Its code version is known.
                self._run = init(self.project, **{**kept, "run": self._run.id, "code": False})
            self._ended = False
            self.begun = True
            return self._run

    def checkpoint(self, *, main: bool) -> Path | None:
        """The newest checkpoint of the run's lineage; None where there is none.

        Args:
            main: whether this is the process that writes the run. The others must find the same, and make no run.
        Raises:
            StoreError: the store cannot be read, and this is no new run.
        """
        goes_on = not self.own or any(self.options.get(key) is not None for key in ("run", "fork_of"))
        try:
            if main or not self.own:
                found = newest_checkpoint(self.run())
            else:
                found = self._own_checkpoint() or self._fork_point()
        except StoreError:
            if goes_on:
                raise  # to train from the start instead would be worse
            return None
        return None if found is None else found.path

    def _own_checkpoint(self) -> SavedFile | None:
        """That of a run which this process does not open."""
        name = self.options.get("run")
        if name is None:
            return None
        with Store.open(store_location(self.options.get("store")), read_only=True) as store:
            run_id = store.find_run(self.project, name)
            if run_id is None:
                return None
            return newest(file for file in store.files(run_id) if file.name == CHECKPOINT)

    def _fork_point(self) -> SavedFile | None:
        """The checkpoint where a fork begins that is not made yet."""
        parent, at = self.options.get("fork_of"), self.options.get("at")
        if parent is None:
            return None
        name = parent.uid if isinstance(parent, TrackedRun) else str(parent)
        with Store.open(store_location(self.options.get("store")), read_only=True) as store:
            run_id = store.find_run(self.project, name)
            files = [] if run_id is None else store.files(run_id)
            until = None if at is None else to_position(at, store.study(self.project).decimals)
        return newest(file for file in files if file.name == CHECKPOINT and (until is None or file.position <= until))

    def _place_fork(self) -> None:
        """A fork that does not say where: at the checkpoint that it will load."""
        if self._at_checkpoint and self.options.get("at") is None and (found := self._fork_point()):
            with Store.open(store_location(self.options.get("store")), read_only=True) as store:
                self.options["at"] = to_step(found.position, store.study(self.project).decimals)

    def renew(self) -> None:
        """Make another run, under the same options, when next asked."""
        with self._lock:
            self.finish()
            self._run, self._ended, self.begun = None, False, False

    def finish(self, status: Status = "finished", error: str | None = None) -> None:
        """End the run where it is the callback's own, else see to it that all of it is in the store."""
        with self._lock:
            if self._run is None or self._ended:
                return
            if self.own:
                self._run.finish(status=status, error=error)
                self._ended = True
            else:
                self._run.flush()

    def _end_with_process(self) -> None:
        """No framework says that an exception has ended training, and few scripts close their writers."""
        if os.getpid() != self._process:
            return
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if isinstance(error, KeyboardInterrupt):
            self.finish("stopped")
        elif error is not None:
            self.finish("failed", "".join(traceback.format_exception(error)))
        else:
            self.finish()


def _sort_out(
    who: str, target: str | TrackedRun | None, run: str | TrackedRun | None, project: str | None
) -> tuple[TrackedRun | str | None, str]:
    """The run, or the id of one to go on with, or None for a new one; and the project's name."""
    how = f'{who}("my-project"), or {who}(run=thalweg.init("my-project"))'
    if isinstance(target, TrackedRun):
        if run is not None:
            raise ConfigError(f"{who} was given two runs. Give one: {how}")
        run = target
    elif target is not None:
        if project is not None:
            raise ConfigError(f"{who} was given two projects, {target!r} and {project!r}. Give one: {how}")
        project = target
    if isinstance(run, TrackedRun):
        if project is not None and project != run.project:
            raise ConfigError(f"{who}: project = {project!r}, but run {run.id} belongs to {run.project!r}")
        if run._ended:
            raise ConfigError(
                f"{who}: run {run.id} has ended. To go on with it: {who}({run.project!r}, run={run.id!r})"
            )
        return run, run.project
    if not project:
        raise ConfigError(f"{who} needs a project or a run: {how}")
    return run, project
