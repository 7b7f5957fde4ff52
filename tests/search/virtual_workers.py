"""A virtual pool of workers: carries actions out against a formula instead of a training, in virtual time."""

from __future__ import annotations

import dataclasses
import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from thalweg.budget import Left
from thalweg.search import Problem, Strategy
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Continue, Fork, Report, Run, Start, Tree

Objective = Callable[[Hyperparameters, float], float]
"""Hyperparameters and the share of the horizon reached -> loss. NaN diverges; an `ArithmeticError` fails the run."""


@dataclass
class Outcome:
    tree: Tree
    actions: list[Action] = field(default_factory=list)
    trained: list[tuple[str, int, int]] = field(default_factory=list)
    """Run, from, to: every stretch that was trained."""

    @property
    def work(self) -> int:
        return sum(until - begin for _, begin, until in self.trained)

    def finished(self) -> list[Run]:
        return [run for run in self.tree if run.status == "finished"]


def shuffled(tree: Tree, seed: int) -> Tree:
    """The same runs, taken in in another order."""
    runs = list(tree)
    random.Random(seed).shuffle(runs)
    return Tree({run.id: run for run in runs})


def simulate(
    strategy: Strategy,
    problem: Problem,
    objective: Objective,
    *,
    runs: int | None,
    workers: int = 1,
    step: int = 1,
    tree: Tree | None = None,
    remake: Callable[[], Strategy] | None = None,
) -> Outcome:
    """Run a study to its end, holding the strategy to its contract at every decision.

    `step` is the length of a training step: runs stop at the first multiple at or after what was asked. With `remake`,
    a strategy made anew must decide the same on the same runs in another order.
    """
    outcome = Outcome(tree or Tree())
    busy: list[tuple[int, int, str]] = []
    now = 0
    for turn in range(2_000):
        left = Left({} if runs is None else {"runs": max(0, runs - len(outcome.tree.roots()))})
        free = workers - len(busy)
        actions = strategy.decide(outcome.tree, free_slots=free, left=left)
        _hold_to_contract(actions, outcome.tree, free, left, problem)
        if remake is not None:
            again = remake().decide(shuffled(outcome.tree, turn), free_slots=free, left=left)
            assert again == actions
        for action in actions:
            run = _begin(action, outcome.tree, problem)
            arrival = min(math.ceil(run.until / step) * step, max(run.horizon, run.position + 1))
            outcome.tree.absorb(run)
            outcome.actions.append(action)
            outcome.trained.append((run.id, run.position, arrival))
            heapq.heappush(busy, (now + arrival - run.position, run.number, run.id))
        if not busy:
            return outcome
        now, _, run_id = heapq.heappop(busy)
        arrival = next(until for name, _, until in reversed(outcome.trained) if name == run_id)
        outcome.tree.absorb(_arrive(outcome.tree[run_id], arrival, objective, problem))
    raise AssertionError("the study did not end")


def _hold_to_contract(actions: list[Action], tree: Tree, free: int, left: Left, problem: Problem) -> None:
    assert len(actions) <= free
    starts = [action for action in actions if isinstance(action, Start)]
    assert len(starts) <= left.amounts.get("runs", math.inf)
    for action in starts:
        problem.space.check(action.hyperparameters)
        active = [n for n in problem.space.ordered if problem.space.is_active(n, action.hyperparameters)]
        assert set(action.hyperparameters) == {*active, *problem.space.fixed}
        assert 0 < action.until <= problem.horizon(action.hyperparameters)
    continued = [action.run for action in actions if isinstance(action, Continue)]
    assert len(set(continued)) == len(continued)
    for action in actions:
        if isinstance(action, Continue):
            run = tree[action.run]
            assert run.status == "paused"
            assert run.position < action.until <= run.horizon
        if isinstance(action, Fork):
            # The newest checkpoint of a paused run is at its position.
            assert (tree[action.parent].status, tree[action.parent].position) == ("paused", action.at)
            assert action.at < action.until


def _begin(action: Action, tree: Tree, problem: Problem) -> Run:
    if isinstance(action, Start):
        number = len(tree)
        return Run(
            id=f"s-{number}",
            number=number,
            hyperparameters=action.hyperparameters,
            horizon=problem.horizon(action.hyperparameters),
            until=action.until,
            status="running",
            origin=action.origin,
        )
    if isinstance(action, Fork):
        parent, number = tree[action.parent], len(tree)
        hyperparameters = {**parent.hyperparameters, **action.changes}
        return Run(
            id=f"s-{number}",
            number=number,
            hyperparameters=hyperparameters,
            horizon=problem.horizon(hyperparameters),
            until=action.until,
            status="running",
            origin=action.origin,
            parent=parent.id,
            fork_position=action.at,
            position=action.at,
        )
    assert isinstance(action, Continue)
    return dataclasses.replace(tree[action.run], status="running", until=action.until)


def _arrive(run: Run, position: int, objective: Objective, problem: Problem) -> Run:
    try:
        loss = objective(run.hyperparameters, position / run.horizon)
    except ArithmeticError as error:
        return dataclasses.replace(run, status="failed", error=str(error))
    if math.isnan(loss):
        return dataclasses.replace(run, status="diverged", position=position)
    value = loss if problem.metric.goal == "min" else -loss
    reports = (*run.reports, Report(position, {problem.metric.name: value}))
    status = "finished" if position >= run.horizon else "paused"
    return dataclasses.replace(run, status=status, position=position, reports=reports)
