"""Syne Tune: ASHA, MOBSTER, Hyper-Tune and DyHPO, each of which pauses trials and resumes those that it promotes.

Its schedulers are asked and told as its own simulator does, at every fidelity. The defaults are the first point.
Of its releases the last one that has all four, 0.13.
"""

from __future__ import annotations

import datetime
from typing import Any

import peer
from meter import Meter, Trial, told
from syne_tune.backend.trial_status import Trial as Handle
from syne_tune.config_space import lograndint, loguniform
from syne_tune.optimizer import baselines
from syne_tune.optimizer.scheduler import SchedulerDecision
from tables import prior_of, range_of

UNTIL, REACHED, LOSS = "until", "reached", "loss"
SKIP_PERIOD = 3
"""The Gaussian process is fitted anew after so many new trials, for all as is the default for DyHPO."""


def make(name: str, **options: Any) -> peer.Search:
    """A study by one of its baselines."""

    def search(meter: Meter, seed: int) -> None:
        space = {name: dimension(entry) for name, entry in meter.space.items()}
        if name != "ASHA":
            options["search_options"] = {"debug_log": False, "opt_skip_period": SKIP_PERIOD}
        scheduler = getattr(baselines, name)(
            {**space, UNTIL: meter.whole},
            metric=LOSS,
            mode="min",
            resource_attr=REACHED,
            max_resource_attr=UNTIL,
            grace_period=1,
            random_seed=seed,
            points_to_evaluate=[prior_of(meter.space)],
            **options,
        )
        trials: dict[int, Trial] = {}
        handles: dict[int, Handle] = {}
        for _ in range(peer.MAX_TRIALS):
            suggestion = scheduler.suggest(len(trials))
            if suggestion is None:
                return
            if suggestion.spawn_new_trial_id:
                number = len(trials)
                handles[number] = Handle(number, suggestion.config, datetime.datetime(2026, 1, 1))
                trials[number] = meter.begin(suggestion.config)
                scheduler.on_trial_add(handles[number])
            else:
                number = suggestion.checkpoint_trial_id
                if suggestion.config is not None:
                    handles[number].config = suggestion.config
            train(meter, scheduler, trials[number], handles[number])

    return search


def train(meter: Meter, scheduler: Any, trial: Trial, handle: Handle) -> None:
    """From where it is until the scheduler pauses or stops it, or it is complete."""
    first = getattr(handle, "told", 0) + 1
    for step in range(first, meter.whole + 1):
        result = {LOSS: told(meter.train(trial, step)), REACHED: step}
        handle.told = step  # type: ignore[attr-defined]
        if step == meter.whole:
            scheduler.on_trial_complete(handle, result)
        elif scheduler.on_trial_result(handle, result) != SchedulerDecision.CONTINUE:
            return


def dimension(entry: dict[str, Any]) -> Any:
    """One."""
    low, high = range_of(entry)
    return lograndint(int(low), int(high)) if "integer" in entry else loguniform(low, high)


if __name__ == "__main__":
    searches = {
        "asha": make("ASHA", type="promotion"),
        "mobster": make("MOBSTER", type="promotion"),
        "hyper_tune": make("HyperTune", type="promotion", brackets=4),
        "dyhpo": make("DyHPO"),
    }
    peer.main(searches)
