"""Final validation losses of schedules at equal tokens, each at the peak learning rate that suits it best.

    make bench NAME=schedule_compare

A model of 0.2M parameters (without the embedding) is trained on film reviews. For each schedule the peak learning rate
is tuned on the same grid, with one seed that is not used again; where the best is at an edge of the grid, it grows by a
factor of 2 there until it is not. Then each schedule is trained at its best with three other seeds. A seed decides
weights and order of the data, so schedules are also compared seed by seed. Writes result.json beside this file. There
is no target.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
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
LEARNING_RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
TUNING_SEED = 100
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, pool(options.parallel) as processes:
        print(tokenise(cache), flush=True)
        bench = Bench(processes, cache, options.steps)
        bench.tune()
        tuned = {schedule: bench.tuned(schedule) for schedule in SCHEDULES}
        finals = bench.losses([(schedule, lr, seed) for schedule, lr in tuned.items() for seed in SEEDS])
    losses = {schedule: [finals[schedule, lr, seed] for seed in SEEDS] for schedule, lr in tuned.items()}
    claims = [bench.claim(schedule, losses) for schedule in SCHEDULES]
    result.write(options.out, claims, ["torch", "transformers"])
    for schedule in sorted(losses, key=lambda name: float(np.mean(losses[name]))):
        mean, half = interval(losses[schedule])
        print(f"{schedule:14} lr {tuned[schedule]:<7g} loss {mean:.4f} +- {half:.4f}", flush=True)


class Bench:
    """All runs that were trained, each once."""

    def __init__(self, processes: Executor, cache: str, steps: int) -> None:
        self._processes = processes
        self._cache = cache
        self._steps = steps
        self._grid: dict[str, dict[float, float]] = {schedule: {} for schedule in SCHEDULES}

    def losses(self, wanted: Sequence[tuple[str, float, int]]) -> dict[tuple[str, float, int], float]:
        """Final losses by schedule, peak learning rate and seed."""
        jobs = [self._job(*key) for key in wanted]
        return {
            key: outcome.loss
            for key, outcomes in zip(wanted, self._processes.map(carry_out, jobs), strict=True)
            for outcome in outcomes
        }

    def tune(self) -> None:
        """Train the grid, and more where the best is at its edge."""
        wanted = [(schedule, lr, TUNING_SEED) for lr in LEARNING_RATES for schedule in SCHEDULES]
        while wanted:
            for (schedule, lr, _), loss in self.losses(wanted).items():
                self._grid[schedule][lr] = loss
            wanted = [(schedule, lr, TUNING_SEED) for schedule in SCHEDULES for lr in self._beyond(schedule)]

    def tuned(self, schedule: str) -> float:
        """The best peak learning rate."""
        grid = self._grid[schedule]
        return min(grid, key=grid.__getitem__)

    def claim(self, schedule: str, losses: dict[str, list[float]]) -> dict[str, Any]:
        """What one schedule reached, beside cosine seed by seed."""
        mean, half = interval(losses[schedule])
        measured: dict[str, Any] = {
            "peak_lr": self.tuned(schedule),
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
        grid = self._grid[schedule]
        measured |= {
            "tuning_losses_by_lr": {f"{lr:g}": round(grid[lr], 4) for lr in sorted(grid)},
            "tuning_seed": TUNING_SEED,
            "tokens": self._steps * STEP_TOKENS,
            "batch_size": BATCH_SIZE,
            "context": CONTEXT,
            "warmup": WARMUP,
            **SCHEDULES[schedule],
        }
        what = "without decay, for reference" if schedule == "constant" else "at its tuned peak learning rate"
        text = f"final validation loss, {schedule} {what}, {SIZE} model: mean of {len(SEEDS)} seeds"
        return result.claim(text, measured, mean)

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
        best, grid = self.tuned(schedule), self._grid[schedule]
        return [best / 2] if best == min(grid) else [best * 2] if best == max(grid) else []


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95% interval by the t distribution."""
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1)) * spread


if __name__ == "__main__":
    main()
