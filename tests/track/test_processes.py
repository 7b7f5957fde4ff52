"""Processes that die at any moment, and processes that write one store at the same time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from thalweg.errors import StoreError
from thalweg.track.store import Store

_WRITE = """
import sys, time
from thalweg.budget import Cost
from thalweg.track.store import Store

location, run_id, pause = sys.argv[1:]
with Store.open(location) as store, store.writer(run_id) as writer:
    for position in range(1_000_000):
        writer.log(position, {"loss": float(position), "twice": 2.0 * position})
        writer.spend("train", Cost(samples=1))
        # What was surely called, with the time: a killed process may lose the last 100 ms of it.
        print(position, time.time(), flush=True)
        time.sleep(float(pause))
"""


def start(store: Store, run_id: str, pause: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", _WRITE, store.location, run_id, str(pause)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def killed(process: subprocess.Popen[str], after: float, how: int) -> list[tuple[int, float]]:
    """Kill a writer some seconds after its first point; returns what it said it logged, with the times."""
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    time.sleep(after)
    process.send_signal(how)
    lines += process.stdout.read().splitlines()
    process.wait(30)
    process.stdout.close()
    said = [line.split() for line in lines if len(line.split()) == 2]
    return [(int(position), float(when)) for position, when in said]


# Under 0.3 ms a call, so that the journal is compacted while the process is killed, and slow enough to be read.
@pytest.mark.parametrize("seed", range(6))
def test_a_killed_writer_loses_at_most_the_last_commit(store: Store, new_run: Any, seed: int) -> None:
    run = new_run()
    store.update_run(run.id, status="running")
    process = start(store, run.id, 0.0002)
    logged = killed(process, random.Random(seed).uniform(0.0, 1.2), signal.SIGKILL)
    kept = store.series(run.id, "loss")
    size = len(kept)
    assert kept.positions.tolist() == list(range(size))
    assert kept.values.tolist() == [float(position) for position in range(size)]
    assert store.series(run.id, "twice").values.tolist() == [2.0 * position for position in range(size)]
    # Points and spending are committed together: both or neither.
    assert store.read_ledger("imdb").of(run.id).samples in (size - 1, size, size + 1)
    if size < len(logged):
        lost = logged[-1][1] - logged[size][1]
        assert lost < 1.0, f"lost {lost:.2f} s of points; it should be about 0.1 s, a loaded machine allowed for"
    assert store.check_integrity() == []
    times = store.run_times(run.id)
    assert not times.live, "the crash shows at once"
    assert store.read_run(run.id).status == "running"


def test_sigterm_loses_nothing(store: Store, new_run: Any) -> None:
    run = new_run()
    process = start(store, run.id, 0.0)
    logged = killed(process, 0.3, signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM
    assert len(store.series(run.id, "loss")) >= len(logged)
    assert store.check_integrity() == []


_SHARE = """
import sys
from thalweg.budget import Cost
from thalweg.track.store import Store

location, seed = sys.argv[1:]
with Store.open(location) as store:
    for _ in range(10):
        run = store.create_run("imdb", hyperparameters={"lr": 0.1}, horizon=9, until=9, seed=int(seed), origin="hand")
        with store.writer(run.id) as writer:
            for position in range(200):
                writer.log(position, {"loss": float(seed)})
            writer.report(200, {"accuracy": 0.5})
            writer.spend("train", Cost(samples=200))
            writer.finish("finished", 200)
"""


def test_two_processes_share_a_store(store: Store) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", _SHARE, store.location, str(seed)]) for seed in (1, 2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    tree = store.read_tree("imdb")
    assert [run.number for run in tree] == list(range(20))
    assert sorted(run.seed for run in tree) == [1] * 10 + [2] * 10
    for run in tree:
        assert run.status == "finished"
        assert store.series(run.id, "loss").values.tolist() == [float(run.seed)] * 200
    assert store.read_ledger("imdb").total().samples == 4000


def test_two_processes_may_create_a_store_at_once(tmp_path: Any) -> None:
    program = "import sys; from thalweg.track.store import Store; Store.open(sys.argv[1]).close()"
    arguments = [sys.executable, "-c", program, str(tmp_path / "new.db")]
    processes = [subprocess.Popen(arguments) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    with Store.open(tmp_path / "new.db") as store:
        assert store.check_integrity() == []


def test_a_study_is_free_again_once_its_process_is_gone(store: Store) -> None:
    program = """
import sys, time
from thalweg.track.store import Store
session = Store.open(sys.argv[1]).open_session("imdb")
print("open", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program, store.location], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(StoreError, match=f"process {process.pid} on .*kill {process.pid}"):
        store.open_session("imdb")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    assert store.live_session("imdb") is None
    store.open_session("imdb").close()
