"""Population-based training: what an exploit costs, and whether the schedules that it finds are any good.

    make bench NAME=pbt

exploit
    What a fork takes to begin from its parent's checkpoint, beside what its interval takes, by the ledger of a study of
    1M-parameter language models.
toy
    The two-parameter problem of Jaderberg et al. 2017 (arXiv:1711.09846, section 4.1), whose gradient is a surrogate's
    that the hyperparameters weigh: populations beside random search with as many steps.
pretrain
    A population that pre-trains language models on film reviews under a constant schedule, mutating the learning rate,
    beside runs with a cosine schedule over a grid of peak rates: as many runs of the same length, so as many training
    tokens in all. The validation losses of the best of each, for several seeds, and of the schedule that the population
    found, replayed from scratch with another seed beside the best cosine with that seed. As many runs at constant
    rates, over the same grid, tell what is owed to the population, and what to having no decay; they were added after
    the others had been seen.

One run is trained at a time, on one core. Writes result.json beside this file, in which the claims of the parts that
are left out stay as they are, and draws the schedules into schedules.png. The committed claims of `pretrain` are those
of a smaller model and shorter runs than the defaults, for lack of time:

    OMP_NUM_THREADS=1 python benchmarks/pbt/run.py --parts pretrain --size 0.2M --steps 160 --members 4
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from pictures import draw
from scipy import stats

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "trunk"))
from reviews import BATCH_SIZE, SHAPES, STEP_TOKENS, trainer

import result
from thalweg.budget import Budget
from thalweg.replay import replay, schedule
from thalweg.simulation import simulate
from thalweg.space import Space
from thalweg.study import Result, Study, run_study
from thalweg.train.function import FunctionRun, FunctionTrainer
from thalweg.tree import Metric, Run

PARTS = ("exploit", "toy", "pretrain")
EXPLOIT_AT_MOST = 0.01
HIGHEST_RATES = {"0.2M": 2.4e-2, "1M": 1.2e-2}
"""Peak rates of the grid: this, half of it, and so on. The best in one run each of 204,800 tokens, of this and its
halves, are 6e-3 and 1.5e-3 under WSD (benchmarks/trunk)."""
LOWEST_SHARE = 0.01
"""A population's lowest rate, as a share of the highest: it must be able to let the rate decay."""
PERTURB = 0.5
"""More than usual: few forks have to bring a rate down by much."""
WARMUP_STEPS = 10
VALIDATION_TOKENS = 20_000
TOY_SEEDS = 20
TOY_STEPS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--size", choices=list(SHAPES), default="1M", help="of the models")
    parser.add_argument("--seeds", type=int, default=3, help="of the pre-training; the first is that of the exploits")
    parser.add_argument("--steps", type=int, default=200, help="of each run that is pre-trained")
    parser.add_argument("--members", type=int, default=6, help="of each population, and cosine runs")
    parser.add_argument("--interval", type=float, default=0.1, help="share of a run between two comparisons")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    claims: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sizing = Sizing(options.size, options.steps, options.members, options.interval, Path(folder))
        seeds = range(options.seeds)
        if "exploit" in options.parts or "pretrain" in options.parts:
            populations = [sizing.run("population", seed) for seed in seeds]
        if "exploit" in options.parts:
            claims["exploit"] = [exploit_claim(populations, sizing)]
        if "toy" in options.parts:
            claims["toy"] = toy_claims()
        if "pretrain" in options.parts:
            cosines = [sizing.run("cosine", seed) for seed in seeds]
            constants = [sizing.run("constant", seed) for seed in seeds]
            claims["pretrain"] = pretrain_claims(populations, cosines, constants, sizing)
    write(options.out, claims)
    if "pretrain" in options.parts:
        draw(claims["pretrain"][0]["measured"], options.out.with_name("schedules.png"))


def write(path: Path, claims: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write the claims; those of parts that were not measured now stay, with their dates."""
    before = json.loads(path.read_text()) if path.exists() else []
    result.write(
        path, [{"part": part, **claim} for part in claims for claim in claims[part]], ["torch", "transformers"]
    )
    kept = [claim for claim in before if claim["part"] not in claims]
    entries = sorted([*kept, *json.loads(path.read_text())], key=lambda claim: PARTS.index(claim["part"]))
    path.write_text(json.dumps(entries, indent=2) + "\n")


@dataclass(frozen=True)
class Sizing:
    """How large all is."""

    size: str
    steps: int
    members: int
    interval: float
    folder: Path

    @property
    def interval_tokens(self) -> int:
        """What a member trains between two comparisons."""
        return round(self.steps * self.interval) * STEP_TOKENS

    @property
    def rates(self) -> list[float]:
        """Peak rates of the cosine runs, each twice the one before."""
        highest = HIGHEST_RATES[self.size]
        return [highest / 2**halvings for halvings in reversed(range(self.members))]

    def run(self, kind: str, seed: int) -> Result:
        """Train one of those that are compared: equal in length and number of runs from scratch."""
        rates = self.rates
        if kind != "population":
            space: dict[str, Any] = {"lr": {"choice": rates}, "schedule": kind}
            strategy: dict[str, Any] = {"name": "grid"}
        else:
            # It begins about where the grid is, and may go far below.
            prior = math.sqrt(rates[0] * rates[-1])
            lr = {"log": [LOWEST_SHARE * rates[-1], rates[-1]], "prior": prior, "confidence": "high"}
            space = {"lr": lr, "schedule": "constant"}
            strategy = {"name": "pbt", "population": self.members, "interval": self.interval, "perturb": PERTURB}
        fixed = {
            "batch_size": BATCH_SIZE,
            "tokens": self.steps * STEP_TOKENS,
            "warmup": WARMUP_STEPS * STEP_TOKENS,
        }
        made = Study(
            name=f"{kind}-{seed}",
            space=Space.parse({**space, **fixed}),
            metric=Metric.parse("loss"),
            trainer=trainer(self.size, str(self.folder)).model_copy(update={"validation_tokens": VALIDATION_TOKENS}),
            budget=Budget(runs=self.members),
            strategy=strategy,
            seed=seed,
            workers=1,
            hold_back=False,
        )
        found = run_study(made, self.folder / "store.db", quiet=True)
        best = best_of(found)
        rates_seen = [f"{stretch.hyperparameters['lr']:.2g}" for stretch in schedule(found.tree, best.id)]
        print(
            f"{made.name}: {len(own_runs(found))} runs, loss {final(best):.4f}, rate {' > '.join(rates_seen)}",
            flush=True,
        )
        return found


def exploit_claim(populations: list[Result], sizing: Sizing) -> dict[str, Any]:
    """What forks take to begin from their parent's state, beside what an interval takes; sums over all forks.

    Each interval of a run begins with a restore and ends with a checkpoint, be it a fork's first or not: an even share
    of the run's is the first one's.
    """
    spent = dict.fromkeys(("setup", "checkpoint", "train", "evaluate"), 0.0)
    num_forks = 0
    for found in populations:
        for run in found.tree:
            if run.parent is not None:
                num_forks += 1
                for kind, cost in found.ledger.spent[run.id].items():
                    spent[kind] += cost.seconds / len(run.reports)
    assert num_forks, "nobody was replaced"
    measured = {
        "exploits": num_forks,
        "interval_tokens": sizing.interval_tokens,
        "seconds_per_exploit": {kind: round(seconds / num_forks, 4) for kind, seconds in spent.items()},
        "share_with_the_checkpoint_at_the_end_of_the_interval": (spent["setup"] + spent["checkpoint"]) / spent["train"],
        "load_average_per_core": round(os.getloadavg()[0] / (os.cpu_count() or 1), 1),
    }
    text = (
        f"what an exploit takes, to build the model and restore the winner's state in it, times the training of its"
        f" interval of {sizing.interval_tokens:,} tokens, {sizing.size} model, one core"
    )
    return result.claim(text, measured, spent["setup"] / spent["train"], at_most=EXPLOIT_AT_MOST)


def toy_claims() -> list[dict[str, Any]]:
    """Both kinds of populations beside random search."""
    found: dict[str, list[float]] = {}
    for name in ("random", "pbt", "pb2"):
        own = {"random": {}, "pbt": {"interval": 0.05}, "pb2": {"interval": 0.05}}[name]
        options = own if name == "random" else {"population": 4, **own}
        found[name] = [toy_value({"name": name, **options}, seed) for seed in range(TOY_SEEDS)]
    claims = []
    for name in ("pbt", "pb2"):
        gains = [own - other for own, other in zip(found[name], found["random"], strict=True)]
        measured = {
            "median": float(np.median(found[name])),
            "median_of_random_search": float(np.median(found["random"])),
            "seeds_in_which_it_is_better": sum(gain > 0 for gain in gains),
            "seeds": TOY_SEEDS,
            "best_possible": 1.2,
            "steps_in_all": 4 * TOY_STEPS,
        }
        shortfall = (1.2 - float(np.median(found[name]))) / (1.2 - float(np.median(found["random"])))
        text = f"toy problem: what {name} lacks of the best possible value, times what random search lacks, medians"
        claims.append(result.claim(text, measured, shortfall, at_most=1.0))
    return claims


class Parameters:
    """The two parameters of the toy problem."""

    def __init__(self) -> None:
        self.values = [0.9, 0.9]

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.values = [float(value) for value in state["values"]]


def climb(run: FunctionRun) -> None:
    """Gradient ascent on the surrogate; its own value is what counts."""
    theta = Parameters()
    run.restore(theta=theta)
    weights = [float(run.hyperparameters["h0"]), float(run.hyperparameters["h1"])]
    for _ in run.positions():
        theta.values = [t - 0.01 * 2 * h * t for t, h in zip(theta.values, weights, strict=True)]
    run.report(q=1.2 - sum(t**2 for t in theta.values))


def toy_value(strategy: Mapping[str, Any], seed: int) -> float:
    found = simulate(
        FunctionTrainer(climb, horizon=TOY_STEPS),
        space={"h0": {"linear": [0.0, 1.0]}, "h1": {"linear": [0.0, 1.0]}},
        metric="max q",
        budget="4 runs",
        strategy=strategy,
        seed=seed,
    )
    return found.best_value


def pretrain_claims(
    populations: list[Result], cosines: list[Result], constants: list[Result], sizing: Sizing
) -> list[dict[str, Any]]:
    """The population's best against the best of the grids: as they were found, and from scratch with another seed."""
    found_by = {"population": populations, "cosine": cosines, "constant": constants}
    losses = {kind: [final(best_of(found)) for found in those] for kind, those in found_by.items()}
    again_by = {
        kind: [again(found, seed) for seed, found in enumerate(found_by[kind], 1000)]
        for kind in ("population", "cosine")
    }
    described = description(found_by, sizing)
    equal = "at equal training tokens"
    return [
        difference(f"the best of a population less the best cosine of a grid {equal}", losses, "cosine", described),
        difference(
            "both schedules replayed with another seed, the population's less the cosine's",
            again_by,
            "cosine",
            {"size": sizing.size},
        ),
        difference(
            f"the best of a population less the best constant rate of a grid {equal}",
            losses,
            "constant",
            {"size": sizing.size, "losses_by_rate": [by_rate(found) for found in constants]},
        ),
    ]


def description(found_by: Mapping[str, list[Result]], sizing: Sizing) -> dict[str, Any]:
    """What was run, and the schedules that were found."""
    cosines = found_by["cosine"]
    return {
        "size": sizing.size,
        "training_tokens": {kind: [tokens(found, "train") for found in those] for kind, those in found_by.items()},
        "evaluation_tokens": {kind: [tokens(found, "evaluate") for found in those] for kind, those in found_by.items()},
        "runs_each": sizing.members,
        "steps_of_a_run": sizing.steps,
        "warmup_steps": WARMUP_STEPS,
        "peak_rates_of_cosine": sizing.rates,
        "losses_by_peak_rate": [by_rate(cosine) for cosine in cosines],
        "best_peak_rates": [best_of(cosine).hyperparameters["lr"] for cosine in cosines],
        "schedules_of_populations": [stretches(population) for population in found_by["population"]],
        "load_average_per_core": round(os.getloadavg()[0] / (os.cpu_count() or 1), 1),
    }


def difference(
    text: str, losses: Mapping[str, list[float]], other: str, described: Mapping[str, Any]
) -> dict[str, Any]:
    """A claim that a population's loss is at most another's, by the mean over the seeds."""
    differences = [own - its for own, its in zip(losses["population"], losses[other], strict=True)]
    half = stats.t.ppf(0.975, len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    measured = {
        "population_losses": [round(loss, 4) for loss in losses["population"]],
        f"{other}_losses": [round(loss, 4) for loss in losses[other]],
        "interval_95": [round(mean(differences) - half, 4), round(mean(differences) + half, 4)],
        **described,
    }
    whole = f"validation loss, {described['size']} model: {text}; mean difference"
    return result.claim(whole, measured, mean(differences), at_most=0)


def tokens(found: Result, kind: str) -> int:
    """What a study's own runs have spent, without replays."""
    return sum(found.ledger.spent[run.id][kind].tokens for run in own_runs(found))


def by_rate(found: Result) -> list[float | None]:
    """The final losses of the grid, from the lowest peak rate on; None for a run that diverged."""
    runs = sorted(own_runs(found), key=lambda run: run.hyperparameters["lr"])
    return [round(final(run), 4) if run.status == "finished" else None for run in runs]


def stretches(population: Result) -> list[tuple[int, int, float]]:
    """The learning rates that the best member went through: from step, to step, rate."""
    found = schedule(population.tree, best_of(population).id)
    return [(s.start // STEP_TOKENS, s.end // STEP_TOKENS, float(f"{s.hyperparameters['lr']:.4g}")) for s in found]


def again(found: Result, seed: int) -> float:
    """The loss of the best run's schedule, from scratch with another seed."""
    loss = final(replay(best_of(found).id, found.study, found.store, seed=seed, quiet=True)[-1])
    print(f"{found.study.name} replayed with seed {seed}: loss {loss:.4f}", flush=True)
    return loss


def own_runs(found: Result) -> list[Run]:
    """The runs of a study without replays, which begin by hand."""
    return [run for run in found.tree if run.origin != "hand"]


def best_of(found: Result) -> Run:
    return min((run for run in own_runs(found) if run.status == "finished"), key=final)


def final(run: Run) -> float:
    return run.reports[-1].metrics["loss"]


if __name__ == "__main__":
    main()
