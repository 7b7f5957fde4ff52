"""What reading costs: a long series whole and reduced, a long list of runs, a deep lineage; and bytes a point."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from environments import Lab, scratch

from thalweg.track.records import NewRun
from thalweg.track.store import Store

sys.path.append(str(Path(__file__).parents[1]))
import result

NUM_BUCKETS = 2000
NUM_FORKS = 1000


def claims(lab: Lab) -> list[dict[str, Any]]:
    """Of everything here."""
    return [*series(lab), *runs(lab), *lineage(lab)]


def series(lab: Lab) -> list[dict[str, Any]]:
    """A series of 1,000,000 points."""
    num = lab.pick(1_000_000, 20_000)
    print(f"reading {num:,} points; they are logged first", flush=True)
    with tempfile.TemporaryDirectory(prefix="thalweg-benchmark-", ignore_cleanup_errors=True) as place:
        folders = {name: Path(place) / name / "data" for name in lab.pythons}
        for folder in folders.values():
            folder.parent.mkdir()
        # Not measured, so two at a time.
        with ThreadPoolExecutor(2) as pool:
            filled = list(pool.map(lambda name: lab.measure(name, "fill", folders[name], num_points=num), folders))
        fills = dict(zip(folders, filled, strict=True))
        read, reduced = {}, {}
        for name, folder in folders.items():
            # What cannot be read is not asked for; what could not be filled neither.
            often = {"repeats": 20 if name == "thalweg" else lab.repeats, "longest": 12.0}
            missing = {"none": fills[name].get("none")}
            ready = "none" not in fills[name]
            read[name] = lab.measure(name, "read", folder, num_points=num, **often) if ready else missing
            reduced[name] = lab.measure(name, "reduce", folder, num=NUM_BUCKETS, **often) if ready else missing
    return [whole(num, read), exact(num, read, reduced), chart(num, reduced), sizes(num, fills)]


def seconds(answer: dict[str, Any]) -> float | None:
    """The median; the first call, which may warm something up, counts only where it is the only one."""
    times = answer.get("seconds")
    return None if times is None else statistics.median(times[1:] or times)


def whole(num: int, read: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All points."""
    measured = {name: answer.get("none") or milliseconds(seconds(answer)) for name, answer in read.items()}
    text = f"milliseconds to read a series of {num:,} points, the fastest of the others over ours"
    return result.claim(text, measured, fastest(read) / our(read))


def exact(num: int, read: dict[str, dict[str, Any]], reduced: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All points, reduced without hiding any extreme."""
    best: dict[str, dict[str, Any]] = {}
    for name, answer in read.items():
        best[name] = answer
        # Where a tracker's reduction is exact, it counts if it is faster; where it is not, its reading alone counts.
        times = seconds(reduced[name]) if reduced[name].get("exact") else None
        if times is not None and times < (seconds(answer) or float("inf")):
            best[name] = reduced[name]
    measured = {name: answer.get("none") or milliseconds(seconds(answer)) for name, answer in best.items()}
    measured["how"] = "those that only sample are credited with reading alone: reducing exactly would come on top"
    text = (
        f"milliseconds to read {num:,} points and reduce them to at most {NUM_BUCKETS:,} buckets with exact extremes,"
        " the fastest of the others over ours"
    )
    return result.claim(text, measured, fastest(best) / our(best), at_least=10)


def chart(num: int, reduced: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What each gives for a chart, samples too."""
    measured: dict[str, Any] = {}
    for name, answer in reduced.items():
        measured[name] = answer.get("none") or milliseconds(seconds(answer))
        if name != "thalweg" and "how" in answer:
            measured[f"{name}, how"] = answer["how"]
    text = (
        f"milliseconds to about {NUM_BUCKETS:,} points for a chart of {num:,}, whatever each leaves out: a sample that"
        " reads only what it shows hides spikes; the fastest of the others over ours"
    )
    return result.claim(text, measured, fastest(reduced) / our(reduced))


def sizes(num: int, fills: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Bytes a point on the disk."""
    measured = {name: answer.get("none") or round(answer["bytes_per_point"], 2) for name, answer in fills.items()}
    others = [size for name, size in measured.items() if name != "thalweg" and isinstance(size, float)]
    text = f"bytes a point, a series of {num:,} normal values, the smallest of the others' over ours"
    return result.claim(text, measured, min(others) / measured["thalweg"])


def our(answers: dict[str, dict[str, Any]]) -> float:
    """Seconds."""
    found = seconds(answers["thalweg"])
    assert found is not None, answers["thalweg"]
    return found


def fastest(answers: dict[str, dict[str, Any]]) -> float:
    """Seconds, of the others."""
    return min(found for name, answer in answers.items() if name != "thalweg" and (found := seconds(answer)))


def milliseconds(value: float | None) -> float | None:
    """To a thousandth."""
    return None if value is None else round(value * 1e3, 3)


def runs(lab: Lab) -> list[dict[str, Any]]:
    """A list of 10,000 runs; those that take long to make have fewer, and the time for a run is compared."""
    num = lab.pick(10_000, 100)
    print(f"a list of {num:,} runs; they are made first", flush=True)
    answers = {}
    for name in lab.pythons:
        with scratch() as folder:
            allowed = 120 if name == "thalweg" else lab.pick(12, 3)
            answers[name] = lab.measure(
                name, "runs", folder, num=num, seconds=allowed, repeats=lab.repeats + 1, longest=10.0
            )
    ours = answers.pop("thalweg")
    assert ours["num_runs"] == num, ours
    mine = our({"thalweg": ours})
    found = [
        result.claim(
            f"milliseconds to list {num:,} runs with hyperparameters and last values",
            {"milliseconds": milliseconds(mine), "first_call_ms": milliseconds(ours["seconds"][0])},
            mine * 1e3,
        )
    ]
    for name, answer in answers.items():
        text = f"time for a run in a list of many, {name}'s over ours"
        if "none" in answer:
            found.append(result.claim(text, {name: answer["none"]}, 0.0))
            continue
        theirs = seconds(answer)
        assert theirs is not None
        measured = {
            "thalweg_ms": milliseconds(mine),
            "thalweg_runs": num,
            f"{name}_ms": milliseconds(theirs),
            f"{name}_runs": answer["num_runs"],
            "how": answer["how"],
        }
        found.append(result.claim(text, measured, (theirs / answer["num_runs"]) / (mine / num)))
    return found


def lineage(lab: Lab) -> list[dict[str, Any]]:
    """A lineage of 1,000 forks, each with 1,000 points of its own. No other of these trackers has forks."""
    num = lab.pick(NUM_FORKS, 50)
    print(f"a lineage of {num:,} forks", flush=True)
    with scratch() as folder, Store.open(folder / "store.db") as store:
        store.create_project("deep")
        parent = None
        own = np.arange(1, 1001)
        for i in range(num):
            new = NewRun(uid=f"uid-{i}", parent=parent, fork_position=i * 1000 * 10**6, status="finished")
            parent, _ = store.track_run("deep", new)
            positions = (i * 1000 + own) * 10**6
            store.import_points(parent, "loss", positions, positions // 10**6, positions / 1e9)
        assert parent is not None
        last = parent
        assert len(store.series(last, "loss")) == num * 1000
        measured = {
            "lineage_ms": median_ms(lambda: store.run_details(last)),
            "series_ms": median_ms(lambda: store.series(last, "loss")),
            "reduced_ms": median_ms(lambda: store.reduced(last, "loss", num_buckets=NUM_BUCKETS)),
        }
    measured["others"] = "none of them has forks"
    text = f"milliseconds to read and reduce the curve of a lineage of {num:,} forks, {num * 1000:,} points"
    return [result.claim(text, measured, measured["reduced_ms"])]


def median_ms(call: Callable[[], object], repeats: int = 10) -> float:
    """Of repeated calls, the first not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) * 1e3
