"""Where a tracked run begins: in its store, or in a spool where the store cannot be reached."""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from thalweg.errors import ConfigError, StoreError
from thalweg.track.machine import user
from thalweg.track.offline import SpoolWriter
from thalweg.track.positions import Step, to_position
from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.track.writer import RunWriter

DEFAULT_STORE = ".thalweg/store.db"

WAIT_SECONDS = 2.0
"""How long a call waits for a store that another process holds, before it uses a spool."""

_log = logging.getLogger("thalweg")


@dataclasses.dataclass
class Opened:
    """What a tracked run stands on."""

    id: str
    uid: str
    project: str
    location: str
    hyperparameters: dict[str, Any]
    decimals: int
    fork_position: int
    forked: bool
    last: int | None
    """The last position that was logged before."""
    created: float
    """Seconds since 1970."""
    store: Store | None
    writer: RunWriter | SpoolWriter
    strict: bool
    system_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `thalweg.init` was asked for."""

    project: str
    new: NewRun
    at: Step | None
    unit: str
    decimals: int
    notes: str | None
    attach: bool
    """Whether a run of this uid is gone on with."""
    strict: bool
    system_seconds: float


def open_run(location: str, wanted: Wanted) -> Opened:
    """A run in its store, or, where the store cannot be reached now, in a spool.

    Raises:
        ConfigError, StoreError: see `thalweg.init`.
    """
    try:
        return _open(location, wanted)
    except StoreError as error:
        if not _is_out_of_reach(error):
            raise
        return _open_offline(location, wanted, error)


def _open(location: str, wanted: Wanted) -> Opened:
    store = Store.open(location, wait_seconds=WAIT_SECONDS)
    try:
        for merged in store.merge_spools():
            level = logging.WARNING if merged.problem else logging.INFO
            _log.log(level, "spool %s: %s", merged.path, merged.problem or f"{merged.num_calls} calls are in the store")
        record = store.create_project(wanted.project, unit=wanted.unit, decimals=wanted.decimals)
        run_id = _enter(store, record.decimals, wanted)
        row = store.run_details(run_id).row
        writer = store.writer(run_id, strict=wanted.strict, spool=True)
    except BaseException:
        store.close()
        raise
    forked = row.parent is not None or row.waiting_parent is not None
    return Opened(
        id=run_id,
        uid=row.uid,
        project=wanted.project,
        location=location,
        hyperparameters=dict(row.hyperparameters),
        decimals=record.decimals,
        fork_position=row.fork_position,
        forked=forked,
        last=row.position if row.latest else None,
        created=row.created,
        store=store,
        writer=writer,
        strict=wanted.strict,
        system_seconds=wanted.system_seconds,
    )


def _enter(store: Store, decimals: int, wanted: Wanted) -> str:
    """The run in the store: a new one, or the one of this uid, rewound where that is asked for."""
    new, at = wanted.new, None if wanted.at is None else to_position(wanted.at, decimals)
    if new.parent is not None:
        new = dataclasses.replace(
            new,
            fork_position=_last_position(store, wanted) if at is None else at,
            hyperparameters={**_hyperparameters(store, wanted.project, new.parent), **new.hyperparameters},
        )
    run_id, created = store.track_run(wanted.project, new)
    if not created:
        if at is not None and new.parent is None:
            _rewind(store, run_id, at)
        store.reopen_run(run_id)
        if new.hyperparameters:
            store.set_hyperparameters(run_id, new.hyperparameters)
        if new.tags:
            store.set_tags(run_id, new.tags, add=True)
    if wanted.notes:
        store.add_note(run_id, wanted.notes, user())
    return run_id


def _hyperparameters(store: Store, project: str, parent: str) -> Mapping[str, Any]:
    """A fork has its parent's hyperparameters, but those that it changes."""
    known = store.find_run(project, parent)
    return {} if known is None else store.run_details(known).row.hyperparameters


def _rewind(store: Store, run_id: str, position: int) -> None:
    if store.run_details(run_id).row.status == "running" and store.run_times(run_id).live:
        raise ConfigError(f"run {run_id} is being written by a process now: end that first, or fork the run")
    store.cut(run_id, position)


def _last_position(store: Store, wanted: Wanted) -> int:
    assert wanted.new.parent is not None
    parent = store.find_run(wanted.project, wanted.new.parent)
    if parent is None:
        raise ConfigError(
            f"fork_of = {wanted.new.parent!r} is not in project {wanted.project!r} yet, so its last step is not known:"
            " say where the fork begins by at="
        )
    return store.run_details(parent).row.position


def _is_out_of_reach(error: StoreError) -> bool:
    """Whether a store cannot be reached now, in contrast to what will never work."""
    refused = isinstance(error.__cause__, OperationalError | sqlite3.OperationalError)
    return refused or "its folder cannot be made" in str(error)


def _open_offline(location: str, wanted: Wanted, error: StoreError) -> Opened:
    if wanted.attach and wanted.at is not None:
        raise error
    if wanted.new.parent is not None and wanted.at is None:
        raise error
    fork_position = 0 if wanted.at is None else to_position(wanted.at, wanted.decimals)
    new = dataclasses.replace(wanted.new, fork_position=fork_position)
    project = {"name": wanted.project, "unit": wanted.unit, "decimals": wanted.decimals}
    place = location if "://" in location else str(Path(location).expanduser().absolute())
    writer = SpoolWriter(place, {"project": project, "run": dataclasses.asdict(new)}, strict=wanted.strict)
    _log.warning(
        "the store cannot be opened, so the run is kept in %s and merged into it later: %s", writer.path, error
    )
    return Opened(
        id=f"{wanted.project}~{new.uid[:8]}",
        uid=new.uid,
        project=wanted.project,
        location=location,
        hyperparameters=dict(new.hyperparameters),
        decimals=wanted.decimals,
        fork_position=fork_position,
        forked=new.parent is not None,
        last=None,
        created=time.time(),
        store=None,
        writer=writer,
        strict=wanted.strict,
        system_seconds=wanted.system_seconds,
    )
