"""What a strategy and a sampler are, and the problem that both are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.space import Hyperparameters, Space, Value
from thalweg.tree import Action, Metric, Run, Start, Tree

_NUM_DRAWS = 1_000


@dataclass(frozen=True)
class Branch:
    """How a run that goes on is evaluated at a smaller budget than its own: on a fork that decays its learning rate."""

    at: int
    """The fork point: the last step boundary before the decay."""
    changes: Hyperparameters
    """What gives the fork the budget as its horizon."""


@dataclass(frozen=True)
class Earlier:
    """What another study of the same kind has found: to begin from, where it turns out to fit."""

    name: str
    results: tuple[tuple[Hyperparameters, float], ...]
    """Hyperparameters, and the final loss to minimise (infinite if it diverged), in order of creation. Losses of two
    studies are not comparable: only their order within one is used."""


def _positions(_hyperparameters: Hyperparameters, start: int, until: int) -> float:
    return until - start


def _any_point(_hyperparameters: Hyperparameters) -> bool:
    return True


def _nothing_fixed(_names: Iterable[str]) -> dict[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched."""

    space: Space
    metric: Metric
    horizon: Callable[[Hyperparameters], int]
    """The position at which a run with these hyperparameters is complete, in the study's unit."""
    seed: int
    """Decides every draw, together with the tree. Not negative."""
    branch: Callable[[Hyperparameters, int], Branch | None] = lambda _hyperparameters, _budget: None
    """How a run with these hyperparameters is branched for a budget, a position; None where it cannot be."""
    shortened: Callable[[Hyperparameters, int], Hyperparameters | None] = lambda _hyperparameters, _budget: None
    """The changes that make a run one of a smaller horizon, a position, whose schedule ends there; None where the
    trainer does not know how."""
    cost: Callable[[Hyperparameters, int, int], float] = _positions
    """What training from one position to another takes, in one unit for all runs: FLOPs, tokens or samples, whichever
    the trainer knows; else positions."""
    fixed_at_start: Callable[[Iterable[str]], Mapping[str, str]] = _nothing_fixed
    """Of these hyperparameters, those that a fork cannot change, each with the reason."""
    is_feasible: Callable[[Hyperparameters], bool] = _any_point
    """Whether a run with these hyperparameters keeps the study's constraints, such as its memory."""
    objectives: tuple[Metric, ...] = ()
    """Further metrics that are improved beside `metric`; empty for a search with one objective."""
    earlier: tuple[Earlier, ...] = ()
    """Earlier studies to learn from."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed} must not be negative, such as 0")

    @property
    def is_constrained(self) -> bool:
        """Whether there may be points that are not feasible."""
        return self.is_feasible is not _any_point

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """A random feasible point, drawn from the priors where there are some.

        Raises:
            ConfigError: a thousand draws found none.
        """
        for _ in range(_NUM_DRAWS):
            if self.is_feasible(point := self.space.sample(rng)):
                return point
        raise ConfigError(
            f"none of {_NUM_DRAWS:,} points drawn from the space keeps the study's constraints: widen the space, or"
            " relax them"
        )

    def rng(self, index: int) -> np.random.Generator:
        """The randomness of one new root: nothing else may be drawn from, so that a crash changes no draw."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, index]))


class Observation(NamedTuple):
    """What a sampler learns from. A tuple, as each decision makes and compares one per run."""

    hyperparameters: Hyperparameters
    loss: float
    """To minimise; infinite for a diverged run."""


class Sampler(Protocol):
    """Proposes hyperparameters for new roots: a pure function of its arguments and the problem."""

    @property
    def num_points(self) -> int | None:
        """How many points it can propose, or None for as many as are asked for."""
        ...

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """Choose the next root.

        Args:
            observations: results so far, in order of the runs' numbers; some may lie outside the space.
            pending: roots without a result yet.
            index: number of roots that the strategy started before this one.
        Returns:
            A point of the space with the fixed values, or None where there is nothing more to propose.
        """
        ...


class Strategy(Protocol):
    """Decides what happens next: a pure function of the tree. It may cache; without the cache it decides the same."""

    @property
    def share(self) -> float:
        """How much of a whole run's training a root gets on average, in (0, 1]: for the plan."""
        ...

    @property
    def num_roots(self) -> int | None:
        """How many roots it will begin at most, or None for as many as the budget allows: for the plan."""
        ...

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """What to do now.

        The loop first resubmits pending and interrupted runs, and enforces the budget itself; a strategy needs the
        budget only to know whether new runs may still be created.

        Args:
            tree: all runs of the study.
            free_slots: workers with nothing to do; at most as many actions are returned.
            left: what remains of the budget.
        Returns:
            Actions, or none: to wait for active runs or, where no run is active, to end the study.
        """
        ...


def num_starts(free_slots: int, left: Left) -> int:
    """How many new roots there may be now."""
    return max(0, min(free_slots, int(left.amounts.get("runs", free_slots))))


def sorted_roots(tree: Tree) -> list[Run]:
    """Roots in order of creation, in whatever order the tree took them in."""
    return sorted(tree.roots(), key=lambda run: run.number)


def is_own(run: Run) -> bool:
    """Whether the strategy started it, rather than a person or the loop for its baseline."""
    return run.origin not in ("hand", "baseline")


def is_active(run: Run) -> bool:
    """Whether a worker has it or it waits for one."""
    return run.status == "running" or run.waits_for_worker


def propose_roots(
    sampler: Sampler,
    observations: Sequence[Observation],
    pending: Sequence[Hyperparameters],
    *,
    index: int,
    count: int,
) -> list[Hyperparameters]:
    """Up to `count` proposals, each made in the knowledge of those before it."""
    proposals: list[Hyperparameters] = []
    for offset in range(count):
        proposal = sampler.propose(observations, [*pending, *proposals], index + offset)
        if proposal is None:
            break
        proposals.append(proposal)
    return proposals


def start(problem: Problem, hyperparameters: Hyperparameters, until: int, origin: str) -> Start:
    """A new root, never asked to train past its horizon."""
    return Start(hyperparameters, min(until, problem.horizon(hyperparameters)), origin)
