"""`auto` beside Optuna's TPE with Hyperband, random search and `lr_race`, on real trainings at equal tokens.

    python benchmarks/search_training/run.py                # studies that are not there yet; writes all results here
    python benchmarks/search_training/run.py --only auto    # of one strategy
    python benchmarks/search_training/run.py --again        # those that are there too

Each study is kept under build/ as it ends, so that a second run goes on; what is missing there is taken from
studies.json beside this file. Training is deterministic, so what else the machine does changes nothing but the time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import training_figure
import training_findings
from training_studies import STRATEGIES, carry_out
from training_tasks import TASKS

import result

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "benchmarks" / "search_training"
SEEDS = 5

Key = tuple[str, str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STRATEGIES, default=list(STRATEGIES), help="strategies to run")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="the first so many")
    parser.add_argument("--parallel", type=int, default=2, help="studies at a time")
    parser.add_argument("--again", action="store_true", help="run studies that are there, too")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes', before they load torch
    known = {} if options.again else saved()
    # Seed by seed, so that what is there when it is ended early can be compared.
    wanted = [(task, name, seed) for seed in range(options.seeds) for name in options.only for task in options.tasks]
    run([key for key in wanted if key not in known], options.parallel)
    publish(saved())


def run(keys: list[Key], num_processes: int) -> None:
    """Carry studies out, and keep each as soon as it is there."""
    if not keys:
        return
    folder = BUILD / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(min(num_processes, len(keys)), mp_context=get_context("spawn")) as processes:
        waiting = {processes.submit(carry_out, *key, str(BUILD)): key for key in keys}
        for done in as_completed(waiting):
            outcome = done.result().to_dict()
            path = folder / f"{'-'.join(map(str, waiting[done]))}.json"
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(outcome))
            temporary.replace(path)
            print(
                f"{outcome['task']}, {outcome['strategy']}, seed {outcome['seed']}: test loss"
                f" {outcome['test']['loss']:.4f}, validation {outcome['validation']['loss']:.4f},"
                f" {outcome['num_configurations']} configurations, {outcome['num_finished']} to the end,"
                f" {outcome['tokens']:,} of {outcome['budget_tokens']:,} tokens, {outcome['cpu_seconds']:.0f} s",
                flush=True,
            )


def saved() -> dict[Key, dict[str, Any]]:
    """Studies that were carried out: the committed ones, and before them those of this checkout."""
    published = HERE / "studies.json"
    studies = json.loads(published.read_text()) if published.exists() else []
    studies += [json.loads(path.read_text()) for path in sorted((BUILD / "studies").glob("*.json"))]
    return {(study["task"], study["strategy"], study["seed"]): study for study in studies}


def publish(studies: dict[Key, dict[str, Any]]) -> None:
    """Write studies.json, result.json and the figure."""
    ordered = [studies[key] for key in sorted(studies)]
    (HERE / "studies.json").write_text("[\n" + ",\n".join(json.dumps(study) for study in ordered) + "\n]\n")
    claims = [entry for task in TASKS for entry in training_findings.claims(task, ordered)]
    result.write(HERE / "result.json", claims, ["torch", "transformers", "peft", "optuna"])
    training_figure.write(ordered, HERE / "training.png")


if __name__ == "__main__":
    main()
