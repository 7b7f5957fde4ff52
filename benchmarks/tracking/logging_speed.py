"""What logging costs: points a second from one process and from sixteen, and each call in a training loop."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from environments import Lab, scratch

sys.path.append(str(Path(__file__).parents[1]))
import result

TARGETS = {"mlflow": 100, "trackio": 5}
"""How many times faster than a peer logging must be."""

NUM_PROCESSES = 16

SLOW = ("mlflow", "aim")
"""They get fewer steps where sixteen processes log: a minute each would go by otherwise."""


def claims(lab: Lab) -> list[dict[str, Any]]:
    """Of everything here."""
    found: list[dict[str, Any]] = []
    for shape, steps, title in (
        ("wide", lab.pick(1000, 50), "100 metrics x 1,000 steps"),
        ("long", lab.pick(100_000, 2000), "1 metric x 100,000 steps"),
    ):
        print(f"logging, {title}", flush=True)
        answers = repeated(lab, lab.repeats, "write", shape=shape, num_steps=steps)
        found += rates(title, answers)
        found.append(sizes(title, answers))
    print(f"logging, {NUM_PROCESSES} processes", flush=True)
    steps = {name: lab.pick(100 if name in SLOW else 500, 10) for name in lab.pythons}
    size = {"num_processes": NUM_PROCESSES, "num_metrics": 100, "pause": 0.0, "bulk": True}
    answers = repeated(lab, min(lab.repeats, 2), "share", each={"num_steps": steps}, **size)
    shared = rates(f"{NUM_PROCESSES} processes on one store, 100 metrics a step", answers)
    for claim in shared:
        claim["measured"]["steps of each process"] = {name: steps[name] for name in claim["measured"] if name in steps}
    found += shared
    return [*found, *loop(lab), *waits(lab)]


def repeated(
    lab: Lab, repeats: int, task: str, each: Mapping[str, Mapping[str, Any]] | None = None, **options: Any
) -> dict[str, list[dict[str, Any]]]:
    """Each tracker's answers; they take turns within a repeat. One that fails is not asked again.

    Args:
        each: options that differ: option -> tracker -> value.
    """
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in lab.pythons}
    for _ in range(repeats):
        for name, given in answers.items():
            if not (given and "none" in given[0]):
                own = {option: values[name] for option, values in (each or {}).items()}
                with scratch() as folder:
                    given.append(lab.measure(name, task, folder, **options, **own))
    return answers


def rates(title: str, answers: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A claim for each peer, of points a second until another process could read them."""
    speed = {name: rate(given) for name, given in answers.items()}
    ours = speed.pop("thalweg")
    assert isinstance(ours, float), ours
    found = []
    for name, theirs in speed.items():
        failed = sum(answer.get("num_failed", 0) for answer in answers[name])
        measured: dict[str, Any] = {"thalweg": round(ours), name: theirs if isinstance(theirs, str) else round(theirs)}
        if failed:
            measured[f"{name}, processes that failed"] = failed
        text = f"points a second, {title}, against {name}"
        if isinstance(theirs, str):
            found.append(result.claim(text, measured, 0.0))
        else:
            found.append(result.claim(text, measured, ours / theirs, at_least=TARGETS.get(name)))
    return found


def rate(answers: list[dict[str, Any]]) -> float | str:
    """The median's; or why there is none."""
    good = [answer["num_points"] / answer["seconds"] for answer in answers if answer.get("num_points")]
    if good:
        return statistics.median(good)
    return str(answers[0].get("none") or answers[0].get("errors"))


def sizes(title: str, answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Bytes a point on the disk."""
    found = {
        name: given[0].get("none") or round(statistics.median(answer["bytes_per_point"] for answer in given), 2)
        for name, given in answers.items()
    }
    numbers = [size for name, size in found.items() if name != "thalweg" and isinstance(size, float)]
    ours = found["thalweg"]
    assert isinstance(ours, float)
    text = f"bytes a point after {title}, the smallest of the others' over ours"
    return result.claim(text, found, min(numbers) / ours)


def loop(lab: Lab) -> list[dict[str, Any]]:
    """Each call of 100 metrics in a training loop of 2 ms a step."""
    print("log calls in a training loop", flush=True)
    answers = repeated(lab, 1, "loop", num_steps=lab.pick(2000, 100), longest=lab.pick(20, 3))
    measured: dict[str, Any] = {}
    for name, (answer,) in answers.items():
        if "none" in answer:
            measured[name] = answer["none"]
        else:
            measured |= {f"{name}, {key}": round(answer[key], 1) for key in ("p50_us", "p99_us", "max_us")}
            measured |= {f"{name}, finish_seconds": round(answer["finish_seconds"], 2)}
    (ours,) = answers["thalweg"]
    text = "99th percentile of a log call of 100 metrics in a training loop of 2 ms a step, in microseconds"
    return [result.claim(text, measured, ours["p99_us"], at_most=200)]


def waits(lab: Lab) -> list[dict[str, Any]]:
    """Sixteen training loops on one store: what their calls take, and how long their commits wait for each other."""
    print(f"{NUM_PROCESSES} training loops on one store", flush=True)
    with scratch() as folder:
        answer = lab.measure(
            "thalweg",
            "share",
            folder,
            num_processes=NUM_PROCESSES,
            num_steps=lab.pick(2000, 100),
            num_metrics=100,
            pause=0.01,
            bulk=False,
        )
    measured = {
        key: value for key, value in answer.items() if key.endswith(("_us", "_ms", "num_failed", "num_commits"))
    }
    good = answer["num_failed"] == 0
    text = f"the longest of all log calls of 100 metrics, {NUM_PROCESSES} processes on one store, in milliseconds"
    text_commits = f"the longest wait of a commit for the store, {NUM_PROCESSES} processes that log, in milliseconds"
    return [
        result.claim(text, measured, answer["max_us"] / 1e3, at_most=100, holds=good),
        result.claim(text_commits, measured, answer["commit_wait_max_ms"], at_most=100, holds=good),
    ]
