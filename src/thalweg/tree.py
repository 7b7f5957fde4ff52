"""The tree of runs: the only state of a search.

A run is a node: training under one set of hyperparameters, from scratch or from a fork point of its parent. Strategies
read the tree and answer with actions; trainers carry actions out; the store keeps the tree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from thalweg.errors import ConfigError, nearest
from thalweg.space import Hyperparameters

Unit = Literal["steps", "samples", "tokens"]
UNITS: tuple[Unit, ...] = ("steps", "samples", "tokens")

Status = Literal["pending", "running", "paused", "interrupted", "finished", "diverged", "failed", "stopped"]
"""Where a run stands.

- `pending`: created, waiting for a worker. `running`: in a worker now.
- `paused`: reached the position it was asked for, short of its horizon; it waits for a decision.
- `interrupted`: ended before that position (Ctrl-C, a used-up budget, a lost worker); the loop goes on with it.
- `finished`: reached its horizon. `diverged`: its loss was no longer a number. `failed`: an exception ended it.
- `stopped`: given up, by the strategy or by a person.
"""

ENDED: frozenset[Status] = frozenset({"finished", "diverged", "failed", "stopped"})


@dataclass(frozen=True)
class Start:
    """Begin a new root."""

    hyperparameters: Hyperparameters
    until: int
    """Position to train to, in the study's unit."""
    origin: str = "hand"
    """Who asked: a strategy's name, `baseline`, or `hand`."""
    seed: int | None = None
    """The run's own seed, to see how much chance decides; None for the study's, which all other runs share."""


@dataclass(frozen=True)
class Continue:
    """Train a paused run further."""

    run: str
    until: int
    origin: str = "hand"


@dataclass(frozen=True)
class Fork:
    """Begin a child from a checkpoint of another run, with some hyperparameters changed."""

    parent: str
    at: int
    """The fork point: a position of the parent that has a checkpoint."""
    changes: Hyperparameters
    """Hyperparameters that differ from the parent's, applied after its state is loaded."""
    until: int
    origin: str = "hand"


@dataclass(frozen=True)
class Stop:
    """Give a run up."""

    run: str
    origin: str = "hand"


Action = Start | Continue | Fork | Stop


@dataclass(frozen=True)
class Restart:
    """Go on with a run from an earlier position of its own, hiding what it did after that: only people ask for it."""

    run: str
    at: int
    """A position of the run that has a checkpoint."""
    origin: str = "hand"


@dataclass(frozen=True)
class Pause:
    """Train nothing more for now: runs write their checkpoints and wait."""


@dataclass(frozen=True)
class Unpause:
    """Go on after a pause."""


Ask = Action | Restart | Pause | Unpause
"""What a person may ask of a study's loop."""


@dataclass(frozen=True)
class Report:
    """The result of one evaluation: what runs are compared by."""

    position: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One node of the tree, as the store last saw it."""

    id: str
    """Unique in the store: the study's name and the run's number, such as `imdb-7`."""
    number: int
    """Order of creation within the study, from 0."""
    hyperparameters: Hyperparameters
    horizon: int
    """The position at which the run is complete, by its hyperparameters (its number of epochs, say)."""
    until: int
    """The position it was last asked to reach."""
    seed: int = 0
    parent: str | None = None
    fork_position: int = 0
    """Where the run begins on the position axis: 0 for a root."""
    status: Status = "pending"
    position: int = 0
    """The position reached."""
    reports: tuple[Report, ...] = ()
    """Evaluations of this run itself (not of its ancestors), by rising position."""
    origin: str = "hand"
    error: str | None = None
    """Traceback of a failed run, or what a diverged one ran into."""

    @property
    def ended(self) -> bool:
        """Nothing more will happen to it unless a person forks it."""
        return self.status in ENDED

    @property
    def waits_for_worker(self) -> bool:
        """It has been asked for a position that it has not reached, and no worker has it."""
        return self.status in ("pending", "interrupted")

    def report_at(self, position: int) -> Report | None:
        """The first evaluation at or after a position: trainers stop at the step boundary that follows it."""
        return next((report for report in self.reports if report.position >= position), None)


_GOALS: dict[str, Literal["max", "min"]] = {
    "accuracy": "max",
    "f1": "max",
    "precision": "max",
    "recall": "max",
    "loss": "min",
    "eval_loss": "min",
    "perplexity": "min",
    "bits_per_byte": "min",
    "error": "min",
}


@dataclass(frozen=True)
class Metric:
    """What a study improves."""

    name: str
    goal: Literal["max", "min"]

    @classmethod
    def parse(cls, spec: str | Metric) -> Self:
        """Read "accuracy", or "max reward" / "min regret" for a name whose direction is not known.

        >>> Metric.parse("loss"), Metric.parse("max reward")
        (Metric(name='loss', goal='min'), Metric(name='reward', goal='max'))
        """
        if isinstance(spec, Metric):
            return cls(spec.name, spec.goal)
        words = spec.split()
        if len(words) == 2 and words[0] in ("max", "min"):
            return cls(words[1], "max" if words[0] == "max" else "min")
        if len(words) == 1 and spec in _GOALS:
            return cls(spec, _GOALS[spec])
        raise ConfigError(
            f"metric = {spec!r}: it is not known whether more is better; write 'max {spec}' or 'min {spec}'."
            f" {nearest(spec, _GOALS)}"
        )

    def loss(self, value: float) -> float:
        """The value as something to minimise; not-a-number is the worst there is."""
        if math.isnan(value):
            return math.inf
        return value if self.goal == "min" else -value

    def __str__(self) -> str:
        return f"{self.goal} {self.name}"


@dataclass
class Tree:
    """All runs of a study, by id, in order of creation."""

    runs: dict[str, Run] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Tree:
        return cls({run.id: run for run in sorted(runs, key=lambda run: run.number)})

    def absorb(self, run: Run) -> None:
        """Take in what became of a run, or a new one."""
        self.runs[run.id] = run

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs.values())

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, run_id: str) -> Run:
        return self.runs[run_id]

    def roots(self) -> list[Run]:
        return [run for run in self if run.parent is None]

    def children(self, run_id: str) -> list[Run]:
        return [run for run in self if run.parent == run_id]

    def lineage(self, run_id: str) -> list[Run]:
        """The run's ancestors, the root first, and the run itself last."""
        line = [self.runs[run_id]]
        while line[-1].parent is not None:
            line.append(self.runs[line[-1].parent])
        return line[::-1]

    def active(self) -> list[Run]:
        """Runs that a worker has or that wait for one."""
        return [run for run in self if run.status == "running" or run.waits_for_worker]

    def best(self, metric: Metric) -> Run | None:
        """The finished run whose last evaluation is best, the earlier one where two are equal."""
        scored = [(loss, run.number, run) for run in self if (loss := final_loss(run, metric)) is not None]
        loss, _, run = min(scored, key=lambda entry: entry[:2], default=(math.inf, 0, None))
        return run if math.isfinite(loss) else None


def final_loss(run: Run, metric: Metric) -> float | None:
    """A finished run's last evaluation as something to minimise, infinite if it diverged; None for any other run."""
    if run.status == "diverged":
        return math.inf
    if run.status != "finished" or not run.reports or metric.name not in run.reports[-1].metrics:
        return None
    return metric.loss(run.reports[-1].metrics[metric.name])
