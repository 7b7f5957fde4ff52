"""What it took to get to each run's end, its ancestors included."""

from __future__ import annotations

from collections.abc import Mapping

from thalweg.report.view import StudyView
from thalweg.report.wording import CostField
from thalweg.tree import Run


def costs_to_reach(view: StudyView, field: CostField) -> dict[str, float]:
    """What it took to get to each run's end: its own spending, and its ancestors' up to where the fork left them.

    An ancestor's spending is taken to be even over the positions that it trained.
    """
    inherited: dict[str, float] = {}
    for run in view.tree:
        # Ancestors come first, whatever the order of creation, and each is looked at once.
        missing: list[Run] = []
        at: Run | None = run
        while at is not None and at.id not in inherited:
            missing.append(at)
            at = view.tree.runs.get(at.parent) if at.parent is not None else None
        for each in reversed(missing):
            inherited[each.id] = _inherited(view, each, inherited, field)
    return {run.id: inherited[run.id] + getattr(view.ledger.of(run.id), field) for run in view.tree}


def _inherited(view: StudyView, run: Run, inherited: Mapping[str, float], field: CostField) -> float:
    parent = view.tree.runs.get(run.parent) if run.parent is not None else None
    if parent is None:
        return 0.0
    trained = parent.position - parent.fork_position
    share = (run.fork_position - parent.fork_position) / trained if trained > 0 else 0.0
    spent: float = getattr(view.ledger.of(parent.id), field)
    return inherited[parent.id] + min(max(share, 0.0), 1.0) * spent
