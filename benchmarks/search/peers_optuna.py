"""Optuna: TPE and the Gaussian process, with the Hyperband and the median pruner. A pruned trial is never gone back to.

The defaults are enqueued as the first trial, Optuna's way of telling it what is believed; `plain` has them not.
"""

from __future__ import annotations

from typing import Any

import optuna
import peer
from meter import Meter, told
from tables import prior_of


def make(sampler: str, pruner: str, *, defaults: bool = True) -> peer.Search:
    """A study of this sampler and this pruner, both with their documented settings."""

    def search(meter: Meter, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        samplers: dict[str, Any] = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
            "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        }
        pruners: dict[str, Any] = {
            "hyperband": lambda: optuna.pruners.HyperbandPruner(1, meter.whole, 3),
            "median": lambda: optuna.pruners.MedianPruner(),
        }
        study = optuna.create_study(sampler=samplers[sampler](), pruner=pruners[pruner](), study_name=f"study-{seed}")
        if defaults:
            study.enqueue_trial(prior_of(meter.space))
        for _ in range(peer.MAX_TRIALS):
            asked = study.ask()
            trial = meter.begin({name: suggest(asked, name, entry) for name, entry in meter.space.items()})
            loss = float("inf")
            state = optuna.trial.TrialState.COMPLETE
            for step in range(1, meter.whole + 1):
                loss = meter.train(trial, step)
                asked.report(told(loss), step)
                if asked.should_prune():
                    state = optuna.trial.TrialState.PRUNED
                    break
                if loss == float("inf"):
                    break
            study.tell(asked, told(loss) if state == optuna.trial.TrialState.COMPLETE else None, state=state)

    return search


def suggest(trial: optuna.Trial, name: str, entry: dict[str, Any]) -> float:
    """One dimension."""
    if "integer" in entry:
        return trial.suggest_int(name, *entry["integer"], log=True)
    return trial.suggest_float(name, *entry["log"], log=True)


if __name__ == "__main__":
    searches = {f"{s}_{p}": make(s, p) for s in ("tpe", "gp") for p in ("hyperband", "median")}
    peer.main({**searches, "tpe_hyperband_plain": make("tpe", "hyperband", defaults=False)})
