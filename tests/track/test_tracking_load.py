"""Tracking under load: many processes in one store, many in one run, and what a call costs a training loop."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thalweg
from thalweg.track.records import NewRun
from thalweg.track.store import Store

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "tracking"


def crowd(store: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARK / "crowd.py"), str(store), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_16_writers_and_4_readers_lose_nothing_and_meet_no_lock(tmp_path: Path) -> None:
    found = crowd(tmp_path / "store.db", "--seconds", "20")
    assert (found["errors"], found["warnings"], found["problems"]) == ([], [], [])
    assert found["num_points"] > 16 * 20 * 100, "they hardly wrote"
    assert found["num_reads"] > 4 * 20, "they hardly read"
    # The benchmark, alone on its machine, holds 100 ms.
    assert found["log_max_ms"] < 500
    assert found["commit_wait_max_ms"] < 2000, "a writer would have given the store up"


def test_4_writers_and_2_readers_lose_nothing_and_meet_no_lock(tmp_path: Path) -> None:
    found = crowd(tmp_path / "store.db", "--seconds", "2", "--writers", "4", "--readers", "2")
    assert (found["errors"], found["warnings"], found["problems"]) == ([], [], [])
    assert found["num_points"] > 0
    assert found["num_reads"] > 0


_ONE_OF_MANY = """
import sys, thalweg
store, rank = sys.argv[1], int(sys.argv[2])
run = thalweg.init("shared", run="the one", store=store, system_seconds=0, code=False)
for step in range(300):
    run.log({f"rank-{rank}/loss": step + rank / 10}, step=step)
    if step % 4 == rank:
        run.log({"turns": float(step)}, step=step)
run.add_tags(f"rank {rank}")
run.finish()
print(run.id)
"""


def test_many_processes_write_one_run(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", _ONE_OF_MANY, str(store), str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(4)
    ]
    said = [process.communicate(timeout=100)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert set(said) == {"shared-0"}
    with Store.open(store) as opened:
        assert opened.check_integrity() == []
        (row,) = opened.run_rows("shared")
        assert row.status == "finished"
        assert sorted(row.tags) == [f"rank {rank}" for rank in range(4)]
        for rank in range(4):
            expected = [step + rank / 10 for step in range(300)]
            assert opened.series(row.id, f"rank-{rank}/loss").values.tolist() == expected
        assert opened.series(row.id, "turns").values.tolist() == [float(step) for step in range(300)]


def test_a_call_costs_a_training_loop_little(tmp_path: Path) -> None:
    metrics = {f"metric/{i}": float(i) for i in range(100)}
    seconds = []
    with thalweg.init("load", store=tmp_path / "store.db", system_seconds=0, code=False) as run:
        for step in range(300):
            start = time.perf_counter()
            run.log(metrics, step=step)
            seconds.append(time.perf_counter() - start)
            time.sleep(0.001)
    # The benchmark holds the 99th percentile; the median is safe from what else this machine does.
    assert statistics.median(seconds) < 200e-6


def test_10_000_runs_are_listed_at_once(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.create_project("many")
        store.track_run("many", NewRun(uid="first", hyperparameters={"lr": 0.1}, status="finished"))
        store.import_points("many-0", "loss", np.array([5]), np.array([0]), np.array([0.5]))
        copy_runs(store, 10_000)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            rows = store.run_rows("many")
            seconds.append(time.perf_counter() - start)
        assert len(rows) == 10_000
        assert rows[-1].hyperparameters == {"lr": 0.1}
        assert rows[-1].latest == {"loss": (5, 0.5)}
        # 0.2 s are promised; this allows for a machine that does other things, too.
        assert min(seconds) < 1.0


def copy_runs(store: Store, num: int) -> None:
    """The first run's row, again and again: entering so many one by one takes long."""
    with store._database.write() as connection:
        columns = [row[1] for row in connection.exec_driver_sql("PRAGMA table_info(run)") if row[1] != "key"]
        changed = {"id": "'many-' || n", "uid": "'uid-' || n", "number": "n"}
        chosen = ", ".join(changed.get(column, f'run."{column}"') for column in columns)
        names = ", ".join(f'"{column}"' for column in columns)
        connection.exec_driver_sql(
            f"WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < {num - 1})"
            f" INSERT INTO run ({names}) SELECT {chosen} FROM count, run WHERE run.id = 'many-0'"
        )
        connection.exec_driver_sql(f"UPDATE study SET num_created = {num}")


@pytest.mark.slow
def test_a_lineage_of_1_000_forks_is_read_at_once(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.create_project("deep")
        parent = None
        for i in range(1000):
            new = NewRun(uid=f"uid-{i}", parent=parent, fork_position=i * 10**6, status="finished")
            parent, _ = store.track_run("deep", new)
        for i in (0, 500, 999):
            points = np.array([i, i + 1]) * 10**6
            store.import_points(f"deep-{i}", "loss", points, points, np.array([i + 0.25, i + 0.5]))
        start = time.perf_counter()
        curve = store.series("deep-999", "loss")
        assert time.perf_counter() - start < 1.0
        assert curve.positions.tolist() == [step * 10**6 for step in (0, 1, 500, 501, 999, 1000)]
        assert curve.values.tolist() == [0.25, 0.5, 500.25, 500.5, 999.25, 999.5]
        assert len(store.run_details("deep-999").lineage) == 1000
