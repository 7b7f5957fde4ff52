"""Everything that holds for SQLite only: how it is opened, its transactions, its errors, its own checks."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from thalweg.errors import StoreError

BUSY_SECONDS = 30.0
"""How long a transaction waits for another process's before it is given up."""

_SPARE_PAGES = 1024
"""Empty pages of 4 KiB that are kept for what is written next."""

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smbfs", "smb3", "afs", "lustre", "gpfs", "beegfs"}


def engine(path: Path, *, read_only: bool, wait_seconds: float | None = None) -> Engine:
    """An engine for one file. Nothing is opened until the first connection is asked for."""
    seconds = BUSY_SECONDS if wait_seconds is None else wait_seconds
    place = path.absolute().as_uri() + ("?mode=ro" if read_only else "")

    def connect() -> sqlite3.Connection:
        uri = place
        if read_only and not _can_share(path):
            # Reading a WAL file means writing to the index file beside it, unless SQLite knows that nobody writes.
            uri += "&immutable=1"
        # No isolation level: pysqlite starts no transaction by itself, `_begin` does.
        return sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None, check_same_thread=False)

    # Where nothing can be written beside the file, a connection that is kept would never see what others write later.
    kept = not read_only or _can_share(path)
    pool: dict[str, Any] = (
        {"poolclass": QueuePool, "pool_size": 5, "max_overflow": -1} if kept else {"poolclass": NullPool}
    )
    made = create_engine("sqlite://", creator=connect, **pool)

    def on_connect(connection: sqlite3.Connection, record: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        record.info["wait_seconds"] = seconds

    event.listen(made, "connect", on_connect)
    event.listen(made, "begin", _begin)
    return made


def _can_share(path: Path) -> bool:
    return os.access(path.parent, os.W_OK) or path.with_name(path.name + "-wal").exists()


def _begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("thalweg_mode", "read")
    if mode == "read":
        connection.exec_driver_sql("BEGIN")
        return
    # NORMAL: a commit survives the process, whatever kills it; FULL: the machine's loss of power as well.
    wanted = "FULL" if mode == "strict" else "NORMAL"
    if connection.info.get("synchronous") != wanted:
        connection.exec_driver_sql(f"PRAGMA synchronous = {wanted}")
        connection.info["synchronous"] = wanted
    _take_write_lock(connection)


def _take_write_lock(connection: Connection) -> None:
    """Begin a transaction that writes.

    IMMEDIATE takes the lock now: a transaction that reads first and then writes would otherwise fail without waiting
    when another process has written in between. SQLite's own waiting sleeps up to 100 ms at a time, while others come
    and go; looking every millisecond keeps the longest wait of many writers short.
    """
    wait_seconds = connection.info["wait_seconds"]
    deadline = time.monotonic() + wait_seconds
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return
            except DBAPIError as error:
                name = str(getattr(error.orig, "sqlite_errorname", ""))
                if not name.startswith("SQLITE_BUSY") or time.monotonic() >= deadline:
                    raise
            time.sleep(0.001)
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(wait_seconds * 1000)}")


def use_wal(made: Engine, path: Path) -> None:
    """Switch the file to write-ahead logging, where readers never wait.

    Raises:
        StoreError: the file is on a network file system, where the log's shared memory does not work.
    """
    kind = file_system(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{path} is on a network file system ({kind}), where SQLite loses data. Name a place on a local disk,"
            " or a PostgreSQL database by its URL"
        )
    try:
        raw = made.raw_connection()
    except sqlite3.DatabaseError as error:
        raise explain(error, str(path)) from error
    try:
        # Takes effect only in a file that has no tables yet: emptied pages can then be given back.
        try:
            if not raw.cursor().execute("PRAGMA page_count").fetchone()[0]:
                raw.cursor().execute("PRAGMA auto_vacuum = INCREMENTAL")
        except sqlite3.DatabaseError as error:
            raise explain(error, str(path)) from error
        (wait_milliseconds,) = raw.cursor().execute("PRAGMA busy_timeout").fetchone()
        deadline = time.monotonic() + wait_milliseconds / 1000
        while True:
            try:
                (mode,) = raw.cursor().execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                # Two processes that switch at once: SQLite does not use its own waiting here.
                if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                    raise explain(error, str(path)) from error
                time.sleep(0.01)
            except sqlite3.DatabaseError as error:
                raise explain(error, str(path)) from error
        if mode != "wal":
            raise StoreError(f"{path}: SQLite cannot keep a write-ahead log there (it says {mode!r}); use a local disk")
    finally:
        raw.close()


def give_back_space(made: Engine) -> None:
    """Shorten the file where much of it is empty, as after the compaction of a journal that was written fast."""
    raw = made.raw_connection()
    try:
        cursor = raw.cursor()
        (empty,) = cursor.execute("PRAGMA freelist_count").fetchone()
        (pages,) = cursor.execute("PRAGMA page_count").fetchone()
        if empty > _SPARE_PAGES and empty * 8 > pages:
            # The statement takes a step per page. `execute` stops at the first, as no step returns anything.
            cursor.executescript("PRAGMA incremental_vacuum")
    finally:
        raw.close()


def copy(connection: Connection, target: Path) -> None:
    """Write one consistent view of the database into a new file, without empty pages."""
    raw = connection.connection.dbapi_connection
    assert raw is not None
    raw.cursor().execute("VACUUM INTO ?", (str(target.absolute()),))


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on, such as `ext4`; empty where it cannot be told."""
    resolved = folder.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if resolved.is_relative_to(part.mountpoint)]
    return str(max(mounts, key=lambda part: len(part.mountpoint)).fstype) if mounts else ""


def explain(error: BaseException, where: str) -> StoreError:
    """Say what an error of SQLite means and what would work."""
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(
            f"{where} was locked by another process for too long. Look for a program that holds it open"
            " in a long transaction, and try again"
        )
    if name.startswith("SQLITE_FULL"):
        return StoreError(f"{where} cannot grow: the disk is full. Free some space there, then go on with the study")
    if name.startswith("SQLITE_READONLY"):
        return StoreError(
            f"{where} cannot be written. Give yourself the right to write to it and its folder, or copy it"
        )
    if name == "SQLITE_NOTADB":
        return StoreError(f"{where} is not a store: the file is no SQLite database. Name another place")
    if name.startswith("SQLITE_CANTOPEN"):
        return StoreError(f"{where} cannot be opened. Name a file in a folder that exists and that you may write to")
    if name.startswith("SQLITE_CORRUPT"):
        return StoreError(
            f"{where} is damaged ({error}). Restore it from a copy, or save what is left: sqlite3 .recover"
        )
    if name.startswith("SQLITE_IOERR"):
        return StoreError(f"{where}: the disk failed ({error}, {name}). See that it is there and has free space")
    return StoreError(f"{where}: {error} {name}".rstrip())


def check_file(connection: Connection) -> list[str]:
    """What SQLite itself finds wrong with the file; empty where nothing is."""
    found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return found + [f"table {row[0]}, row {row[1]}: it refers to a row of {row[2]} that is not there" for row in broken]
