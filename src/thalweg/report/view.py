"""A study as the report sees it: read from the store once, so that every part of a report tells the same story."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from thalweg.budget import Budget, Cost, Ledger
from thalweg.errors import StoreError
from thalweg.scaling.repetitions import best_run
from thalweg.scaling.stopping import Stopping, Verdict, verdict
from thalweg.space import Hyperparameters, Space
from thalweg.trainer import Estimate
from thalweg.tree import Metric, Run, Tree, Unit, final_loss

if TYPE_CHECKING:
    from thalweg.track.store import Store


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """All that a report says about a study, curves excepted."""

    name: str
    metric: Metric
    unit: Unit
    space: Space
    strategy: Mapping[str, Any]
    """`name` and the strategy's options."""
    budget: Budget
    seed: int
    tree: Tree
    ledger: Ledger
    tests: Mapping[str, tuple[int, Mapping[str, Estimate]]] = field(default_factory=dict)
    """Held-back results: run id -> the position evaluated, and an estimate per metric."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The study's whole configuration as the store has it."""
    crashed: frozenset[str] = frozenset()
    """Runs that the store calls running although no process writes them any more."""

    @property
    def best(self) -> Run | None:
        """The finished run with the best last evaluation, by its mean over seeds where it was repeated; it may be the
        baseline."""
        return best_run(self.tree, self.metric)

    @property
    def objectives(self) -> tuple[Metric, ...]:
        """What is improved beside the metric."""
        return tuple(map(Metric.parse, self.config.get("objectives") or ()))

    @property
    def stopped_by(self) -> Verdict | None:
        """The stopping rule that the runs meet, if any: as the search itself found it."""
        rules = self.config.get("stopping")
        return verdict(self.tree, self.metric, Stopping(**rules)) if rules else None

    @property
    def baseline(self) -> Run | None:
        """The run of the hyperparameters that the search is compared with."""
        return next((run for run in self.tree if run.origin == "baseline"), None)

    @property
    def baseline_hyperparameters(self) -> Hyperparameters:
        """Those of the baseline run, or the configured ones where it has not run."""
        baseline = self.baseline
        return baseline.hyperparameters if baseline else self.config.get("baseline") or {}

    @cached_property
    def total_cost(self) -> Cost:
        """All that was spent."""
        return self.ledger.total()

    def status(self, run: Run) -> str:
        """The run's status, or `crashed`."""
        return "crashed" if run.id in self.crashed else run.status

    def test(self, run: Run) -> Estimate | None:
        """The held-back result of the study's metric."""
        _, estimates = self.tests.get(run.id, (0, {}))
        return estimates.get(self.metric.name)

    def ranked(self) -> list[Run]:
        """Finished runs, the best first; those whose result is not a finite number are left out."""
        by_loss = [(loss, run.number, run) for run in self.tree if (loss := self.finite_loss(run)) is not None]
        return [run for _, _, run in sorted(by_loss, key=lambda entry: entry[:2])]

    def finite_loss(self, run: Run) -> float | None:
        """A finished run's last evaluation as something to minimise, where it is a finite number."""
        loss = final_loss(run, self.metric)
        return loss if loss is not None and math.isfinite(loss) else None

    def lost(self) -> Cost:
        """What failed and diverged runs have spent."""
        gone = [run for run in self.tree if run.status in ("failed", "diverged")]
        return sum((self.ledger.of(run.id) for run in gone), Cost())


def read_view(store: Store, study: str) -> StudyView:
    """Read a study.

    Raises:
        StoreError: there is no study of that name, or it is a project, which has no metric, space or budget.
    """
    record = store.study(study)
    if record.kind == "project":
        raise StoreError(
            f"{study} is a project of runs that your own scripts track, not a study: thalweg serve shows it,"
            f" thalweg runs {study} lists it"
        )
    config = record.config
    tree = store.read_tree(study)
    budget = config.get("budget") or {}
    running = [run.id for run in tree if run.status == "running"]
    return StudyView(
        name=study,
        metric=Metric.parse(config["metric"]),
        unit=config["unit"],
        space=Space.parse(config["space"]),
        strategy=config["strategy"],
        budget=Budget.parse(budget) if budget else Budget(),
        seed=config["seed"],
        tree=tree,
        ledger=store.read_ledger(study),
        tests=store.read_tests(study),
        config=config,
        crashed=frozenset(run_id for run_id in running if not store.run_times(run_id).live),
    )
