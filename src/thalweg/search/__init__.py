"""Search: what to run next. A new strategy or sampler is one file here and one line in a table below.

>>> from thalweg.space import Space
>>> from thalweg.tree import Metric, Tree
>>> from thalweg.budget import Left
>>> space = Space.parse({"lr": {"log": [1e-5, 1e-3]}})
>>> problem = Problem(space=space, metric=Metric.parse("accuracy"), horizon=lambda hyperparameters: 900, seed=0)
>>> halving = strategy("halving", {"sampler": "random", "eta": 3}, problem)
>>> [action.until for action in halving.decide(Tree(), free_slots=2, left=Left({"runs": 12}))]
[100, 100]
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any

from thalweg.errors import ConfigError, nearest
from thalweg.search.strategy import Earlier, Observation, Problem, Sampler, Strategy

if TYPE_CHECKING:
    from thalweg.scaling.stopping import Stopping

__all__ = ["SAMPLERS", "STRATEGIES", "Earlier", "Observation", "Problem", "Sampler", "Strategy", "strategy"]

SAMPLERS: dict[str, str] = {
    "grid": "thalweg.search.grid:Grid",
    "random": "thalweg.search.random_search:RandomSearch",
    "sobol": "thalweg.search.sobol:Sobol",
    "tpe": "thalweg.search.tpe:tpe",
    "gp": "thalweg.search.gp:gp",
    "cmaes": "thalweg.search.cma_es:CmaEs",
    "prior_band": "thalweg.search.prior_band:PriorBand",
}
"""Name to `module:attribute`, loaded when used. Called with the problem; keyword arguments are its options."""

STRATEGIES: dict[str, str] = {
    **dict.fromkeys(SAMPLERS, "thalweg.search.full:Full"),
    "auto": "thalweg.search.auto:Auto",
    "halving": "thalweg.search.halving:Halving",
    "asha": "thalweg.search.halving:Halving",
    "successive_halving": "thalweg.search.successive_halving:SuccessiveHalving",
    "hyperband": "thalweg.search.hyperband:Hyperband",
    "bohb": "thalweg.search.bohb:Bohb",
    "lr_race": "thalweg.search.lr_race:LrRace",
    "pbt": "thalweg.search.pbt:PBT",
    "pb2": "thalweg.search.pb2:PB2",
    "freeze_thaw": "thalweg.search.freeze_thaw:FreezeThaw",
    "two_stage": "thalweg.search.two_stage:TwoStage",
}
"""As above, called with the problem, a sampler where it takes one, and the strategy's name. Every sampler's name is a
strategy too, which trains each proposal to its horizon; a strategy with an argument `sampler` has it as an option."""

DEFAULT_SAMPLER = "tpe"


def strategy(name: str, options: Mapping[str, Any], problem: Problem, *, stopping: Stopping | None = None) -> Strategy:
    """Make a strategy by its name, with what any of them can have: several objectives, constraints, rules to stop by.

    Args:
        name: one of `STRATEGIES`.
        options: the strategy's own and those of its sampler, as in a study file.
        problem: what is searched.
        stopping: rules that end the study.
    Raises:
        ConfigError: an unknown name or option (the nearest is named), a wrong type, or a value out of range.
    """

    def make(problem: Problem) -> Strategy:
        return _make(name, options, problem)

    made: Strategy
    if problem.objectives:
        from thalweg.search.objectives import TradeOffs

        made = TradeOffs(problem, make)
    else:
        made = make(problem)
    if stopping is not None:
        from thalweg.search.stopping import EndsByRule

        made = EndsByRule(made, problem, stopping)
    return made


def _make(name: str, options: Mapping[str, Any], problem: Problem) -> Strategy:
    make_strategy = _load(STRATEGIES, name, "strategy")
    rest = dict(options)
    own = _option_types(make_strategy)
    if not takes_sampler(name):
        _check_options(name, rest, own, [])
        alone: Strategy = make_strategy(problem, name, **rest)
        return alone
    sampler_name = name if name in SAMPLERS else rest.pop("sampler", DEFAULT_SAMPLER)
    make_sampler = _load(SAMPLERS, sampler_name, "strategy.sampler")
    samplers = _option_types(make_sampler)
    _check_options(name, rest, own | samplers, [] if name in SAMPLERS else ["sampler"])
    sampler = make_sampler(problem, **{key: value for key, value in rest.items() if key in samplers})
    if problem.is_constrained:
        from thalweg.search.constraints import Feasible

        sampler = Feasible(sampler, problem)
    made: Strategy = make_strategy(problem, sampler, name, **{k: v for k, v in rest.items() if k in own})
    return made


def takes_sampler(name: str) -> bool:
    """Whether a strategy's roots come from a sampler, which is an option of it."""
    make = _load(STRATEGIES, name, "strategy")
    return "sampler" in inspect.signature(make).parameters


def _check_options(
    name: str, options: Mapping[str, Any], types: Mapping[str, tuple[Any, ...]], others: list[str]
) -> None:
    for option, value in options.items():
        known = [*types, *others]
        if option not in known:
            what = nearest(option, known) if known else "It takes none"
            raise ConfigError(f"strategy '{name}': unknown option {option!r}. {what}")
        _check_type(option, value, types[option])


def _load(table: Mapping[str, str], name: object, what: str) -> Any:
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"unknown {what} {name!r}. {nearest(str(name), table)}")
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def _option_types(make: Any) -> dict[str, tuple[Any, ...]]:
    """The keyword-only arguments and the types that each accepts, such as `int`, or `list[float]`."""
    function = make.__init__ if inspect.isclass(make) else make
    hints = typing.get_type_hints(function)
    keywords = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {keyword: _alternatives(hints[keyword]) for keyword in keywords}


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _check_type(option: str, value: object, types: tuple[Any, ...]) -> None:
    if not any(_is_of(value, kind) for kind in types):
        words = {
            int: "a whole number",
            float: "a number",
            str: "a string",
            bool: "true or false",
            list[float]: "a list of numbers",
            list[str]: "a list of strings",
        }
        wanted = " or ".join(words[kind] for kind in types if kind is not NoneType)
        raise ConfigError(f"strategy.{option} = {value!r} must be {wanted}")


def _is_of(value: object, kind: Any) -> bool:
    if typing.get_origin(kind) is list:
        (element,) = typing.get_args(kind)
        return isinstance(value, list | tuple) and all(_is_of(entry, element) for entry in value)
    # To Python, True is a whole number; to a user it is not.
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)
