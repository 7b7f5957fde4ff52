"""Every strategy on any tree, whoever made it: no decision raises, and each keeps its contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from contract_cases import SPACE, Options, horizon, make, make_problem, quick_strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtual_workers import hold_to_contract, shuffled

from thalweg.budget import Left
from thalweg.space import Hyperparameters
from thalweg.tree import Report, Run, Status, Tree

_STATUSES: tuple[Status, ...] = (
    "pending",
    "running",
    "paused",
    "paused",  # most often: there is most to decide
    "interrupted",
    "finished",
    "diverged",
    "failed",
    "stopped",
)
_LOSSES = st.one_of(
    st.sampled_from([0.0, 0.5, 0.5, math.inf, -math.inf, math.nan, 1e300, -1e300]), st.floats(-2, 2, width=16)
)
_OF_AUTO = ["auto", "auto:start", "auto:model", "auto:confirm"]
"""Origins of its roots, by where they come from."""
_SHARES = (1 / 27, 1 / 16, 0.1, 1 / 9, 0.2, 1 / 4, 1 / 3, 1 / 2, 0.9, 1.0)


@st.composite
def trees(draw: st.DrawFn, origin: str, max_runs: int = 9) -> Tree:
    """Roots and forks of the strategy, of a person and of the baseline, in any state, with any evaluations."""
    runs: list[Run] = []
    for number in range(draw(st.integers(0, max_runs))):
        own = [origin] if origin != "auto" else _OF_AUTO
        whose = draw(st.sampled_from([*own, *own, *own, *["hand", "baseline"] * len(own)]))
        parents = [run for run in runs if run.position > run.fork_position]
        parent = draw(st.sampled_from(parents)) if parents and draw(st.integers(0, 3)) == 0 else None
        hyperparameters = draw(_hyperparameters(whose, runs, parent))
        begin = 0 if parent is None else draw(st.integers(parent.fork_position + 1, parent.position))
        end = max(horizon(hyperparameters), begin + 1)
        runs.append(draw(_run(number, whose, hyperparameters, parent, begin, end)))
    return shuffled(Tree.of(runs), draw(st.integers(0, 9)))


@st.composite
def _hyperparameters(draw: st.DrawFn, whose: str, runs: list[Run], parent: Run | None) -> Hyperparameters:
    drawn = SPACE.sample(np.random.default_rng(draw(st.integers(0, 30))))
    if parent is not None:
        return {**parent.hyperparameters, "lr": drawn["lr"]} if draw(st.booleans()) else parent.hyperparameters
    if whose in ("hand", "baseline") and draw(st.booleans()):
        return draw(st.sampled_from([{}, {"lr": 5.0, "batch_size": 64}, {**drawn, "epochs": 7}, {**drawn, "other": 1}]))
    if runs and draw(st.integers(0, 4)) == 0:  # begun twice
        return runs[0].hyperparameters if SPACE.holds(runs[0].hyperparameters) else drawn
    return drawn


@st.composite
def _run(
    draw: st.DrawFn, number: int, whose: str, hyperparameters: Hyperparameters, parent: Run | None, begin: int, end: int
) -> Run:
    status = draw(st.sampled_from(_STATUSES))
    places = [round(end * share) for share in _SHARES]
    inside = sorted({place + extra for place in places for extra in (0, 3) if begin < place + extra < end} | {begin})
    position = end if status == "finished" else draw(st.sampled_from(inside))
    if status == "paused" and position == begin:
        status = "interrupted"
    until = position
    if status in ("pending", "running", "interrupted"):
        until = draw(st.sampled_from([place for place in [*inside, end] if place > position]))
    evaluated = [place for place in [*inside, position] if begin < place <= position]
    chosen = sorted(draw(st.sets(st.sampled_from(evaluated), max_size=4))) if evaluated else []
    reports = tuple(Report(place, draw(_metrics)) for place in chosen)
    fields: dict[str, Any] = {} if parent is None else {"parent": parent.id, "fork_position": begin}
    return Run(
        id=f"s-{number}",
        number=number,
        seed=draw(st.integers(1, 3)) if whose == "auto:confirm" else 0,
        hyperparameters=hyperparameters,
        horizon=end,
        until=until,
        status=status,
        position=position,
        reports=reports,
        origin=whose,
        **fields,
    )


_metrics = st.one_of(
    st.fixed_dictionaries({"accuracy": _LOSSES}), st.fixed_dictionaries({"other": _LOSSES}), st.just({})
)
_lefts = st.builds(
    lambda runs, whole: Left({} if runs is None else {"runs": float(runs)}, whole),
    st.one_of(st.none(), st.integers(0, 12)),
    st.one_of(st.none(), st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.5, 40.0])),
)


def _is_feasible(hyperparameters: Hyperparameters) -> bool:
    lr = hyperparameters.get("lr", 0.0)
    assert isinstance(lr, float)
    return lr < 1e-3


@quick_strategies
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), free=st.integers(0, 5), left=_lefts)
def test_decides_on_any_tree(name: str, options: Options, data: st.DataObject, free: int, left: Left) -> None:
    tree = data.draw(trees(name))
    problem = make_problem(seed=data.draw(st.integers(0, 3)))
    made = make(name, options, problem)
    actions = made.decide(tree, free_slots=free, left=left)
    hold_to_contract(actions, tree, free, left, problem)
    # Without what it has cached, and in another order, it decides the same; and so it does when it is asked again.
    assert make(name, options, problem).decide(shuffled(tree, 5), free_slots=free, left=left) == actions
    assert made.decide(tree, free_slots=free, left=left) == actions


@quick_strategies
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_begins_on_any_tree_what_the_constraints_allow(name: str, options: Options, data: st.DataObject) -> None:
    problem = make_problem(is_feasible=_is_feasible)
    tree = data.draw(trees(name, max_runs=5))
    tree = Tree({r.id: r for r in tree if r.origin in ("hand", "baseline") or _is_feasible(r.hyperparameters)})
    tree = Tree({r.id: r for r in tree if r.parent is None})
    actions = make(name, options, problem).decide(tree, free_slots=4, left=Left({}))
    hold_to_contract(actions, tree, 4, Left({}), problem)
