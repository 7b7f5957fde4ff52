"""Is a study that is killed and started again bit for bit the study that was not? And a fork without a change?

    make bench NAME=exact

For each case a study of one run is trained without interruption. Then studies with the same settings are killed with
SIGKILL, loop and workers together, at random moments, and started again until their run is complete: a fifth of the
kills before training begins, the others from there on. Every point of every curve, the run's reports, every tensor and
number of its last checkpoint and its test result are compared bit for bit. Then the uninterrupted run is forked in its
middle without a change, and compared with itself in the same way. Writes result.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from cases import CASES
from kill import Bench

sys.path.append(str(Path(__file__).parents[1]))
import result

SHOWN_DIFFERENCES = 20
# One thread, in a case's process as in its workers: a process that forks must have no others.
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--kills", type=int, default=20, help="per case; half as many for MiniLM")
    parser.add_argument("--parallel", type=int, default=2, help="cases at a time")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # this process is to do one case in this folder
    options = parser.parse_args()
    if options.one is not None:
        (options.one / "claims.json").write_text(json.dumps(one_case(options.cases[0], options.one, options.kills)))
        return
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.parallel) as threads:
        jobs = [threads.submit(in_process, name, Path(folder) / name, options.kills) for name in options.cases]
        claims = [claim for job in jobs for claim in job.result()]
    result.write(options.out, claims, ["torch", "transformers", "peft"])


def in_process(name: str, folder: Path, num_kills: int) -> list[dict[str, Any]]:
    """A case in a process of its own, which forks and so must not have threads."""
    folder.mkdir()
    command = [sys.executable, __file__, "--one", str(folder), "--cases", name, "--kills", str(num_kills)]
    subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENT})
    claims: list[dict[str, Any]] = json.loads((folder / "claims.json").read_text())
    return claims


def one_case(name: str, folder: Path, num_kills: int) -> list[dict[str, Any]]:
    case = CASES[name]
    num_kills = max(1, round(num_kills * case.share_of_kills))
    seed = int.from_bytes(os.urandom(4))
    bench = Bench(case, folder, np.random.default_rng(seed))
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{name}, {time.monotonic() - started:.0f} s: {text}", flush=True)

    bench.prepare()
    whole = bench.whole()
    say(f"trained uninterrupted; ready in {bench.setup_seconds:.1f} s, trained in {bench.training_seconds:.1f} s")
    forked, at, num_own = bench.forked(whole)
    say(f"forked at {at} of {whole.facts['position']}: {forked.num_lost} points lost, {forked.differences}")
    bench.kill(whole, num_kills)
    killed = bench.total
    say(f"killed {bench.num_kills} times, {dict(bench.moments)}: {killed.num_lost} points lost, {killed.differences}")
    kills = {
        "kills": bench.num_kills,
        **{f"kills_{moment.replace(' ', '_')}": count for moment, count in sorted(bench.moments.items())},
        "studies": bench.num_studies,
        "uninterrupted_training_seconds": round(bench.training_seconds, 1),
        "seed_of_the_moments": seed,
    }
    fork = {"fork_position": at, "horizon": whole.facts["horizon"], "points_trained_by_the_fork": num_own}
    text = f"{case.title}: points lost and values that differ after {num_kills} kills at random moments"
    return [
        counted(text, kills, killed, holds=bench.num_kills == num_kills),
        counted(f"{case.title}: points lost and values that differ after a fork without a change", fork, forked),
    ]


def counted(text: str, facts: dict[str, Any], comparison: Any, *, holds: bool = True) -> dict[str, Any]:
    measured = {
        **facts,
        "points_compared": comparison.num_points,
        "values_of_the_last_checkpoint": comparison.num_values_in_checkpoint,
        "points_lost": comparison.num_lost,
        "differences": len(comparison.differences),
    }
    if comparison.differences:
        measured["which"] = comparison.differences[:SHOWN_DIFFERENCES]
    wrong = comparison.num_lost + len(comparison.differences)
    return result.claim(text, measured, wrong, at_most=0, holds=holds and comparison.num_points > 0)


if __name__ == "__main__":
    main()
