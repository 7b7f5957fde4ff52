"""Runs and what belongs to them: reports, checkpoints, what they spent, their test results."""

from __future__ import annotations

import dataclasses
import difflib
import math
import time
from collections.abc import Mapping
from typing import Any, get_args

from sqlalchemy import Connection, Row, Select, bindparam, delete, func, insert, select, update

from thalweg.budget import SPEND_KINDS, Cost, Ledger, SpendKind
from thalweg.errors import ConfigError, StoreError, nearest
from thalweg.track import schema
from thalweg.track.json_text import decode, encode
from thalweg.track.lineage import MAX_POSITION
from thalweg.track.liveness import Process, is_live, this_process
from thalweg.track.records import CheckpointRecord, RunTimes
from thalweg.track.studies import find_study
from thalweg.trainer import Estimate
from thalweg.tree import ENDED, Report, Run, Status, Tree

STATUSES: tuple[Status, ...] = get_args(Status)

_parent = schema.run.alias("parent")
_runs = select(schema.run, _parent.c.id.label("parent_id")).outerjoin(_parent, _parent.c.key == schema.run.c.parent_key)

# A writer carries these out ten times a second: making a statement takes longer than running it.
_by_id = select(schema.run).where(schema.run.c.id == bindparam("run_id"))
_by_id_locked = _by_id.with_for_update()
_add_amounts = (
    update(schema.spend)
    .where(*(schema.spend.c[name] == bindparam(f"at_{name}") for name in ("study_key", "run_id", "kind")))
    .values({f.name: schema.spend.c[f.name] + bindparam(f"more_{f.name}") for f in dataclasses.fields(Cost)})
)


def find_run(connection: Connection, run_id: str, *, lock: bool = False) -> Row[Any]:
    """A run's row.

    Args:
        lock: keep others from changing it until the transaction ends (SQLite's transactions always do).
    Raises:
        StoreError: with the nearest ids.
    """
    found = connection.execute(_by_id_locked if lock else _by_id, {"run_id": run_id}).first()
    if found is None:
        known = connection.execute(select(schema.run.c.id)).scalars().all()
        # A store may hold thousands: name the few that look most like it.
        close = difflib.get_close_matches(run_id, known, n=5, cutoff=0.0)
        raise StoreError(f"unknown run {run_id!r}. {nearest(run_id, close) if close else 'The store holds none'}")
    return found


def create_run(connection: Connection, study: str, fields: Mapping[str, Any]) -> Run:
    """Enter a run; its number and id are taken within the transaction, so that no two processes get the same."""
    study_row = find_study(connection, study, lock=True)
    parent_id = fields["parent"]
    parent = None if parent_id is None else find_run(connection, parent_id, lock=True)
    if parent is not None and parent.study_key != study_row.key:
        raise StoreError(f"run {parent_id!r} belongs to another study than {study!r}: a fork stays in its study")
    number = study_row.num_created
    entry = {
        "id": f"{study}-{number}",
        "study_key": study_row.key,
        "number": number,
        "hyperparameters": encode(fields["hyperparameters"], "hyperparameters"),
        "origin": fields["origin"],
        "status": "pending",
        "created": (now := time.time()),
        "updated": now,
    }
    entry |= {name: as_position(name, fields[name]) for name in ("horizon", "until", "seed", "fork_position")}
    if parent is None and entry["fork_position"]:
        raise ConfigError(f"fork_position = {entry['fork_position']} needs a parent: a root begins at 0")
    if parent is not None:
        entry |= {"parent_key": parent.key, "parent_generation": parent.generation}
    # A fork stands where its parent's checkpoint is.
    entry["position"] = entry["fork_position"]
    table = schema.study
    connection.execute(update(table).where(table.c.key == study_row.key).values(num_created=number + 1))
    connection.execute(insert(schema.run).values(entry))
    return read_run(connection, entry["id"])


def changed(
    *, status: Status | None = None, until: int | None = None, position: int | None = None, error: str | None = None
) -> dict[str, Any]:
    """The columns that change with what is not None."""
    values: dict[str, Any] = {}
    for name, number in (("until", until), ("position", position)):
        if number is not None:
            values[name] = as_position(name, number)
    if error is not None:
        values["error"] = encode(error, "error")
    if status is not None:
        if status not in STATUSES:
            raise ConfigError(f"unknown status {status!r}. {nearest(status, STATUSES)}")
        values["status"] = status
        # A run that is taken up again has not ended.
        values["ended"] = time.time() if status in ENDED else None
    return values


def update_run(connection: Connection, run_id: str, values: Mapping[str, Any]) -> Run:
    """Change columns of a run."""
    row = find_run(connection, run_id, lock=True)
    # Until its writer opens, the process that says a run is running answers for it.
    occupied = occupied_by(this_process()) if values.get("status") == "running" else {}
    if values:
        values = {**values, **occupied, "updated": time.time()}
        connection.execute(update(schema.run).where(schema.run.c.key == row.key).values(values))
    return read_run(connection, run_id)


def occupied_by(process: Process) -> dict[str, Any]:
    """The columns that say which process has a run, as of now."""
    return {"host": process.host, "pid": process.pid, "pid_started": process.started, "heartbeat": time.time()}


def read_run(connection: Connection, run_id: str) -> Run:
    key = find_run(connection, run_id).key
    row = connection.execute(_runs.where(schema.run.c.key == key)).one()
    return _run(row, _reports(connection, select(schema.report).where(schema.report.c.run_key == key)).get(key, {}))


def read_tree(connection: Connection, study: str) -> Tree:
    key = find_study(connection, study).key
    of_study = select(schema.run.c.key).where(schema.run.c.study_key == key)
    reports = _reports(connection, select(schema.report).where(schema.report.c.run_key.in_(of_study)))
    rows = connection.execute(_runs.where(schema.run.c.study_key == key))
    return Tree.of([_run(row, reports.get(row.key, {})) for row in rows])


def delete_run(connection: Connection, run_id: str) -> None:
    row = find_run(connection, run_id, lock=True)
    children = connection.execute(select(schema.run.c.id).where(schema.run.c.parent_key == row.key)).scalars().all()
    if children:
        raise StoreError(
            f"run {run_id!r} has children ({', '.join(sorted(children)[:5])}), whose curves begin with its"
            " points: delete them first, or let them keep a copy (materialise)"
        )
    refuse_live(connection, run_id)
    for table in schema.OF_A_RUN:
        connection.execute(delete(table).where(table.c.run_key == row.key))
    connection.execute(delete(schema.run).where(schema.run.c.key == row.key))


def refuse_live(connection: Connection, run_id: str) -> None:
    """Refuse to go on with a run that a process is writing."""
    if find_run(connection, run_id).status == "running" and read_times(connection, run_id).live:
        raise StoreError(f"run {run_id!r} is being trained; stop it first: thalweg stop {run_id}")


def read_study_name(connection: Connection, run_id: str) -> str:
    key = find_run(connection, run_id).study_key
    return str(connection.execute(select(schema.study.c.name).where(schema.study.c.key == key)).scalar_one())


def read_times(connection: Connection, run_id: str) -> RunTimes:
    row = find_run(connection, run_id)
    live = row.pid is not None and is_live(Process(row.host, row.pid, row.pid_started), row.heartbeat)
    live = live or any(is_live(process, beat) for process, beat in _open_writers(connection, row.key))
    return RunTimes(created=row.created, started=row.started, ended=row.ended, heartbeat=row.heartbeat, live=live)


def _open_writers(connection: Connection, run_key: int) -> list[tuple[Process, float]]:
    table = schema.writer
    found = connection.execute(select(table).where(table.c.run_key == run_key, table.c.closed.is_(None)))
    return [(Process(row.host, row.pid, row.pid_started), row.heartbeat) for row in found]


def read_ledger(connection: Connection, study: str) -> Ledger:
    row = find_study(connection, study)
    spent: dict[str, dict[SpendKind, Cost]] = {}
    amounts = [field.name for field in dataclasses.fields(Cost)]
    for entry in connection.execute(select(schema.spend).where(schema.spend.c.study_key == row.key)).mappings():
        spent.setdefault(entry["run_id"], {})[entry["kind"]] = Cost(**{name: entry[name] for name in amounts})
    forked = schema.run.c.parent_key.is_not(None)
    forks = select(func.count()).select_from(schema.run).where(schema.run.c.study_key == row.key, forked)
    return Ledger(spent, row.num_created, row.wall_seconds, connection.execute(forks).scalar_one())


def add_spend(connection: Connection, run: Row[Any], spent: Mapping[SpendKind, Cost]) -> None:
    """Add to what a run has spent."""
    for kind, cost in spent.items():
        amounts = vars(cost)
        place = {"study_key": run.study_key, "run_id": run.id, "kind": kind}
        values = {f"at_{name}": value for name, value in place.items()}
        values |= {f"more_{name}": amount for name, amount in amounts.items()}
        if not connection.execute(_add_amounts, values).rowcount:
            connection.execute(insert(schema.spend).values(place | amounts))


def check_spend(kind: str, cost: Cost) -> None:
    """Refuse a kind that does not exist, and amounts that cannot be."""
    if kind not in SPEND_KINDS:
        raise ConfigError(f"unknown kind of spending {kind!r}. {nearest(kind, SPEND_KINDS)}")
    # Not `asdict`, which copies: a trainer enters each of its steps.
    for name, amount in vars(cost).items():
        if not 0 <= amount < (MAX_POSITION if name in ("samples", "tokens") else math.inf):
            raise ConfigError(f"spend: {name} = {amount!r} must be a finite number, zero or above")


def add_report(connection: Connection, run_key: int, position: int, metrics: Mapping[str, float], when: float) -> None:
    entry = {"run_key": run_key, "position": position, "metrics": encode(metrics, "metrics"), "created": when}
    connection.execute(insert(schema.report).values(entry))


def add_checkpoint(connection: Connection, run_key: int, record: CheckpointRecord) -> None:
    """Record a checkpoint; one at the same position is replaced."""
    drop_checkpoint(connection, run_key, record.position)
    connection.execute(insert(schema.checkpoint).values(dataclasses.asdict(record) | {"run_key": run_key}))


def has_fork(connection: Connection, run_key: int, position: int) -> bool:
    """Whether a child begins at a position of a run."""
    children = select(schema.run.c.key).where(
        schema.run.c.parent_key == run_key, schema.run.c.fork_position == position
    )
    return connection.execute(children).first() is not None


def drop_checkpoint(connection: Connection, run_key: int, position: int) -> bool:
    table = schema.checkpoint
    dropped = connection.execute(delete(table).where(table.c.run_key == run_key, table.c.position == position))
    return bool(dropped.rowcount)


def read_checkpoints(connection: Connection, run_key: int) -> list[CheckpointRecord]:
    table = schema.checkpoint
    columns = [table.c[field.name] for field in dataclasses.fields(CheckpointRecord)]
    query = select(*columns).where(table.c.run_key == run_key).order_by(table.c.position)
    return [CheckpointRecord(**row) for row in connection.execute(query).mappings()]


def record_test(connection: Connection, run_key: int, position: int, metrics: Mapping[str, Estimate]) -> None:
    """Keep a held-back result; one that the run has already is replaced."""
    table = schema.test_result
    connection.execute(delete(table).where(table.c.run_key == run_key))
    text = encode({name: dataclasses.asdict(estimate) for name, estimate in metrics.items()}, "test metrics")
    entry = {"run_key": run_key, "position": as_position("position", position), "metrics": text, "created": time.time()}
    connection.execute(insert(table).values(entry))


def read_tests(connection: Connection, study: str) -> dict[str, tuple[int, dict[str, Estimate]]]:
    key = find_study(connection, study).key
    table = schema.test_result
    query = select(schema.run.c.id, table.c.position, table.c.metrics).join_from(table, schema.run)
    rows = connection.execute(query.where(schema.run.c.study_key == key).order_by(schema.run.c.number))
    return {
        run_id: (position, {name: Estimate(**entry) for name, entry in decode(text).items()})
        for run_id, position, text in rows
    }


def _reports(connection: Connection, query: Select[Any]) -> dict[int, dict[int, Report]]:
    """Run key -> position -> the last report there that no cut hides."""
    found: dict[int, dict[int, Report]] = {}
    for row in connection.execute(query.where(schema.report.c.hidden.is_(False)).order_by(schema.report.c.key)):
        found.setdefault(row.run_key, {})[row.position] = Report(row.position, decode(row.metrics))
    return found


def _run(row: Row[Any], reports: Mapping[int, Report]) -> Run:
    return Run(
        id=row.id,
        number=row.number,
        hyperparameters=decode(row.hyperparameters),
        horizon=row.horizon,
        until=row.until,
        seed=row.seed,
        parent=row.parent_id,
        fork_position=row.fork_position,
        status=row.status,
        position=row.position,
        reports=tuple(reports[position] for position in sorted(reports)),
        origin=row.origin,
        error=None if row.error is None else decode(row.error),
    )


def as_position(name: str, value: Any) -> int:
    """A whole number that a store can hold; ConfigError for anything else."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= int(value) <= MAX_POSITION:
        raise ConfigError(f"{name} = {value!r} must be a whole number from 0 to 2**63 - 1")
    return int(value)
