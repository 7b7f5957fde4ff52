"""What trains runs, and what a run looks like to it.

`Trainer` is the protocol that `train/` implements; `ActiveRun` is what a worker hands to it for each run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from thalweg.budget import Cost, SpendKind
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Unit

State = Mapping[str, Any]
"""A checkpoint's content: nested mappings and lists of torch tensors, numpy arrays and JSON scalars."""


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95% confidence interval."""

    value: float
    low: float
    high: float
    num_samples: int
    """Evaluated samples that it rests on."""


class ActiveRun(Protocol):
    """One run while a worker trains it.

    A trainer restores, trains from `start` to the first step boundary at or after `until`, logs points on the way,
    saves checkpoints and, when it arrives, reports an evaluation. Positions are in the trainer's unit.
    """

    @property
    def id(self) -> str: ...

    @property
    def hyperparameters(self) -> Hyperparameters: ...

    @property
    def seed(self) -> int:
        """Decides initialisation, data order and dropout. A fork has its parent's."""
        ...

    @property
    def start(self) -> int:
        """Position of the checkpoint that `restore` returns; 0 from scratch."""
        ...

    @property
    def until(self) -> int:
        """Position to train to in this call."""
        ...

    @property
    def horizon(self) -> int:
        """Position at which the run is complete; what its learning-rate schedule runs to."""
        ...

    def restore(self) -> State | None:
        """The state saved at `start`, or None where the run begins from scratch."""
        ...

    def log(self, position: int, /, **metrics: float) -> None:
        """Record points of curves. The last write at a position wins."""
        ...

    def report(self, position: int, /, **metrics: float) -> None:
        """Record an evaluation: what runs are compared by. Committed at once; its metrics are logged as points too."""
        ...

    def save(self, position: int, state: State) -> None:
        """Write a checkpoint from which the run can go on at `position`, and make it the run's newest."""
        ...

    def checkpoint_due(self) -> bool:
        """Whether so much time has passed since the last checkpoint that another one is worth its cost."""
        ...

    def should_stop(self) -> bool:
        """Whether somebody wants the run to end now.

        Ask at least every second or so: between micro-batches, and within evaluations. Then `save` at the last step
        boundary and raise `RunInterrupted`.
        """
        ...

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        """Enter work into the ledger, as it is done. Training at positions that were trained before is entered as
        `repeated` by the worker, whatever kind was said."""
        ...


class Trainer(Protocol):
    """Trains runs. A trainer is sent to every worker process once, and keeps there what runs can share.

    All methods but `setup`, `probe`, `train` and `test` are called in the process of the study's loop, and stay light.
    """

    @property
    def unit(self) -> Unit:
        """The axis of its positions."""
        ...

    @property
    def preload(self) -> Sequence[str]:
        """Modules that take long to import, loaded once before the workers are forked."""
        ...

    def check(self, space: Space, metric: str) -> None:
        """Refuse what cannot work before any compute is spent: data, model, names in the space, the metric.

        Raises:
            ConfigError: naming the field, the value, and what would work.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Its whole configuration as JSON values, with a fingerprint of its data: two studies may share a name only
        where this is equal."""
        ...

    def facts(self) -> Mapping[str, str]:
        """What the plan tells a person about it, a line each: the model, the data."""
        ...

    def horizon(self, hyperparameters: Hyperparameters) -> int:
        """The position at which a run with these hyperparameters is complete."""
        ...

    def cost(self, hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
        """What training from `start` to `until` will take, evaluation included; `seconds` is 0 where not known."""
        ...

    def stable_end(self, hyperparameters: Hyperparameters) -> int | None:
        """The last step boundary before a run's learning rate begins its final decay: there it can be extended, or
        branched for a smaller budget. For a cyclic schedule, which goes on from its decayed weights, the step boundary
        at which the run is complete. None where the schedule has no such place.

        A trainer for which there is one saves a checkpoint there, and the worker keeps it."""
        ...

    def extended(self, hyperparameters: Hyperparameters, horizon: int) -> Hyperparameters:
        """The changes to hyperparameters that give a run another horizon and nothing else: up to its `stable_end` it
        is the same run.

        Raises:
            ConfigError: the trainer does not know how.
        """
        ...

    def fixed_at_start(self, names: Iterable[str]) -> Mapping[str, str]:
        """Of these hyperparameters, those that a fork cannot change, each with the reason."""
        ...

    def memory_bytes(self, hyperparameters: Hyperparameters) -> int | None:
        """The most memory that a run will hold at a time, beside the program itself; None where it is not known."""
        ...

    def setup(self) -> None:
        """Load what runs share (base model, tokenised data). Called once in each worker, before anything else there."""
        ...

    def probe(self) -> float | None:
        """Measured speed of this worker in FLOPs per second, to turn `cost` into time; None where there is none."""
        ...

    def train(self, runs: Sequence[ActiveRun]) -> None:
        """Carry runs on to their `until`. A trainer that cannot pack several is given one at a time.

        Raises:
            Diverged: the loss was no longer a finite number.
            RunInterrupted: a run was asked to stop, and its checkpoint is written.
        """
        ...

    def test(self, run: ActiveRun) -> Mapping[str, Estimate]:
        """Evaluate the checkpoint at `run.start` on data that the search never sees; empty where there is none."""
        ...


class Diverged(Exception):
    """The loss is not a finite number any more: the run ends as `diverged`, with an infinite loss."""
