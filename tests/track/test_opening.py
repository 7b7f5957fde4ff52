"""What can be wrong with a store's place, and what happens to stores of other versions."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from thalweg.errors import ConfigError, StoreError
from thalweg.track import schema, sqlite_engine
from thalweg.track.store import Store


def test_folders_are_made_and_the_file_is_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "with space #?%20.db"
    with Store.open(path) as store:
        store.create_study("s", {})
        with store._database.write() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        with store._database.write(strict=True) as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert path.exists()


def test_a_write_takes_the_lock_at_its_beginning(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store, store._database.write():
        other = sqlite3.connect(tmp_path / "a.db", timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()


def test_what_fails_inside_a_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        store.create_study("s", {})

        def fail() -> None:
            with store._database.write() as connection:
                connection.execute(schema.study.update().values(name="t"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert [study.name for study in store.studies()] == ["s"]


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    with pytest.raises(StoreError, match="holds no store yet"):
        Store.open(tmp_path / "a.db", read_only=True)
    Store.open(tmp_path / "a.db").close()
    Store.open(tmp_path / "a.db", read_only=True).close()


def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("text " * 1000)
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"notes\.txt is not a store"):
            Store.open(path, read_only=read_only)
    assert path.read_text() == "text " * 1000


def test_another_program_s_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlruns.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE experiments (name TEXT)")
    other.close()
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"database of something else .*experiments"):
            Store.open(path, read_only=read_only)
    assert path.read_bytes() == before


def test_a_newer_store_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store.open(path) as store, store._database.write() as connection:
        connection.execute(schema.version_table.update().values(version=7))
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"version 7, this thalweg knows versions 1 to 2\. Upgrade"):
            Store.open(path, read_only=read_only)


def add_notes(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE study ADD COLUMN notes TEXT"))


def fill_notes(connection: Connection) -> None:
    connection.execute(text("UPDATE study SET notes = name || '!'"))


def notes(path: Path) -> list[str]:
    raw = sqlite3.connect(path)
    found = [row[0] for row in raw.execute("SELECT notes FROM study")]
    raw.close()
    return found


def test_an_older_store_is_brought_up_to_date_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    with Store.open(path) as store:
        store.create_study("s", {"x": 1})
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_notes, fill_notes))
    with pytest.raises(StoreError, match=r"version 2, this thalweg reads version 4\. Open it for writing once"):
        Store.open(path, read_only=True)
    errors: list[BaseException] = []

    def open_it() -> None:
        try:
            Store.open(path).close()
        except BaseException as error:
            errors.append(error)

    # Several at once: the lock lets one of them take the steps, and the second step of another would fail.
    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert notes(path) == ["s!"]
    with Store.open(path, read_only=True) as store:
        assert store.study("s").config == {"x": 1}


def test_a_store_of_version_1_is_as_a_new_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    raw = sqlite3.connect(old)
    raw.executescript((Path(__file__).parent / "version_1.sql").read_text())
    raw.executescript("""
        INSERT INTO thalweg_store VALUES (1);
        INSERT INTO study VALUES (1, 'imdb', '{"metric": "max accuracy", "unit": "samples"}', 5.0, 1.0, 1);
        INSERT INTO run (key, id, study_key, number, hyperparameters, horizon, until, seed, origin, parent_generation,
            fork_position, generation, status, position, created)
            VALUES (1, 'imdb-0', 1, 0, '{"lr": 0.1}', 9, 9, 0, 'random', 0, 0, 0, 'finished', 9, 6.0);
        INSERT INTO report VALUES (1, 1, 4, '{"accuracy": 0.5, "loss": NaN}', 7.0, 0);
        INSERT INTO report VALUES (2, 1, 9, '{"accuracy": 0.75}', 8.0, 0);
    """)
    raw.close()
    with pytest.raises(StoreError, match="version 1, this thalweg reads version 2"):
        Store.open(old, read_only=True)
    Store.open(new).close()
    with Store.open(old) as store:
        assert store.check_integrity() == []
        (row,) = store.run_rows("imdb")
        assert row.latest["validation/accuracy"] == (9, 0.75)
        assert row.latest["validation/loss"][0] == 4
        assert (store.study("imdb").kind, store.study("imdb").scale, row.uid) == ("study", 1, "imdb-0")
        store.create_project("p")
        with store.writer("imdb-0") as writer:
            writer.log(1, {"loss": 2.0})

    def columns(path: Path) -> dict[str, set[str]]:
        opened = sqlite3.connect(path)
        tables = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {table: {row[1] for row in opened.execute(f"PRAGMA table_info({table})")} for table in tables}
        opened.close()
        return found

    assert columns(old) == columns(new)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    with Store.open(path) as store:
        store.create_study("s", {})

    def fail(connection: Connection) -> None:
        connection.execute(text("UPDATE no_such_table SET x = 1"))

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_notes, fail))
        with pytest.raises(StoreError, match="no_such_table"):
            Store.open(path)
    with Store.open(path) as store:
        assert store.study("s").config == {}
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_notes, fill_notes))
    Store.open(path).close()
    assert notes(path) == ["s!"]


def test_places_that_cannot_work_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder; name a file in it"):
        Store.open(tmp_path)
    with pytest.raises(StoreError, match="there is no store at"):
        Store.open(tmp_path / "missing.db", read_only=True)
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"its folder cannot be made .*Name a place where you may write"):
        Store.open(tmp_path / "file" / "a.db")


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "://"])
def test_urls_that_cannot_work_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Store.open(url)
    assert "store" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sqlite_engine.file_system(tmp_path) not in ("", "nfs")
    monkeypatch.setattr(sqlite_engine, "file_system", lambda folder: "nfs4")
    with pytest.raises(StoreError, match=r"network file system \(nfs4\).*PostgreSQL"):
        Store.open(tmp_path / "a.db")


def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        store.create_study("s", {})
        with store._database.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            # Of this connection, which is the pool's only one.
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"a\.db cannot grow: the disk is full. Free some space"):
            store.create_study("t", {"x": "x" * 100_000})
    with Store.open(tmp_path / "a.db") as store:
        assert [study.name for study in store.studies()] == ["s"]
        assert store.check_integrity() == []


def test_a_store_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        with store._database.read() as connection:
            connection.exec_driver_sql("PRAGMA query_only = 1")
        with pytest.raises(StoreError, match=r"a\.db cannot be written. Give yourself the right"):
            store.create_study("s", {})


def test_a_store_on_a_read_only_disk_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path / "a.db") as store:
        store.create_study("s", {})
    monkeypatch.setattr(sqlite_engine.os, "access", lambda *_: False)
    with Store.open(tmp_path / "a.db", read_only=True) as store:
        assert [study.name for study in store.studies()] == ["s"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store.open(path) as store:
        store.create_study("s", {})
        run = store.create_run("s", hyperparameters={}, horizon=1, until=1, seed=0, origin="hand")
        with store.writer(run.id) as writer:
            for position in range(100):
                writer.log(position, {"loss": position / 7})
            writer.finish("finished", 100)
    raw = sqlite3.connect(path)
    raw.execute("UPDATE chunk SET last_position = 98")
    raw.execute("UPDATE run SET hyperparameters = '{', parent_key = 77")
    raw.execute("INSERT INTO journal (run_key, num_calls, names, points) VALUES (1, 2, '[\"a\"]', x'00')")
    raw.commit()
    raw.close()
    with Store.open(path) as store:
        found = "\n".join(store.check_integrity())
    for problem in ("last position is wrong", "run.hyperparameters", "journal row 1", "refers to a row of run"):
        assert problem in found


def test_a_forked_child_must_open_the_store_itself(tmp_path: Path) -> None:
    program = f"""
import os
from thalweg.errors import StoreError
from thalweg.track.store import Store
store = Store.open({str(tmp_path / "a.db")!r})
child = os.fork()
if child == 0:
    try:
        store.studies()
    except StoreError as error:
        os._exit(42 if "open it again in the child" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
store.create_study("s", {{}})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_file_that_sqlite_cannot_make_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a read-only file system answers to anybody, and nothing else answers to root.
    def refuse(*args: object, **options: object) -> None:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorname = "SQLITE_CANTOPEN"
        raise error

    monkeypatch.setattr(sqlite3, "connect", refuse)
    with pytest.raises(StoreError, match=r"a\.db cannot be opened\. Name a file in a folder"):
        Store.open(tmp_path / "a.db")
