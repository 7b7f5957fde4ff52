"""How long a decision takes at 1,000 runs of 50 points: the default strategy beside Optuna's TPE `ask`.

    python benchmarks/search/decide_time.py [--strategy auto] [--runs 1000] [--repeats 20] [--out FILE]

Writes decide_time.json beside this file. Of 1,000 runs of 50 evaluations and 8 hyperparameters, a tenth diverged and a
third are paused. Ours is asked as by the loop: the same instance, after one more run has reported; its first decision,
which has no cache, is given beside. Optuna's study is in memory, with the same trials and its TPE at its defaults; each
`ask` samples all 8 hyperparameters, and the trial is told before the next. The two take turns. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna

sys.path.append(str(Path(__file__).parents[1]))
import result
from thalweg.budget import Left
from thalweg.search import Problem, Strategy, strategy
from thalweg.space import Space
from thalweg.tree import Metric, Report, Run, Tree

NUM_POINTS = 50
NAMES = ["lr", *(f"x{i}" for i in range(7))]
SPACE = Space.parse({name: {"log": [1e-6, 1.0], "prior": 1e-3} for name in NAMES})
MOST_MILLISECONDS = 50.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("decide_time.json"))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = Problem(space=SPACE, metric=Metric("loss", "min"), horizon=lambda _hyperparameters: NUM_POINTS, seed=0)
    runs = [make_run(problem, number) for number in range(options.runs + options.repeats + 1)]
    tree = Tree.of(runs[: options.runs])
    study = make_study(runs[: options.runs])
    ours = strategy(options.strategy, {}, problem)
    first = decide(ours, tree)
    times: dict[str, list[float]] = {"ours": [], "optuna": []}
    for run in runs[options.runs : options.runs + options.repeats]:
        tree.absorb(run)
        times["ours"].append(decide(ours, tree))
        times["optuna"].append(ask(study, run))
    medians = {name: float(np.median(each)) * 1e3 for name, each in times.items()}
    measured = {
        "milliseconds": round(medians["ours"], 2),
        "slowest_milliseconds": round(max(times["ours"]) * 1e3, 2),
        "first_decision_milliseconds": round(first * 1e3, 2),
        "optuna_tpe_ask_milliseconds": round(medians["optuna"], 2),
        "runs": options.runs,
        "points_per_run": NUM_POINTS,
        "hyperparameters": len(NAMES),
        "repeats": options.repeats,
    }
    text = f"milliseconds of a decision of {options.strategy} at {options.runs:,} runs of {NUM_POINTS} points, median"
    result.write(
        options.out, [result.claim(text, measured, medians["ours"], at_most=MOST_MILLISECONDS)], ["optuna", "numpy"]
    )
    print({name: value for name, value in measured.items() if "milliseconds" in name})


def make_run(problem: Problem, number: int) -> Run:
    """One run that has ended, or waits part of the way."""
    rng = np.random.default_rng([1, number])
    point = problem.space.sample(rng)
    distance = sum((math.log10(float(value)) + 3) ** 2 for value in point.values()) / 50
    kind = int(rng.integers(30))
    reached = NUM_POINTS if kind >= 13 else int(rng.integers(1, NUM_POINTS))
    losses = 1 + distance + 2 * np.arange(1, reached + 1) ** -0.5 + rng.normal(0, 0.01, reached)
    status: Any = "diverged" if kind < 3 else "paused" if kind < 13 else "finished"
    return Run(
        id=f"s-{number}",
        number=number,
        hyperparameters=point,
        horizon=NUM_POINTS,
        until=reached,
        status=status,
        position=reached,
        reports=tuple(Report(k + 1, {"loss": float(loss)}) for k, loss in enumerate(losses)),
        origin="auto",
    )


def make_study(runs: list[Run]) -> optuna.Study:
    """The same runs as trials: those that did not finish were pruned."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    ranges = {name: optuna.distributions.FloatDistribution(1e-6, 1.0, log=True) for name in NAMES}
    for run in runs:
        finished = run.status == "finished"
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(run.hyperparameters),
                distributions=dict(ranges),
                value=run.reports[-1].metrics["loss"] if finished else None,
                state=optuna.trial.TrialState.COMPLETE if finished else optuna.trial.TrialState.PRUNED,
                intermediate_values={report.position: report.metrics["loss"] for report in run.reports},
            )
        )
    return study


def decide(ours: Strategy, tree: Tree) -> float:
    """Seconds of one decision, on a tree of its own as the loop would have read it."""
    same = Tree.of([dataclasses.replace(run) for run in tree])
    start = time.perf_counter()
    ours.decide(same, free_slots=1, left=Left({"samples": 20.0 * NUM_POINTS}, 20.0))
    return time.perf_counter() - start


def ask(study: optuna.Study, run: Run) -> float:
    """Seconds in which Optuna proposes all hyperparameters of a trial, which then is told."""
    start = time.perf_counter()
    trial = study.ask()
    for name in NAMES:
        trial.suggest_float(name, 1e-6, 1.0, log=True)
    took = time.perf_counter() - start
    study.tell(trial, run.reports[-1].metrics["loss"])
    return took


if __name__ == "__main__":
    main()
