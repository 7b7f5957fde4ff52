"""What all benchmarks write: a list of claims, each with what was measured, its target, and whether it holds."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def claim(
    text: str,
    measured: Mapping[str, Any],
    ratio: float,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    holds: bool = True,
) -> dict[str, Any]:
    """A claim that a number is within a target, or one that only reports.

    Args:
        at_most, at_least: the target; at most one of them.
        holds: whether all else that the claim says was seen to be so.
    """
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in measured.items()}
    within = (at_most is None or ratio <= at_most) and (at_least is None or ratio >= at_least)
    bound = "" if at_least is None else " (at least)"
    target = at_most if at_least is None else at_least
    holds = holds and within
    return {"claim": text + bound, "measured": rounded, "ratio": round(ratio, 4), "target": target, "holds": holds}


def write(path: Path, claims: Sequence[Mapping[str, Any]], packages: Sequence[str] = ()) -> None:
    """Write the claims with the date and the machine, and print them.

    Args:
        packages: whose versions belong to the machine's description.
    """
    stamp = {"date": datetime.date.today().isoformat(), "machine": machine(packages)}
    path.write_text(json.dumps([{**entry, **stamp} for entry in claims], indent=2) + "\n")
    for entry in claims:
        verdict = "holds " if entry["holds"] else "MISSED"
        print(f"{verdict} {entry['claim']}: {entry['ratio']}, target {entry['target']}", flush=True)


def machine(packages: Sequence[str]) -> str:
    """Cores, processor and versions."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    versions = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    return ", ".join([f"{os.cpu_count()} cores", model or platform.machine(), *versions])
