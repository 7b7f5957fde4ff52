"""Ray Tune: its ASHA scheduler over random search, and BOHB (HyperBandForBOHB, TuneBOHB), driven as by its controller.

ASHA runs each trial until it is stopped; BOHB pauses trials, and resumes those that go on. The defaults come first.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import ConfigSpace
import numpy as np
import peer
from meter import Meter, told
from meter import Trial as Metered
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, HyperBandForBOHB, TrialScheduler
from ray.tune.search.bohb import TuneBOHB
from tables import from_unit, prior_of

AXIS, LOSS = "training_iteration", "loss"


@dataclass(eq=False)
class Handle:
    """What the schedulers look at of a trial."""

    trial_id: str
    metered: Metered
    status: str = Trial.PENDING
    is_saving: bool = False
    step: int = 0


@dataclass
class Controller:
    """What the schedulers ask of the controller."""

    scheduler: Any
    searcher: Any
    trials: list[Handle] = field(default_factory=list)

    @property
    def search_alg(self) -> Controller:
        """The wrapper of the searcher."""
        return self

    def get_trials(self) -> list[Handle]:
        """All trials."""
        return self.trials

    def stop_trial(self, trial: Handle) -> None:
        """Of a paused trial."""
        self.scheduler.on_trial_remove(self, trial)
        self.end(trial)

    def end(self, trial: Handle) -> None:
        """A trial is over."""
        trial.status = Trial.TERMINATED
        self.searcher.on_trial_complete(trial.trial_id)


def asha(meter: Meter, seed: int) -> None:
    """Random search with ASHA, in its documented settings."""
    rng = np.random.default_rng(seed)
    np.random.seed(seed)
    scheduler = AsyncHyperBandScheduler(AXIS, LOSS, "min", max_t=meter.whole, grace_period=1, reduction_factor=4)
    for number in range(peer.MAX_TRIALS):
        point = prior_of(meter.space) if number == 0 else from_unit(meter.space, rng.random(len(meter.space)))
        trial = Handle(str(number), meter.begin(point))
        scheduler.on_trial_add(None, trial)
        result: dict[str, Any] = {}
        for step in range(1, meter.whole + 1):
            result = {AXIS: step, LOSS: told(meter.train(trial.metered, step))}
            if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                break
        scheduler.on_trial_complete(None, trial, result)


def bohb(meter: Meter, seed: int) -> None:
    """TPE over the rungs of Hyperband."""
    random.seed(seed)
    np.random.seed(seed)
    space = ConfigSpace.ConfigurationSpace(seed=seed)
    for name, entry in meter.space.items():
        if "integer" in entry:
            space.add_hyperparameter(ConfigSpace.UniformIntegerHyperparameter(name, *entry["integer"], log=True))
        else:
            space.add_hyperparameter(ConfigSpace.UniformFloatHyperparameter(name, *entry["log"], log=True))
    searcher = TuneBOHB(space, metric=LOSS, mode="min", seed=seed, points_to_evaluate=[prior_of(meter.space)])
    scheduler = HyperBandForBOHB(AXIS, LOSS, "min", max_t=meter.whole)
    controller = Controller(scheduler, searcher)
    for _ in range(peer.MAX_TRIALS):
        if not (any(t.status == Trial.PENDING for t in controller.trials) or may_resume(scheduler)):
            name = str(len(controller.trials))
            trial = Handle(name, meter.begin(searcher.suggest(name)))
            controller.trials.append(trial)
            scheduler.on_trial_add(controller, trial)
        chosen = scheduler.choose_trial_to_run(controller)
        train(meter, controller, chosen)


def may_resume(scheduler: Any) -> bool:
    """Whether a paused trial has earned its next rung."""
    brackets = [bracket for band in scheduler._hyperbands for bracket in band if bracket is not None]
    return any(t.status == Trial.PAUSED for bracket in brackets for t in bracket.trials_to_unpause)


def train(meter: Meter, controller: Controller, trial: Handle) -> None:
    """Until the scheduler pauses or stops it."""
    trial.status = Trial.RUNNING
    while True:
        trial.step += 1
        result = {AXIS: trial.step, LOSS: told(meter.train(trial.metered, trial.step))}
        decision = controller.scheduler.on_trial_result(controller, trial, result)
        controller.searcher.on_trial_result(trial.trial_id, result)
        if decision == TrialScheduler.PAUSE:
            trial.status = Trial.PAUSED
            return
        if decision == TrialScheduler.STOP:
            controller.end(trial)
            return


if __name__ == "__main__":
    peer.main({"asha": asha, "bohb": bohb})
