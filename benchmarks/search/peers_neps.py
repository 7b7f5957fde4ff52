"""NePS: PriorBand over Hyperband, with the priors, and Hyperband without any, through ask and tell.

A configuration that comes back at a higher fidelity names the one before, whose checkpoint it goes on from.
"""

from __future__ import annotations

import random
from typing import Any

import neps
import numpy as np
import peer
import torch
from meter import Meter, Trial, told


def make(name: str, *, priors: bool, **options: Any) -> peer.Search:
    """A study by one of its algorithms."""

    def search(meter: Meter, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        dimensions = {name: dimension(entry, priors) for name, entry in meter.space.items()}
        space = neps.SearchSpace({**dimensions, "until": neps.HPOInteger(1, meter.whole, is_fidelity=True)})
        optimizer = neps.AskAndTell(getattr(neps.algorithms, name)(space, **options))
        trials: dict[str, Trial] = {}
        for _ in range(peer.MAX_TRIALS):
            asked = optimizer.ask()
            before = asked.metadata.previous_trial_id
            trial = trials[before] if before is not None else meter.begin(asked.config)
            trials[asked.id] = trial
            optimizer.tell(asked, told(meter.train(trial, int(asked.config["until"]))))

    return search


def dimension(entry: dict[str, Any], priors: bool) -> Any:
    """One, with its prior at the confidence that Thalweg has by default."""
    believed = {"prior": entry["prior"], "prior_confidence": "medium"} if priors else {}
    kind = neps.HPOInteger if "integer" in entry else neps.HPOFloat
    low, high = entry["integer"] if "integer" in entry else entry["log"]
    return kind(low, high, log=True, **believed)


if __name__ == "__main__":
    searches = {
        "prior_band": make("priorband", priors=True, sample_prior_first=True),
        "hyperband": make("hyperband", priors=False),
    }
    peer.main(searches)
