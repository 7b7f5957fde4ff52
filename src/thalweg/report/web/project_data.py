"""Studies and projects as the page sees them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thalweg.budget import Budget, Cost, Ledger
from thalweg.errors import ConfigError
from thalweg.report.web.steps import step_of
from thalweg.tree import Metric

if TYPE_CHECKING:
    from thalweg.track.records import RequestRecord, RunRow, StudyRecord
    from thalweg.track.store import Store

_SPENT_ON = ("samples", "tokens", "flops", "device_seconds")


def metric_of(config: Mapping[str, Any]) -> Metric | None:
    """What a study improves; None for a project, and for a study whose metric cannot be read."""
    try:
        return Metric.parse(config["metric"])
    except (KeyError, ConfigError, AttributeError):
        return None


def project_entry(store: Store, record: StudyRecord) -> dict[str, Any]:
    """A line of the list of projects."""
    rows = store.run_rows(record.name)
    statuses = Counter(row.status for row in rows)
    touched = [row.created if row.updated is None else row.updated for row in rows]
    metric = metric_of(record.config)
    return {
        "name": record.name,
        "kind": record.kind,
        "unit": record.unit,
        "metric": _metric(metric),
        "created": record.created,
        "num_runs": len(rows),
        "num_live": statuses["running"],
        "statuses": dict(statuses),
        "running": store.live_session(record.name) is not None,
        "paused": store.is_paused(record.name),
        "best": _best(rows, metric),
        "updated": max(touched, default=record.created),
    }


def project_data(store: Store, name: str) -> dict[str, Any]:
    """All about a study or project but its runs.

    Raises:
        StoreError: there is none of this name.
    """
    record = store.study(name)
    config = record.config
    rows = store.run_rows(name)
    ledger = store.read_ledger(name)
    session = store.live_session(name)
    return {
        "name": record.name,
        "kind": record.kind,
        "unit": record.unit,
        "decimals": record.decimals,
        "created": record.created,
        "metric": _metric(metric_of(config)),
        "space": config.get("space"),
        "strategy": config.get("strategy"),
        "budget": _budget(config.get("budget") or {}, ledger),
        "ledger": ledger_data(ledger),
        "session": session and {"host": session.host, "pid": session.pid, "opened": session.opened},
        "paused": store.is_paused(name),
        "config": dict(config),
        "hyperparameters": list(dict.fromkeys(key for row in rows for key in row.hyperparameters)),
        "metrics": sorted({metric for row in rows for metric in row.latest}),
        "requests": [_request(request, record.scale) for request in store.requests(name)],
    }


def ledger_data(ledger: Ledger) -> dict[str, Any]:
    """What was spent: per kind and in all. There are no times in a ledger: `over_time` is always null."""
    kinds = {kind: cost_data(cost) for kind, cost in ledger.by_kind().items()}
    total = {**cost_data(ledger.total()), "wall_seconds": ledger.wall_seconds}
    return {"kinds": kinds, "total": total, "over_time": None}


def cost_data(cost: Cost) -> dict[str, Any]:
    """A cost's amounts by name."""
    return dataclasses.asdict(cost)


def _budget(config: Any, ledger: Ledger) -> dict[str, Any]:
    try:
        budget = Budget.parse(config) if config else Budget()
    except (ConfigError, TypeError, AttributeError):
        budget = Budget()
    total = ledger.total()
    spent = {"runs": ledger.num_runs - ledger.num_forks, "seconds": ledger.wall_seconds}
    spent |= {name: getattr(total, name) for name in _SPENT_ON}
    limits = budget.limits()
    return {
        "limits": limits,
        "spent": {name: spent[name] for name in limits},
        "left": dict(budget.left(ledger).amounts),
    }


def _metric(metric: Metric | None) -> dict[str, str] | None:
    return None if metric is None else {"name": metric.name, "goal": metric.goal}


def score_of(row: RunRow, metric: Metric | None) -> float | None:
    """The study's metric at a run's last report."""
    last = None if metric is None else row.latest.get(f"validation/{metric.name}")
    return None if last is None else last[1]


def _best(rows: Sequence[RunRow], metric: Metric | None) -> dict[str, Any] | None:
    """The finished run whose score is best, as the search counts it."""
    if metric is None:
        return None
    scores = [(row.id, score) for row in rows if (score := score_of(row, metric)) is not None]
    finished = {row.id for row in rows if row.status == "finished"}
    known = [(metric.loss(score), run, score) for run, score in scores if run in finished]
    best = min(known, key=lambda entry: entry[0], default=None)
    return None if best is None else {"run": best[1], "value": best[2]}


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
