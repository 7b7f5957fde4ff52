"""What runs will cost, before they are run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from thalweg.budget import Budget, Cost, Ledger, Left
from thalweg.errors import ConfigError
from thalweg.space import Hyperparameters, Space
from thalweg.trainer import Trainer
from thalweg.tree import Action, Continue, Fork, Start, Stop, Tree

WholeRun = Callable[[Hyperparameters], Cost]
"""The cost of a whole run with these hyperparameters."""

MARGIN = 1.15
"""Safety factor on the predicted time of bringing a run to its horizon within the budget."""

_DRAWS = 64


def average_cost(space: Space, whole_run: WholeRun, seed: int) -> Cost:
    """The mean cost of a whole run over the space, as its priors have it."""
    rng = np.random.default_rng(seed)
    total = sum((whole_run(space.sample(rng)) for _ in range(_DRAWS)), Cost())
    return scale(total, 1 / _DRAWS)


def average_horizon(space: Space, horizon: Callable[[Hyperparameters], int], seed: int) -> float:
    """The mean length of a whole run over the space, as its priors have it, in positions."""
    rng = np.random.default_rng(seed)
    return sum(horizon(space.sample(rng)) for _ in range(_DRAWS)) / _DRAWS


def scale(cost: Cost, factor: float) -> Cost:
    """A multiple of a cost; counts are rounded."""
    return Cost(
        samples=round(cost.samples * factor),
        tokens=round(cost.tokens * factor),
        flops=cost.flops * factor,
        seconds=cost.seconds * factor,
        device_seconds=cost.device_seconds * factor,
    )


def cheapest(space: Space, whole_run: WholeRun, limit: str) -> tuple[dict[str, object], float]:
    """The point of the space whose whole run takes least of one limit, by trying each dimension's ends in turn.

    Returns:
        The hyperparameters, and what they take.
    """

    def amount(point: Hyperparameters) -> float:
        return float(getattr(whole_run(point), limit))

    best = space.sample(np.random.default_rng(0))
    for name, dimension in space.dimensions.items():
        if name in best:
            best = min((best, *({**best, name: value} for value in dimension.grid(2))), key=amount)
    return dict(best), amount(best)


def check_budget(budget: Budget, space: Space, whole_run: WholeRun, *, loading_seconds: float = 0.0) -> None:
    """Refuse a budget in which not even the cheapest run of the space fits.

    Args:
        loading_seconds: time that has gone before a first run.
    Raises:
        ConfigError: naming the limit, what was given, and the least that would work.
    """
    for name, limit in budget.limits().items():
        if name == "runs":
            continue
        point, least = cheapest(space, whole_run, name)
        gone = loading_seconds if name == "seconds" else 0.0
        if least > limit - gone:
            shown = ", ".join(
                f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}" for key, value in point.items()
            )
            raise ConfigError(
                f"budget: {name} = {limit:,.6g} is too small for a single run:"
                f" {f'loading took {gone:,.0f}, and ' if gone else ''}the least is {least:,.6g} ({shown})"
            )


@dataclass(frozen=True)
class Speed:
    """How fast one worker is, as far as that is known."""

    flops_per_second: float | None = None
    positions_per_second: float | None = None

    @classmethod
    def measured(cls, ledger: Ledger, tree: Tree, probed: float | None) -> Speed:
        """From what the study has done so far, else from a probe of the worker."""
        kinds = ledger.by_kind()
        work = kinds["train"] + kinds["evaluate"] + kinds["checkpoint"] + kinds["repeated"]
        # A few seconds of work say less than the probe does.
        if work.device_seconds < 5:
            return cls(flops_per_second=probed)
        positions = sum(run.position - run.fork_position for run in tree)
        return cls(
            flops_per_second=work.flops / work.device_seconds if work.flops else None,
            positions_per_second=positions / work.device_seconds if positions else None,
        )

    def seconds(self, cost: Cost, num_positions: int) -> float | None:
        """Time that one worker will take, or None where nothing is known yet."""
        if cost.seconds:
            return cost.seconds
        if cost.flops and self.flops_per_second:
            return cost.flops / self.flops_per_second
        return num_positions / self.positions_per_second if self.positions_per_second else None

    def timed(self, cost: Cost, num_positions: int) -> Cost:
        """The cost with its time filled in; 0 seconds where nothing is known yet."""
        seconds = self.seconds(cost, num_positions) or 0.0
        return dataclasses.replace(cost, seconds=seconds, device_seconds=seconds)


def expected_runs(left: Mapping[str, float], cost: Cost, num_workers: int, *, at_most: int | None = None) -> int | None:
    """How many runs of this average cost a budget has room for; None where no limit says."""
    room = room_for(left, cost, num_workers)
    rooms = [limit for limit in (room, at_most) if limit is not None]
    return max(int(min(rooms)), 1) if rooms else None


def room_for(left: Mapping[str, float], cost: Cost, num_workers: int) -> float | None:
    """How many times a cost fits into what is left, fractions included; None where no limit says."""
    rooms: list[float] = []
    for name, amount in left.items():
        if name == "runs":
            rooms.append(amount)
        elif each := getattr(cost, name):
            rooms.append(amount * (num_workers if name == "seconds" else 1) / each)
    return min(rooms, default=None)


def shortage(left: Left, needed: Cost) -> str:
    """Why nothing could begin, where not even a first run fits into what is left."""
    name = left.lacks(needed, num_runs=1)
    assert name is not None
    wanted = 1 if name == "runs" else getattr(needed, name)
    return (
        f"no run has begun: the first that was proposed would take {wanted:,.6g} {name}, and {left.amounts[name]:,.6g}"
        " of the budget are left. Give it more, or a space of shorter runs"
    )


def reduced(left: Left, cost: Cost, *, num_workers: int | None = None) -> Left:
    """What remains after a cost that is already promised.

    Args:
        num_workers: that share the work, where its wall time counts too; None where others go on meanwhile.
    """
    wall = cost.seconds / num_workers if num_workers else 0.0
    promised = dataclasses.asdict(cost) | {"runs": 0, "seconds": wall}
    return Left({name: max(amount - promised[name], 0.0) for name, amount in left.amounts.items()}, left.whole_runs)


def price(trainer: Trainer, speed: Speed, hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
    """What training from one position to another will take, time included where the speed is known."""
    return speed.timed(trainer.cost(hyperparameters, start, until), until - start)


def prices(action: Action, tree: Tree, trainer: Trainer, speed: Speed) -> tuple[Cost, Cost]:
    """What an action will spend, and what has to be left for it.

    A root must have room to reach its horizon, and leave it to the best of those that have begun where none has
    reached it yet: a study that compares runs early could spend its whole budget on beginnings.
    """

    def between(hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
        return price(trainer, speed, hyperparameters, start, until)

    match action:
        case Start(hyperparameters, until):
            own = [run for run in tree if run.origin not in ("baseline", "hand")]
            begun = [] if any(run.status == "finished" for run in own) else own
            rests = [between(r.hyperparameters, r.position, r.horizon) for r in begun if r.status == "paused"]
            whole = between(hyperparameters, 0, trainer.horizon(hyperparameters))
            needed = max([whole, *rests], key=lambda cost: (cost.seconds, cost.flops, cost.tokens, cost.samples))
            return between(hyperparameters, 0, until), _with_margin(needed) if own else needed
        case Continue(run_id, until):
            now = between(tree[run_id].hyperparameters, tree[run_id].position, until)
        case Fork(parent, at, changes, until):
            child = {**tree[parent].hyperparameters, **changes}
            now = between(child, at, min(until, trainer.horizon(child)))
        case Stop():
            now = Cost()
    return now, now


def _with_margin(cost: Cost) -> Cost:
    """Time is a prediction; samples, tokens and FLOPs are not."""
    return dataclasses.replace(cost, seconds=cost.seconds * MARGIN, device_seconds=cost.device_seconds * MARGIN)
