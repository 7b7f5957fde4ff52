"""Thalweg's strategies on the tables: the loop's own rules for budgets, with workers in virtual time."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meter import Meter, Trial
from tables import Hyperparameters, Table, all_tables

from thalweg.budget import Cost, Left
from thalweg.plan.forecast import Speed, prices, reduced
from thalweg.search import SAMPLERS, STRATEGIES, Earlier, Problem, Strategy, strategy
from thalweg.space import Space
from thalweg.tree import Action, Continue, Metric, Report, Run, Start, Stop, Tree

STUDIES: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "random_uniform": ("random", {}),
    "tpe": ("tpe", {}),
    "gp": ("gp", {}),
    "cmaes": ("cmaes", {}),
    "halving": ("halving", {"sampler": "random"}),
    "halving_uniform": ("halving", {"sampler": "random", "num_rungs": 5}),
    "halving_tpe": ("halving", {"sampler": "tpe"}),
    "asha": ("asha", {"sampler": "random"}),
    "hyperband": ("hyperband", {"sampler": "random"}),
    "bohb": ("bohb", {}),
    "prior_band": ("halving", {"sampler": "prior_band"}),
    "lr_race": ("lr_race", {}),
    "two_stage": ("two_stage", {}),
    "freeze_thaw": ("freeze_thaw", {}),
    "auto": ("auto", {}),
    "auto_warm": ("auto", {}),
}
"""What is measured: a strategy and its options. Halving without priors has 5 rungs, the first at one step of TaskSet:
it is stronger so than with the 3 by default. It is what the default has to beat where priors are wrong."""
PRIOR_FREE = "_uniform"
"""Names that end so are told of no prior, right or wrong."""
WARM = "auto_warm"
"""Begins with what the other tables of its family hold."""
METRIC = Metric("loss", "min")
_NUM_EARLIER = 40
"""Runs of each earlier study."""


def available() -> list[str]:
    """The studies whose strategy is there."""
    return [
        study
        for study, (name, options) in STUDIES.items()
        if name in STRATEGIES and options.get("sampler", "random") in SAMPLERS
    ]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is studied, and for how long."""

    table: Table
    variant: str = "any"
    priors: str = "good"
    seed: int = 0
    budget: float = 10.0
    """In full trainings."""
    workers: int = 1


@dataclass
class Outcome:
    """A study that has ended."""

    trace: list[tuple[float, float]]
    spent: float
    """Full trainings."""
    makespan: float
    """Virtual time, in that of a full training."""
    num_runs: int


def search(study: str, setting: Setting) -> Outcome:
    """Run one study to its end."""
    return _Study(study, setting).run()


def grow(study: str, setting: Setting) -> Tree:
    """The tree that one study ends with."""
    grown = _Study(study, setting)
    grown.run()
    return grown.tree


class _TableTrainer:
    """What prices need of a trainer: positions are the table's fidelities, and each costs one sample."""

    def __init__(self, whole: int) -> None:
        self._whole = whole

    def horizon(self, _hyperparameters: Hyperparameters) -> int:
        return self._whole

    def cost(self, _hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
        return Cost(samples=until - start)


@dataclass
class _Study:
    study: str
    setting: Setting
    tree: Tree = field(default_factory=Tree)
    now: int = 0

    def __post_init__(self) -> None:
        setting = self.setting
        self.meter = Meter(setting.table, setting.variant, setting.priors, setting.seed, setting.budget)
        self.whole = self.meter.whole
        space = self.meter.space
        if self.study.endswith(PRIOR_FREE):
            space = {name: {k: v for k, v in entry.items() if k != "prior"} for name, entry in space.items()}
        self.problem = Problem(
            space=Space.parse(space),
            metric=METRIC,
            horizon=lambda _hyperparameters: self.whole,
            seed=setting.seed,
            earlier=earlier(setting.table.name) if self.study == WARM else (),
        )
        name, options = STUDIES[self.study]
        self.strategy: Strategy = strategy(name, options, self.problem)
        self.trainer: Any = _TableTrainer(self.whole)
        self.trials: dict[str, Trial] = {}
        self.busy: list[tuple[int, int, str]] = []
        self.left_steps = self.meter.left

    def run(self) -> Outcome:
        while True:
            free = self.setting.workers - len(self.busy)
            for action in self._decide(free) if free and self.left_steps > 0 else []:
                self._begin(action)
            if not self.busy:
                whole = self.whole
                return Outcome(self.meter.trace, self.meter.spent / whole, self.now / whole, len(self.tree))
            self.now, _, run_id = heapq.heappop(self.busy)
            self._arrive(self.tree[run_id])

    def _decide(self, free: int) -> Sequence[Action]:
        """As `Loop._decide`: what does not fit is dropped, and where nothing fits no more roots are allowed."""
        left = Left({"samples": float(self.left_steps)}, self.left_steps / self.whole)
        fitting = self._fitting(actions := self.strategy.decide(self.tree, free_slots=free, left=left), left)
        if actions and not fitting:
            left = Left({**left.amounts, "runs": 0}, left.whole_runs)
            fitting = self._fitting(self.strategy.decide(self.tree, free_slots=free, left=left), left)
        return fitting

    def _fitting(self, actions: Sequence[Action], left: Left) -> list[Action]:
        fitting, full = [], False
        for action in actions:
            now, needed = prices(action, self.tree, self.trainer, Speed())
            is_root = isinstance(action, Start)
            if (is_root and full) or left.lacks(needed, num_runs=int(is_root)) is not None:
                full |= is_root
                continue
            fitting.append(action)
            left = reduced(left, now)
        return fitting

    def _begin(self, action: Action) -> None:
        match action:
            case Start(hyperparameters, until, origin, seed):
                number = len(self.tree)
                run = Run(
                    id=f"s-{number}",
                    number=number,
                    hyperparameters=hyperparameters,
                    horizon=self.whole,
                    until=until,
                    seed=self.setting.seed if seed is None else seed,
                    status="running",
                    origin=origin,
                )
                self.trials[run.id] = self.meter.begin(hyperparameters, seed)
            case Continue(run_id, until):
                run = dataclasses.replace(self.tree[run_id], status="running", until=until)
            case Stop(run_id):
                self.tree.absorb(dataclasses.replace(self.tree[run_id], status="stopped"))
                return
            case _:
                raise TypeError(f"a table cannot answer {action}")
        self.tree.absorb(run)
        losses = self.trials[run.id].curve.losses
        end = next((k + 1 for k in range(run.position, until) if math.isinf(losses[k])), until)
        self.left_steps -= until - run.position
        heapq.heappush(self.busy, (self.now + end - run.position, run.number, run.id))

    def _arrive(self, run: Run) -> None:
        """Take in a run that reached what it was asked for, or diverged before: every fidelity was evaluated."""
        trial = self.trials[run.id]
        loss = self.meter.train(trial, run.until)
        self.left_steps += run.until - trial.reached  # nobody pays for what a diverged run had left
        losses = trial.curve.losses
        new = [
            Report(k + 1, {METRIC.name: float(losses[k])})
            for k in range(run.position, trial.reached)
            if math.isfinite(losses[k])
        ]
        status: Any = "finished" if trial.reached >= run.horizon else "paused"
        status = "diverged" if math.isinf(loss) else status
        reports = (*run.reports, *new)
        self.tree.absorb(dataclasses.replace(run, status=status, position=trial.reached, reports=reports))


def earlier(table_name: str) -> tuple[Earlier, ...]:
    """What the other tables of the family would have left behind: a study of random rows or points of each."""
    tables = all_tables()
    own = tables[table_name]
    others = [t for t in tables.values() if t.family == own.family and t.name != table_name]
    return tuple(_earlier(table) for table in others)


def _earlier(table: Table) -> Earlier:
    problem = Problem(space=Space.parse(table.space), metric=METRIC, horizon=lambda _: table.num_fidelities, seed=7)
    lookup = table.lookup("unused", 0)
    results: list[tuple[Mapping[str, Any], float]] = []
    for index in range(_NUM_EARLIER):
        point = problem.space.sample(problem.rng(index))
        results.append((point, float(lookup.curve(point).losses[-1])))
    return Earlier(table.name, tuple(results))
