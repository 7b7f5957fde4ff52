"""A virtual pool of workers: carries actions out against a formula instead of a training, in virtual time.

It asks a strategy as the loop does, budget and all, and holds each of its decisions to the contract.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from thalweg.budget import Cost, Left
from thalweg.plan.forecast import Speed, average_cost, prices, reduced, room_for
from thalweg.search import Problem, Strategy
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Continue, Fork, Report, Run, Start, Stop, Tree

Objective = Callable[[Hyperparameters, float], float]
"""Hyperparameters and the share of the horizon reached -> loss. NaN diverges; an `ArithmeticError` fails the run."""

_MAX_TURNS = 2_000


@dataclass
class Outcome:
    tree: Tree
    actions: list[Action] = field(default_factory=list)
    trained: list[tuple[str, int, int]] = field(default_factory=list)
    """Run, from, to: every stretch that was trained."""
    spent: float = 0.0
    """What all of it took, in the unit of `Problem.cost`."""
    prefixes: list[Tree] = field(default_factory=list)
    """The tree at each decision."""

    @property
    def work(self) -> int:
        return sum(until - begin for _, begin, until in self.trained)

    def finished(self) -> list[Run]:
        return [run for run in self.tree if run.status == "finished"]

    def trained_twice(self) -> list[tuple[str, int, int]]:
        """Stretches that overlap an earlier one of the same training: equal hyperparameters and seed all the way."""
        seen: dict[object, list[tuple[int, int]]] = {}
        repeated = []
        for run_id, begin, until in self.trained:
            others = seen.setdefault(_training(self.tree, run_id), [])
            if any(begin < other_until and other_begin < until for other_begin, other_until in others):
                repeated.append((run_id, begin, until))
            others.append((begin, until))
        return repeated


def shuffled(tree: Tree, seed: int) -> Tree:
    """The same runs, taken in in another order."""
    runs = list(tree)
    random.Random(seed).shuffle(runs)
    return Tree({run.id: run for run in runs})


def killed(tree: Tree) -> Tree:
    """What a new session finds where the one before was killed."""
    lost = ("running", "pending")
    runs = [dataclasses.replace(run, status="interrupted") if run.status in lost else run for run in tree]
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
    budget: float | None = None,
) -> Outcome:
    """Run a study to its end, holding the strategy to its contract at every decision.

    `step` is the length of a training step: runs stop at the first multiple at or after what was asked. With `remake`,
    a strategy made anew must decide the same on the same runs in another order. `budget` limits what is trained, in the
    unit of `Problem.cost`, as the loop does: actions that do not fit are dropped, and where none is left the strategy
    is asked once more, with no roots to begin.
    """
    pool = _Pool(problem, objective, runs, workers, step, budget, Outcome(tree or Tree()))
    return pool.grow(strategy, remake)


@dataclass
class _Pool:
    problem: Problem
    objective: Objective
    runs: int | None
    workers: int
    step: int
    budget: float | None
    outcome: Outcome
    now: int = 0

    def __post_init__(self) -> None:
        self._busy: list[tuple[int, int, str]] = []
        self._trainer: Any = _Priced(self.problem, self.step)
        for run in self.outcome.tree:
            self.outcome.spent += self._trainer.price(run.hyperparameters, run.fork_position, run.position)
        self._whole = None
        if self.budget is not None:
            space, horizon = self.problem.space, self.problem.horizon
            self._whole = average_cost(space, lambda hp: self._trainer.cost(hp, 0, horizon(hp)), self.problem.seed)

    def grow(self, strategy: Strategy, remake: Callable[[], Strategy] | None) -> Outcome:
        tree = self.outcome.tree
        for turn in range(_MAX_TURNS):
            self._dispatch()
            actions = self._decide(strategy, remake, turn)
            for action in actions:
                run = _applied(action, tree, self.problem)
                tree.absorb(run)
                self.outcome.actions.append(action)
                if run.status == "stopped":
                    self._busy = [entry for entry in self._busy if entry[2] != run.id]
                else:
                    self._submit(run)
            if not self._busy and not actions:
                return self.outcome
            if not any(isinstance(action, Stop) for action in actions):
                self._wait()
        raise AssertionError("the study did not end")

    def _dispatch(self) -> None:
        """Runs of an earlier session that wait for a worker come first."""
        waiting = sorted((run for run in self.outcome.tree if run.waits_for_worker), key=lambda run: run.number)
        for run in waiting[: self.workers - len(self._busy)]:
            begun = dataclasses.replace(run, status="running")
            self.outcome.tree.absorb(begun)
            self._submit(begun)

    def _submit(self, run: Run) -> None:
        arrival = min(math.ceil(run.until / self.step) * self.step, max(run.horizon, run.position + 1))
        self.outcome.trained.append((run.id, run.position, arrival))
        self.outcome.spent += self._trainer.price(run.hyperparameters, run.position, arrival)
        heapq.heappush(self._busy, (self.now + arrival - run.position, run.number, run.id))

    def _wait(self) -> None:
        self.now, _, run_id = heapq.heappop(self._busy)
        arrival = next(until for name, _, until in reversed(self.outcome.trained) if name == run_id)
        self.outcome.tree.absorb(_arrived(self.outcome.tree[run_id], arrival, self.objective, self.problem))

    def _decide(self, strategy: Strategy, remake: Callable[[], Strategy] | None, turn: int) -> Sequence[Action]:
        tree = self.outcome.tree
        self.outcome.prefixes.append(Tree(dict(tree.runs)))
        free = self.workers - len(self._busy) - sum(run.waits_for_worker for run in tree)

        def ask(left: Left) -> list[Action]:
            actions = strategy.decide(tree, free_slots=free, left=left)
            hold_to_contract(actions, tree, free, left, self.problem)
            if remake is not None:
                assert remake().decide(shuffled(tree, turn), free_slots=free, left=left) == actions
            return actions

        left = self._left()
        actions = ask(left)
        fitting = self._fitting(actions, left)
        if actions and not fitting:
            left = Left({**left.amounts, "runs": 0}, left.whole_runs)
            fitting = self._fitting(ask(left), left)
        return fitting

    def _left(self) -> Left:
        # What active runs were asked for is spent as soon as they begin.
        compute = {} if self.budget is None else {"flops": max(0.0, self.budget - self.outcome.spent)}
        runs = {} if self.runs is None else {"runs": max(0, self.runs - len(self.outcome.tree.roots()))}
        return Left({**runs, **compute}, room_for(compute, self._whole or Cost(), self.workers))

    def _fitting(self, actions: Sequence[Action], left: Left) -> list[Action]:
        fitting = []
        full = False
        for action in actions:
            now, needed = prices(action, self.outcome.tree, self._trainer, Speed())
            is_root = isinstance(action, Start)
            # Roots are drawn by their number: one left out would have the next draw made twice.
            if (is_root and full) or left.lacks(needed, num_runs=int(is_root)) is not None:
                full |= is_root
                continue
            fitting.append(action)
            left = reduced(left, now)
        return fitting


@dataclass(frozen=True)
class _Priced:
    """As much of a trainer as prices take. It knows its steps, and so does what it predicts."""

    problem: Problem
    step: int

    def horizon(self, hyperparameters: Hyperparameters) -> int:
        return self.problem.horizon(hyperparameters)

    def cost(self, hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
        arrival = min(math.ceil(until / self.step) * self.step, max(self.horizon(hyperparameters), until))
        return Cost(flops=self.price(hyperparameters, start, arrival))

    def price(self, hyperparameters: Hyperparameters, start: int, until: int) -> float:
        return self.problem.cost(hyperparameters, start, until) if until > start else 0.0


def hold_to_contract(actions: Sequence[Action], tree: Tree, free: int, left: Left, problem: Problem) -> None:
    """What every decision keeps, whatever the tree."""
    assert len(actions) <= max(free, 0)
    starts = [action for action in actions if isinstance(action, Start)]
    assert len(starts) <= left.amounts.get("runs", math.inf)
    for action in starts:
        problem.space.check(action.hyperparameters)
        assert problem.is_feasible(action.hyperparameters)
        active = [n for n in problem.space.ordered if problem.space.is_active(n, action.hyperparameters)]
        assert set(action.hyperparameters) == {*active, *problem.space.fixed}
        assert 0 < action.until <= problem.horizon(action.hyperparameters)
        if action.seed is not None:  # a repetition of something
            assert any(run.hyperparameters == action.hyperparameters for run in tree)
    moved = [action.run for action in actions if isinstance(action, Continue | Stop)]
    assert len(set(moved)) == len(moved)
    for action in actions:
        match action:
            case Continue(run_id, until):
                run = tree[run_id]
                assert run.status == "paused"
                assert run.position < until <= run.horizon
            case Fork(parent_id, at, changes, until):
                # The newest checkpoint of a paused run is at its position.
                assert (tree[parent_id].status, tree[parent_id].position) == ("paused", at)
                child = {**tree[parent_id].hyperparameters, **changes}
                assert child != tree[parent_id].hyperparameters
                assert at < until <= problem.horizon(child)
                assert problem.is_feasible(child)
            case Stop(run_id):
                assert not tree[run_id].ended


def _applied(action: Action, tree: Tree, problem: Problem) -> Run:
    """The run as an action makes it."""
    match action:
        case Start(hyperparameters, until, origin, seed):
            run = _new(hyperparameters, until, tree, problem)
            return dataclasses.replace(run, origin=origin, seed=problem.seed if seed is None else seed)
        case Fork(parent_id, at, changes, until, origin):
            parent = tree[parent_id]
            run = _new({**parent.hyperparameters, **changes}, until, tree, problem)
            return dataclasses.replace(
                run, origin=origin, seed=parent.seed, parent=parent.id, fork_position=at, position=at
            )
        case Continue(run_id, until):
            return dataclasses.replace(tree[run_id], status="running", until=until)
        case Stop(run_id):
            return dataclasses.replace(tree[run_id], status="stopped")


def _new(hyperparameters: Hyperparameters, until: int, tree: Tree, problem: Problem) -> Run:
    number = len(tree)
    return Run(
        id=f"s-{number}",
        number=number,
        hyperparameters=hyperparameters,
        horizon=problem.horizon(hyperparameters),
        until=until,
        status="running",
    )


def _arrived(run: Run, position: int, objective: Objective, problem: Problem) -> Run:
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


def _training(tree: Tree, run_id: str) -> object:
    """What decides a run's training: its seed, and under which hyperparameters each part of its lineage trained."""
    parts: list[tuple[int, str]] = []
    for run in tree.lineage(run_id):
        held = repr(sorted(run.hyperparameters.items()))
        if not parts or parts[-1][1] != held:
            parts.append((run.fork_position, held))
    return tree[run_id].seed, tuple(parts)
