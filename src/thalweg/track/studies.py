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
from thalweg.track.positions import MAX_DECIMALS
from thalweg.track.records import Request, RequestRecord, SessionRecord, StudyRecord
from thalweg.tree import Ask, Continue, Fork, Pause, Restart, Start, Stop, Unpause

_ASKS: dict[str, type[Ask]] = {
    kind.__name__.lower(): kind for kind in (Start, Continue, Fork, Stop, Restart, Pause, Unpause)
}


def create_study(
    connection: Connection, name: str, config: Mapping[str, Any], *, kind: str = "study", decimals: int = 0
) -> StudyRecord:
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise ConfigError(
            f"{kind} name = {name!r} must be letters, digits, '-', '_', '.' and blanks; for example 'imdb'"
        )
    table = schema.study
    if (found := connection.execute(select(table).where(table.c.name == name)).first()) is not None:
        raise StoreError(f"there is a {found.kind} {name!r} already; go on with it, or choose another name")
    created = time.time()
    entry = {"name": name, "config": encode(config, "config"), "created": created, "kind": kind, "decimals": decimals}
    connection.execute(insert(table).values(entry))
    return read_study(connection, name)


def get_or_create_project(connection: Connection, name: str, unit: str, decimals: int) -> StudyRecord:
    """A project, made where there is none of this name.

    Raises:
        StoreError: a study has this name.
        ConfigError: a name that cannot be part of a file's name, or a number of decimals that is not kept.
    """
    if not 0 <= decimals <= MAX_DECIMALS:
        raise ConfigError(f"decimals = {decimals!r} must be a whole number from 0 to {MAX_DECIMALS}")
    found = connection.execute(select(schema.study).where(schema.study.c.name == name)).first()
    if found is None:
        return create_study(connection, name, {"unit": unit}, kind="project", decimals=decimals)
    if found.kind != "project":
        raise StoreError(
            f"{name!r} is a study, whose runs are made by its search: give the project another name, or fork one of its"
            " runs: thalweg fork"
        )
    return _study(found)


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


def add_request(connection: Connection, study: str, ask: Ask, author: str | None = None) -> int:
    entry = {
        "study_key": find_study(connection, study).key,
        "action": encode({"action": type(ask).__name__.lower()} | dataclasses.asdict(ask), "action"),
        "created": time.time(),
        "author": author,
    }
    inserted = connection.execute(insert(schema.request).values(entry)).inserted_primary_key
    assert inserted is not None
    return int(inserted[0])


def read_pending(connection: Connection, study: str) -> list[Request]:
    table = schema.request
    key = find_study(connection, study).key
    query = select(table).where(table.c.study_key == key, table.c.answered.is_(None)).order_by(table.c.key)
    return [Request(id=row.key, ask=_ask(row.action), author=row.author) for row in connection.execute(query)]


def read_requests(connection: Connection, study: str, limit: int) -> list[RequestRecord]:
    """The newest of all requests, answered or not, the newest first."""
    table = schema.request
    key = find_study(connection, study).key
    query = select(table).where(table.c.study_key == key).order_by(table.c.key.desc()).limit(limit)
    return [
        RequestRecord(
            id=row.key,
            ask=_ask(row.action),
            author=row.author,
            created=row.created,
            answered=row.answered,
            outcome=None if row.outcome is None else decode(row.outcome),
        )
        for row in connection.execute(query)
    ]


def set_paused(connection: Connection, study: str, paused: bool) -> None:
    key = find_study(connection, study).key
    connection.execute(update(schema.study).where(schema.study.c.key == key).values(paused=paused))


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
    config = decode(row.config)
    return StudyRecord(
        name=row.name,
        config=config,
        created=row.created,
        wall_seconds=row.wall_seconds,
        kind=row.kind,
        unit=str(config.get("unit", "steps")),
        decimals=row.decimals,
    )


def _ask(text: str) -> Ask:
    entry = decode(text)
    return _ASKS[entry.pop("action")](**entry)
