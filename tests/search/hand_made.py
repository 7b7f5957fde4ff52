"""Runs written by hand, for tests that work a decision out on paper."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg.budget import Left
from thalweg.search import Observation, Problem, Strategy
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Action, Metric, Report, Run, Tree

SPACE = Space.parse({"x": {"linear": [0.0, 1.0]}})
PROBLEM = Problem(space=SPACE, metric=Metric("loss", "min"), horizon=lambda _: 900, seed=0)
NO_MORE_RUNS = Left({"runs": 0.0})


class Script:
    """A sampler that proposes x = 0.00, 0.01, 0.02 ..., and remembers what it was told."""

    def __init__(self, count: int | None = None) -> None:
        self.num_points = count
        self.told: list[tuple[list[Observation], list[Hyperparameters]]] = []

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        self.told.append((list(observations), list(pending)))
        return {"x": index / 100} if self.num_points is None or index < self.num_points else None


def run(number: int, *losses: float, positions: Sequence[int] = (100, 300, 900), **changes: object) -> Run:
    """A root with these losses at the first rungs, paused at the last of them; running where there are none."""
    reports = tuple(Report(position, {"loss": loss}) for position, loss in zip(positions, losses, strict=False))
    reached = reports[-1].position if reports else 0
    fields: dict[str, object] = {
        "hyperparameters": {"x": number / 100},
        "horizon": 900,
        "until": max(reached, positions[0]),
        "position": reached,
        "status": "finished" if reached >= 900 else "paused" if reports else "running",
        "origin": "tested",
    }
    fields = {"reports": reports, **fields, **changes}
    return Run(id=f"s-{number}", number=number, **fields)  # type: ignore[arg-type]


def decide(strategy: Strategy, *runs: Run, free: int = 1, left: Left | None = None) -> list[Action]:
    return strategy.decide(Tree.of(runs), free_slots=free, left=left or Left({}))
