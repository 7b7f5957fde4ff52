"""Tracking while processes are killed, stores are locked, disks are full, and names and numbers are odd.

What counts: training is not stopped and does not wait, and no point is lost.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import thalweg
from thalweg.track import opening
from thalweg.track.calls import Batch
from thalweg.track.positions import to_position
from thalweg.track.spool import Spool
from thalweg.track.store import Store

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "tracking"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spools that cannot be beside the store go into the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is locked is given up after 0.2 s, not 2, and tried again as soon."""
    monkeypatch.setattr(opening, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr("thalweg.track.writer.RETRY_SECONDS", 0.2)


def track(store: Path, **options: Any) -> thalweg.TrackedRun:
    defaults: dict[str, Any] = {"store": store, "system_seconds": 0, "code": False}
    return thalweg.init("faults", **(defaults | options))


def values(store: Path, run: str, metric: str = "loss") -> list[float]:
    with Store.open(store) as opened:
        assert opened.check_integrity() == []
        return opened.series(run, metric).values.tolist()


def spools(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.spool"))


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


_LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
database.execute("ROLLBACK")
"""


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another process holds the store, as nobody else may write it, or even begin to."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LOCK, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            process.communicate("\n", timeout=30)


# Killed


def kills(store: Path, num: int, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(BENCHMARK / "killing.py"), str(store), "--kills", str(num), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=280)
    deaths: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(deaths) == num
    assert [problem for death in deaths for problem in death["problems"]] == []
    assert sum(death["num_said"] for death in deaths) > 100 * num, "they hardly logged anything"
    return deaths


@pytest.mark.slow
def test_writers_killed_at_100_random_moments_lose_at_most_the_last_commit(tmp_path: Path) -> None:
    deaths = kills(tmp_path / "store.db", 100)
    lost = sorted(death["lost_ms"] for death in deaths)
    # The benchmark, alone on its machine, holds the promise of 100 ms; here other tests may have the cores.
    assert lost[len(lost) // 2] < 100, f"half of the kills lost more than {lost[len(lost) // 2]:.0f} ms"
    assert lost[-1] < 1000, f"a kill lost {lost[-1]:.0f} ms"


@pytest.mark.slow
def test_strict_writers_killed_at_100_random_moments_lose_nothing(tmp_path: Path) -> None:
    deaths = kills(tmp_path / "store.db", 100, "--strict", "--seed", "1", "--longest", "0.5")
    assert [death["num_lost"] for death in deaths] == [0] * 100


def test_a_writer_killed_while_its_points_are_in_a_spool_loses_no_more(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    Store.open(store).close()
    program = """
import sys, time, thalweg
from thalweg.track import opening
opening.WAIT_SECONDS = 0.2
run = thalweg.init("faults", run="mine", store=sys.argv[1], system_seconds=0, code=False)
print("begun", flush=True)
for step in range(100_000):
    run.log({"loss": float(step)}, step=step)
    print(step, time.time(), flush=True)
    time.sleep(0.002)
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(store)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    with locked(store):
        wait_until(lambda: bool(spools(tmp_path)))
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
        said = [line.split() for line in process.stdout.read().splitlines()]
        process.wait(30)
        process.stdout.close()
    (spool,) = spools(tmp_path)
    again = spool.read_bytes()
    for _ in range(2):
        with track(store):
            pass
        kept = values(store, "faults-0")
        assert kept == [float(step) for step in range(len(kept))]
        if len(kept) < len(said):
            assert float(said[-1][1]) - float(said[len(kept)][1]) < 1.0, "about 0.1 s, a loaded machine allowed for"
        assert spools(tmp_path) == []
        # As if the machine had died after the merge and before the file was removed.
        spool.write_bytes(again)
    spool.unlink()
    with Store.open(store) as opened:
        assert opened.changes(0)
        (row,) = [row for row in opened.run_rows("faults") if row.uid == "mine"]
        assert row.status == "crashed"


# Locked


def test_a_store_that_is_locked_while_a_run_logs(tmp_path: Path, hasty: None, caplog: pytest.LogCaptureFixture) -> None:
    store = tmp_path / "store.db"
    with caplog.at_level(logging.WARNING, "thalweg"):
        run = track(store)
        longest = 0.0
        for step in range(600):
            with locked(store) if step == 100 else contextlib.nullcontext():
                for inner in range(300) if step == 100 else ():
                    longest = max(longest, timed_log(run, 1000 + inner))
                if step == 100:
                    wait_until(lambda: bool(spools(tmp_path)))
                    longest = max(longest, timed_log(run, 1300))
            longest = max(longest, timed_log(run, step))
            time.sleep(0.001)
        run.finish()
    assert longest < 0.15, f"a call took {longest:.3f} s"
    steps = [*range(600), *range(1000, 1301)]
    assert values(store, run.id) == [float(step) for step in steps]
    assert spools(tmp_path) == []
    assert [record.message for record in caplog.records if "merged later" in record.message] == [
        record.message for record in caplog.records
    ]
    assert len(caplog.records) == 1, caplog.text


def timed_log(run: thalweg.TrackedRun, step: int) -> float:
    start = time.perf_counter()
    run.log({"loss": float(step)}, step=step)
    return time.perf_counter() - start


def test_a_run_that_ends_while_its_store_is_locked_is_merged_by_the_next(
    tmp_path: Path, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store.db"
    with caplog.at_level(logging.WARNING, "thalweg"):
        run = track(store)
        with locked(store):
            for step in range(10):
                run.log({"loss": float(step)})
            start = time.monotonic()
            run.finish()
            assert time.monotonic() - start < 5
    assert len([record for record in caplog.records if "merged later" in record.message]) == 1
    assert values(store, run.id) == []
    with track(store) as other:
        other.log({"loss": 1.0})
    assert values(store, run.id) == [float(step) for step in range(10)]
    with Store.open(store) as opened:
        assert [row.status for row in opened.run_rows("faults")] == ["finished", "finished"]
    assert spools(tmp_path) == []


def test_a_run_that_begins_while_its_store_is_locked_is_merged_by_the_next(
    tmp_path: Path, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store.db"
    with track(store) as parent:
        parent.log({"loss": 0.0}, step=0)
    with caplog.at_level(logging.WARNING, "thalweg"), locked(store):
        with track(store, name="begun in the dark", hyperparameters={"lr": 0.1}, fork_of=parent, at=0) as run:
            for step in range(1, 4):
                run.log({"loss": float(step)}, step=step)
        assert "cannot be opened" in caplog.text
    with track(store):
        pass
    with Store.open(store) as opened:
        (row,) = [row for row in opened.run_rows("faults") if row.uid == run.uid]
        assert (row.name, row.parent, row.hyperparameters) == ("begun in the dark", parent.id, {"lr": 0.1})
        assert row.status == "finished"
        assert opened.series(row.id, "loss").values.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert spools(tmp_path) == []


# Full


_FILL = """
import json, logging, resource, sys, time, thalweg
from thalweg.track import opening, writer
opening.WAIT_SECONDS = writer.RETRY_SECONDS = 0.2

class Keep(logging.Handler):
    def emit(self, record):
        warnings.append(record.getMessage())

warnings = []
logging.getLogger("thalweg").addHandler(Keep(logging.WARNING))
store, num = sys.argv[1], int(sys.argv[2])
run = thalweg.init("faults", run="mine", store=store, system_seconds=0, code=False)
print("begun", flush=True)
longest = 0.0
for step in range(num):
    if step == num // 4:
        sys.stdin.readline()     # the disk is full from here
    if step == num * 3 // 4:
        print("middle", flush=True)
        sys.stdin.readline()     # and has room again
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    start = time.perf_counter()
    run.log({f"metric/{i}": float(step) for i in range(20)}, step=step)
    longest = max(longest, time.perf_counter() - start)
    time.sleep(0.0005)
run.finish()
print(json.dumps({"longest": longest, "warnings": warnings}), flush=True)
"""


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own, where this machine lets us mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs rights that this user does not have")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def follow(process: subprocess.Popen[str], full: Callable[[], None], free: Callable[[], None]) -> dict[str, Any]:
    """Let `_FILL` run with a full disk in its middle."""
    assert process.stdout is not None
    assert process.stdin is not None
    with process:
        assert process.stdout.readline() == "begun\n"
        full()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "middle\n"
        time.sleep(0.5)
        free()
        answer, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0, "training must not end"
    told: dict[str, Any] = json.loads(answer)
    return told


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        store, filler = disk / "store.db", disk / "filler"
        process = subprocess.Popen(
            [sys.executable, "-c", _FILL, str(store), "2000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def full() -> None:
            with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
                for size in (1 << 16, 1 << 12, 1):
                    with contextlib.suppress(OSError):
                        while file.write(bytes(size)):
                            pass
            assert shutil.disk_usage(disk).free < 4096

        told = follow(process, full, filler.unlink)
        assert told["longest"] < 0.15, f"a call took {told['longest']:.3f} s"
        assert len(told["warnings"]) == 1, told["warnings"]
        assert values(store, "faults-0", "metric/7") == [float(step) for step in range(2000)]
        assert spools(tmp_path) == []


@pytest.mark.slow
def test_a_file_that_may_not_grow_for_a_while(tmp_path: Path) -> None:
    """As a quota does it: the store's log reaches it, and after it the spool, too."""
    store = tmp_path / "store.db"

    process = subprocess.Popen(
        [sys.executable, "-c", _FILL, str(store), "6000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    # While it still imports what it needs.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    told = follow(process, lambda: None, lambda: None)
    assert told["longest"] < 0.15, f"a call took {told['longest']:.3f} s"
    assert values(store, "faults-0", "metric/7") == [float(step) for step in range(6000)]
    assert spools(tmp_path) == []
    # Of the store, and where the spool is full as well, of that.
    assert 1 <= len(told["warnings"]) <= 2, told["warnings"]


@pytest.mark.parametrize("num_calls", [300, 1000])
def test_half_a_batch_in_a_spool_hides_none_that_comes_later(tmp_path: Path, num_calls: int) -> None:
    def batch(number: int, num_calls: int) -> Batch:
        return Batch(number, [('["loss"]', num_calls, bytes(24 * num_calls))], num_calls)

    spool = Spool([tmp_path], "writer", {"store": "here", "run": "run"})
    spool.append(batch(1, 10))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            spool.append(batch(2, num_calls))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    spool.append(batch(2, num_calls))
    spool.append(batch(3, 10))
    assert [(kept.number, kept.num_calls) for kept in spool.batches()] == [(1, 10), (2, num_calls), (3, 10)]


# Copied


def test_a_store_that_is_copied_while_a_process_writes_it(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    program = """
import sys, time, thalweg
run = thalweg.init("faults", store=sys.argv[1], system_seconds=0, code=False)
print("begun", flush=True)
for step in range(100_000):
    run.log({"loss": float(step), "twice": 2.0 * step}, step=step)
    time.sleep(0.0002)
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(store)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    sizes = []
    for i in range(8):
        time.sleep(0.1)
        copy = tmp_path / f"copy-{i}.db"
        with contextlib.closing(sqlite3.connect(store)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target, pages=50, sleep=0.001)
        kept, twice = values(copy, "faults-0"), values(copy, "faults-0", "twice")
        assert kept == [float(step) for step in range(len(kept))]
        assert twice == [2.0 * step for step in range(len(kept))]
        sizes.append(len(kept))
    process.kill()
    process.wait(30)
    process.stdout.close()
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1], "nothing was written meanwhile"


# Odd numbers, odd names


_ODD_NAMES = """a/b/c
//
..
it's
"quoted"
back\\slash
percent%20
loss, and commas
<script>alert(1)</script>
'; DROP TABLE run; --
метрика
指標
e\u0301
{}
null
NaN"""
_names = st.one_of(
    st.sampled_from([*"/ .ü🦀", "x" * 1000, *_ODD_NAMES.splitlines()]),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20),
).filter(lambda name: name.isprintable() and not name.startswith("system/"))
_steps = st.one_of(
    st.integers(0, 20),
    st.integers(0, 9 * 10**12),
    st.sampled_from([10**12, 10**12 + 1, 9_223_372_036_854, Decimal("0.000001"), Decimal("1000000000000.000001")]),
    st.decimals(0, 10**12, places=6, allow_nan=False),
    st.sampled_from([0.5, 0.1, 2.25, 1e-6, 1e12 + 0.5]),
)
_numbers = st.one_of(
    st.floats(width=64),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -0.0, 1.7976931348623157e308]),
)
_calls = st.lists(st.tuples(_steps, st.dictionaries(_names, _numbers, min_size=1, max_size=4)), max_size=12)


def bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else struct.pack("<d", value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=_calls, name=st.one_of(st.just(""), st.text(max_size=30), _names), finished=st.booleans())
@example(
    calls=[(3, {"loss": 1.0}), (3, {"loss": 2.0}), (1, {"loss": 3.0}), (3, {"loss": math.nan})], name="", finished=True
)
@example(
    calls=[(0.1, {"a": 1e308}), (Decimal("0.1"), {"a": -0.0}), (10**12, {"a": math.inf})], name="/", finished=False
)
def test_what_is_logged_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Any], name: str, finished: bool
) -> None:
    store = tmp_path_factory.getbasetemp() / "round-trip.db"
    model: dict[str, dict[int, bytes]] = {}
    run = track(store, name=name, tags=[name] if name.strip() else [], hyperparameters={f"{name}?": name}, strict=False)
    for step, metrics in calls:
        run.log(metrics, step=step)
        position = to_position(step, 6)
        for metric, value in metrics.items():
            model.setdefault(metric, {})[position] = bits(value)
    # Finished, its points are in chunks; flushed only, in the journal.
    run.finish() if finished else run.flush()
    with Store.open(store) as opened:
        assert set(opened.metrics(run.id)) == set(model)
        for metric, expected in model.items():
            kept = opened.series(run.id, metric)
            found = dict(zip(kept.positions.tolist(), map(bits, kept.values.tolist()), strict=True))
            assert found == expected
            assert kept.positions.tolist() == sorted(expected)
        row = opened.run_details(run.id).row
        assert row.name == name
        assert dict(row.hyperparameters) == {f"{name}?": name}
        assert row.tags == ((name,) if name else ())
        last = {metric: bits(value) for step, metrics in calls for metric, value in metrics.items()}
        assert {metric: bits(value) for metric, (_, value) in row.latest.items()} == last
    run.finish()


def test_emoji_of_several_code_points_name_metrics(tmp_path: Path) -> None:
    names = ["👩‍🔬/loss", "🏳️‍🌈", "❤️"]
    with track(tmp_path / "store.db") as run:
        run.log(dict.fromkeys(names, 1.0))
    with Store.open(tmp_path / "store.db") as opened:
        assert opened.metrics(run.id) == sorted(names)


def test_what_cannot_be_recorded_is_warned_of_once_and_the_rest_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store.db"
    with caplog.at_level(logging.WARNING, "thalweg"), track(store) as run:
        for step in range(3):
            run.log({"": 1.0, "line\nbreak": 1.0, "loss": float(step), "text": "high"}, step=step)
        run.log({"loss": 3.0}, step=-1)
        run.log({"loss": 3.0}, step=math.nan)
        run.log({"loss": 3.0}, step=10**13)
    assert values(store, run.id) == [0.0, 1.0, 2.0]
    said = [record.message for record in caplog.records]
    assert len(said) == len(set(said)) == 4, said


def test_a_fork_bombarded_with_signals_keeps_all(tmp_path: Path) -> None:
    """SIGTERM in the middle of logging: what was logged before is there."""
    store = tmp_path / "store.db"
    program = """
import sys, thalweg
run = thalweg.init("faults", store=sys.argv[1], system_seconds=0, code=False)
for step in range(10_000_000):
    run.log({"loss": float(step)}, step=step)
    if step % 100 == 0:
        print(step, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(store)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    process.terminate()
    said = process.stdout.read().split()
    process.wait(30)
    process.stdout.close()
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    kept = values(store, "faults-0")
    assert kept == [float(step) for step in range(len(kept))]
    assert len(kept) > int(said[-1])


def test_a_forked_child_does_not_disturb_its_parents_run(tmp_path: Path) -> None:
    """As a data loader's workers are: copies of a process that tracks, which end without a word."""
    store = tmp_path / "store.db"
    program = """
import os, sys, thalweg
run = thalweg.init("faults", store=sys.argv[1], system_seconds=0, code=False)
for step in range(50):
    run.log({"loss": float(step)}, step=step)
    if step == 20:
        child = os.fork()
        if child == 0:
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
run.finish()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(store)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert values(store, "faults-0") == [float(step) for step in range(50)]
    with Store.open(store) as opened:
        assert opened.run_rows("faults")[0].status == "finished"


def test_the_spool_of_another_user_or_store_is_left_alone(tmp_path: Path, hasty: None) -> None:
    first, second = tmp_path / "a" / "store.db", tmp_path / "b" / "store.db"
    run = track(first)
    with locked(first):
        run.log({"loss": 1.0})
        run.finish()
    (spool,) = spools(tmp_path)
    elsewhere = second.parent / "spool" / spool.name
    elsewhere.parent.mkdir(parents=True)
    shutil.copyfile(spool, elsewhere)
    with track(second):
        pass
    with Store.open(second) as opened:
        assert len(opened.run_rows("faults")) == 1
    assert elsewhere.exists()
    assert os.stat(spool).st_mode & 0o077 == 0 or os.stat(spool.parent).st_mode & 0o077 == 0, "it may hold secrets"
