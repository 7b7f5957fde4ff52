"""Four budgets from one trunk, beside four separate runs: tokens trained, and the losses that they reach.

    make bench NAME=trunk

A study by halving over a trunk brings one model to 8 units of tokens at a constant learning rate; at 1, 2 and 4 units a
branch decays over the last 10% of its budget and is evaluated. Beside it four models are trained from scratch under the
same settings to 1, 2, 4 and 8 units each. That is done with several seeds, which decide weights and order of the data,
on film reviews and with two sizes of model. Tokens are the ledger's, those of the branches among them.

With the same seed the two train the same steps, so what is different between them would be an error. What a seed
changes is seen by comparing branches with separate runs of other seeds. Writes result.json beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.append(str(Path(__file__).parents[1]))
from reviews import BATCH_SIZE, CONTEXT, SHAPES, STEP_TOKENS, VALIDATION_TOKENS, Job, Outcome, carry_out, pool, tokenise

import result

BUDGETS = (1, 2, 4, 8)
"""Units."""
UNIT_STEPS = {"0.2M": 100, "1M": 100}
WARMUP_STEPS = 20
LEARNING_RATES = {"0.2M": 6e-3, "1M": 1.5e-3}
"""The best of 1.5e-3 to 2.4e-2, and of 7.5e-4 to 1.2e-2, each twice the one before, in one run each of 204,800 tokens
with another seed."""
SEEDS = (0, 1, 2)
OTHER_SEEDS: dict[str, tuple[int, ...]] = {"0.2M": (3, 4, 5), "1M": ()}
"""Of trunks that are compared with separate runs of the seeds above."""
TOKENS_AT_MOST = 0.65
DEVIATIONS_AT_MOST = 2.0
TRUNK = {"name": "halving", "sampler": "grid", "eta": 2, "num_rungs": len(BUDGETS), "trunk": True}
SEPARATE = {"name": "grid"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    parser.add_argument("--unit-steps", type=int, help="of the smallest budget, for all sizes")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    unit_steps = UNIT_STEPS if options.unit_steps is None else dict.fromkeys(SHAPES, options.unit_steps)
    with tempfile.TemporaryDirectory() as cache:
        print(tokenise(cache), flush=True)
        jobs = [job for size in options.sizes for job in jobs_of(size, unit_steps[size], cache)]
        # The longest first, so that no process is left with one at the end.
        jobs.sort(key=work_of, reverse=True)
        with pool(options.parallel) as processes:
            found = list(zip(jobs, processes.map(carry_out, jobs), strict=True))
    claims = []
    for size in options.sizes:
        trunks = {job.seed: outcomes for job, outcomes in found if job.size == size and job.strategy == TRUNK}
        separate: dict[int, list[Outcome]] = {seed: [] for seed in SEEDS}
        for job, outcomes in found:
            if job.size == size and job.strategy == SEPARATE:
                separate[job.seed] += outcomes
        claims += Comparison(size, unit_steps[size], trunks, separate).claims()
    result.write(options.out, claims, ["torch", "transformers"])


def jobs_of(size: str, unit_steps: int, cache: str) -> list[Job]:
    """A trunk for each seed, and the separate runs."""
    settings = {
        "lr": LEARNING_RATES[size],
        "schedule": "wsd",
        "decay": 0.1,
        "warmup": WARMUP_STEPS * STEP_TOKENS,  # a length, so that it is the same for all budgets
    }

    def job(budget: int, seed: int, strategy: Mapping[str, Any]) -> Job:
        hyperparameters = {**settings, "tokens": budget * unit_steps * STEP_TOKENS}
        return Job(size, hyperparameters, seed, strategy, cache)

    trunks = [job(max(BUDGETS), seed, TRUNK) for seed in (*SEEDS, *OTHER_SEEDS[size])]
    return trunks + [job(budget, seed, SEPARATE) for budget, seed in itertools.product(BUDGETS, SEEDS)]


def work_of(job: Job) -> int:
    """About what a job takes."""
    shape = SHAPES[job.size]
    return int(job.hyperparameters["tokens"]) * shape["layers"] * shape["width"] ** 2


class Comparison:
    """The trunks of one size of model, and its separate runs."""

    def __init__(
        self,
        size: str,
        unit_steps: int,
        trunks: Mapping[int, Sequence[Outcome]],
        separate: Mapping[int, Sequence[Outcome]],
    ) -> None:
        self._size = size
        self._other_seeds = OTHER_SEEDS[size]
        self._trunks, self._separate = trunks, separate
        self._horizons = [budget * unit_steps * STEP_TOKENS for budget in BUDGETS]
        for outcomes in (*trunks.values(), *separate.values()):
            assert sorted(outcome.horizon for outcome in outcomes) == self._horizons
        self._settings = {
            "unit_tokens": unit_steps * STEP_TOKENS,
            "lr": LEARNING_RATES[size],
            "warmup_tokens": WARMUP_STEPS * STEP_TOKENS,
            "batch_size": BATCH_SIZE,
            "context": CONTEXT,
            "validation_tokens": VALIDATION_TOKENS,
        }

    def claims(self) -> list[dict[str, Any]]:
        """Tokens; losses with the same seed; losses across seeds."""
        across = [self._across_seeds()] if self._other_seeds else []
        return [self._tokens(), self._same_seed(), *across]

    def _tokens(self) -> dict[str, Any]:
        used = [_trained(self._trunks[seed]) / _trained(self._separate[seed]) for seed in SEEDS]
        first = SEEDS[0]
        measured = {
            "trunk_tokens": _trained(self._trunks[first]),
            "of_these_by_branches": _trained([o for o in self._trunks[first] if o.is_branch]),
            "separate_tokens": _trained(self._separate[first]),
            "trunk_evaluation_tokens": sum(outcome.evaluated_tokens for outcome in self._trunks[first]),
            "separate_evaluation_tokens": sum(outcome.evaluated_tokens for outcome in self._separate[first]),
            "seeds": list(SEEDS),
            **self._settings,
        }
        text = (
            f"training tokens of budgets 1, 2, 4 and 8 from one trunk, branches among them, times those of four"
            f" separate WSD runs, {self._size} model"
        )
        return result.claim(text, measured, max(used), at_most=TOKENS_AT_MOST)

    def _same_seed(self) -> dict[str, Any]:
        deviations = self._deviations()
        off = [
            abs(self._losses(self._trunks, k)[seed] - self._losses(self._separate, k)[seed]) / deviations[k]
            for k in range(len(BUDGETS))
            for seed in SEEDS
        ]
        pairs = [
            (_at(self._trunks[seed], horizon).curve, _at(self._separate[seed], horizon).curve)
            for seed in SEEDS
            for horizon in self._horizons
        ]
        num_equal = sum(own == other for own, other in pairs)
        measured = {
            **self._table(),
            "training_curves_compared": len(pairs),
            "of_these_equal_bit_for_bit": num_equal,
            "seeds": list(SEEDS),
        }
        seen = "each equals its separate run bit for bit, in its loss and all its training losses; "
        text = (
            f"final validation losses from one trunk, {self._size} model: "
            + (seen if num_equal == len(pairs) and max(off) == 0 else "")
            + "largest difference from the separate run of the same seed, in seed-to-seed standard deviations"
        )
        return result.claim(text, measured, max(off), at_most=DEVIATIONS_AT_MOST)

    def _across_seeds(self) -> dict[str, Any]:
        """Branches against separate runs of seeds that these did not have: whether one is better on the whole."""
        found = [self._difference(k) for k in range(len(BUDGETS))]
        by_budget = dict(zip(map(str, BUDGETS), found, strict=True))
        measured = {
            "mean_differences": {budget: round(value, 4) for budget, (value, _, _) in by_budget.items()},
            "intervals_95": {
                budget: [round(value - half, 4), round(value + half, 4)]
                for budget, (value, half, _) in by_budget.items()
            },
            "budgets_whose_interval_holds_zero": sum(abs(value) <= half for value, half, _ in found),
            "seeds_of_the_trunks": list(self._other_seeds),
            "seeds_of_the_separate_runs": list(SEEDS),
            "trunk_losses": self._by_budget(self._trunks, self._other_seeds),
        }
        text = (
            f"branches of three other seeds less separate runs, {self._size} model: largest mean difference of a"
            " budget's final validation losses, in seed-to-seed standard deviations of both"
        )
        return result.claim(text, measured, max(abs(value) / deviation for value, _, deviation in found))

    def _difference(self, k: int) -> tuple[float, float, float]:
        """At one budget: the mean difference, half of its 95% interval (Student's, equal variances), the deviation."""
        own = [self._losses(self._trunks, k)[seed] for seed in self._other_seeds]
        other = [self._losses(self._separate, k)[seed] for seed in SEEDS]
        freedom = len(own) + len(other) - 2
        squares = np.var(own) * len(own) + np.var(other) * len(other)
        deviation = float(np.sqrt(squares / freedom))
        error = deviation * math.sqrt(1 / len(own) + 1 / len(other))
        return float(np.mean(own) - np.mean(other)), float(stats.t.ppf(0.975, freedom)) * error, deviation

    def _deviations(self) -> list[float]:
        """Of the separate runs' losses from seed to seed, at each budget."""
        losses = [self._losses(self._separate, k) for k in range(len(BUDGETS))]
        return [float(np.std([each[seed] for seed in SEEDS], ddof=1)) for each in losses]

    def _table(self) -> dict[str, Any]:
        return {
            "trunk_losses": self._by_budget(self._trunks, SEEDS),
            "separate_losses": self._by_budget(self._separate, SEEDS),
            "deviations": dict(zip(map(str, BUDGETS), (round(d, 5) for d in self._deviations()), strict=True)),
        }

    def _by_budget(self, runs: Mapping[int, Sequence[Outcome]], seeds: Sequence[int]) -> dict[str, list[float]]:
        return {
            str(budget): [round(self._losses(runs, k)[seed], 5) for seed in seeds] for k, budget in enumerate(BUDGETS)
        }

    def _losses(self, runs: Mapping[int, Sequence[Outcome]], k: int) -> dict[int, float]:
        return {seed: _at(outcomes, self._horizons[k]).loss for seed, outcomes in runs.items()}


def _at(outcomes: Sequence[Outcome], horizon: int) -> Outcome:
    return next(outcome for outcome in outcomes if outcome.horizon == horizon)


def _trained(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.trained_tokens for outcome in outcomes)


if __name__ == "__main__":
    main()
