"""What thalweg costs beside the training: between two runs, during one, at a decision, and at the start.

    make bench NAME=overhead

What is measured, and how, is at the top of gap.py, share.py, decide.py and startup.py. Writes result.json beside this
file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import startup

sys.path.append(str(Path(__file__).parents[1]))
import result

MAX_GAP_SECONDS = 0.5
MAX_SHARE_PERCENT = 1.0
MAX_DECIDE_MS = 20.0
MAX_TIMES_OPTUNA = 1.2
MAX_IMPORT_SECONDS = 0.3
MAX_HELP_SECONDS = 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="few repeats and a short run, to see that it works")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    claims = [claim for name in options.parts for claim in PARTS[name](options.quick)]
    result.write(options.out, claims, ["torch", "transformers", "peft", "optuna"])


def start(quick: bool) -> list[dict[str, Any]]:
    importing, helping = startup.importing(), startup.helping()
    light = not importing["torch_is_imported"]
    text = "seconds of a fresh process that imports thalweg, without torch (median of 7)"
    return [
        result.claim(text, importing, importing["seconds"], at_most=MAX_IMPORT_SECONDS, holds=light),
        result.claim(
            "seconds of `thalweg --help` (median of 7)", helping, helping["seconds"], at_most=MAX_HELP_SECONDS
        ),
    ]


def decisions(quick: bool) -> list[dict[str, Any]]:
    import decide

    repeats = 5 if quick else 50
    claims = []
    for title, name, options in (("random", "random", {}), ("halving(random)", "halving", {"sampler": "random"})):
        found = decide.alone(name, options, repeats)
        text = f"milliseconds of strategy.decide at 1,000 runs, {title}"
        claims.append(result.claim(text, found, found["median_ms"], at_most=MAX_DECIDE_MS))
    for name, repeats in (("tpe", 5 if quick else 50), ("gp", 1 if quick else 5)):
        found = decide.beside_optuna(name, repeats)
        ratio = found["thalweg_median_ms"] / found["optuna_median_ms"]
        text = f"strategy.decide at 1,000 runs of 6 hyperparameters, {name}: times what Optuna's own ask takes"
        claims.append(result.claim(text, found, ratio, at_most=MAX_TIMES_OPTUNA))
    return claims


def between_runs(quick: bool) -> list[dict[str, Any]]:
    import gap

    claims = []
    for title, adapter in (("LoRA", "lora"), ("all weights", None)):
        with tempfile.TemporaryDirectory() as folder:
            found = gap.gaps(Path(folder), adapter, 3 if quick else 9)
        text = f"seconds from a run's end to the next one's first step, MiniLM, {title}: the longest of a study's gaps"
        claims.append(result.claim(text, found, found["max_seconds"], at_most=MAX_GAP_SECONDS))
    return claims


def during_a_run(quick: bool) -> list[dict[str, Any]]:
    import share

    num_steps = 500 if quick else 3000
    claims = []
    for title, display, target in (
        ("loop and store", False, MAX_SHARE_PERCENT),
        ("loop, store and live display", True, None),
    ):
        with tempfile.TemporaryDirectory() as folder:
            bare = share.bare(Path(folder), num_steps // 3)
            found = share.share(Path(folder), num_steps, display=display) | bare
        text = f"CPU time of {title}, percent of the time of a run of a minute that logs 10 metrics 50 times a second"
        claims.append(result.claim(text, found, found["total_cpu_percent"], at_most=target))
    return claims


PARTS: dict[str, Callable[[bool], list[dict[str, Any]]]] = {
    "start": start,
    "between_runs": between_runs,
    "during_a_run": during_a_run,
    "decisions": decisions,
}


if __name__ == "__main__":
    main()
