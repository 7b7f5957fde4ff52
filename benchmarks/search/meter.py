"""A simulated study with a budget: what a tool trains is read from a table, paid for, and judged. Needs numpy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tables import Curve, Hyperparameters, Lookup, Table, with_priors

WORST_TOLD = 12.0
"""Peers are told no loss above: more than any model has before training, yet such that their Gaussian processes and
forests are not ruined by a run that diverged, or by the finite losses of up to 1e18 that a few rows hold."""


class Exhausted(Exception):
    """The budget has no room for what was asked."""


@dataclass
class Trial:
    """A configuration under training."""

    number: int
    hyperparameters: Hyperparameters
    curve: Curve
    reached: int = 0
    """In steps of the table's fidelity."""


@dataclass
class Meter:
    """What a study spent, and how good the configuration is that it would return.

    The incumbent is the configuration with the lowest loss among those trained to the end; where there is none, among
    those at the highest fidelity reached. Runs of one configuration under several seeds count by their mean, and
    configurations that were confirmed over more seeds go before others. Its regret is that of the table.
    """

    table: Table
    variant: str
    priors: str
    seed: int
    budget: float
    """In full trainings."""
    resumes: bool = True
    """Whether a trial goes on from where it stopped, or is paid for from its beginning each time."""
    trials: list[Trial] = field(default_factory=list)
    spent: int = 0
    """In steps of the table's fidelity."""
    trace: list[tuple[float, float]] = field(default_factory=list)
    """Full trainings spent, and the incumbent's regret from there on: where it changes."""

    def __post_init__(self) -> None:
        self.space: dict[str, Any] = with_priors(self.table, self.priors, self.seed)
        self._lookup: Lookup = self.table.lookup(self.variant, self.seed)
        self._best = (math.inf, 1.0)

    @property
    def whole(self) -> int:
        """Steps of a full training."""
        return self.table.num_fidelities

    @property
    def left(self) -> int:
        """Steps that may still be trained."""
        return math.floor(self.budget * self.whole + 1e-9) - self.spent

    def begin(self, hyperparameters: Hyperparameters, seed: int | None = None) -> Trial:
        """A new trial, nothing trained yet."""
        point = {name: hyperparameters[name] for name in self.space}
        trial = Trial(len(self.trials), point, self._lookup.curve(point, seed))
        self.trials.append(trial)
        return trial

    def train(self, trial: Trial, until: int) -> float:
        """Train a trial to a fidelity; its loss there, infinite where it diverged. A diverged one trains no further.

        Raises:
            Exhausted: nothing was trained, as the budget has no room for it.
        """
        losses = trial.curve.losses
        start = trial.reached if self.resumes else 0
        until = min(max(until, 1), self.whole)
        end = next((k + 1 for k in range(start, until) if math.isinf(losses[k])), until)
        if end > start:
            if end - start > self.left:
                raise Exhausted
            self.spent += end - start
            trial.reached = max(trial.reached, end)
            self._note()
        return float(losses[end - 1])

    def regret(self) -> float:
        """Of the incumbent; 1 before anything is known."""
        trained = [t for t in self.trials if t.reached and math.isfinite(t.curve.losses[t.reached - 1])]
        if not trained:
            return 1.0
        highest = max(trial.reached for trial in trained)
        groups: dict[tuple[Any, ...], list[Trial]] = {}
        for trial in trained:
            if trial.reached == highest:
                groups.setdefault(tuple(trial.hyperparameters.values()), []).append(trial)
        most = max(map(len, groups.values())) if highest == self.whole else 0
        finalists = [group for group in groups.values() if len(group) >= most]
        best = min(finalists, key=lambda group: sum(t.curve.losses[highest - 1] for t in group) / len(group))
        return best[0].curve.regret

    def _note(self) -> None:
        regret = self.regret()
        if not self.trace or self.trace[-1][1] != regret:
            self.trace.append((self.spent / self.whole, regret))


def told(loss: float) -> float:
    """A loss as a peer is told it."""
    return min(loss, WORST_TOLD)


def regret_at(trace: list[tuple[float, float]], budget: float) -> float:
    """What a study would return after so many full trainings."""
    return next((regret for spent, regret in reversed(trace) if spent <= budget + 1e-9), 1.0)
