"""Freeze-thaw: predict where every paused run would end, and train on whatever promises most for its cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.scaling.learning_curves import Curve, CurveFit, CurveModel
from thalweg.search.ladder import Direct, positions
from thalweg.search.nearby import drawn, moved
from thalweg.search.startup import NUM_STARTUP, startup_point
from thalweg.search.strategy import Problem, is_active, is_own, num_starts, start
from thalweg.space import Hyperparameters
from thalweg.tree import Action, Continue, Run, Tree, final_loss

FloatArray = NDArray[np.float64]

_NUM_DRAWN = 128
_NUM_MOVED = 32
_NUM_MOVED_FROM = 3
_NUM_PRICED = 32
"""Costs are asked for the candidates with the most expected improvement only: a trainer may take a while to tell."""
_BLIND_EVERY = 5
_LEAST_CHANCE = 0.05
_LEAST_COST = 1e-12
_SHARE_OF_FIRST = 1 / 3


class FreezeThaw:
    """Continue the paused run, or start the new one, with the largest expected improvement per cost.

    **Rungs.** A root is trained to `first_share` of its own horizon, and each time it is continued, to `step` times
    as far. It is paused there with its checkpoint, so that nothing is trained twice.

    **The model** (`scaling/learning_curves.py`) predicts each run's loss at its horizon with an uncertainty: from all
    of its evaluations so far, from how the curves of this study fall on a logarithmic axis, and from runs with
    similar hyperparameters. Forks made by hand inherit their ancestors' evaluations. Diverged runs are as bad as the
    worst loss seen; failed and stopped ones teach what they reached.

    **The choice.** A candidate's worth is the expected improvement of its end over the best finished run (over the
    lowest predicted end, while none is finished) divided by the cost of getting there: for a paused run what is left
    of its training, for a new one all of it. Only the step to its next rung is then taken, and the next decision
    knows more. Costs are the trainer's (`Problem.cost`). Candidates for a new root are draws from the priors and
    points near the runs predicted best. Runs that are still training, and those chosen in the same decision, count as
    if they had ended where they are expected to, so that several workers do not all go to one place. The first 4
    roots are the priors' own point and draws from the priors; every fifth root is such a draw, whatever the model
    says. Where a run could go on, no root is begun while more than a third of the training went into first rungs: a
    Gaussian process promises more of what it has not seen than most spaces keep.

    **The end.** While no run is finished, nothing is begun that would leave no room in the budget for bringing the
    run predicted best to its horizon. Once no more roots may begin, runs are continued until one is finished, and
    after it those that beat the best finished one with a probability of at least 5%.

    Args:
        problem: what is searched.
        name: the actions' origin.
        first_share: the first rung as a share of the horizon, in (0, 1).
        step: how many times as far the next rung lies, at least 1.1.
        max_roots: most roots to begin, or None for as many as the budget allows.
    Raises:
        ConfigError: if an option is out of its range.
    Source: Swersky et al. 2014, arXiv:1406.3896 (freeze-thaw). Model and worth are this project's own.
    """

    def __init__(
        self,
        problem: Problem,
        name: str,
        *,
        first_share: float = 0.0625,
        step: float = 2.0,
        max_roots: int | None = None,
    ) -> None:
        _check(first_share, step, max_roots)
        self._problem = problem
        self._name = name
        self._max_roots = max_roots
        self._shares = _shares(first_share, step)
        self._model = CurveModel(problem.space)
        # Run id -> the run and its curve, made again where the run or an ancestor is another object.
        self._curves: dict[str, tuple[list[Run], Curve]] = {}
        self._costs: dict[tuple[str, int], float] = {}
        counts = [step**-k for k in range(len(self._shares))]
        self.share = Direct(problem, self._shares, name).work(counts)
        self.num_roots = max_roots

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        if free_slots < 1:
            return []
        runs = sorted(tree, key=lambda run: run.number)
        index = sum(run.parent is None and is_own(run) for run in runs)
        starts = num_starts(free_slots, left)
        if self._max_roots is not None:
            starts = min(starts, self._max_roots - index)
        drawn = range(index, min(index + starts, max(index, NUM_STARTUP)))
        begun = [startup_point(self._problem, number) for number in drawn]
        starts -= len(begun)
        actions = [self._begin(point) for point in begun]
        choice = _Choice(self, self._problem, runs, self._fit(tree, runs), begun, left)
        while len(actions) < free_slots:
            chosen = choice.next(index + len(begun) if starts > 0 else None)
            if chosen is None:
                break
            if not isinstance(chosen, Run):
                begun.append(chosen)
                starts -= 1
            actions.append(self._continue(chosen) if isinstance(chosen, Run) else self._begin(chosen))
        return actions

    def next_position(self, run: Run) -> int:
        """The first rung beyond where a run stands."""
        return next(position for position in positions(run.horizon, self._shares) if position > run.position)

    def first_position(self, hyperparameters: Hyperparameters) -> int:
        """The first rung of a new root."""
        return positions(self._problem.horizon(hyperparameters), self._shares)[0]

    def step_share(self, candidate: Run | Hyperparameters | None) -> float:
        """How much of a whole run a candidate's next step takes; of an average new root for None."""
        if candidate is None:
            return self._shares[0]
        if isinstance(candidate, Run):
            return (self.next_position(candidate) - candidate.position) / candidate.horizon
        return self.first_position(candidate) / self._problem.horizon(candidate)

    def cost(self, run: Run) -> float:
        """What a paused run takes from where it stands to its horizon."""
        key = (run.id, run.position)
        if key not in self._costs:
            self._costs[key] = self._problem.cost(run.hyperparameters, run.position, run.horizon)
        return self._costs[key]

    def _fit(self, tree: Tree, runs: Sequence[Run]) -> CurveFit | None:
        """The model of all runs, or None while there is nothing to tell apart."""
        curves = [self._curve(tree, run) for run in runs]
        finite = sum(any(math.isfinite(loss) for _, loss in curve.points[-1:]) for curve in curves)
        told = finite + sum(curve.status == "diverged" for curve in curves)
        return self._model.fit(curves) if finite >= 1 and told >= 2 else None

    def _curve(self, tree: Tree, run: Run) -> Curve:
        line = [run] if run.parent is None else tree.lineage(run.id)
        known = self._curves.get(run.id)
        if (
            known is not None
            and len(known[0]) == len(line)
            and all(a is b for a, b in zip(known[0], line, strict=True))
        ):
            return known[1]
        curve = Curve(run.hyperparameters, tuple(_points(line, self._problem)), run.status)
        self._curves[run.id] = (line, curve)
        return curve

    def _begin(self, hyperparameters: Hyperparameters) -> Action:
        return start(self._problem, hyperparameters, self.first_position(hyperparameters), self._name)

    def _continue(self, run: Run) -> Action:
        return Continue(run.id, self.next_position(run), self._name)


@dataclass(frozen=True)
class _Worth:
    """The best of the candidates of one kind."""

    chosen: Run | Hyperparameters
    worth: float


class _Choice:
    """One decision: choosing one candidate after the other, each in the knowledge of those before it."""

    def __init__(
        self,
        owner: FreezeThaw,
        problem: Problem,
        runs: Sequence[Run],
        fit: CurveFit | None,
        begun: Sequence[Hyperparameters],
        left: Left,
    ) -> None:
        self._owner, self._problem, self._runs, self._fit = owner, problem, runs, fit
        self._room = left.whole_runs
        self._waiting = [i for i, run in enumerate(runs) if _may_go_on(run, problem)]
        self._pending = [*(run.hyperparameters for run in runs if is_active(run)), *begun]
        self._known = {_key(run.hyperparameters) for run in runs} | {_key(point) for point in begun}
        self._finished = any(run.status == "finished" and run.origin != "baseline" for run in runs)
        own = [run for run in runs if run.parent is None and is_own(run)]
        reached = [max(run.position, run.until if is_active(run) else 0) / max(run.horizon, 1) for run in own]
        self._trained = sum(reached) + sum(map(owner.step_share, begun))
        self._in_first = sum(min(owner.step_share(run.hyperparameters), r) for run, r in zip(own, reached, strict=True))
        self._in_first += sum(map(owner.step_share, begun))
        self._leader: Run | None = None
        if fit is not None:
            self._means, self._deviations = fit.predict_final()
            waiting = set(self._waiting)
            alive = [i for i, run in enumerate(runs) if i in waiting or is_active(run)]
            leader = min(alive, key=lambda i: (self._means[i], i), default=None)
            self._leader = None if leader is None else runs[leader]
            self._best = self._best_end(fit, math.inf if leader is None else float(self._means[leader]))

    def next(self, index: int | None) -> Run | Hyperparameters | None:
        """A run to continue, hyperparameters to begin with, or neither.

        Args:
            index: of the root that would be begun, or None where none may be.
        """
        if self._fit is None:
            return self._without_model(index)
        going_on = self._best_paused(may_end=index is None)
        # A Gaussian promises of what it does not know more than most losses can keep.
        too_many = going_on is not None and self._in_first > _SHARE_OF_FIRST * self._trained
        new = None
        if index is not None and not too_many and self._has_room(None):
            new = self._best_new(self._fit, index)
        if going_on is None and new is None:
            return None
        if new is None or (going_on is not None and going_on.worth > new.worth):
            assert going_on is not None
            return self._take(going_on.chosen)
        return self._take(new.chosen)

    def _take(self, chosen: Run | Hyperparameters) -> Run | Hyperparameters:
        step = self._owner.step_share(chosen)
        self._room = None if self._room is None else self._room - step
        self._trained += step
        self._in_first += 0.0 if isinstance(chosen, Run) else step
        if isinstance(chosen, Run):
            self._waiting = [i for i in self._waiting if self._runs[i].id != chosen.id]
            self._pending.append(chosen.hyperparameters)
        else:
            self._pending.append(chosen)
            self._known.add(_key(chosen))
        return chosen

    def _without_model(self, index: int | None) -> Run | Hyperparameters | None:
        """Draws from the priors; where no root may begin, the first run that waits."""
        if index is not None:
            return self._take(startup_point(self._problem, index))
        return self._take(self._runs[self._waiting[0]]) if self._waiting else None

    def _best_end(self, fit: CurveFit, promised: float) -> float:
        """What is to be beaten, in the model's scale: the best finished run, else the lowest end predicted."""
        losses = [loss for run in self._runs if (loss := final_loss(run, self._problem.metric)) is not None]
        finite = [loss for loss in losses if math.isfinite(loss)]
        if finite:
            return float(fit.scale.scaled(np.array([min(finite)]))[0])
        return promised if math.isfinite(promised) else float(self._means.min())

    def _best_paused(self, *, may_end: bool) -> _Worth | None:
        waiting = [i for i in self._waiting if self._has_room(self._runs[i])]
        if not waiting:
            return None
        means, deviations = self._means[waiting], self._deviations[waiting]
        gains = expected_improvement(means, deviations, self._best)
        chances = ndtr((self._best - means) / deviations)
        if may_end and self._finished and chances.max() < _LEAST_CHANCE:
            return None
        worths = np.full(len(waiting), -np.inf)
        for k in np.argsort(-gains, kind="stable")[:_NUM_PRICED]:
            worths[k] = gains[k] / max(self._owner.cost(self._runs[waiting[k]]), _LEAST_COST)
        k = int(np.argmax(worths))
        return _Worth(self._runs[waiting[k]], float(worths[k]))

    def _best_new(self, fit: CurveFit, index: int) -> _Worth:
        points = self._candidates(index)
        points = [point for point in points if _key(point) not in self._known] or points[:1]
        means, deviations = fit.with_pending(self._pending).predict_new(points)
        gains = expected_improvement(means, deviations, self._best)
        worths = np.full(len(points), -np.inf)
        for k in np.argsort(-gains, kind="stable")[:_NUM_PRICED]:
            cost = self._problem.cost(points[k], 0, self._problem.horizon(points[k]))
            worths[k] = gains[k] / max(cost, _LEAST_COST)
        k = int(np.argmax(worths))
        return _Worth(points[k], float(worths[k]))

    def _candidates(self, index: int) -> list[Hyperparameters]:
        """Draws from the priors and points near the runs predicted best; a single draw for every fifth root."""
        problem, rng = self._problem, self._problem.rng(index)
        if index % _BLIND_EVERY == _BLIND_EVERY - 1:
            return [problem.sample(rng)]
        points = drawn(problem.space, rng, count=_NUM_DRAWN)
        order = [i for i in np.argsort(self._means, kind="stable") if self._runs[i].status != "diverged"]
        for i in order[:_NUM_MOVED_FROM]:
            points += moved(problem.space, self._runs[i].hyperparameters, rng, count=_NUM_MOVED)
        feasible: list[Hyperparameters] = [point for point in points if problem.is_feasible(point)]
        return feasible or [problem.sample(rng)]

    def _has_room(self, run: Run | None) -> bool:
        """Whether a step, of a run or of a new one, leaves room for bringing one run to its horizon."""
        leader = self._leader
        if self._room is None or self._finished or leader is None or (run is not None and run.id == leader.id):
            return True
        reached = max(leader.position, leader.until if is_active(leader) else 0) / max(leader.horizon, 1)
        return self._room >= self._owner.step_share(run) + 1 - reached


def expected_improvement(means: FloatArray, deviations: FloatArray, best: float) -> FloatArray:
    """How much lower than `best` a normal variable is expected to be, counting as nothing where it is higher.

    >>> expected_improvement(np.array([0.0]), np.array([1.0]), 0.0).round(4)
    array([0.3989])
    """
    z = (best - means) / deviations
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.asarray(np.maximum(deviations * (z * ndtr(z) + density), 0.0))


def _may_go_on(run: Run, problem: Problem) -> bool:
    """Whether it is paused short of its horizon, and its last result is a number or not known."""
    if run.status != "paused" or run.position >= run.horizon or run.origin == "baseline":
        return False
    value = run.reports[-1].metrics.get(problem.metric.name) if run.reports else None
    return value is None or math.isfinite(value)


def _points(line: Sequence[Run], problem: Problem) -> Iterator[tuple[float, float]]:
    """The evaluations of a run and, up to where each was forked, of its ancestors."""
    horizon = max(line[-1].horizon, 1)
    for run, child in zip(line, [*line[1:], None], strict=True):
        for report in run.reports:
            if child is not None and report.position > child.fork_position:
                break
            value = report.metrics.get(problem.metric.name)
            if value is not None and report.position > 0:
                yield report.position / horizon, problem.metric.loss(value)


def _shares(first_share: float, step: float) -> tuple[float, ...]:
    shares = [first_share]
    # A last step that is hardly one is not made: 0.95 of the horizon says what the horizon says.
    while shares[-1] * step < 0.95:
        shares.append(shares[-1] * step)
    return (*shares, 1.0)


def _key(hyperparameters: Hyperparameters) -> tuple[tuple[str, type, object], ...]:
    return tuple((name, type(value), value) for name, value in sorted(hyperparameters.items()))


def _check(first_share: float, step: float, max_roots: int | None) -> None:
    if not 0 < first_share < 1:
        raise ConfigError(f"strategy.first_share = {first_share:g} must be between 0 and 1, such as 0.0625")
    if not 1.1 <= step <= 1000:
        raise ConfigError(f"strategy.step = {step:g} must be from 1.1 to 1000; 2 is usual")
    if max_roots is not None and max_roots < 1:
        raise ConfigError(f"strategy.max_roots = {max_roots} must be at least 1")
