"""Writers that are killed at random moments, and what is left of what they had logged.

    python killing.py STORE [--kills 100] [--strict] [--seed 0]

Prints one line of JSON. tests/track/test_tracking_faults.py looks at the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import signal
import struct
import time
from pathlib import Path
from typing import Any

import thalweg
from thalweg.track.store import Store

_SAID = struct.Struct("<iid")
"""What a writer says after each call: its run's number, the call's, and when. A call of -1 is `finish`."""

CALLS_PER_RUN = 400
"""So that a kill may also hit the beginning and the end of a run."""


@dataclasses.dataclass
class Death:
    """What one kill did."""

    num_said: int
    """Calls that had returned."""
    num_lost: int
    """Those of them that are not in the store."""
    lost_ms: float
    """From the first of the lost calls until the last call; 0 where none is lost."""
    problems: list[str]
    """All that is wrong with the store or its curves afterwards."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=0.8)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    deaths = [kill(options.store, i, rng.uniform(0.0, options.longest), options.strict) for i in range(options.kills)]
    print(json.dumps([dataclasses.asdict(death) for death in deaths]))


def kill(store: Path, number: int, seconds: float, strict: bool) -> Death:
    """Let a process log, kill it after some seconds, and look at the store from another process."""
    # This process has no store open: a forked child could not use it.
    context = multiprocessing.get_context("fork")
    reader, writer = os.pipe()
    process = context.Process(target=write, args=(store, number, strict, reader, writer))
    process.start()
    os.close(writer)
    assert process.pid is not None
    said = b""
    deadline = time.monotonic() + seconds
    os.set_blocking(reader, False)
    while (rest := deadline - time.monotonic()) > 0:
        said += _read(reader)
        time.sleep(min(rest, 0.005))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    os.set_blocking(reader, True)
    while part := os.read(reader, 1 << 20):
        said += part
    os.close(reader)
    calls = [_SAID.unpack_from(said, i) for i in range(0, len(said) - _SAID.size + 1, _SAID.size)]
    answers = context.SimpleQueue()
    looker = context.Process(target=lambda: answers.put(look(store, number, calls)))
    looker.start()
    looker.join()
    if looker.exitcode:
        return Death(len(calls), 0, 0.0, [f"the store could not be looked at: exit code {looker.exitcode}"])
    death: Death = answers.get()
    return death


def write(store: Path, number: int, strict: bool, unused: int, said: int) -> None:
    """Log run after run until the end comes; values tell which call they are of."""
    os.close(unused)
    i = 0
    while True:
        run = thalweg.init(
            "killed", run=uid(number, i), store=store, strict=strict, system_seconds=0, code=False, tags=["x"]
        )
        for call in range(CALLS_PER_RUN):
            run.log({"loss": float(call), "twice": 2.0 * call}, step=call)
            os.write(said, _SAID.pack(i, call, time.time()))
            if not strict:
                time.sleep(0.0003)
        run.finish()
        os.write(said, _SAID.pack(i, -1, time.time()))
        i += 1


def look(store: Path, number: int, calls: list[tuple[Any, ...]]) -> Death:
    """Compare what a writer said with what is in the store."""
    lost: list[float] = []
    with Store.open(store) as opened:
        problems = opened.check_integrity()
        runs = {row.uid: row for row in opened.run_rows("killed")} if opened.studies() else {}
        for i in range(calls[-1][0] + 1 if calls else 0):
            mine = [(call, when) for run, call, when in calls if run == i and call >= 0]
            ended = (i, -1) in {(run, call) for run, call, _ in calls}
            row = runs.get(uid(number, i))
            if row is None:
                problems.append(f"run {i} is not there")
                continue
            kept = opened.series(row.id, "loss")
            twice = opened.series(row.id, "twice")
            expected = list(range(len(kept)))
            if kept.values.tolist() != expected or kept.positions.tolist() != [c * 10**6 for c in expected]:
                problems.append(f"run {i}: its curve is not the first {len(kept)} calls")
            if twice.values.tolist() != [2.0 * call for call in expected]:
                problems.append(f"run {i}: its metrics do not end at the same call")
            if ended and (row.status != "finished" or len(kept) != CALLS_PER_RUN):
                problems.append(f"run {i} had finished, and is {row.status} with {len(kept)} of its calls")
            lost += [when for call, when in mine if call >= len(kept)]
        last = calls[-1][2] if calls else 0.0
    return Death(len(calls), len(lost), 1e3 * (last - min(lost)) if lost else 0.0, problems)


def uid(number: int, i: int) -> str:
    """Of a writer's run."""
    return f"kill-{number}-{i}"


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 1 << 20)
    except BlockingIOError:
        return b""


if __name__ == "__main__":
    main()
