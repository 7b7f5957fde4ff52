"""Every strategy, with samplers and the ways to be scored at rungs, and the problems they are tried on."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import strategies as st

from thalweg.search import SAMPLERS, STRATEGIES, Problem, Strategy, strategy, takes_sampler
from thalweg.search.strategy import Branch
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Metric

Options = dict[str, Any]

_COMBINED = ("random", "tpe", "grid")
"""The samplers that every strategy with a sampler is tried with; all others are tried with one of them."""


def _cases() -> list[tuple[str, Options]]:
    cases: list[tuple[str, Options]] = []
    for name in STRATEGIES:
        if name in SAMPLERS or not takes_sampler(name):
            cases.append((name, {}))
        else:
            samplers = list(SAMPLERS) if name == "halving" else _COMBINED
            cases += [(name, {"sampler": sampler}) for sampler in samplers]
    cases += [("halving", {"sampler": "random", "trunk": True}), ("halving", {"sampler": "tpe", "shortened": True})]
    cases += [("two_stage", {"sampler": "random", "trunk": True}), ("hyperband", {"sampler": "random", "trunk": True})]
    cases.append(("auto", {"trunk": False}))  # the problems here have trunks, which it takes where there are any
    return [*cases, ("lr_race", {"shortened": True}), ("pbt", {"selection": "tournament", "population": 3})]


_SLOW_MODELS = ("gp", "cmaes", "sobol", "prior_band")
"""Samplers that have tests of their own for most of this, and would take most of the time here."""


def _parametrized(*, quick_only: bool) -> pytest.MarkDecorator:
    cases = []
    for name, options in CASES:
        # A grid under rungs says little that random draws do not: with the slow ones, to keep `make test` short.
        slow = bool({name, options.get("sampler")} & {*_SLOW_MODELS}) or options.get("sampler") == "grid"
        shown = "-".join([name, *(v if isinstance(v, str) else f"{k}={v}" for k, v in options.items())])
        if not (slow and quick_only):
            cases.append(pytest.param(name, options, id=shown, marks=[pytest.mark.slow] if slow else []))
    return pytest.mark.parametrize(("name", "options"), cases)


CASES = _cases()
every_strategy = _parametrized(quick_only=False)
quick_strategies = _parametrized(quick_only=True)

SPACE = Space.parse(
    {
        "lr": {"log": [1e-5, 1e-1], "prior": 1e-3},
        "dropout": {"linear": [0.0, 0.5]},
        "batch_size": {"choice": [8, 16, 32]},
        "epochs": {"integer": [1, 3]},
        "adapter": {"choice": ["none", "lora"]},
        "rank": {"integer": [2, 64], "log": True, "when": {"adapter": "lora"}},
        "warmup": 0.1,
        "share": 1.0,
    }
)


def horizon(hyperparameters: Hyperparameters) -> int:
    epochs, share = hyperparameters.get("epochs", 2), hyperparameters.get("share", 1.0)
    assert isinstance(epochs, int)
    assert isinstance(share, float)
    return max(1, round(900 * epochs * share))


def _shortened(hyperparameters: Hyperparameters, budget: int) -> Hyperparameters:
    return {"share": budget / horizon({**hyperparameters, "share": 1.0})}


def _branch(hyperparameters: Hyperparameters, budget: int) -> Branch:
    """The last tenth decays, in steps of 7 as the tests' workers take them."""
    return Branch(int(budget * 0.9) // 7 * 7, _shortened(hyperparameters, budget))


def make_problem(space: Space = SPACE, seed: int = 0, **changes: Any) -> Problem:
    given = {"space": space, "metric": Metric("accuracy", "max"), "horizon": horizon, "seed": seed}
    return Problem(**{**given, "branch": _branch, "shortened": _shortened, **changes})


def make(name: str, options: Options, problem: Problem) -> Strategy:
    return strategy(name, options, problem)


def number(hyperparameters: Hyperparameters) -> float:
    """A number in [0, 1) from any hyperparameters, the same in every process."""
    return random.Random(repr(sorted(hyperparameters.items()))).random()


def bowl(hyperparameters: Hyperparameters, fraction: float) -> float:
    lr = hyperparameters["lr"]
    assert isinstance(lr, float)
    return (math.log10(lr) + 3) ** 2 + 1 - fraction


_values = st.one_of(st.integers(-5, 5), st.booleans(), st.text("abc", max_size=2), st.sampled_from([0.5, 1.0]))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Any mixture of dimensions, some of which exist under a condition only."""
    spec: dict[str, object] = {"share": 1.0}
    options = draw(st.lists(_values, min_size=1, max_size=4, unique_by=lambda v: (type(v), v)))
    spec["kind"] = {"choice": options}
    for i in range(draw(st.integers(0, 3))):
        low = draw(st.integers(1, 50))
        high = low + draw(st.integers(1, 50))
        dimension: dict[str, object] = draw(
            st.sampled_from(
                [
                    {"log": [low * 1e-6, high * 1e-6]},
                    {"log": [low * 1e-6, high * 1e-6], "prior": high * 1e-6},
                    {"linear": [-float(high), float(low)]},
                    {"linear": [-float(high), float(low)], "prior": -float(high), "confidence": "high"},
                    {"integer": [low, high]},
                    {"integer": [low, high], "log": True, "prior": low},
                    {"choice": ["a", "b", True, 1, 1.0]},
                ]
            )
        )
        when = {"when": {"kind": draw(st.sampled_from(options))}} if draw(st.booleans()) else {}
        spec[f"x{i}"] = {**dimension, **when}
    if draw(st.booleans()):
        spec["fixed"] = draw(_values)
    return Space.parse(spec)
