"""NePS: PriorBand over Hyperband, with the priors, through ask and tell.

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


def search(meter: Meter, seed: int) -> None:
    """One study. The prior is the first point, at the lowest fidelity."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    dimensions = {name: dimension(entry) for name, entry in meter.space.items()}
    space = neps.SearchSpace({**dimensions, "until": neps.HPOInteger(1, meter.whole, is_fidelity=True)})
    optimizer = neps.AskAndTell(neps.algorithms.priorband(space, sample_prior_first=True))
    trials: dict[str, Trial] = {}
    for _ in range(peer.MAX_TRIALS):
        asked = optimizer.ask()
        before = asked.metadata.previous_trial_id
        trial = trials[before] if before is not None else meter.begin(asked.config)
        trials[asked.id] = trial
        optimizer.tell(asked, told(meter.train(trial, int(asked.config["until"]))))


def dimension(entry: dict[str, Any]) -> Any:
    """One, with its prior at the confidence that Thalweg has by default."""
    kind = neps.HPOInteger if "integer" in entry else neps.HPOFloat
    low, high = entry["integer"] if "integer" in entry else entry["log"]
    return kind(low, high, log=True, prior=entry["prior"], prior_confidence="medium")


if __name__ == "__main__":
    peer.main({"prior_band": search})
