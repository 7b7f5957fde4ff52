"""Constraints: what a sampler proposes is kept to points that are allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from thalweg.errors import ConfigError
from thalweg.search.strategy import Observation, Problem, Sampler
from thalweg.space import Hyperparameters, Space, Value

_NUM_GOALS = 16
"""Feasible points that are tried as the way back into what is allowed."""


class Feasible:
    """A sampler whose every proposal keeps the problem's constraints.

    A proposal that breaks one is moved into what is allowed: towards a feasible point drawn from the space, one
    hyperparameter after the other in a random order, until the constraints are kept. Of 16 such ways the one that
    changes fewest hyperparameters is taken, and none that leads to a point that was observed or is pending, where
    there is another. So the sampler's choice of all that does not matter to the constraint stays.

    The points of a sampler that has a number of them, such as a grid, are not moved but left out: it proposes them by
    their index alone.

    Args:
        sampler: proposes.
        problem: its `is_feasible` is the constraint.
    Raises:
        ConfigError: none of the sampler's points is feasible.
    """

    def __init__(self, sampler: Sampler, problem: Problem) -> None:
        self._sampler = sampler
        self._problem = problem
        self._points: list[Hyperparameters] | None = None
        self.num_points: int | None = None
        if sampler.num_points is not None:
            proposed = (sampler.propose([], [], index) for index in range(sampler.num_points))
            self._points = [point for point in proposed if point is not None and problem.is_feasible(point)]
            self.num_points = len(self._points)
            if not self._points:
                raise ConfigError(
                    f"none of the {sampler.num_points:,} points that the sampler has keeps the study's constraints:"
                    " give it more points (a larger 'resolution'), widen the space, or relax the constraints"
                )

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        if self._points is not None:
            return self._points[index] if index < len(self._points) else None
        proposal = self._sampler.propose(observations, pending, index)
        if proposal is None or self._problem.is_feasible(proposal):
            return proposal
        # A stream of its own: the sampler has drawn from the first ones.
        rng = self._problem.rng(index).spawn(3)[2]
        known = [*(seen.hyperparameters for seen in observations), *pending]
        found = [self._moved(proposal, rng) for _ in range(_NUM_GOALS)]
        return min(found, key=lambda point: (point in known, _num_changes(proposal, point)))

    def at_rung(self, rung: int) -> Feasible:
        """The sampler of roots that begin at a rung; itself where that makes no difference to what proposes."""
        if not hasattr(self._sampler, "at_rung"):
            return self
        return Feasible(self._sampler.at_rung(rung), self._problem)

    def _moved(self, proposal: Hyperparameters, rng: np.random.Generator) -> dict[str, Value]:
        """A feasible point on the way from a proposal to a drawn one."""
        space, goal = self._problem.space, self._problem.sample(rng)
        order = [space.ordered[i] for i in rng.permutation(len(space.ordered))]
        for count in range(1, len(order)):
            taken = set(order[:count])
            chosen: dict[str, Value] = {}
            for name in space.ordered:
                if not space.is_active(name, chosen):
                    continue
                first, second = (goal, proposal) if name in taken else (proposal, goal)
                if name not in first and name not in second:
                    break  # it exists in neither: this mixture of conditions is neither's
                chosen[name] = first[name] if name in first else second[name]
            else:
                if self._problem.is_feasible(point := space.complete(chosen)):
                    return point
        return goal


def check_memory(
    space: Space,
    memory_bytes: Callable[[Hyperparameters], int | None],
    limit: float,
    baseline: Hyperparameters | None = None,
) -> None:
    """Refuse a limit that no run of the space, or the baseline, keeps.

    The least is looked for by trying each dimension's values in turn: choices whole, ranges at their ends.

    Args:
        memory_bytes: what a run needs, as the trainer predicts it.
        limit: in bytes.
    Raises:
        ConfigError: naming the least that would work; or that the trainer predicts nothing.
    """
    point: dict[str, Value] = space.sample(np.random.default_rng(0))
    least = memory_bytes(point)
    if least is None:
        raise ConfigError(
            "constraints: this trainer does not know how much memory its runs will need; a function of your own would"
            " work: feasible = lambda hyperparameters: ..."
        )
    for name, dimension in space.dimensions.items():
        for value in dimension.grid(2) if name in point else []:
            other = _with(space, point, name, value)
            needed = memory_bytes(other)
            if needed is not None and needed < least:
                point, least = other, needed
    if least > limit:
        texts = {key: f"{value:.3g}" if isinstance(value, float) else repr(value) for key, value in point.items()}
        shown = ", ".join(f"{key} = {text}" for key, text in texts.items())
        raise ConfigError(
            f"constraints: {limit / 1e9:.3g} GB of memory are too little for any run of the space: the least that"
            f" would work is {_rounded_up(least)} GB ({shown})"
        )
    needed = None if baseline is None else memory_bytes(baseline)
    if needed is not None and needed > limit:
        raise ConfigError(
            f"constraints: the baseline needs {_rounded_up(needed)} GB of memory, more than the limit of"
            f" {limit / 1e9:.3g} GB; raise that, or give a smaller baseline"
        )


def _with(space: Space, point: Hyperparameters, name: str, value: Value) -> dict[str, Value]:
    """A point with another value; what then exists as well takes its lowest value."""
    chosen: dict[str, Value] = {}
    for each in space.ordered:
        if space.is_active(each, chosen):
            chosen[each] = value if each == name else point[each] if each in point else space.dimensions[each].at(0.0)
    return space.complete(chosen)


def _rounded_up(num_bytes: float) -> str:
    """Gigabytes to two decimals, such that they suffice."""
    return f"{math.ceil(num_bytes / 1e7) / 100:g}"


def _num_changes(before: Hyperparameters, after: Hyperparameters) -> int:
    return sum(name not in before or name not in after or before[name] != after[name] for name in {*before, *after})
