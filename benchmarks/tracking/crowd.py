"""Many writers and readers of one store at once, each a process, and what became of the points.

    python crowd.py STORE [--writers 16] [--readers 4] [--seconds 120]

Prints one line of JSON. tests/track/test_tracking_load.py looks at the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commit_waits
import numpy as np

import thalweg
from thalweg.track.store import Store

NUM_METRICS = 10
PAUSE_SECONDS = 0.01
"""Between a writer's calls: a training step of a small model."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    print(json.dumps(crowd(options.store, options.writers, options.readers, options.seconds)))


def crowd(store: Path, num_writers: int, num_readers: int, seconds: float) -> dict[str, Any]:
    """Let them all go for some seconds; what they met, and what is wrong with the store afterwards."""
    context = multiprocessing.get_context("fork")
    _elsewhere(context, lambda: Store.open(store).close())
    until = time.time() + seconds
    wrote, read = context.SimpleQueue(), context.SimpleQueue()
    processes = [
        context.Process(target=_guarded, args=(wrote, lambda i=i: write(store, i, until))) for i in range(num_writers)
    ]
    processes += [
        context.Process(target=_guarded, args=(read, lambda i=i: look_around(store, i, until)))
        for i in range(num_readers)
    ]
    for process in processes:
        process.start()
    writers = [wrote.get() for _ in range(num_writers)]
    readers = [read.get() for _ in range(num_readers)]
    for process in processes:
        process.join()
    problems = _elsewhere(context, lambda: look(store, writers))
    calls = sorted(seconds for writer in writers for seconds in writer.get("log_seconds", []))
    waits = sorted(wait for writer in writers for wait in writer.get("waits", []))
    others = [wait for writer in writers for wait in writer.get("other_waits", [])]
    return {
        "num_points": sum(writer.get("num_calls", 0) for writer in writers) * NUM_METRICS,
        "num_reads": sum(reader.get("num_reads", 0) for reader in readers),
        "errors": [entry["error"] for entry in [*writers, *readers] if "error" in entry],
        "warnings": [text for entry in [*writers, *readers] for text in entry.get("warnings", [])],
        "problems": problems,
        "log_p99_us": 1e6 * calls[len(calls) * 99 // 100] if calls else None,
        "log_max_ms": 1e3 * calls[-1] if calls else None,
        "num_commits": len(waits),
        "commit_wait_p99_ms": 1e3 * waits[len(waits) * 99 // 100] if waits else None,
        "commit_wait_max_ms": 1e3 * max(waits, default=0.0),
        "begin_or_end_wait_max_ms": 1e3 * max(others, default=0.0),
        "read_max_ms": 1e3 * max((reader.get("longest", 0.0) for reader in readers), default=0.0),
    }


def write(store: Path, number: int, until: float) -> dict[str, Any]:
    """One writer: a run of its own, values that can be told again."""
    waits = commit_waits.watch()
    run = thalweg.init("crowd", run=f"writer-{number}", store=store, system_seconds=0, code=False)
    times: list[float] = []
    began = time.perf_counter()
    while time.time() < until:
        values = {f"metric/{i}": value(number, len(times), i) for i in range(NUM_METRICS)}
        start = time.perf_counter()
        run.log(values, step=len(times))
        times.append(time.perf_counter() - start)
        time.sleep(PAUSE_SECONDS)
    logged = time.perf_counter()
    run.finish()
    # All begin and end at the same moment here, which training scripts do not: those waits are counted apart.
    return {
        "number": number,
        "num_calls": len(times),
        "log_seconds": times,
        "waits": [seconds for asked, seconds in waits if began <= asked <= logged],
        "other_waits": [seconds for asked, seconds in waits if not began <= asked <= logged],
    }


def look_around(store: Path, number: int, until: float) -> dict[str, Any]:
    """One reader: what a dashboard asks for, at random; nothing that was seen may be gone or change."""
    rng = random.Random(number)
    seen: dict[str, int] = {}
    num_reads, longest = 0, 0.0
    with Store.open(store, read_only=number % 2 == 0) as opened:
        while time.time() < until:
            start = time.perf_counter()
            rows = opened.run_rows("crowd") if opened.studies() else []
            if rows:
                row = rng.choice(rows)
                curve = opened.series(row.id, "metric/3")
                opened.reduced(row.id, "metric/5", num_buckets=100)
                opened.changes(time.time() - 1)
                expected = value(int((row.uid or "").split("-")[1]), np.arange(len(curve)), 3)
                if not np.array_equal(curve.values, expected):
                    raise AssertionError(f"{row.id}: a read saw something else than what was logged")
                if len(curve) < seen.get(row.id, 0):
                    raise AssertionError(f"{row.id}: it had {seen[row.id]} points, and has {len(curve)}")
                seen[row.id] = len(curve)
            num_reads += 1
            longest = max(longest, time.perf_counter() - start)
            time.sleep(0.02)
    return {"num_reads": num_reads, "longest": longest}


def look(store: Path, writers: list[dict[str, Any]]) -> list[str]:
    """All that is wrong with the store and its curves."""
    with Store.open(store) as opened:
        problems = opened.check_integrity()
        by_uid = {row.uid: row for row in opened.run_rows("crowd")}
        for writer in writers:
            if "number" not in writer:
                continue
            number, num_calls = writer["number"], writer["num_calls"]
            row = by_uid[f"writer-{number}"]
            if row.status != "finished":
                problems.append(f"{row.id} is {row.status}")
            for i in range(NUM_METRICS):
                curve = opened.series(row.id, f"metric/{i}")
                steps = np.arange(num_calls)
                same = np.array_equal(curve.values, value(number, steps, i))
                if not same or not np.array_equal(curve.positions, steps * 10**6):
                    problems.append(f"{row.id}, metric {i}: {len(curve)} of {num_calls} points, or other ones")
    return problems


def value(writer: int, step: Any, metric: int) -> Any:
    """What a writer logs at a step, or at an array of steps."""
    return writer * 1_000_003.0 + step * 17.0 + metric


class _Gather(logging.Handler):
    """Keeps what is warned of: a writer that meets a lock says so."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _guarded(answers: Any, call: Callable[[], dict[str, Any]]) -> None:
    gather = _Gather()
    logging.getLogger("thalweg").addHandler(gather)
    try:
        answer = call()
    except BaseException:
        answer = {"error": traceback.format_exc()[-800:]}
    answers.put(answer | {"warnings": gather.texts[:3]})


def _elsewhere(context: Any, call: Callable[[], Any]) -> Any:
    """In a process of its own: this one has no store open, so that it can fork."""
    answers = context.SimpleQueue()
    process = context.Process(target=lambda: answers.put(call()))
    process.start()
    answer = answers.get()
    process.join()
    return answer


if __name__ == "__main__":
    main()
