"""Is everything in a store as it must be?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from sqlalchemy import Connection, func, select

from thalweg.errors import StoreError
from thalweg.track import schema
from thalweg.track.compaction import PACKED
from thalweg.track.json_text import decode
from thalweg.track.series import CHUNK_POINTS, Chunk, summarise, unpack, unpack_journal


def find_problems(connection: Connection) -> Iterator[str]:
    """What contradicts itself, one sentence each."""
    yield from _chunk_problems(connection)
    yield from _journal_problems(connection)
    yield from _run_problems(connection)
    yield from _json_problems(connection)


def _chunk_problems(connection: Connection) -> Iterator[str]:
    query = select(schema.chunk.c.key, schema.run.c.id, schema.chunk.c.metric, *PACKED)
    for key, run_id, metric, *packed in connection.execute(query.join_from(schema.chunk, schema.run)):
        problem = _chunk_problem(Chunk(*packed))
        if problem:
            yield f"chunk {key} of run {run_id}, metric {metric}: {problem}"


def _chunk_problem(packed: Chunk) -> str | None:
    if not 0 < packed.num_points <= CHUNK_POINTS:
        return f"it says it has {packed.num_points} points"
    try:
        points = unpack(packed)
    except StoreError as error:
        return str(error)
    if not bool((np.diff(points.positions) > 0).all()):
        return "its positions do not rise"
    if (packed.first_position, packed.last_position) != (points.positions[0], points.positions[-1]):
        return "its first or last position is wrong"
    if packed.summary != summarise(points.positions, points.values).tobytes():
        return "its summary does not match its points"
    return None


def _journal_problems(connection: Connection) -> Iterator[str]:
    table = schema.journal
    for row in connection.execute(select(table)):
        try:
            unpack_journal([(row.names, row.num_calls, row.points)])
        except (StoreError, ValueError) as error:
            yield f"journal row {row.key}: {error}"


def _run_problems(connection: Connection) -> Iterator[str]:
    run, parent = schema.run, schema.run.alias("parent")
    misplaced = select(run.c.id).join_from(run, parent, run.c.parent_key == parent.c.key)
    # A loop makes parents before their children; what is brought in from elsewhere comes in any order.
    by_loop = run.c.study_key.in_(select(schema.study.c.key).where(schema.study.c.kind == "study"))
    misplaced = misplaced.where((parent.c.study_key != run.c.study_key) | (by_loop & (parent.c.number >= run.c.number)))
    for run_id in connection.execute(misplaced).scalars():
        yield f"run {run_id}: its parent is of another study, or younger"
    numbered = select(run.c.id).join_from(run, schema.study).where(run.c.number >= schema.study.c.num_created)
    for run_id in connection.execute(numbered).scalars():
        yield f"run {run_id}: its number was never given out"
    cuts = select(func.count()).where(schema.cut.c.run_key == run.c.key).scalar_subquery()
    for run_id in connection.execute(select(run.c.id).where(run.c.generation != cuts)).scalars():
        yield f"run {run_id}: its generation is not its number of cuts"


def _json_problems(connection: Connection) -> Iterator[str]:
    columns = [schema.study.c.config, schema.run.c.hyperparameters, schema.run.c.error, schema.report.c.metrics]
    columns += [schema.run.c.tags, schema.run.c.facts, schema.run.c.latest]
    columns += [schema.request.c.action, schema.request.c.outcome, schema.test_result.c.metrics]
    for column, text in itertools.chain.from_iterable(
        ((column, text) for text in connection.execute(select(column).where(column.is_not(None))).scalars())
        for column in columns
    ):
        try:
            decode(text)
        except ValueError as error:
            yield f"{column}: {text[:40]!r} cannot be read: {error}"
