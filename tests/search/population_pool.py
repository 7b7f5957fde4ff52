"""Virtual workers with checkpoints, for populations: what a run reaches follows from its lineage."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from virtual_workers import shuffled

from thalweg.budget import Left
from thalweg.search import Problem, Strategy
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Continue, Fork, Report, Run, Start, Status, Stop, Tree

Train = Callable[[Any, Hyperparameters, int, int], tuple[Any, float]]
"""State (None from scratch), hyperparameters, from, to -> the state there, and the loss. NaN diverges; an
`ArithmeticError` fails the run."""


@dataclass
class Pool:
    """Grows a tree until the strategy ends, holding it to its contract at each decision."""

    problem: Problem
    train: Train
    make: Callable[[], Strategy]
    workers: int = 1
    step: int = 1
    """Length of a training step: runs stop at the first multiple at or after what was asked."""
    roots: int | None = None
    whole_runs: float | None = None
    """The budget: so many horizons' worth of positions."""
    seconds: Callable[[Run], float] = lambda _run: 1.0
    """What an interval takes."""
    tree: Tree = field(default_factory=Tree)
    actions: list[Action] = field(default_factory=list)
    trained: int = 0
    idle: float = 0.0
    """Time for which workers had nothing to do while others did."""
    busy: float = 0.0
    """Time for which workers trained."""

    def __post_init__(self) -> None:
        self._checkpoints: dict[str, dict[int, Any]] = {}
        self._starts: dict[str, int] = {}

    def grow(self, max_turns: int = 5_000) -> Pool:
        busy: list[tuple[float, int, str]] = []
        now, used = 0.0, self.make()
        for turn in range(max_turns):
            left = self._left()
            free = self.workers - len(busy)
            actions = used.decide(self.tree, free_slots=free, left=left)
            assert len(actions) <= free
            assert self.make().decide(shuffled(self.tree, turn), free_slots=free, left=left) == actions
            for action in actions:
                run = self._apply(action)
                self.actions.append(action)
                if run is not None:
                    heapq.heappush(busy, (now + self.seconds(run), run.number, run.id))
            if not busy:
                if not actions:
                    return self
                continue
            if actions and all(isinstance(action, Stop) for action in actions):
                continue
            then, _, run_id = heapq.heappop(busy)
            self.idle += (self.workers - len(busy) - 1) * (then - now)
            self.busy += (len(busy) + 1) * (then - now)
            now = then
            self._arrive(run_id)
        raise AssertionError("the study did not end")

    def _left(self) -> Left:
        amounts: dict[str, float] = {}
        if self.roots is not None:
            amounts["runs"] = max(0, self.roots - len(self.tree.roots()))
        if self.whole_runs is None:
            return Left(amounts)
        horizon = self.problem.horizon({})
        asked = sum(run.until - run.position for run in self.tree.active())
        return Left(amounts, max(0.0, self.whole_runs - (self.trained + asked) / horizon))

    def _apply(self, action: Action) -> Run | None:
        match action:
            case Stop(run_id):
                assert self.tree[run_id].status == "paused"
                self.tree.absorb(dataclasses.replace(self.tree[run_id], status="stopped"))
                return None
            case Start(hyperparameters, until, origin):
                self.problem.space.check(hyperparameters)
                run = self._new(hyperparameters, until, origin)
            case Fork(parent_id, at, changes, until, origin):
                parent = self.tree[parent_id]
                assert at in self._checkpoints[parent_id]
                assert changes
                hyperparameters = {**parent.hyperparameters, **changes}
                self.problem.space.check(hyperparameters)
                run = dataclasses.replace(
                    self._new(hyperparameters, until, origin), parent=parent_id, fork_position=at, position=at
                )
                self._checkpoints[run.id] = {at: self._checkpoints[parent_id][at]}
            case Continue(run_id, until):
                assert self.tree[run_id].status == "paused"
                run = dataclasses.replace(self.tree[run_id], status="running", until=until)
        assert run.position < run.until <= run.horizon
        self.tree.absorb(run)
        return run

    def _new(self, hyperparameters: Hyperparameters, until: int, origin: str) -> Run:
        number = len(self.tree)
        return Run(
            id=f"s-{number}",
            number=number,
            hyperparameters=hyperparameters,
            horizon=self.problem.horizon(hyperparameters),
            until=until,
            status="running",
            origin=origin,
        )

    def _arrive(self, run_id: str) -> None:
        run = self.tree[run_id]
        kept = self._checkpoints.setdefault(run_id, {})
        arrival = min(math.ceil(run.until / self.step) * self.step, max(run.horizon, run.position + 1))
        self.trained += arrival - run.position
        try:
            state, loss = self.train(kept.get(run.position), run.hyperparameters, run.position, arrival)
        except ArithmeticError:
            self.tree.absorb(dataclasses.replace(run, status="failed"))
            return
        if math.isnan(loss):
            self.tree.absorb(dataclasses.replace(run, status="diverged", position=arrival))
            return
        # As a worker does: the two newest stay.
        self._checkpoints[run_id] = {at: kept[at] for at in sorted(kept)[-1:]} | {arrival: state}
        value = loss if self.problem.metric.goal == "min" else -loss
        status: Status = "finished" if arrival >= run.horizon else "paused"
        reports = (*run.reports, Report(arrival, {self.problem.metric.name: value}))
        self.tree.absorb(dataclasses.replace(run, status=status, position=arrival, reports=reports))
