"""What is left after kills, and what many processes at once do to each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from environments import HERE, Lab, scratch

sys.path.append(str(Path(__file__).parents[1]))
import result


def claims(lab: Lab) -> list[dict[str, Any]]:
    """Of everything here."""
    return [*kills(lab), *crowds(lab)]


def kills(lab: Lab) -> list[dict[str, Any]]:
    """kill -9 at 100 random moments."""
    num = lab.pick(100, 5)
    found = []
    for mode, options, most in (("default", [], 100.0), ("strict", ["--strict"], 0.0)):
        print(f"{num} kills, {mode} mode", flush=True)
        with scratch() as folder:
            folder.mkdir()
            deaths = script("killing.py", folder / "store.db", "--kills", str(num), *options)
        lost = sorted(death["lost_ms"] for death in deaths)
        problems = [problem for death in deaths for problem in death["problems"]]
        measured = {
            "kills": num,
            "calls": sum(death["num_said"] for death in deaths),
            "lost_calls": sum(death["num_lost"] for death in deaths),
            "lost_ms_median": lost[len(lost) // 2],
            "lost_ms_max": lost[-1],
            "problems_of_the_stores": problems[:3],
        }
        text = (
            f"milliseconds of points lost by kill -9 at {num} random moments, the most, {mode} mode; the store is whole"
        )
        found.append(result.claim(text, measured, lost[-1], at_most=most, holds=not problems))
    return found


def crowds(lab: Lab) -> list[dict[str, Any]]:
    """16 writers and 4 readers for two minutes."""
    seconds = lab.pick(120, 5)
    print(f"16 writers and 4 readers for {seconds} s", flush=True)
    with scratch() as folder:
        folder.mkdir()
        answer = script("crowd.py", folder / "store.db", "--seconds", str(seconds))
    wrong = [*answer["errors"], *answer["warnings"], *answer["problems"]]
    measured = {key: value for key, value in answer.items() if not isinstance(value, list)} | {"wrong": wrong[:3]}
    text = f"what went wrong (locks, lost points, problems), 16 writers and 4 readers for {seconds} s"
    text_waits = (
        f"the longest wait of a commit for the store, 16 writers and 4 readers for {seconds} s, in milliseconds"
    )
    return [
        result.claim(text, measured, float(len(wrong)), at_most=0),
        result.claim(text_waits, measured, answer["commit_wait_max_ms"], at_most=100, holds=not wrong),
    ]


def script(name: str, *arguments: str | Path) -> Any:
    """What another script of this folder answers."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return json.loads(done.stdout)
