"""All studies that are compared: each one's setting, and where its result is kept."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
import own
from tables import all_tables

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 3_600


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One tool in one of its settings, on one table: a study for each seed."""

    tool: str
    """A peer's name, or `thalweg`."""
    study: str
    table: str
    variant: str = "any"
    priors: str = "good"
    budget: float = 10.0
    """In full trainings."""
    workers: int = 1

    @property
    def name(self) -> str:
        """Also the name of its file."""
        parts = (self.tool, self.study, self.table, self.variant, self.priors, f"{self.budget:g}", self.workers)
        return "-".join(map(str, parts))


@dataclass(frozen=True)
class Found:
    """A cell's studies by seed: their traces, and what else was noted."""

    cell: Cell
    studies: dict[int, dict[str, Any]]


def carry_out(cells: Iterable[Cell], seeds: Sequence[int], folder: Path, jobs: int) -> list[Found]:
    """Run all cells, several at a time. Peers' results that are in the folder are taken from there."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: list[Found] = []
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [pool.submit(_one, cell, tuple(seeds), folder) for cell in cells]
        begun = time.monotonic()
        for number, future in enumerate(as_completed(waiting), 1):
            found.append(future.result())
            cell, took = found[-1].cell, time.monotonic() - begun
            print(f"[{number}/{len(waiting)}, {took:.0f} s] {cell.name} {why_none(found[-1]) or ''}", flush=True)
    return sorted(found, key=lambda entry: entry.cell.name)


def why_none(found: Found) -> str | None:
    """Why a cell has no results, if it has none."""
    return next((study["none"] for study in found.studies.values() if "none" in study), None)


def _one(cell: Cell, seeds: Sequence[int], folder: Path) -> Found:
    if cell.tool == "thalweg":
        return Found(cell, {seed: _own(cell, seed) for seed in seeds})
    kept = folder / environments.mark(cell.tool) / f"{cell.name}.json"
    known = {int(seed): study for seed, study in json.loads(kept.read_text()).items()} if kept.exists() else {}
    if (cell.tool, cell.study) in environments.SLOW:
        seeds = seeds[: environments.NUM_SLOW_SEEDS]
    missing = [seed for seed in seeds if seed not in known]
    if missing:
        known |= _peer(cell, missing)
        done = {seed: study for seed, study in known.items() if "none" not in study}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(done))
    return Found(cell, {seed: known[seed] for seed in seeds})


def _own(cell: Cell, seed: int) -> dict[str, Any]:
    setting = own.Setting(
        table=all_tables()[cell.table],
        variant=cell.variant,
        priors=cell.priors,
        seed=seed,
        budget=cell.budget,
        workers=cell.workers,
    )
    start = time.process_time()
    outcome = own.search(cell.study, setting)
    return {**dataclasses.asdict(outcome), "cpu_seconds": round(time.process_time() - start, 3)}


def _peer(cell: Cell, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What the peer's script answers, a line for each seed; what went wrong where it has no answer."""
    python = environments.python_of(cell.tool)
    if isinstance(python, str):
        return {seed: {"none": python} for seed in seeds}
    asked = json.dumps({**dataclasses.asdict(cell), "seeds": list(seeds)})
    command = [python, HERE / environments.SCRIPTS[cell.tool], asked]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=env)
        output, why = done.stdout, (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        if done.returncode:
            print(done.stderr[-3000:], file=sys.stderr, flush=True)
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else (error.stdout or "")
        why = f"took more than {TIMEOUT_SECONDS} s"
    answers = [json.loads(line) for line in output.splitlines() if line.startswith('{"seed"')]
    return {seed: {"none": why} for seed in seeds} | {answer["seed"]: answer for answer in answers}
