"""Studies and projects as the page sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from thalweg.budget import Budget, Cost
from thalweg.errors import ConfigError
from thalweg.report.web.steps import step_of
from thalweg.tree import Metric

if TYPE_CHECKING:
    from thalweg.report.web.summaries import Spending, Summaries
    from thalweg.track.records import RequestRecord, StudyRecord
    from thalweg.track.store import Store

_SPENT_ON = ("samples", "tokens", "flops", "device_seconds")


def metric_of(config: Mapping[str, Any]) -> Metric | None:
    """What a study improves; None for a project, and for a study whose metric cannot be read."""
    try:
        return Metric.parse(config["metric"])
    except (KeyError, ConfigError, AttributeError):
        return None


def project_entry(store: Store, record: StudyRecord, summaries: Summaries) -> dict[str, Any]:
    """A line of the list of projects."""
    metric = metric_of(record.config)
    runs = summaries.runs(record.name, metric)
    return {
        "name": record.name,
        "kind": record.kind,
        "unit": record.unit,
        "metric": _metric(metric),
        "created": record.created,
        "num_runs": runs.num_runs,
        "num_live": runs.statuses.get("running", 0),
        "statuses": runs.statuses,
        "running": store.live_session(record.name) is not None,
        "paused": store.is_paused(record.name),
        "best": None if runs.best is None else {"run": runs.best[0], "value": runs.best[1]},
        "updated": record.created if runs.updated is None else runs.updated,
    }


def project_data(store: Store, name: str, summaries: Summaries) -> dict[str, Any]:
    """All about a study or project but its runs.

    Raises:
        StoreError: there is none of this name.
    """
    record = store.study(name)
    config = record.config
    metric = metric_of(config)
    runs, spending = summaries.runs(name, metric), summaries.spending(name)
    session = store.live_session(name)
    return {
        "name": record.name,
        "kind": record.kind,
        "unit": record.unit,
        "decimals": record.decimals,
        "created": record.created,
        "metric": _metric(metric),
        "space": config.get("space"),
        "strategy": config.get("strategy"),
        "budget": _budget(config.get("budget") or {}, spending),
        "ledger": _ledger(spending),
        "session": session and {"host": session.host, "pid": session.pid, "opened": session.opened},
        "paused": store.is_paused(name),
        "config": config,
        "statuses": runs.statuses,
        "hyperparameters": runs.hyperparameters,
        "metrics": runs.metrics,
        "requests": [_request(request, record.scale) for request in store.requests(name)],
    }


def _ledger(spending: Spending) -> dict[str, Any]:
    """What was spent: per kind and in all. There are no times in a ledger: `over_time` is always null."""
    kinds = {kind: cost_data(cost) for kind, cost in spending.kinds.items()}
    total = {**cost_data(spending.total), "wall_seconds": spending.ledger.wall_seconds}
    return {"kinds": kinds, "total": total, "over_time": None}


def cost_data(cost: Cost) -> dict[str, Any]:
    """A cost's amounts by name."""
    return dataclasses.asdict(cost)


def _budget(config: Any, spending: Spending) -> dict[str, Any]:
    try:
        limits = Budget.parse(config).limits() if config else {}
    except (ConfigError, TypeError, AttributeError):
        limits = {}
    ledger = spending.ledger
    # As `Budget.left` counts, which adds all up anew.
    spent = {"runs": ledger.num_runs - ledger.num_forks, "seconds": ledger.wall_seconds}
    spent |= {name: getattr(spending.total, name) for name in _SPENT_ON}
    return {
        "limits": limits,
        "spent": {name: spent[name] for name in limits},
        "left": {name: max(limit - spent[name], 0) for name, limit in limits.items()},
    }


def _metric(metric: Metric | None) -> dict[str, str] | None:
    return None if metric is None else {"name": metric.name, "goal": metric.goal}


def _request(request: RequestRecord, scale: int) -> dict[str, Any]:
    entry = {key: value for key, value in dataclasses.asdict(request.ask).items() if key != "origin"}
    for name in ("at", "until"):
        if name in entry:
            entry[name] = step_of(entry[name], scale)
    return {
        "id": request.id,
        "ask": {"action": type(request.ask).__name__.lower(), **entry},
        "author": request.author,
        "created": request.created,
        "answered": request.answered,
        "outcome": request.outcome,
    }
