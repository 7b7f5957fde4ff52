"""The plan of a study, shown before anything is spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from thalweg.budget import Budget, Cost
from thalweg.report.wording import amount, duration, number, plain, range_text
from thalweg.space import Space
from thalweg.tree import Metric


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study is about to do."""

    study: str
    strategy: str
    """In words, such as `halving with tpe`."""
    metric: Metric
    space: Space
    budget: Budget
    num_runs: int | None
    """Runs expected; None where only the budget decides."""
    cost: Cost
    """What is expected to be spent in all; its `seconds` and `device_seconds` are 0 where the speed is not known."""
    expected_seconds: float | None
    """Wall seconds expected; None where the speed is not known."""
    workers: int
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further lines, shown as they are: where checkpoints go, how much data there is, which model."""


def plan_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    return {
        "study": plan.study,
        "strategy": plan.strategy,
        "metric": {"name": plan.metric.name, "goal": plan.metric.goal},
        "space": plan.space.to_dict(),
        "budget": plan.budget.limits(),
        "num_runs": plan.num_runs,
        "cost": dataclasses.asdict(plan.cost),
        "expected_seconds": plan.expected_seconds,
        "workers": plan.workers,
        "facts": dict(plan.facts),
    }


def plan_table(plan: Plan) -> RenderableType:
    """The plan for a terminal: a line per fact."""
    table = Table(title=Text(f"Plan of {plain(plan.study)}"), title_justify="left", show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _lines(plan):
        table.add_row(Text(plain(label)), Text(plain(text)))
    return table


def _lines(plan: Plan) -> list[tuple[str, str]]:
    dimensions = [f"{name}: {range_text(dimension)}" for name, dimension in plan.space.dimensions.items()]
    fixed = [f"{name}: {number(value)} (fixed)" for name, value in plan.space.fixed.items()]
    goal = "highest" if plan.metric.goal == "max" else "lowest"
    work = [amount(f, getattr(plan.cost, f)) for f in ("tokens", "samples", "flops") if getattr(plan.cost, f)]
    time = "not known before the first run" if plan.expected_seconds is None else f"about {_about(plan)}"
    return [
        ("search", "\n".join([*dimensions, *fixed])),
        ("for", f"the {goal} {plan.metric.name}"),
        ("strategy", plan.strategy),
        ("budget", plan.budget.describe() or "no limit"),
        ("runs", f"about {plan.num_runs}" if plan.num_runs is not None else "as many as the budget allows"),
        *([("work", ", ".join(work))] if work else []),
        ("time", f"{time}, on {plan.workers} worker{'s' if plan.workers != 1 else ''}"),
        *plan.facts.items(),
    ]


def _about(plan: Plan) -> str:
    assert plan.expected_seconds is not None
    limit = plan.budget.seconds
    over = limit is not None and plan.expected_seconds > limit
    return duration(plan.expected_seconds) + (" if the budget did not end it sooner" if over else "")
