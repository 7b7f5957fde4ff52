"""Studies, the sessions that run them, and the requests that people leave for them."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from thalweg.errors import ConfigError, StoreError, nearest
from thalweg.track import schema
from thalweg.track.json_text import decode, encode
from thalweg.track.liveness import Process, is_live
from thalweg.track.records import Request, SessionRecord, StudyRecord
from thalweg.tree import Action, Continue, Fork, Start, Stop

_ACTIONS: dict[str, type[Start] | type[Continue] | type[Fork] | type[Stop]] = {
    "start": Start,
    "continue": Continue,
    "fork": Fork,
    "stop": Stop,
}


def create_study(connection: Connection, name: str, config: Mapping[str, Any]) -> StudyRecord:
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise ConfigError(
            f"study name = {name!r} must be letters, digits, '-', '_', '.' and blanks; for example 'imdb'"
        )
    table = schema.study
    if connection.execute(select(table.c.key).where(table.c.name == name)).first():
        raise StoreError(f"there is a study {name!r} already; go on with it, or choose another name")
    created = time.time()
    connection.execute(insert(table).values(name=name, config=encode(config, "config"), created=created))
    return read_study(connection, name)


def read_studies(connection: Connection) -> list[StudyRecord]:
    return [_study(row) for row in connection.execute(select(schema.study).order_by(schema.study.c.key))]


def read_study(connection: Connection, name: str) -> StudyRecord:
    return _study(find_study(connection, name))


def find_study(connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    """A study's row.

    Args:
        lock: keep others from changing it until the transaction ends (SQLite's transactions always do).
    Raises:
        StoreError: with the nearest names.
    """
    query = select(schema.study).where(schema.study.c.name == name)
    found = connection.execute(query.with_for_update() if lock else query).first()
    if found is None:
        names = connection.execute(select(schema.study.c.name)).scalars().all()
        raise StoreError(f"unknown study {name!r}. {nearest(name, names) if names else 'The store holds none'}")
    return found


def update_study(connection: Connection, name: str, config: Mapping[str, Any]) -> None:
    key = find_study(connection, name).key
    connection.execute(update(schema.study).where(schema.study.c.key == key).values(config=encode(config, "config")))


def open_session(connection: Connection, study: str, process: Process) -> int:
    """Enter a session; returns its key."""
    key = find_study(connection, study, lock=True).key
    live = read_live_session(connection, study)
    if live is not None:
        raise StoreError(
            f"study {study!r} is run by process {live.pid} on {live.host} already. Wait for it or stop it (kill"
            f" {live.pid}), or leave it requests: thalweg stop, thalweg fork"
        )
    now = time.time()
    entry = dataclasses.asdict(process) | {"study_key": key, "opened": now, "heartbeat": now}
    entry["pid_started"] = entry.pop("started")
    inserted = connection.execute(insert(schema.session).values(entry)).inserted_primary_key
    assert inserted is not None
    return int(inserted[0])


def beat_session(connection: Connection, key: int) -> None:
    connection.execute(update(schema.session).where(schema.session.c.key == key).values(heartbeat=time.time()))


def close_session(connection: Connection, key: int) -> None:
    connection.execute(update(schema.session).where(schema.session.c.key == key).values(closed=time.time()))


def add_wall_seconds(connection: Connection, session_key: int, seconds: float) -> None:
    of_session = select(schema.session.c.study_key).where(schema.session.c.key == session_key)
    table = schema.study
    connection.execute(
        update(table)
        .where(table.c.key == of_session.scalar_subquery())
        .values(wall_seconds=table.c.wall_seconds + seconds)
    )


def read_live_session(connection: Connection, study: str) -> SessionRecord | None:
    table = schema.session
    key = find_study(connection, study).key
    open_ones = select(table).where(table.c.study_key == key, table.c.closed.is_(None)).order_by(table.c.key.desc())
    for row in connection.execute(open_ones):
        if is_live(Process(row.host, row.pid, row.pid_started), row.heartbeat):
            return SessionRecord(study=study, host=row.host, pid=row.pid, opened=row.opened, heartbeat=row.heartbeat)
    return None


def add_request(connection: Connection, study: str, action: Action) -> int:
    entry = {
        "study_key": find_study(connection, study).key,
        "action": encode({"action": type(action).__name__.lower()} | dataclasses.asdict(action), "action"),
        "created": time.time(),
    }
    inserted = connection.execute(insert(schema.request).values(entry)).inserted_primary_key
    assert inserted is not None
    return int(inserted[0])


def read_pending(connection: Connection, study: str) -> list[Request]:
    table = schema.request
    key = find_study(connection, study).key
    query = select(table).where(table.c.study_key == key, table.c.answered.is_(None)).order_by(table.c.key)
    return [Request(id=row.key, action=_action(decode(row.action))) for row in connection.execute(query)]


def answer_request(connection: Connection, request_id: int, outcome: str) -> None:
    table = schema.request
    changed = connection.execute(
        update(table)
        .where(table.c.key == request_id, table.c.answered.is_(None))
        .values(answered=time.time(), outcome=encode(outcome, "outcome"))
    )
    if not changed.rowcount:
        raise StoreError(f"there is no request {request_id} that waits for an answer; see pending_requests")


def _study(row: Row[Any]) -> StudyRecord:
    return StudyRecord(name=row.name, config=decode(row.config), created=row.created, wall_seconds=row.wall_seconds)


def _action(entry: dict[str, Any]) -> Action:
    kind = entry.pop("action")
    return _ACTIONS[kind](**entry)
