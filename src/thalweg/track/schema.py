"""The tables of a store, their version, and the steps that bring an older store up to it.

Floats that may be NaN or infinite are never in a REAL column, where SQLite would turn NaN into NULL: points are kept in
blobs, hyperparameters and results as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.schema import CreateColumn

from thalweg.errors import StoreError

metadata = MetaData()

# SQLite numbers rows by itself only where the key's type is exactly INTEGER; it holds 64 bits there.
_Key = BigInteger().with_variant(Integer, "sqlite")

version_table = Table(
    "thalweg_store",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

study = Table(
    "study",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("config", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("wall_seconds", Double, nullable=False, default=0.0),
    # Counts up even when runs are deleted, so that an id is never used twice.
    Column("num_created", Integer, nullable=False, default=0),
    # `study`: a search that a loop runs. `project`: runs that are tracked from a person's own training code.
    Column("kind", Text, nullable=False, server_default="study"),
    # Positions are kept as whole numbers: steps times ten to this.
    Column("decimals", Integer, nullable=False, server_default="0"),
    Column("paused", Boolean, nullable=False, server_default=false()),
)

session = Table(
    "session",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("study_key", ForeignKey("study.key"), nullable=False, index=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Double, nullable=False),
    Column("opened", Double, nullable=False),
    Column("heartbeat", Double, nullable=False),
    Column("closed", Double),
)

run = Table(
    "run",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("study_key", ForeignKey("study.key"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("hyperparameters", Text, nullable=False),
    Column("horizon", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("origin", Text, nullable=False),
    Column("parent_key", ForeignKey("run.key"), index=True),
    # The parent's generation when the child was made: a later rewind of the parent is not the child's past.
    Column("parent_generation", Integer, nullable=False, default=0),
    Column("fork_position", BigInteger, nullable=False, default=0),
    # The number of cuts made so far. What is written belongs to the generation that it is written in.
    Column("generation", Integer, nullable=False, default=0),
    Column("status", Text, nullable=False),
    Column("position", BigInteger, nullable=False, default=0),
    Column("error", Text),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("heartbeat", Double),
    Column("host", Text),
    Column("pid", Integer),
    Column("pid_started", Double),
    # What a person calls it: any text.
    Column("name", Text),
    # What it is called where it comes from, unique within its study or project; NULL: as `id`.
    Column("uid", Text),
    # The uid or id of a parent that is not in the store yet.
    Column("waiting_parent", Text),
    # As JSON; NULL: none.
    Column("tags", Text),
    Column("facts", Text),
    # Metric -> [position, value]: the run's own last points, so that a list of runs needs no curve.
    Column("latest", Text),
    # When something was last written into it: what a dashboard asks for again.
    Column("updated", Double),
    # Counts up when the journal becomes chunks, so that who prepared for that can tell whether somebody else did it.
    Column("num_compactions", Integer, nullable=False, server_default="0"),
    UniqueConstraint("study_key", "number"),
    Index("run_by_uid", "study_key", "uid", unique=True),
    Index("run_by_updated", "updated"),
    Index("run_by_waiting_parent", "study_key", "waiting_parent"),
)

# A process that writes, or wrote, a run; several may at once.
writer = Table(
    "writer",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
    Column("run_key", ForeignKey("run.key"), nullable=False, index=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Double, nullable=False),
    Column("opened", Double, nullable=False),
    Column("heartbeat", Double, nullable=False),
    Column("closed", Double),
    # The last of its batches that is written: one that comes again, from a spool, changes nothing.
    Column("last_batch", BigInteger, nullable=False, default=0),
)

# One row per group commit and set of metric names. All of a run's journal belongs to its present generation.
journal = Table(
    "journal",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("run_key", ForeignKey("run.key"), nullable=False, index=True),
    Column("num_calls", Integer, nullable=False),
    Column("names", Text, nullable=False),
    Column("points", LargeBinary, nullable=False),
)

# The newer of two chunks has the higher key. The summary stands before the big blobs: SQLite reads rows from the front.
chunk = Table(
    "chunk",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("run_key", ForeignKey("run.key"), nullable=False),
    Column("metric", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("num_points", Integer, nullable=False),
    Column("first_position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("summary", LargeBinary, nullable=False),
    Column("positions", LargeBinary, nullable=False),
    Column("times", LargeBinary, nullable=False),
    Column("point_values", LargeBinary, nullable=False),
    Index("chunk_by_metric", "run_key", "metric"),
)

cut = Table(
    "cut",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("run_key", ForeignKey("run.key"), nullable=False, index=True),
    Column("generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
)

report = Table(
    "report",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("run_key", ForeignKey("run.key"), nullable=False, index=True),
    Column("position", BigInteger, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("hidden", Boolean, nullable=False, default=False),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("run_key", ForeignKey("run.key"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("folder", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
)

# By the run's id and not its key: deleting a run does not give back what it has spent.
spend = Table(
    "spend",
    metadata,
    Column("study_key", ForeignKey("study.key"), primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("samples", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("flops", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("device_seconds", Double, nullable=False),
)

request = Table(
    "request",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("study_key", ForeignKey("study.key"), nullable=False, index=True),
    Column("action", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("answered", Double),
    Column("outcome", Text),
    Column("author", Text),
)

test_result = Table(
    "test_result",
    metadata,
    Column("run_key", ForeignKey("run.key"), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("created", Double, nullable=False),
)

note = Table(
    "note",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("run_key", ForeignKey("run.key"), nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("author", Text),
    Column("created", Double, nullable=False),
)

# What a training script saved beside its points: under `files` next to the store where it was copied, else where it is.
file = Table(
    "file",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("run_key", ForeignKey("run.key"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    # The run's generation when it was saved: a cut hides files as it hides points.
    Column("generation", Integer, nullable=False, default=0),
    Column("place", Text, nullable=False),
    Column("copied", Boolean, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("digest", Text),
    Column("created", Double, nullable=False),
)

OF_A_RUN = (journal, chunk, cut, report, checkpoint, test_result, writer, note, file)
"""Tables whose rows go with their run."""

Migration = Callable[[Connection], None]


def _add_tracking(connection: Connection) -> None:
    """Version 2: runs that are tracked from a person's own code, with names, notes, files and several writers."""
    added = {
        study: ("kind", "decimals", "paused"),
        run: ("name", "uid", "waiting_parent", "tags", "facts", "latest", "updated", "num_compactions"),
        request: ("author",),
    }
    for table, names in added.items():
        for name in names:
            definition = CreateColumn(table.c[name]).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
    for index in run.indexes:
        if index.name in ("run_by_uid", "run_by_updated", "run_by_waiting_parent"):
            index.create(connection)
    metadata.create_all(connection, tables=[writer, note, file])
    # So that lists show what older runs reached; what they logged beside their evaluations is in their curves.
    latest: dict[int, dict[str, Any]] = {}
    rows = "SELECT run_key, position, metrics FROM report WHERE NOT hidden ORDER BY position, key"
    for run_key, position, metrics in connection.exec_driver_sql(rows):
        values = {f"validation/{name}": [position, value] for name, value in json.loads(metrics).items()}
        latest.setdefault(run_key, {}).update(values)
    for run_key, values in latest.items():
        connection.execute(update(run).where(run.c.key == run_key).values(latest=json.dumps(values)))


MIGRATIONS: tuple[Migration, ...] = (_add_tracking,)
"""Step k turns version k + 1 into version k + 2. Version 1 is the first one that was released."""


def prepare(connection: Connection, where: str, migrations: Sequence[Migration] | None = None) -> None:
    """Create the tables of a new store, or bring an older one up to date.

    The caller holds the store's write lock and commits; when a step fails nothing is changed.

    Args:
        where: the store's place, for messages.
        migrations: the steps to take; those of this version of thalweg by default.
    Raises:
        StoreError: it is something else's database, or a newer thalweg wrote it.
    """
    steps = MIGRATIONS if migrations is None else migrations
    newest = 1 + len(steps)
    found = found_version(connection, where)
    if found is None:
        metadata.create_all(connection)
        connection.execute(insert(version_table).values(version=newest))
        return
    _refuse_newer(found, newest, where)
    for step in steps[found - 1 :]:
        step(connection)
    if found != newest:
        connection.execute(update(version_table).values(version=newest))


def check(connection: Connection, where: str) -> None:
    """Refuse a store that cannot be read as it is: for opening without the right to write.

    Raises:
        StoreError: it is no store, or another version of thalweg wrote it.
    """
    newest = 1 + len(MIGRATIONS)
    found = found_version(connection, where)
    if found is None:
        raise StoreError(f"{where} is empty: it holds no store yet. Open it for writing once to create one")
    _refuse_newer(found, newest, where)
    if found < newest:
        raise StoreError(
            f"{where} is a store of version {found}, this thalweg reads version {newest}. Open it for writing once,"
            " by any command that changes it, to bring it up to date"
        )


def found_version(connection: Connection, where: str) -> int | None:
    """The version of the store that is there, or None where there is nothing yet.

    Raises:
        StoreError: it is something else's database.
    """
    tables = set(inspect(connection).get_table_names())
    if version_table.name in tables:
        found = connection.execute(select(version_table.c.version)).scalar()
        if isinstance(found, int) and found >= 1:
            return found
        raise StoreError(f"{where} has a store's tables but no readable version ({found!r}); restore it from a copy")
    # A PostgreSQL database may be shared with other programs, as long as the names do not clash.
    others = tables if connection.dialect.name == "sqlite" else tables & set(metadata.tables)
    if others:
        some = ", ".join(sorted(others)[:5])
        raise StoreError(f"{where} is the database of something else (it has tables {some}); name another place")
    return None


def _refuse_newer(found: int, newest: int, where: str) -> None:
    if found > newest:
        raise StoreError(
            f"{where} is a store of version {found}, this thalweg knows versions 1 to {newest}. Upgrade it"
            " (pip install --upgrade thalweg), or name another store"
        )
