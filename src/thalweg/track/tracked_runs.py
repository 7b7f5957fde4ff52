"""Runs that are tracked from a person's own code: entered, found again by their uid, listed, described."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from thalweg.errors import ConfigError, StoreError
from thalweg.space import Hyperparameters
from thalweg.track import schema
from thalweg.track.json_text import decode, encode
from thalweg.track.lineage import read_lineage
from thalweg.track.liveness import Process, is_live
from thalweg.track.records import NewRun, Note, RunRow
from thalweg.track.runs import as_position, find_run
from thalweg.track.studies import find_study

_run, _parent = schema.run, schema.run.alias("parent")


def track_run(connection: Connection, project: str, new: NewRun) -> tuple[str, bool]:
    """Enter a run, unless one of its uid, or with that for its id, is there. Returns its id, and whether it is new."""
    study = find_study(connection, project, lock=True)
    if study.kind != "project":
        raise StoreError(f"{project!r} is a study, whose runs are made by its search; track runs in a project")
    check_tags(new.tags)
    if not new.uid:
        raise ConfigError("uid = '' must not be empty: it is how the run is found again")
    known = find_by_uid(connection, study.key, new.uid)
    if known is not None:
        return str(known.id), False
    number = study.num_created
    now = time.time()
    run_id = f"{project}-{number}"
    entry: dict[str, Any] = {
        "id": run_id,
        "study_key": study.key,
        "number": number,
        "hyperparameters": encode(new.hyperparameters, "hyperparameters"),
        "horizon": 0,
        "until": 0,
        "seed": 0,
        "origin": "tracked",
        "status": new.status,
        "created": now if new.created is None else new.created,
        "started": new.started,
        "ended": new.ended,
        "error": None if new.error is None else encode(new.error, "error"),
        "name": new.name,
        "uid": new.uid,
        "tags": encode(list(new.tags), "tags"),
        "facts": encode(new.facts, "facts"),
        "updated": now,
    }
    entry["fork_position"] = entry["position"] = as_position("fork_position", new.fork_position)
    entry |= _parent_columns(connection, study.key, new)
    table = schema.study
    connection.execute(update(table).where(table.c.key == study.key).values(num_created=number + 1))
    key = connection.execute(insert(_run).values(entry)).inserted_primary_key
    assert key is not None
    _adopt(connection, study.key, int(key[0]), {new.uid, run_id})
    return run_id, True


def find_by_uid(connection: Connection, study_key: int, uid: str) -> Row[Any] | None:
    """A run of a study by its uid or its id."""
    query = select(_run).where(_run.c.study_key == study_key, or_(_run.c.uid == uid, _run.c.id == uid))
    return connection.execute(query).first()


def _parent_columns(connection: Connection, study_key: int, new: NewRun) -> dict[str, Any]:
    if new.parent is None:
        if new.fork_position:
            raise ConfigError(f"fork_position = {new.fork_position} needs a parent: a root begins at 0")
        return {}
    parent = find_by_uid(connection, study_key, new.parent)
    if parent is None:
        return {"waiting_parent": new.parent}
    return {"parent_key": parent.key, "parent_generation": parent.generation}


def _adopt(connection: Connection, study_key: int, key: int, names: Iterable[str]) -> None:
    """Give the forks that wait for a run their parent."""
    waiting = select(_run.c.key).where(_run.c.study_key == study_key, _run.c.waiting_parent.in_(list(names)))
    ancestors = {link.key for link in read_lineage(connection, key)}
    for child in connection.execute(waiting).scalars().all():
        # Two runs that each say that they are a fork of the other have no history: the first to come stays a root.
        if child not in ancestors:
            values = {"parent_key": key, "parent_generation": 0, "waiting_parent": None}
            connection.execute(update(_run).where(_run.c.key == child).values(values))


def read_rows(connection: Connection, study: str) -> list[RunRow]:
    """All runs of a study or project, by order of creation."""
    return _rows(connection, _run.c.study_key == find_study(connection, study).key)


def read_row(connection: Connection, run_id: str) -> RunRow:
    """One run."""
    return _rows(connection, _run.c.key == find_run(connection, run_id).key)[0]


# All but `facts`, which may hold long texts.
_listed = select(*(column for column in _run.c if column.name != "facts"), _parent.c.id.label("parent_id")).outerjoin(
    _parent, _parent.c.key == _run.c.parent_key
)


def _rows(connection: Connection, which: Any) -> list[RunRow]:
    rows: list[Any] = list(connection.execute(_listed.where(which).order_by(_run.c.number)))
    counts = select(schema.note.c.run_key, func.count()).join_from(schema.note, _run).where(which)
    notes = {row[0]: row[1] for row in connection.execute(counts.group_by(schema.note.c.run_key))}
    live = _live(connection, [row for row in rows if row.status == "running"])
    columns = [
        _decode_all([getattr(row, name) or empty for row in rows])
        for name, empty in (("hyperparameters", "{}"), ("latest", "{}"), ("tags", "[]"))
    ]
    return [
        _row(row, hyperparameters, latest, tags, notes.get(row.key, 0), row.key in live)
        for row, hyperparameters, latest, tags in zip(rows, *columns, strict=True)
    ]


def _decode_all(texts: Sequence[str]) -> list[Any]:
    """Many JSON texts in one go, which takes half the time."""
    return list(decode(f"[{','.join(texts)}]"))


def _live(connection: Connection, running: Sequence[Row[Any]]) -> set[int]:
    """The keys of those running runs that a process has."""
    found = {row.key for row in running if row.pid is not None and _is_live(row)}
    rest = [row.key for row in running if row.key not in found]
    if rest:
        writers = select(schema.writer).where(schema.writer.c.closed.is_(None))
        for row in connection.execute(writers):
            if row.run_key not in found and _is_live(row):
                found.add(row.run_key)
    return found


def _is_live(row: Row[Any]) -> bool:
    return is_live(Process(row.host, row.pid, row.pid_started), row.heartbeat)


def _row(
    row: Row[Any],
    hyperparameters: dict[str, Any],
    latest: dict[str, tuple[int, float]],
    tags: list[str],
    num_notes: int,
    live: bool,
) -> RunRow:
    return RunRow(
        id=row.id,
        number=row.number,
        name=row.name,
        uid=row.id if row.uid is None else row.uid,
        status="crashed" if row.status == "running" and not live else row.status,
        parent=row.parent_id,
        waiting_parent=row.waiting_parent,
        fork_position=row.fork_position,
        position=row.position,
        horizon=row.horizon,
        origin=row.origin,
        tags=tuple(tags),
        hyperparameters=hyperparameters,
        latest={name: (at, value) for name, (at, value) in latest.items()},
        created=row.created,
        started=row.started,
        ended=row.ended,
        updated=row.updated,
        num_notes=num_notes,
        error=None if row.error is None else decode(row.error),
    )


def read_facts(connection: Connection, run_id: str) -> dict[str, Any]:
    text = find_run(connection, run_id).facts
    return {} if text is None else dict(decode(text))


def read_children(connection: Connection, run_key: int) -> list[str]:
    query = select(_run.c.id).where(_run.c.parent_key == run_key).order_by(_run.c.number)
    return list(connection.execute(query).scalars())


def read_notes(connection: Connection, run_key: int) -> list[Note]:
    table = schema.note
    rows = connection.execute(select(table).where(table.c.run_key == run_key).order_by(table.c.key))
    return [Note(row.text, row.author, row.created) for row in rows]


def check_note(text: str) -> None:
    """Refuse a note that says nothing."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"note {text!r} must be a text that is not empty")


def check_tags(tags: Sequence[str]) -> None:
    """Refuse what is no tag."""
    if isinstance(tags, str):
        raise ConfigError(f"tags = {tags!r} must be a list, such as [{tags!r}]")
    if wrong := [tag for tag in tags if not isinstance(tag, str) or not tag.strip()]:
        raise ConfigError(f"tag {wrong[0]!r} must be a text that is not empty")


def add_note(connection: Connection, run_id: str, text: str, author: str | None) -> None:
    check_note(text)
    key, now = find_run(connection, run_id, lock=True).key, time.time()
    connection.execute(insert(schema.note).values(run_key=key, text=text, author=author, created=now))
    _change(connection, key, {})


def set_tags(connection: Connection, run_id: str, tags: Sequence[str], *, add: bool = False) -> None:
    check_tags(tags)
    row = find_run(connection, run_id, lock=True)
    before = decode(row.tags) if add and row.tags is not None else []
    _change(connection, row.key, {"tags": encode(list(dict.fromkeys([*before, *tags])), "tags")})


def rename(connection: Connection, run_id: str, name: str | None) -> None:
    _change(connection, find_run(connection, run_id, lock=True).key, {"name": name or None})


def set_hyperparameters(connection: Connection, run_id: str, changes: Hyperparameters) -> None:
    row = find_run(connection, run_id, lock=True)
    merged = {**decode(row.hyperparameters), **changes}
    _change(connection, row.key, {"hyperparameters": encode(merged, "hyperparameters")})


def reopen(connection: Connection, run_id: str) -> None:
    """A run that had ended goes on."""
    _change(
        connection, find_run(connection, run_id, lock=True).key, {"status": "running", "ended": None, "error": None}
    )


def read_changes(connection: Connection, since: float) -> list[tuple[str, str, float]]:
    query = select(schema.study.c.name, _run.c.id, _run.c.updated).join_from(_run, schema.study)
    rows = connection.execute(query.where(_run.c.updated >= since).order_by(_run.c.updated))
    return [(study, run_id, updated) for study, run_id, updated in rows]


def _change(connection: Connection, key: int, values: Mapping[str, Any]) -> None:
    connection.execute(update(_run).where(_run.c.key == key).values({**values, "updated": time.time()}))
