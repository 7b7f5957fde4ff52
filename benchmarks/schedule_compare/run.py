"""Final validation losses of schedules at equal tokens, each at the peak learning rate that suits it best.

    make bench NAME=schedule_compare

A model of 0.2M parameters (without the embedding) is trained on film reviews. For each schedule the peak learning rate
is tuned on the same grid, with one seed that is not used again; where the best is at an edge of the grid, it grows by a
factor of 2 there until it is not. Then each schedule is trained at its best with three other seeds. A seed decides
weights and order of the data, so schedules are also compared seed by seed. Writes result.json beside this file. There
is no target.

The runs are short: about two tokens for each parameter. What is seen holds for that.

A second part trains all of them at one common peak. It was added after the first had been seen: tuned by one seed,
cosine, WSD and cyclic cosine got a peak at which one of the three seeds trains badly, and the two others half of it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "trunk"))
from reviews import BATCH_SIZE, CONTEXT, STEP_TOKENS, Job, carry_out, pool, tokenise

import result

SIZE = "0.2M"
STEPS = 600
WARMUP = 0.05
"""Share of the run."""
NUM_CYCLES = 3
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {},
    "wsd": {},
    "cyclic_cosine": {"num_cycles": NUM_CYCLES},
    "cyclic_wsd": {"num_cycles": NUM_CYCLES},
    "constant": {},
}
"""With what differs from the defaults. The last one never decays, and is here for reference."""
PARTS = ("tuned", "common")
LEARNING_RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
COMMON_LR = 4e-3
"""Of the second part."""
TUNING_SEED = 100
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the others' claims are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, pool(options.parallel) as processes:
        print(tokenise(cache), flush=True)
        bench = Bench(processes, cache, options.steps)
        parts = {"tuned": bench.tuned, "common": bench.common}
        made = {part: parts[part]() for part in options.parts}
    before = json.loads(options.out.read_text()) if len(made) < len(PARTS) and options.out.exists() else []
    kept = {part: [entry for entry in before if entry["measured"]["part"] == part] for part in PARTS}
    claims = [claim for part in PARTS for claim in made.get(part, kept[part])]
    result.write(options.out, claims, ["torch", "transformers"])


class Bench:
    """The runs, and what their grid showed."""

    def __init__(self, processes: Executor, cache: str, steps: int) -> None:
        self._processes = processes
        self._cache = cache
        self._steps = steps
        self._grid: dict[str, dict[float, float]] = {schedule: {} for schedule in SCHEDULES}

    def tuned(self) -> list[dict[str, Any]]:
        """A claim for each schedule, at its own best peak learning rate."""
        self._tune()
        return self._claims({schedule: self._best(schedule) for schedule in SCHEDULES}, "tuned")

    def common(self) -> list[dict[str, Any]]:
        """A claim for each schedule, all at the same peak learning rate."""
        return self._claims(dict.fromkeys(SCHEDULES, COMMON_LR), "common")

    def _claims(self, peaks: Mapping[str, float], part: str) -> list[dict[str, Any]]:
        found = self._losses([(schedule, lr, seed) for schedule, lr in peaks.items() for seed in SEEDS])
        losses = {schedule: [found[schedule, lr, seed] for seed in SEEDS] for schedule, lr in peaks.items()}
        return [self._claim(schedule, peaks[schedule], losses, part) for schedule in peaks]

    def _claim(self, schedule: str, lr: float, losses: Mapping[str, list[float]], part: str) -> dict[str, Any]:
        """What one schedule reached, beside cosine seed by seed."""
        mean, half = interval(losses[schedule])
        measured: dict[str, Any] = {
            "part": part,
            "peak_lr": lr,
            "mean_loss": mean,
            "interval_95": [round(mean - half, 4), round(mean + half, 4)],
            "losses": [round(loss, 4) for loss in losses[schedule]],
            "seeds": list(SEEDS),
        }
        if schedule != "cosine":
            pairs = zip(losses[schedule], losses["cosine"], strict=True)
            difference, half = interval([own - cosine for own, cosine in pairs])
            measured["less_cosine_seed_by_seed"] = difference
            measured["less_cosine_interval_95"] = [round(difference - half, 4), round(difference + half, 4)]
        if part == "tuned":
            grid = self._grid[schedule]
            measured["tuning_losses_by_lr"] = {f"{lr:g}": round(grid[lr], 4) for lr in sorted(grid)}
            measured["tuning_seed"] = TUNING_SEED
        measured |= {
            "tokens": self._steps * STEP_TOKENS,
            "batch_size": BATCH_SIZE,
            "context": CONTEXT,
            "warmup": WARMUP,
            **SCHEDULES[schedule],
        }
        name = f"{schedule} (no decay, for reference)" if schedule == "constant" else schedule
        where = "tuned by one other seed" if part == "tuned" else f"{lr:g} for all"
        text = f"final validation loss of {name}, peak learning rate {where}, {SIZE} model: mean of {len(SEEDS)} seeds"
        return result.claim(text, measured, mean)

    def _losses(self, wanted: Sequence[tuple[str, float, int]]) -> dict[tuple[str, float, int], float]:
        """Final losses by schedule, peak learning rate and seed."""
        jobs = [self._job(*key) for key in wanted]
        return {
            key: outcome.loss
            for key, outcomes in zip(wanted, self._processes.map(carry_out, jobs), strict=True)
            for outcome in outcomes
        }

    def _tune(self) -> None:
        """Train the grid, and more where the best is at its edge."""
        wanted = [(schedule, lr, TUNING_SEED) for lr in LEARNING_RATES for schedule in SCHEDULES]
        while wanted:
            for (schedule, lr, _), loss in self._losses(wanted).items():
                self._grid[schedule][lr] = loss
            wanted = [(schedule, lr, TUNING_SEED) for schedule in SCHEDULES for lr in self._beyond(schedule)]

    def _best(self, schedule: str) -> float:
        grid = self._grid[schedule]
        return min(grid, key=grid.__getitem__)

    def _job(self, schedule: str, lr: float, seed: int) -> Job:
        hyperparameters = {
            "lr": lr,
            "schedule": schedule,
            "tokens": self._steps * STEP_TOKENS,
            "warmup": WARMUP,
            **SCHEDULES[schedule],
        }
        return Job(SIZE, hyperparameters, seed, {"name": "grid"}, self._cache)

    def _beyond(self, schedule: str) -> list[float]:
        """The learning rate to try next where the best is at an edge of those tried."""
        best, grid = self._best(schedule), self._grid[schedule]
        return [best / 2] if best == min(grid) else [best * 2] if best == max(grid) else []


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95% interval by the t distribution."""
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1)) * spread


if __name__ == "__main__":
    main()
