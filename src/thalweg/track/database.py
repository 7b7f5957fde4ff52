"""A store's database: opened by place, read and written in whole transactions, its errors put into words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from thalweg.errors import ConfigError, StoreError
from thalweg.track import schema, sqlite_engine

# Any number will do, as long as no other program that shares the database takes the same.
_MIGRATION_LOCK = 7_468_174


class Database:
    """The transactions of one store. Threads may share it; processes may not."""

    def __init__(self, engine: Engine, where: str, *, read_only: bool) -> None:
        self.engine = engine
        self.where = where
        self.read_only = read_only
        self._pid = os.getpid()
        # Made once: a writer begins a transaction ten times a second.
        self._engines = {mode: engine.execution_options(thalweg_mode=mode) for mode in ("write", "strict", "read")}
        if not self.is_sqlite:
            self._engines["read"] = self._engines["read"].execution_options(isolation_level="REPEATABLE READ")

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def place(self) -> str:
        """Where the store is, the same from every folder and without a password."""
        return str(Path(self.where).absolute()) if self.is_sqlite else self.where

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the store, whatever others write meanwhile."""
        with self._transaction("read") as connection:
            yield connection

    @contextmanager
    def write(self, *, strict: bool = False) -> Iterator[Connection]:
        """A transaction that takes effect whole, or not at all if an exception leaves the block.

        Args:
            strict: return only when the data would survive a loss of power, too.
        Raises:
            StoreError: the store is locked, read-only, full or damaged.
        """
        if self.read_only:
            raise StoreError(f"{self.where} was opened for reading only; open it without read_only to change it")
        with self._transaction("strict" if strict else "write") as connection:
            yield connection

    def give_back_space(self) -> None:
        """Let the file shrink after much was moved or deleted."""
        if self.is_sqlite:
            sqlite_engine.give_back_space(self.engine)

    def copy(self, target: Path) -> None:
        """Write what the store holds now into a new file, while others go on writing.

        Raises:
            StoreError: there is a file already, or this is no SQLite store.
        """
        if not self.is_sqlite:
            raise StoreError(f"{self.where} is a database server's: copy it by the server's own tools, such as pg_dump")
        if target.exists():
            raise StoreError(f"{target} exists; name a file that is not there yet")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                sqlite_engine.copy(connection, target)
        except DBAPIError as error:
            target.unlink(missing_ok=True)
            raise self._explain(error) from error

    def close(self) -> None:
        """Close all connections; SQLite then moves its log into the file."""
        # In a forked child the connections are the parent's: closing them there would harm the parent's file locks.
        self.engine.dispose(close=os.getpid() == self._pid)

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[Connection]:
        if os.getpid() != self._pid:
            raise StoreError(f"{self.where} was opened before this process was forked; open it again in the child")
        try:
            with self._engines[mode].begin() as connection:
                yield connection
        except DBAPIError as error:
            raise self._explain(error) from error

    def _explain(self, error: DBAPIError) -> StoreError:
        cause = error.orig if error.orig is not None else error
        if self.is_sqlite:
            return sqlite_engine.explain(cause, self.where)
        return StoreError(f"{self.where}: {str(cause).strip()}")


def open_database(location: str | Path, *, read_only: bool, wait_seconds: float | None = None) -> Database:
    """Open, and where needed create or migrate, the store at a file path or an SQLAlchemy URL.

    Args:
        wait_seconds: how long a transaction waits for another process's; by default half a minute.
    Raises:
        StoreError: there is something else, of another version, or it cannot be opened.
        ConfigError: the URL is not one, or its driver is not installed.
    """
    url = _url(location)
    if url is None:
        return _open_file(Path(location).expanduser(), read_only=read_only, wait_seconds=wait_seconds)
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise ConfigError(f"store = {str(location)!r} would be lost with the process; name a file")
        return _open_file(Path(str(url.database)), read_only=read_only, wait_seconds=wait_seconds)
    where = url.render_as_string(hide_password=True)
    if url.get_backend_name() != "postgresql":
        raise ConfigError(f"store = {where!r} must be a file's path or start with postgresql://")
    try:
        engine = create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ConfigError(f"store = {where!r} needs a driver: pip install 'thalweg[postgres]'") from error
    return _prepared(Database(engine, where, read_only=read_only))


def _url(location: str | Path) -> URL | None:
    if isinstance(location, Path) or "://" not in location:
        return None
    try:
        url = make_url(location)
    except (ArgumentError, ValueError) as error:
        # The location is not repeated: it may hold a password.
        raise ConfigError("store: it is not a URL; for example postgresql://user@host/database") from error
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    return url


def _open_file(path: Path, *, read_only: bool, wait_seconds: float | None) -> Database:
    if path.is_dir():
        raise StoreError(f"{path} is a folder; name a file in it, such as {path / 'thalweg.db'}")
    if read_only and not path.exists():
        raise StoreError(f"there is no store at {path}; see that the path is right")
    if not read_only:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{path}: its folder cannot be made ({error.strerror}). Name a place where you may write"
            ) from error
    engine = sqlite_engine.engine(path, read_only=read_only, wait_seconds=wait_seconds)
    return _prepared(Database(engine, str(path), read_only=read_only), path)


def _prepared(database: Database, path: Path | None = None) -> Database:
    try:
        if database.read_only:
            with database.read() as connection:
                schema.check(connection, database.where)
            return database
        if path is not None:
            _refuse_foreign(database, path)
            sqlite_engine.use_wal(database.engine, path)
        with database.write() as connection:
            if not database.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            schema.prepare(connection, database.where)
    except DBAPIError as error:
        database.close()
        raise database._explain(error) from error
    except (StoreError, SQLAlchemyError):
        database.close()
        raise
    return database


def _refuse_foreign(database: Database, path: Path) -> None:
    # Before anything is written: another program's file must not even be switched to another log mode.
    if path.exists() and path.stat().st_size:
        with database.read() as connection:
            schema.found_version(connection, database.where)
