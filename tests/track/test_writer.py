"""The writer while all goes well, and while locks, full disks and signals get in its way."""

from __future__ import annotations

import logging
import math
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from thalweg.budget import Cost
from thalweg.errors import ConfigError, StoreError
from thalweg.track import compaction, liveness, sqlite_engine, terminate
from thalweg.track.calls import ROW_CALLS, journal_rows
from thalweg.track.liveness import Process
from thalweg.track.series import CHUNK_POINTS, journal_layout
from thalweg.track.store import Store


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def num_rows(store: Store, table: str) -> int:
    with store._database.read() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def test_points_are_committed_by_themselves(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        before = time.time()
        writer.log(1, {"loss": 0.5, "lr": np.float32(0.25)})
        writer.spend("train", Cost(samples=1))
        wait_until(lambda: len(store.series(run.id, "loss")) == 1)
        series = store.series(run.id, "lr")
        assert series.values.tolist() == [0.25]
        assert before - 0.001 <= series.times[0] <= time.time()
        assert store.read_ledger("imdb").of(run.id) == Cost(samples=1)


def test_a_strict_writer_commits_at_each_call(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id, strict=True) as writer:
        for position in range(5):
            writer.log(position, {"loss": 0.5})
            assert len(store.series(run.id, "loss")) == position + 1


@pytest.mark.parametrize("promise", ["flush", "report", "checkpoint", "finish", "close"])
def test_what_was_logged_before_a_promise_is_committed_with_it(store: Store, new_run: Any, promise: str) -> None:
    run = new_run()
    calls: dict[str, tuple[Any, ...]] = {"report": (5, {"accuracy": 1.0}), "checkpoint": (5, "folder", "digest", 1)}
    calls["finish"] = ("paused", 5)
    with store.writer(run.id) as writer:
        writer.log(5, {"loss": 0.5})
        getattr(writer, promise)(*calls.get(promise, ()))
        assert store.series(run.id, "loss").values.tolist() == [0.5]


def test_finish_records_the_end_and_compacts(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        writer.log(1, {"loss": 0.5})
        writer.finish("failed", 1, error="Traceback: boom")
        with pytest.raises(StoreError, match="is closed"):
            writer.log(2, {"loss": 0.5})
        with pytest.raises(StoreError, match="is closed"):
            writer.spend("train", Cost())
    ended = store.read_run(run.id)
    assert (ended.status, ended.position, ended.error) == ("failed", 1, "Traceback: boom")
    assert (num_rows(store, "journal"), num_rows(store, "chunk")) == (0, 1)
    # Taken up again, it is not a failed one any more.
    with store.writer(run.id) as writer:
        writer.finish("finished", 9)
    assert store.read_run(run.id).error is None


def test_a_growing_journal_is_compacted_by_the_thread(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        for position in range(3 * CHUNK_POINTS):
            writer.log(position, {"loss": float(position)})
        writer.flush()
        wait_until(lambda: num_rows(store, "chunk") >= 3)
        assert store.series(run.id, "loss").values.tolist() == list(range(3 * CHUNK_POINTS))


def test_small_stretches_are_gathered_into_full_chunks(store: Store, new_run: Any) -> None:
    run = new_run()
    for part in range(5):
        with store.writer(run.id) as writer:
            for position in range(part * 1000, (part + 1) * 1000):
                writer.log(position, {"loss": float(position)})
            writer.finish("paused", part)
    assert num_rows(store, "chunk") == 2
    assert store.series(run.id, "loss").values.tolist() == list(range(5000))


@pytest.mark.parametrize(
    ("position", "metrics", "message"),
    [
        (1, {"loss": "high"}, "loss = 'high' is not one number"),
        (1, {"loss": None}, "loss = None"),
        (1, {"ok": 1.0, "loss": [1.0]}, "loss = "),
        (1, {"loss": 10**400}, "is not one number"),
        (-1, {"loss": 1.0}, "position = -1"),
        (1.5, {"loss": 1.0}, "position = 1.5"),
        (2**63, {"loss": 1.0}, "position = "),
        (1, {"": 1.0}, "metric name ''"),
        (1, {"a\nb": 1.0}, "metric name"),
        (1, {"\ud800": 1.0}, "metric name"),
        (1, {3: 1.0}, "metric name 3"),
    ],
)
def test_what_cannot_be_a_point_is_refused(
    store: Store, new_run: Any, position: Any, metrics: Any, message: str
) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        with pytest.raises(ConfigError, match=message):
            writer.log(position, metrics)
        with pytest.raises(ConfigError):
            writer.report(position, metrics)
        writer.log(2, {})
    assert store.metrics(run.id) == []
    assert store.read_run(run.id).reports == ()


def test_positions_may_be_as_large_as_64_bits(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        writer.log(2**63 - 1, {"loss": 1.0})
        writer.log(np.int64(0), {"loss": 2.0})  # type: ignore[arg-type]
        writer.finish("paused", 2**63 - 1)
    assert store.series(run.id, "loss").positions.tolist() == [0, 2**63 - 1]


def test_values_and_ledger_survive_bit_for_bit(store: Store, new_run: Any) -> None:
    run = new_run()
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, 5000, dtype=np.uint64).view(np.float64)
    values[:6] = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308]
    with store.writer(run.id) as writer:
        for position, value in enumerate(values.tolist()):
            writer.log(position, {"x": value})
        writer.finish("paused", 5000)
    kept = store.series(run.id, "x").values
    same = (kept.view(np.uint64) == values.view(np.uint64)) | (np.isnan(kept) & np.isnan(values))
    assert same.all()
    assert kept[:6].tobytes() == values[:6].tobytes()


def test_calls_share_journal_rows_only_where_their_order_does_not_matter() -> None:
    def call(position: int, *names: str) -> Any:
        return names, journal_layout(len(names)).pack(position, 0, *[0.0] * len(names))

    alternating = [call(i, *(("a", "b") if i % 2 else ("c",))) for i in range(10)]
    assert sorted(row[:2] for row in journal_rows(alternating)) == [('["a", "b"]', 5), ('["c"]', 5)]
    sharing = [call(1, "a"), call(1, "a", "b"), call(1, "a"), call(2, "a"), call(2, "c")]
    assert [row[:2] for row in journal_rows(sharing)] == [
        ('["a"]', 1),
        ('["a", "b"]', 1),
        ('["a"]', 2),
        ('["c"]', 1),
    ]
    back_and_forth = [call(1, "a"), call(2, "b"), call(3, "a", "b"), call(4, "a"), call(5, "b")]
    assert [row[:2] for row in journal_rows(back_and_forth)] == [
        ('["a"]', 1),
        ('["b"]', 1),
        ('["a", "b"]', 1),
        ('["a"]', 1),
        ('["b"]', 1),
    ]
    assert journal_rows([]) == []
    many = journal_rows([call(i, "a") for i in range(2 * ROW_CALLS + 1)] + [call(0, "b"), call(0, "a")])
    assert [row[:2] for row in many] == [('["a"]', ROW_CALLS), ('["a"]', ROW_CALLS), ('["a"]', 2), ('["b"]', 1)]


def test_a_locked_store_is_waited_for(
    store: Store, new_run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_engine, "BUSY_SECONDS", 0.05)
    # A store whose connections wait for 0.05 s instead of 30.
    with Store.open(store.location) as hasty:
        run = new_run()
        writer = hasty.writer(run.id)
        other = sqlite3.connect(store.location, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING, "thalweg"):
            for position in range(5):
                writer.log(position, {"loss": float(position)})
            wait_until(lambda: "kept in memory and tried again" in caplog.text)
        with pytest.raises(StoreError, match="was locked by another process"):
            writer.flush()
        with pytest.raises(StoreError, match="was locked by another process"):
            writer.report(9, {"accuracy": 0.5})
        other.execute("COMMIT")
        other.close()
        wait_until(lambda: len(store.series(run.id, "loss")) == 5)
        writer.close()
    assert store.series(run.id, "validation/accuracy").positions.tolist() == [9]
    assert store.read_run(run.id).reports == ()


def test_points_that_cannot_be_written_at_the_end_are_counted(store: Store, new_run: Any) -> None:
    run = new_run()
    writer = store.writer(run.id)
    with store._database.write() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = 1")
        connection.exec_driver_sql("UPDATE run SET id = 'renamed'")
    writer.log(1, {"loss": 1.0})
    writer.log(2, {"loss": 1.0})
    with pytest.raises(StoreError, match="2 calls of run 'imdb-0' were not written: unknown run"):
        writer.close()
    writer.close()


def test_a_heartbeat_goes_on_while_nothing_is_logged(
    store: Store, new_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thalweg.track.writer.BEAT_SECONDS", 0.1)
    monkeypatch.setattr("thalweg.track.session.BEAT_SECONDS", 0.1)
    run = new_run()
    with store.writer(run.id), store.open_session("imdb"):
        first, opened = store.run_times(run.id).heartbeat, store.live_session("imdb")
        assert first is not None
        assert opened is not None
        wait_until(lambda: (store.run_times(run.id).heartbeat or 0) > first)
        wait_until(lambda: getattr(store.live_session("imdb"), "heartbeat", 0) > opened.heartbeat)


def test_who_is_alive() -> None:
    me = liveness.this_process()
    now = time.time()
    assert liveness.is_live(me, now)
    assert not liveness.is_live(me, None)
    assert not liveness.is_live(me, now - liveness.DEAD_AFTER_SECONDS - 1)
    assert not liveness.is_live(Process(me.host, me.pid, me.started - 100), now), "the number was given to another"
    assert liveness.is_live(Process("elsewhere", 1, 0.0), now)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    seen = Process(me.host, child.pid, psutil.Process(child.pid).create_time())
    wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    assert not liveness.is_live(seen, now), "dead, though nobody has waited for it"
    child.wait()
    assert not liveness.is_live(seen, now)


def test_sigterm_is_given_back_after_the_last_writer(
    store: Store, new_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever an earlier test has left open in this process is not the last writer here.
    monkeypatch.setattr(terminate, "_pending", [])

    def mine(signum: int, frame: object) -> None:
        received.append(signum)

    received: list[int] = []
    before = signal.signal(signal.SIGTERM, mine)
    try:
        first, second = new_run(), new_run()
        writers = [store.writer(first.id), store.writer(second.id)]
        for writer in writers:
            writer.log(1, {"loss": 1.0})
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        assert [len(store.series(run.id, "loss")) for run in (first, second)] == [1, 1]
        for writer in writers:
            assert signal.getsignal(signal.SIGTERM) is terminate._on_signal
            writer.close()
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_sigterm_during_a_commit_is_taken_up_after_it(
    store: Store, new_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, _: received.append(signum))
    try:
        run = new_run()
        with store.writer(run.id) as writer:
            real = compaction.add_journal
            during: list[list[int]] = []

            def add_journal(*arguments: Any) -> None:
                # In the thread that flushes, with the transaction open.
                if threading.current_thread() is threading.main_thread():
                    signal.raise_signal(signal.SIGTERM)
                    during.append(list(received))
                real(*arguments)

            monkeypatch.setattr(compaction, "add_journal", add_journal)
            writer.log(1, {"loss": 1.0})
            writer.flush()
            assert (during, received) == ([[]], [signal.SIGTERM])
            assert store.series(run.id, "loss").values.tolist() == [1.0]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_process_that_ends_without_closing_loses_nothing(store: Store, new_run: Any, tmp_path: Path) -> None:
    run = new_run()
    program = f"""
from thalweg.track.store import Store
writer = Store.open({store.location!r}).writer({run.id!r})
for position in range(100):
    writer.log(position, {{"loss": 1.0}})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert len(store.series(run.id, "loss")) == 100
