"""Tracking from a training script of your own: `run = thalweg.init("project")`, `run.log({...})`.

Logging never blocks training and never ends it: what a store cannot take now is kept in a spool and merged later.
"""

from __future__ import annotations

import logging
import os
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from thalweg.errors import ConfigError, StoreError, nearest
from thalweg.track.client_parts import Meters, Warner, flat_hyperparameters, flat_metrics, stop_requests
from thalweg.track.lineage import MAX_POSITION
from thalweg.track.machine import environment, user
from thalweg.track.opening import DEFAULT_STORE, WAIT_SECONDS, Opened, Wanted, open_run
from thalweg.track.positions import Step, nearest_position, to_position, to_step
from thalweg.track.records import NewRun, SavedFile
from thalweg.track.store import Store
from thalweg.track.tracked_runs import check_note, check_tags
from thalweg.tree import Metric, Status

_log = logging.getLogger("thalweg")


class TrackedRun:
    """A run as the script that trains it sees it; made by `thalweg.init`. Threads may share it.

    As a context manager it ends `finished`, or, where an exception leaves the block, `failed` with the traceback, or
    `stopped` by Ctrl-C.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._writer = opened.writer
        self._decimals = opened.decimals
        self._warner = Warner(opened.id)
        self._last: int | None = opened.last
        self._next = opened.fork_position + 10**self._decimals if opened.forked else 0
        if opened.last is not None:
            self._next = opened.last + 10**self._decimals
        self._step_of: int = 10**self._decimals
        self._most_steps = MAX_POSITION // self._step_of
        self._log = self._writer.log_call
        self._ended = False
        self._meters = Meters(self._writer, opened.created, opened.system_seconds, self._look_for_requests)
        self._stop_asked = False

    @property
    def id(self) -> str:
        """Its id in the store, safe in paths and addresses. Without a store, a provisional one."""
        return self._opened.id

    @property
    def uid(self) -> str:
        """What it is called from outside: several processes that `init` with this uid write the same run."""
        return self._opened.uid

    @property
    def project(self) -> str:
        """The project's name."""
        return self._opened.project

    @property
    def store(self) -> str:
        """Where the store is."""
        return self._opened.location

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """By name; nested ones are `outer/inner`."""
        return dict(self._opened.hyperparameters)

    @property
    def fork_step(self) -> int | float:
        """Where it begins: 0 for a run that is no fork."""
        return to_step(self._opened.fork_position, self._decimals)

    @property
    def last_step(self) -> int | float | None:
        """The last step that was logged, here or, where this is a fork or goes on, before; None where none was."""
        if self._last is not None:
            return to_step(self._last, self._decimals)
        return self.fork_step if self._opened.forked else None

    @property
    def ended(self) -> bool:
        """Whether `finish` was called."""
        return self._ended

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked for an end, by `thalweg stop` or in the dashboard. A loop looks at it, and leaves."""
        return self._stop_asked

    def log(self, metrics: Mapping[str, Any], step: Step | None = None) -> None:
        """Record a point of each metric.

        It returns at once; a thread commits every 100 ms. What cannot be recorded, because it is no number, say, is
        warned of once, and the rest of the call is recorded; with `strict` it raises.

        Args:
            metrics: numbers, arrays or tensors of one number, and mappings of these: {"train": {"loss": 0.5}} is
                `train/loss`. The last write at a step counts.
            step: by default the one after the last. Steps may repeat and go back; fractions are kept to the project's
                decimals.
        Raises:
            ConfigError: only with `strict`: a step, name or value that cannot be recorded.
            StoreError: the run is finished.
        """
        # A training loop may call this for every step of a small model: whole steps take the short way.
        if step is None:
            position = self._next
        elif type(step) is int and 0 <= step <= self._most_steps:
            position = step * self._step_of
        elif (found := self._position(step)) is None:
            return
        else:
            position = found
        try:
            self._log(position, metrics)
        except (ConfigError, TypeError) as error:
            self._log_what_can_be(position, metrics, error)
        self._last = position
        self._next = position + self._step_of

    def save(
        self, path: str | Path, *, name: str | None = None, step: Step | None = None, copy: bool = True
    ) -> SavedFile:
        """Keep a file or a folder, a checkpoint say, as of a step. It is inherited by forks from that step on.

        Args:
            name: by default the file's own. Files of one name are versions of each other.
            step: by default the last that was logged.
            copy: copy it beside the store; otherwise only remember where it is.
        Raises:
            ConfigError: there is nothing at `path`.
            StoreError: the store cannot be written; unlike points, files are not kept elsewhere.
            OSError: it cannot be copied.
        """
        source = Path(path)
        if self._opened.store is None:
            raise StoreError(f"{source} is not saved: the store cannot be opened, and a spool takes points only")
        last = self._opened.fork_position if self._last is None else self._last
        position = last if step is None else to_position(step, self._decimals)
        self._writer.flush()
        label = source.absolute().name if name is None else name
        return self._opened.store.save_file(self.id, source, name=label, position=position, copy=copy)

    def saved(self, name: str, step: Step | None = None) -> SavedFile | None:
        """The newest version of a file at or before a step, over the run's whole lineage; None where there is none."""
        if self._opened.store is None:
            return None
        until = None if step is None else to_position(step, self._decimals)
        found = [
            file
            for file in self._opened.store.files(self.id)
            if file.name == name and (until is None or file.position <= until)
        ]
        # Of versions at one step the last saved counts; max takes the first of equals.
        return max(reversed(found), key=lambda file: file.position, default=None)

    def note(self, text: str) -> None:
        """Write something about the run."""
        self._tell(lambda store: store.add_note(self.id, text, user()), "the note is lost")

    def add_tags(self, *tags: str) -> None:
        """Give it more tags."""
        self._tell(lambda store: store.set_tags(self.id, tags, add=True), "the tags are lost")

    def set(self, hyperparameters: Mapping[str, Any]) -> None:
        """Add hyperparameters, or change some."""
        changes = flat_hyperparameters(hyperparameters)
        self._opened.hyperparameters.update(changes)
        self._tell(lambda store: store.set_hyperparameters(self.id, changes), "the hyperparameters are lost")

    def flush(self) -> None:
        """Return when all that was logged is in the store, or in a spool."""
        try:
            self._writer.flush()
        except StoreError as error:
            self._warner.warn("flush", f"what was logged is in memory only: {error}")

    def finish(self, status: Status = "finished", error: str | None = None) -> None:
        """End the run; more can be logged only after another `init` with `run=`. Finishing twice does nothing.

        Args:
            status: `finished`, `failed`, `stopped` or `diverged`.
            error: what went wrong.
        """
        if status not in ("finished", "failed", "stopped", "diverged"):
            raise ConfigError(f"status = {status!r}. {nearest(status, ('finished', 'failed', 'stopped', 'diverged'))}")
        if self._ended:
            return
        self._ended = True
        self._meters.close()
        try:
            self._writer.leave(status, error)
        except StoreError as problem:
            # Training is over and worked; only the record of it has suffered.
            _log.warning("run %s: %s", self.id, problem)
        if self._opened.store is not None:
            try:
                self._opened.store.close()
            except StoreError as problem:
                _log.warning("run %s: %s", self.id, problem)
        elif (path := getattr(self._writer, "path", None)) is not None:
            _log.warning("run %s is in %s; 'thalweg sync' brings it into %s", self.id, path, self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        elif issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self.finish("stopped")
        else:
            self.finish("failed", "".join(traceback.format_exception(kind, error, trace)))

    def __repr__(self) -> str:
        return f"<run {self.id} of {self.store}>"

    def _position(self, step: Step) -> int | None:
        try:
            return to_position(step, self._decimals)
        except ConfigError as error:
            if self._opened.strict:
                raise
            try:
                rounded = nearest_position(step, self._decimals)
            except ConfigError:
                self._warner.warn("step", f"nothing is recorded at it: {error}")
                return None
            self._warner.warn("decimals", f"{error}; it is rounded")
            return rounded

    def _log_what_can_be(self, position: int, metrics: object, error: Exception) -> None:
        if not isinstance(metrics, Mapping):
            problem = ConfigError(f"log: metrics = {metrics!r} must map names to numbers, as in log({{'loss': 0.5}})")
            if self._opened.strict:
                raise problem from error
            self._warner.warn("metrics", str(problem))
            return
        good, problems = flat_metrics(metrics)
        if problems and self._opened.strict:
            raise ConfigError("; ".join(problems.values()))
        for name, problem_text in problems.items():
            self._warner.warn(f"metric {name!r}", f"it is not recorded: {problem_text}")
        if good:
            self._writer.log(position, good)

    def _look_for_requests(self) -> None:
        """Answer what was asked of this run from elsewhere. Called by a thread, every two seconds."""
        if self._opened.store is not None and stop_requests(self._opened.store, self.project, self.id):
            self._stop_asked = True

    def _tell(self, what: Any, lost: str) -> None:
        """Change something that is no point: it needs the store now."""
        if self._opened.store is None:
            self._warner.warn(lost, f"{lost}: the store cannot be opened")
            return
        try:
            what(self._opened.store)
        except StoreError as error:
            if self._opened.strict:
                raise
            self._warner.warn(lost, f"{lost}: {error}")


def init(
    project: str,
    *,
    hyperparameters: Mapping[str, Any] | None = None,
    name: str | None = None,
    run: str | None = None,
    fork_of: str | TrackedRun | None = None,
    at: Step | None = None,
    tags: Sequence[str] = (),
    notes: str | None = None,
    unit: str = "steps",
    decimals: int = 6,
    store: str | Path | None = None,
    strict: bool = False,
    system_seconds: float = 10.0,
    code: bool = True,
) -> TrackedRun:
    """Begin to track a run, or go on with one.

    Args:
        project: a group of runs; made where there is none of this name.
        hyperparameters: numbers, texts, booleans, lists; nested mappings become `outer/inner`.
        name: what people call the run: any text.
        run: the id or uid of a run to go on with; where there is none, the new run gets this uid. Several processes
            that give the same write one run.
        fork_of: a run, its id or its uid: this one inherits its points up to and including step `at`. A parent that is
            not in the store yet is waited for.
        at: the fork's step, by default the parent's last. With `run`: rewind it to this step; what it logged past it
            is hidden, and nothing is deleted. A run that is new has nothing to hide.
        tags, notes: for finding it again.
        unit: what a step is: `steps`, `samples` or `tokens`. Of a new project.
        decimals: of steps. Of a new project.
        store: a file, or a database URL; by default $THALWEG_STORE, or `.thalweg/store.db` in the working directory.
        strict: each call is on the disk when it returns, and what cannot be recorded raises.
        system_seconds: how often CPU, memory and GPUs are measured; 0: never.
        code: record the git commit and what has changed since.
    Raises:
        ConfigError: names or a step that cannot work; a fork of nothing at a step.
        StoreError: what is asked for needs a store, and it cannot be opened. A new run never does.
    """
    if at is not None and fork_of is None and run is None:
        raise ConfigError(f"at = {at!r} needs fork_of= (where a fork begins) or run= (where that run goes on)")
    if fork_of is not None and run is not None and at is None:
        raise ConfigError("fork_of= with run= needs at=: a run that is there already is not forked again by chance")
    check_tags(tags)
    if notes is not None:
        check_note(notes)
    location = str(store or os.environ.get("THALWEG_STORE") or DEFAULT_STORE)
    new = NewRun(
        uid=run or uuid.uuid4().hex,
        name=name,
        hyperparameters=flat_hyperparameters(hyperparameters or {}),
        parent=fork_of.uid if isinstance(fork_of, TrackedRun) else fork_of,
        tags=tuple(tags),
        facts=environment(code=code),
    )
    wanted = Wanted(
        project=project,
        new=new,
        at=at,
        unit=unit,
        decimals=decimals,
        notes=notes,
        attach=run is not None,
        strict=strict,
        system_seconds=system_seconds,
    )
    return TrackedRun(open_run(location, wanted))


def continue_best(project: str, metric: str, *, store: str | Path | None = None, **options: Any) -> TrackedRun:
    """Go on from the run whose last value is best: a fork of it at its last step.

    Args:
        metric: "accuracy", or "max val/f1" / "min val/loss" for a name whose direction is not known.
        options: as for `init`.
    Raises:
        ConfigError: no run of the project has such a metric.
    """
    location = str(store or os.environ.get("THALWEG_STORE") or DEFAULT_STORE)
    with Store.open(location, wait_seconds=WAIT_SECONDS) as opened:
        run_id, position = best_last_step(opened, project, metric)
        decimals = opened.study(project).decimals
    return init(project, fork_of=run_id, at=to_step(position, decimals), store=store, **options)


def best_last_step(store: Store, project: str, metric: str) -> tuple[str, int]:
    """The run of a project whose last value of a metric is best, and the position of that value.

    Raises:
        ConfigError: no run has such a metric with a number for its last value.
    """
    wanted = Metric.parse(metric)
    rows = store.run_rows(project)
    scored = [
        (wanted.loss(row.latest[wanted.name][1]), row.number, row.id, row.latest[wanted.name][0])
        for row in rows
        if wanted.name in row.latest
    ]
    scored = [entry for entry in scored if entry[0] < float("inf")]
    if not scored:
        known = {name for row in rows for name in row.latest}
        raise ConfigError(f"no run of {project!r} has a last value of {wanted.name!r}. {nearest(wanted.name, known)}")
    _, _, run_id, position = min(scored)
    return run_id, position
