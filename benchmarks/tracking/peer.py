"""Measures one tracker in its own environment, and prints one line of JSON.

    python peer.py NAME TASK FOLDER [OPTIONS AS JSON]

`run.py` calls this; it needs nothing but Python and the tracker.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import workload
from workload import Calls, Logging


def main() -> None:
    name, task, folder, *options = sys.argv[1:]
    # What trackers print goes to stderr, so that a script can read the answer.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    peer = importlib.import_module(f"peers_{name}")
    without = getattr(peer, "WITHOUT", {})
    answer: dict[str, Any]
    if task in without:
        answer = {"none": without[task]}
    else:
        answer = TASKS[task](peer, Path(folder), **json.loads(options[0] if options else "{}"))
    answer["versions"] = {package: version(package) for package in peer.PACKAGES}
    os.write(answer_to, (json.dumps(answer) + "\n").encode())


def write(peer: ModuleType, folder: Path, *, shape: str, num_steps: int, bulk: bool = True) -> dict[str, Any]:
    """Log from one process; the seconds from the first point until another process could read them all."""
    calls = workload.wide(num_steps) if shape == "wide" else workload.long(num_steps)
    peer.prepare(folder)
    # What a tracker does once for a process is not counted for any of them.
    warm = peer.open_run(folder, "warm-up", bulk=bulk)
    warm.log(0, calls[0][1])
    warm.finish()
    before = size(folder)
    run = peer.open_run(folder, "filled", bulk=bulk)
    start = time.perf_counter()
    for step, metrics in calls:
        run.log(step, metrics)
    run.finish()
    seconds = time.perf_counter() - start
    num_points = sum(len(metrics) for _, metrics in calls)
    return {"seconds": seconds, "num_points": num_points, "bytes_per_point": (size(folder) - before) / num_points}


def fill(peer: ModuleType, folder: Path, *, num_points: int) -> dict[str, Any]:
    """One long series, as fast as the tracker can, for `read` and `reduce`."""
    peer.prepare(folder)
    before = size(folder)
    run = peer.open_run(folder, "filled", bulk=True)
    start = time.perf_counter()
    for step, metrics in workload.long(num_points):
        run.log(step, metrics)
    run.finish()
    answer = {"seconds": time.perf_counter() - start, "bytes_per_point": (size(folder) - before) / num_points}
    index(peer, folder)
    return answer


def read(peer: ModuleType, folder: Path, *, num_points: int, repeats: int, longest: float) -> dict[str, Any]:
    """The whole series."""
    return timed(lambda: peer.read(folder), num_points, num_points, repeats, longest)


def reduce(peer: ModuleType, folder: Path, *, num: int, repeats: int, longest: float) -> dict[str, Any]:
    """What it gives for a chart of so many points."""
    answer = timed(lambda: peer.reduce(folder, num), num // 4, num * 2, repeats, longest)
    return answer | {"exact": getattr(peer, "EXACT", False), "how": peer.reduce.__doc__}


def runs(peer: ModuleType, folder: Path, *, num: int, seconds: float, repeats: int, longest: float) -> dict[str, Any]:
    """A list of many runs; first they are made, as many as there is time for."""
    created = elsewhere(lambda: create(peer, folder, num, seconds))
    answer = timed(lambda: range(peer.list_runs(folder)), created, created, repeats, longest)
    return answer | {"num_runs": created, "how": peer.list_runs.__doc__}


def create(peer: ModuleType, folder: Path, num: int, seconds: float) -> int:
    """As many runs as there is time for."""
    peer.prepare(folder)
    created: int = peer.create_runs(folder, num, time.monotonic() + seconds)
    index(peer, folder)
    return created


def index(peer: ModuleType, folder: Path) -> None:
    """What a tracker needs before another process can read; only Aim does."""
    if hasattr(peer, "index"):
        peer.index(folder)


def elsewhere(call: Callable[[], Any]) -> Any:
    """Call something in a process of its own.

    What is open in a process, threads and files, some trackers can use neither in a forked child nor open once more.
    """
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=lambda: answers.put(call()))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError("it failed")
    return answers.get()


def timed(
    call: Callable[[], Any], at_least: int, at_most: int, repeats: int, longest: float
) -> dict[str, list[float] | int]:
    """Each call's seconds, the first one's too; fewer calls where they take long."""
    begin, times = time.perf_counter(), []
    for _ in range(repeats):
        start = time.perf_counter()
        num = len(call())
        times.append(time.perf_counter() - start)
        assert at_least <= num <= at_most, f"it has {num}, and must have {at_least} to {at_most}"
        if time.perf_counter() - begin > longest:
            break
    return {"seconds": times, "num": num}


def loop(
    peer: ModuleType, folder: Path, *, num_steps: int, longest: float, pause: float = 0.001, work: float = 0.001
) -> dict[str, Any]:
    """A training loop's steps, each some computation and some waiting, and the time of each `log` call in it."""
    calls = workload.wide(num_steps)
    peer.prepare(folder)
    run = peer.open_run(folder, "loop", bulk=False)
    times = steps(run, calls, longest, pause, work)
    start = time.perf_counter()
    run.finish()
    return spread(times) | {"num_steps": len(times), "finish_seconds": time.perf_counter() - start}


def steps(run: Logging, calls: Calls, longest: float, pause: float, work: float) -> list[float]:
    """The seconds of each call."""
    times: list[float] = []
    begin = time.perf_counter()
    for step, metrics in calls:
        busy_until = time.perf_counter() + work
        while time.perf_counter() < busy_until:
            sum(range(200))
        time.sleep(pause)
        start = time.perf_counter()
        run.log(step, metrics)
        end = time.perf_counter()
        times.append(end - start)
        if end - begin > longest:
            break
    return times


def share(
    peer: ModuleType, folder: Path, *, num_processes: int, num_steps: int, num_metrics: int, pause: float, bulk: bool
) -> dict[str, Any]:
    """Processes that log to one store at once: from the word go until the last has finished."""
    context = multiprocessing.get_context("fork")
    elsewhere(lambda: peer.prepare(folder))
    barrier, answers = context.Barrier(num_processes + 1), context.SimpleQueue()

    def child(number: int) -> None:
        try:
            answers.put(one_of_many(peer, folder, number, barrier, num_steps, num_metrics, pause, bulk))
        except BaseException as error:
            barrier.abort()
            answers.put({"error": f"{type(error).__name__}: {error}"[:300]})

    processes = [context.Process(target=child, args=(number,)) for number in range(num_processes)]
    for process in processes:
        process.start()
    try:
        barrier.wait(120)
    except Exception as error:
        failed = [answers.get() for _ in processes]
        raise RuntimeError(f"a process could not begin: {failed}") from error
    start = time.perf_counter()
    ended = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    errors = [answer["error"] for answer in ended if "error" in answer]
    good = [answer for answer in ended if "error" not in answer]
    calls = [seconds for answer in good for seconds in answer["calls"]]
    return {
        "seconds": max((answer["end"] for answer in good), default=float("nan")) - start,
        "num_points": len(good) * num_steps * num_metrics,
        "num_failed": len(errors),
        "errors": errors[:2],
        **(spread(calls) if calls else {}),
        "num_commits": sum(len(answer["waits"]) for answer in good),
        "commit_wait_max_ms": 1e3 * max((wait for answer in good for wait in answer["waits"]), default=0.0),
        "begin_or_end_wait_max_ms": 1e3 * max((wait for answer in good for wait in answer["other_waits"]), default=0.0),
    }


def one_of_many(
    peer: ModuleType,
    folder: Path,
    number: int,
    barrier: Any,
    num_steps: int,
    num_metrics: int,
    pause: float,
    bulk: bool,
) -> dict[str, Any]:
    """What one of the processes does and measures."""
    waits = peer.watch_commits() if hasattr(peer, "watch_commits") else []
    calls = workload.wide(num_steps, num_metrics, seed=number)
    run = peer.open_run(folder, f"process-{number}", bulk=bulk)
    barrier.wait(120)
    began = time.perf_counter()
    if pause:
        times = steps(run, calls, 1e9, pause, 0.0)
    else:
        times = []
        for step, metrics in calls:
            start = time.perf_counter()
            run.log(step, metrics)
            times.append(time.perf_counter() - start)
    logged = time.perf_counter()
    run.finish()
    # `perf_counter` counts from the machine's start, for all processes.
    return {
        "end": time.perf_counter(),
        "calls": times,
        "waits": [seconds for asked, seconds in waits if began <= asked <= logged],
        "other_waits": [seconds for asked, seconds in waits if not began <= asked <= logged],
    }


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, 99th percentile and longest, in microseconds."""
    ordered = sorted(seconds)
    return {
        "p50_us": 1e6 * ordered[len(ordered) // 2],
        "p99_us": 1e6 * ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)],
        "max_us": 1e6 * ordered[-1],
    }


def size(folder: Path) -> int:
    """Bytes in all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "write": write,
    "fill": fill,
    "read": read,
    "reduce": reduce,
    "runs": runs,
    "loop": loop,
    "share": share,
}

if __name__ == "__main__":
    main()
    # Some trackers leave threads or services behind that would keep the process.
    sys.stderr.flush()
    os._exit(0)
