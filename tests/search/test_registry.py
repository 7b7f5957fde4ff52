"""Strategies by name: unknown names, unknown options, wrong types and ranges."""

from __future__ import annotations

import importlib.util
import re

import pytest

from thalweg.errors import ConfigError
from thalweg.search import SAMPLERS, STRATEGIES, Problem, strategy
from thalweg.space import Space
from thalweg.tree import Metric

SPACE = Space.parse({"lr": {"log": [1e-5, 1e-3]}, "n": {"integer": [1, 1000]}})
PROBLEM = Problem(space=SPACE, metric=Metric("loss", "min"), horizon=lambda _: 100, seed=0)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_made_without_options(name: str) -> None:
    assert callable(strategy(name, {}, PROBLEM).decide)


def test_every_sampler_is_a_strategy() -> None:
    assert set(SAMPLERS) < set(STRATEGIES)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("halvin", {}, "unknown strategy 'halvin'. Did you mean 'halving'?"),
        (7, {}, "unknown strategy 7. Known: "),
        ("halving", {"sampler": "tpee"}, "unknown strategy.sampler 'tpee'. Did you mean 'tpe'?"),
        ("halving", {"sampler": "halving"}, "unknown strategy.sampler 'halving'. Known: "),
        ("halving", {"sampler": ["tpe"]}, "unknown strategy.sampler ['tpe']"),
        ("halving", {"etta": 3}, "strategy 'halving': unknown option 'etta'. Did you mean 'eta'?"),
        ("halving", {"resolution": 3}, "unknown option 'resolution'"),
        ("random", {"sampler": "tpe"}, "strategy 'random': unknown option 'sampler'. It takes none"),
        ("halving", {"eta": "3"}, "strategy.eta = '3' must be a whole number"),
        ("halving", {"eta": 2.5}, "strategy.eta = 2.5 must be a whole number"),
        ("halving", {"eta": True}, "strategy.eta = True must be a whole number"),
        ("halving", {"first_fraction": "0.1"}, "strategy.first_fraction = '0.1' must be a number"),
        ("halving", {"eta": 1}, "strategy.eta = 1 must be at least 2"),
        ("halving", {"num_rungs": 1}, "strategy.num_rungs = 1 must be from 2 to 20"),
        ("halving", {"first_fraction": 1}, "strategy.first_fraction = 1 must be between 0 and 1"),
        ("halving", {"first_fraction": float("nan")}, "strategy.first_fraction = nan must be between 0 and 1"),
        ("halving", {"first_fraction": 0.1, "num_rungs": 3}, "give one of them"),
        ("halving", {"max_roots": 0}, "strategy.max_roots = 0 must be at least 1"),
        ("grid", {"resolution": 0}, "strategy.resolution = 0 must be at least 1"),
        ("grid", {"resolution": 400}, "strategy.resolution = 400 gives a grid of up to 160,000 points"),
    ],
)
def test_refuses(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        strategy(name, options, PROBLEM)


def test_a_samplers_options_go_through_halving() -> None:
    with pytest.raises(ConfigError, match="resolution = 0"):
        strategy("halving", {"sampler": "grid", "resolution": 0, "eta": 3}, PROBLEM)


def test_gp_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    with pytest.raises(ConfigError, match="'gp' needs torch: pip install"):
        strategy("gp", {}, PROBLEM)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed = -1"):
        Problem(space=SPACE, metric=Metric("loss", "min"), horizon=lambda _: 100, seed=-1)
