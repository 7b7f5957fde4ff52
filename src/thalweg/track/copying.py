"""Points that come in whole: from another tracker, or from a parent that is to be deleted."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, insert, select, update

from thalweg.errors import ConfigError
from thalweg.track import compaction, curves, schema
from thalweg.track.batches import Latest, latest_points
from thalweg.track.calls import SYSTEM, check_names
from thalweg.track.curves import Wanted
from thalweg.track.json_text import decode, encode
from thalweg.track.lineage import read_lineage
from thalweg.track.runs import find_run
from thalweg.track.series import Points, Series, journal_layout, pack, settle


def import_points(connection: Connection, run_id: str, metric: str, points: Points) -> int:
    """Add those points that a run does not have already, bit for bit. Returns how many that were."""
    check_names([metric])
    if len({len(points.positions), len(points.times), len(points.values)}) != 1:
        raise ConfigError(f"{metric}: positions, times and values must be equally many")
    if len(points) and int(points.positions.min()) < 0:
        raise ConfigError(f"{metric}: position {int(points.positions.min())} must not be negative")
    row = find_run(connection, run_id, lock=True)
    compaction.compact(connection, row.key)
    settled = settle(points)
    own = curves.read_series(connection, Wanted(row.key, metric, inherited=False))
    new = settled.take(~_has(own, settled))
    if not len(new):
        return 0
    place = {"run_key": row.key, "metric": metric, "generation": row.generation}
    connection.execute(insert(schema.chunk), [compaction.as_row(chunk) | place for chunk in pack(new)])
    _note_latest(connection, row.key, metric, (int(settled.positions[-1]), float(settled.values[-1])))
    return len(new)


def _has(own: Series, points: Points) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the points the curve holds with the same value, bit for bit."""
    if not len(own):
        return np.zeros(len(points), bool)
    places = np.minimum(np.searchsorted(own.positions, points.positions), len(own) - 1)
    there = own.positions[places] == points.positions
    same = own.values[places].view(np.int64) == np.ascontiguousarray(points.values).view(np.int64)
    return np.asarray(there & same)


def _note_latest(connection: Connection, run_key: int, metric: str, point: tuple[int, float]) -> None:
    row = connection.execute(select(schema.run).where(schema.run.c.key == run_key)).one()
    latest = {} if row.latest is None else decode(row.latest)
    entry = {metric: point}
    # The same rule as for what is logged: the machine's own metrics are not part of a run's last values.
    packed = journal_layout(1).pack(point[0], 0, point[1])
    if not latest_points([(json.dumps([metric]), 1, packed)]):
        entry = {}
    values = {"latest": encode({**latest, **entry}, "latest"), "updated": time.time()}
    if entry:
        values["position"] = max(row.position, point[0])
    connection.execute(update(schema.run).where(schema.run.c.key == run_key).values(values))


def forget_hidden(connection: Connection, run_key: int) -> None:
    """After a cut: a run's last points are those that can still be seen."""
    latest: Latest = {}
    for metric in curves.read_metrics(connection, run_key, inherited=False):
        own = curves.read_series(connection, Wanted(run_key, metric, inherited=False))
        packed = journal_layout(1).pack(int(own.positions[-1]), 0, float(own.values[-1]))
        latest |= latest_points([(json.dumps([metric]), 1, packed)])
    run = schema.run
    row = connection.execute(select(run).where(run.c.key == run_key)).one()
    kind = select(schema.study.c.kind).where(schema.study.c.key == row.study_key)
    values: dict[str, Any] = {"latest": encode(latest, "latest"), "updated": time.time()}
    if connection.execute(kind).scalar_one() == "project":
        # It stands where its last point is; a study's run stands where its loop says.
        values["position"] = max([row.fork_position, *(position for position, _ in latest.values())])
    connection.execute(update(run).where(run.c.key == run_key).values(values))


def give_children_their_past(connection: Connection, run_id: str) -> None:
    """Copy into each child of a run what it inherits from it, so that the run can go.

    The children become forks of the run's own parent, up to the lower of the two forks, or roots. Where an ancestor was
    ever rewound, what each of its descendants saw then depends on where they were forked: there, all that a child
    inherits is copied, and it becomes a root.
    """
    run = schema.run
    row = find_run(connection, run_id, lock=True)
    ancestors = read_lineage(connection, row.key)[:-1]
    to_root = not ancestors or any(link.generation for link in ancestors)
    copied = [run_id, *(link.run_id for link in ancestors)] if to_root else [run_id]
    for child in connection.execute(select(run).where(run.c.parent_key == row.key)).all():
        compaction.compact(connection, child.key)
        for metric in curves.read_metrics(connection, child.key, inherited=True):
            _copy_inherited(connection, child.key, metric, copied)
        values = {
            "parent_key": None if to_root else row.parent_key,
            "parent_generation": 0 if to_root else row.parent_generation,
            "fork_position": 0 if to_root else min(child.fork_position, row.fork_position),
            "waiting_parent": row.waiting_parent,
            "updated": time.time(),
        }
        connection.execute(update(run).where(run.c.key == child.key).values(values))


def _copy_inherited(connection: Connection, child_key: int, metric: str, from_runs: Sequence[str]) -> None:
    """The points of some ancestors in a run's curve become the run's own."""
    whole = curves.read_series(connection, Wanted(child_key, metric))
    places = [whole.runs.index(name) for name in from_runs]
    inherited = np.isin(whole.owners, places)
    if metric.startswith(SYSTEM) or not inherited.any():
        return
    times = np.round(whole.times[inherited] * 1000).astype(np.int64)
    points = Points(whole.positions[inherited], times, whole.values[inherited])
    # Of the first generation, so that forks of the child that began before a rewind of it see them, too.
    place = {"run_key": child_key, "metric": metric, "generation": 0}
    connection.execute(insert(schema.chunk), [compaction.as_row(chunk) | place for chunk in pack(points)])
