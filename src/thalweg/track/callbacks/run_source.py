"""The run that a callback writes: one that it was given, or one that it makes when it is first needed."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thalweg.errors import ConfigError, StoreError
from thalweg.track.callbacks.checkpoints import CHECKPOINT, newest, newest_checkpoint, store_location
from thalweg.track.client import TrackedRun, init
from thalweg.track.positions import to_position, to_step
from thalweg.track.records import SavedFile
from thalweg.track.store import Store
from thalweg.tree import Status

_log = logging.getLogger("thalweg")

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
                self._run = init(self.project, **self._again(self._run))
            self._ended = False
            self.begun = True
            return self._run

    def _again(self, run: TrackedRun) -> dict[str, Any]:
        """Options to take up a run again. Its code version is known."""
        kept = {key: value for key, value in self.options.items() if key not in _FIRST_ONLY}
        return {**kept, "run": run.uid, "store": run.store, "code": False}

    def __getstate__(self) -> dict[str, Any]:
        # Lightning sends its loggers to the processes that it spawns: there the same run is attached to.
        state = {key: value for key, value in self.__dict__.items() if key != "_lock"}
        if self._run is not None:
            state |= {"_run": None, "options": self._again(self._run)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()
        self._process = os.getpid()

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
                self._say_where(found)
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
            until = self._until(store) if self.options.get("fork_of") is None else None
            return newest(_checkpoints(store.files(run_id), until))

    def _fork_point(self) -> SavedFile | None:
        """The checkpoint where a fork begins that is not made yet."""
        parent = self.options.get("fork_of")
        if parent is None:
            return None
        name = parent.uid if isinstance(parent, TrackedRun) else str(parent)
        with Store.open(store_location(self.options.get("store")), read_only=True) as store:
            run_id = store.find_run(self.project, name)
            return None if run_id is None else newest(_checkpoints(store.files(run_id), self._until(store)))

    def _until(self, store: Store) -> int | None:
        at = self.options.get("at")
        return None if at is None else to_position(at, store.study(self.project).decimals)

    def _say_where(self, found: SavedFile | None) -> None:
        """A fork without a checkpoint at its very step trains some steps once more that it inherits."""
        run = self.run()
        if found is not None and found.run != run.id:
            with Store.open(run.store, read_only=True) as store:
                step = to_step(found.position, store.study(run.project).decimals)
            if step < run.fork_step:
                _log.warning(
                    "run %s is a fork at step %s, and the newest checkpoint before it is at step %s: it trains on from"
                    " there. Without at= a fork begins at a checkpoint",
                    run.id,
                    run.fork_step,
                    step,
                )

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


def _checkpoints(files: Iterable[SavedFile], until: int | None) -> list[SavedFile]:
    return [file for file in files if file.name == CHECKPOINT and (until is None or file.position <= until)]


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
        if run.ended:
            raise ConfigError(
                f"{who}: run {run.id} has ended. To go on with it: {who}({run.project!r}, run={run.id!r})"
            )
        return run, run.project
    if not project:
        raise ConfigError(f"{who} needs a project or a run: {how}")
    return run, project
