"""SMAC3: the multi-fidelity facade, Hyperband with a random forest, through ask and tell.

SMAC asks for a configuration at a budget and knows no checkpoint: a higher budget is trained from its beginning.
"""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import peer
from ConfigSpace import ConfigurationSpace, Float, Integer
from meter import Meter, told
from smac import MultiFidelityFacade, Scenario
from smac.main.exceptions import ConfigurationSpaceExhaustedException
from smac.runhistory.dataclasses import TrialValue


def search(meter: Meter, seed: int) -> None:
    """One study, with the defaults as a further initial configuration."""
    logging.getLogger("smac").setLevel(logging.ERROR)
    space = ConfigurationSpace(seed=seed)
    space.add([dimension(name, entry) for name, entry in meter.space.items()])
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space,
            deterministic=True,
            n_trials=peer.MAX_TRIALS,
            min_budget=1,
            max_budget=meter.whole,
            seed=seed,
            output_directory=folder,  # type: ignore[arg-type]
        )
        design = MultiFidelityFacade.get_initial_design(
            scenario, additional_configs=[space.get_default_configuration()]
        )
        facade = MultiFidelityFacade(
            scenario, _never_called, initial_design=design, overwrite=True, logging_level=False
        )
        trials: dict[Any, Any] = {}
        for _ in range(peer.MAX_TRIALS):
            try:
                asked = facade.ask()
            except ConfigurationSpaceExhaustedException:
                return
            if asked.config not in trials:
                trials[asked.config] = meter.begin(dict(asked.config))
            loss = meter.train(trials[asked.config], round(asked.budget or meter.whole))
            facade.tell(asked, TrialValue(cost=told(loss)))


def _never_called(config: Any, seed: int = 0, budget: float = 0.0) -> float:
    raise NotImplementedError("trials are asked for and told")


def dimension(name: str, entry: dict[str, Any]) -> Any:
    """One, with its prior as its default."""
    if "integer" in entry:
        return Integer(name, tuple(entry["integer"]), default=entry["prior"], log=True)
    return Float(name, tuple(entry["log"]), default=entry["prior"], log=True)


if __name__ == "__main__":
    peer.main({"hyperband": search}, starts_over=["hyperband"])
