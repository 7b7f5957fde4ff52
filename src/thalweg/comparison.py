"""Strategies compared in simulated studies: which suits a space, a horizon and a budget?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thalweg.budget import Budget, Ledger
from thalweg.errors import ConfigError, ThalwegError
from thalweg.execute.simulated import SimulatedTrainer
from thalweg.loop import NothingBegun
from thalweg.plan.forecast import average_horizon
from thalweg.scaling.response import Response
from thalweg.simulation import Simulation, simulate_study
from thalweg.space import Hyperparameters
from thalweg.study import Study
from thalweg.tree import Metric, Tree

_NUM_DRAWS = 500
"""Random points that say what is usual, and how good the best known is."""
_FALLBACK_HORIZON = 100
_NUM_EVALUATIONS = 20
"""Evaluations of a whole run."""


@dataclass(frozen=True)
class Outcome:
    """One simulated study."""

    strategy: str
    budget: float
    """In whole runs of average cost."""
    seed: int
    regret: float
    """Of the run that it calls best, by its value without noise: 0 is the best known, 1 what a random run reaches
    (median). Infinite where no run has finished."""
    steps: tuple[tuple[float, float], ...]
    """Each time it called another run best: what was spent by then, in whole runs, and the regret from there on."""
    makespan: float
    """Virtual time, in average whole runs."""


@dataclass(frozen=True)
class Comparison:
    """All simulated studies."""

    strategies: tuple[str, ...]
    budgets: tuple[float, ...]
    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    refused: Mapping[str, str]
    """Strategies that cannot work here, each with the reason."""
    notes: tuple[str, ...] = ()
    """What was assumed."""

    def regrets(self, strategy: str, budget: float) -> list[float]:
        """By seed."""
        return [o.regret for o in self.outcomes if (o.strategy, o.budget) == (strategy, budget)]

    def quartiles(self, strategy: str, budget: float) -> tuple[float, float, float]:
        """The first quartile, the median and the third; infinite where that many studies finished no run."""
        return tuple(_quantile(self.regrets(strategy, budget), share) for share in (0.25, 0.5, 0.75))  # type: ignore[return-value]

    def mean_rank(self, strategy: str) -> float:
        """Over budgets and seeds; 1 is the best, and equals share their ranks."""
        from scipy.stats import rankdata

        ranks = []
        for budget in self.budgets:
            table = np.array([self.regrets(name, budget) for name in self.strategies])
            ranks += rankdata(table, axis=0)[self.strategies.index(strategy)].tolist()
        return float(np.mean(ranks))

    def wins(self, first: str, second: str) -> tuple[int, int]:
        """In how many studies the first ended better than the second, and in how many worse."""
        pairs = [p for b in self.budgets for p in zip(self.regrets(first, b), self.regrets(second, b), strict=True)]
        return sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)

    def advice(self) -> str:
        """One sentence for the person who has to choose."""
        order = sorted(self.strategies, key=self.mean_rank)
        if len(order) == 1:
            return f"Only {order[0]} was tried: there is nothing to compare it with."
        first, second = order[:2]
        better, worse = self.wins(first, second)
        num_equal = len(self.budgets) * len(self.seeds) - better - worse
        told = f"it ends better than {second}, the next, in {better} studies, worse in {worse}"
        told += f", and equal in {num_equal}" if num_equal else ""
        # A sign test: at most one in twenty would be so uneven by chance.
        if better - worse > 1.96 * math.sqrt(better + worse):
            return f"Take {first}: {told}."
        return f"{first} has the best mean rank, but {told}: with {len(self.seeds)} seeds that may be chance."


@dataclass
class _Shape:
    """How long runs of a study are and what they cost, whole runs of average cost being 1."""

    horizon: Callable[[Hyperparameters], int]
    cost_per_position: Callable[[Hyperparameters], float]
    report_every: int
    notes: list[str] = field(default_factory=list)


def compare(
    study: Study,
    strategies: Sequence[Mapping[str, Any]],
    budgets: Sequence[float],
    seeds: Sequence[int],
    response: Callable[[int], Response],
    *,
    on_progress: Callable[[], None] = lambda: None,
) -> Comparison:
    """Run every strategy with every budget and every seed, on the response for the seed.

    Args:
        study: whose space, metric, baseline-free horizon and relative costs are taken, and its number of workers.
        strategies: each a name with its options, as in a study file.
        budgets: in whole runs of average cost.
        on_progress: called after each simulated study.
    Raises:
        ConfigError: a budget below one run, or no strategy works.
    """
    for budget in budgets:
        if not 1 <= budget < math.inf:
            raise ConfigError(f"budget = {budget:g} must be at least one whole run")
    shape = _shape(study)
    studies = {str(strategy["name"]): dict(strategy) for strategy in strategies}
    found: list[tuple[str, float, int, Simulation]] = []
    refused: dict[str, str] = {}
    responses = {seed: response(seed) for seed in seeds}
    for name, strategy in studies.items():
        for budget in budgets:
            for seed in seeds:
                if name not in refused:
                    try:
                        found.append(
                            (name, budget, seed, _simulate(study, strategy, budget, seed, responses[seed], shape))
                        )
                    except ThalwegError as error:
                        refused[name] = str(error)
                on_progress()
    worked = tuple(name for name in studies if name not in refused)
    if not worked:
        raise ConfigError("no strategy works here:\n" + "\n".join(f"  {n}: {why}" for n, why in refused.items()))
    found = [one for one in found if one[0] in worked]
    outcomes: list[Outcome] = []
    for seed in seeds:
        mine = [one for one in found if one[2] == seed]
        outcomes += _outcomes(study, responses[seed], mine)
    return Comparison(worked, tuple(budgets), tuple(seeds), tuple(outcomes), refused, tuple(shape.notes))


def _simulate(
    study: Study, strategy: Mapping[str, Any], budget: float, seed: int, response: Response, shape: _Shape
) -> Simulation:
    def curve(hyperparameters: Hyperparameters, position: int, run_seed: int) -> float:
        return response.value(hyperparameters, position / shape.horizon(hyperparameters), run_seed)

    trainer = SimulatedTrainer.of_curve(
        curve,
        horizon_positions=shape.horizon,
        report_every=shape.report_every,
        seconds_per_position=shape.cost_per_position,
        flops_per_position=shape.cost_per_position,
    )
    simulated = dataclasses.replace(
        study,
        trainer=trainer,
        # A hair more, so that n runs that cost 1 each fit whatever their sum is rounded to.
        budget=Budget(flops=budget * (1 + 1e-9)),
        strategy=strategy,
        seed=seed,
        baseline=None,
        hold_back=False,
        file=None,
        workers=study.workers or 1,
    )
    try:
        return simulate_study(simulated)
    except NothingBegun:  # a study without a run: it is counted under `none`
        return Simulation(simulated, Tree(), Ledger(), ())


def _outcomes(study: Study, response: Response, found: Sequence[tuple[str, float, int, Simulation]]) -> list[Outcome]:
    """The studies on one response, with regrets relative to the best that any of them or a random point reached."""
    metric = study.metric
    rng = np.random.default_rng(0)
    draws = [metric.loss(response.truth(study.space.sample(rng))) for _ in range(_NUM_DRAWS)]
    finite = [loss for loss in draws if math.isfinite(loss)]
    changes = [_best_so_far(metric, simulation, response) for *_, simulation in found]
    known = [] if response.best is None else [metric.loss(response.best)]
    best = min([*known, *finite, *(loss for steps in changes for _, loss in steps)], default=0.0)
    usual = float(np.median(finite)) if finite else best + 1.0
    scale = usual - best if usual > best else 1.0
    outcomes = []
    for (name, budget, seed, simulation), steps in zip(found, changes, strict=True):
        regrets = tuple((spent, (loss - best) / scale) for spent, loss in steps)
        final = regrets[-1][1] if regrets else math.inf
        outcomes.append(Outcome(name, budget, seed, final, regrets, simulation.makespan_seconds))
    return outcomes


def _best_so_far(metric: Metric, simulation: Simulation, response: Response) -> list[tuple[float, float]]:
    """When another run was called best, by what had been spent, and its loss without noise."""
    steps: list[tuple[float, float]] = []
    measured = math.inf
    for point in simulation.trace:
        run = simulation.tree[point.run]
        loss = metric.loss(point.value)
        if point.position >= run.horizon and loss < measured:
            measured = loss
            steps.append((point.spent.flops, metric.loss(response.truth(run.hyperparameters))))
    # What it says at its end may rest on more than its best evaluation.
    best = simulation.best
    if best is not None and steps:
        steps.append((simulation.ledger.total().flops, metric.loss(response.truth(best.hyperparameters))))
    return steps


def _shape(study: Study) -> _Shape:
    """Horizons and costs as the study's trainer has them, as far as it knows without its data and model."""
    notes = []
    point = study.space.sample(np.random.default_rng(0))
    horizon: Callable[[Hyperparameters], int] = study.trainer.horizon
    cost: Callable[[Hyperparameters, int, int], float] = study.relative_cost
    try:
        horizon(point)
    except (ThalwegError, OSError, ImportError) as error:
        notes.append(f"the trainer cannot tell a run's length here, so all have one ({_first_line(error)})")
        horizon, cost = _same_horizon, _positions
    try:
        cost(point, 0, horizon(point))
    except (ThalwegError, OSError, ImportError) as error:
        notes.append(
            f"the trainer cannot tell what runs cost here, so each position costs the same ({_first_line(error)})"
        )
        cost = _positions
    rng = np.random.default_rng(study.seed)
    draws = [study.space.sample(rng) for _ in range(64)]
    average = float(np.mean([cost(draw, 0, horizon(draw)) for draw in draws]))
    known: dict[tuple[tuple[str, object], ...], float] = {}

    def per_position(hyperparameters: Hyperparameters) -> float:
        key = tuple(hyperparameters.items())
        if key not in known:
            until = horizon(hyperparameters)
            known[key] = cost(hyperparameters, 0, until) / until / average
        return known[key]

    every = max(1, round(average_horizon(study.space, horizon, study.seed) / _NUM_EVALUATIONS))
    return _Shape(horizon, per_position, every, notes)


def _same_horizon(_hyperparameters: Hyperparameters) -> int:
    return _FALLBACK_HORIZON


def _positions(_hyperparameters: Hyperparameters, start: int, until: int) -> float:
    return float(until - start)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _quantile(values: Sequence[float], share: float) -> float:
    """As numpy's, for lists with infinities."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    share_of_high = place - math.floor(place)
    return low if low == high or not share_of_high else low + (high - low) * share_of_high
