"""Runs as a table, and one run in full, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from thalweg.report.view import StudyView
from thalweg.report.wording import cost_text, duration, hyperparameters_text, plain, result, score
from thalweg.trainer import Estimate
from thalweg.tree import Run


def run_table(view: StudyView) -> RenderableType:
    """All runs of a study in order of creation, the best one marked."""
    if not len(view.tree):
        return Text(f"{plain(view.name)}: no runs yet")
    table = Table(title=Text(f"{plain(view.name)}: {view.metric}"), title_justify="left", box=None, pad_edge=False)
    for heading in ("run", "status", view.unit, view.metric.name, "hyperparameters", "from", "time"):
        table.add_column(Text(heading), justify="right" if heading in (view.unit, view.metric.name, "time") else "left")
    for run in view.tree:
        table.add_row(*(Text(cell) for cell in _cells(view, run)), style="bold" if run == view.best else "")
    return table


def run_details(view: StudyView, run_id: str, checkpoints: Sequence[tuple[int, int]]) -> RenderableType:
    """All about one run.

    Args:
        checkpoints: position and size in bytes of each.
    """
    run = view.tree[run_id]
    table = Table(title=Text(plain(run.id)), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    lineage = " > ".join(f"{r.id} ({r.fork_position:,})" if r.parent else r.id for r in view.tree.lineage(run_id))
    children = ", ".join(f"{child.id} at {child.fork_position:,}" for child in view.tree.children(run_id))
    spent = view.ledger.spent.get(run_id, {})
    rows = [
        ("status", view.status(run)),
        ("asked by", run.origin),
        ("hyperparameters", hyperparameters_text(run.hyperparameters)),
        ("position", f"{run.position:,} of {run.horizon:,} {view.unit} (asked for {run.until:,})"),
        ("lineage", lineage),
        ("forks of it", children or "none"),
        ("seed", str(run.seed)),
        ("checkpoints", ", ".join(f"{p:,} ({size / 1e6:,.0f} MB)" for p, size in checkpoints) or "none"),
        ("cost", cost_text(view.ledger.of(run_id))),
        *((f"  {kind}", cost_text(cost)) for kind, cost in spent.items()),
        *((f"at {report.position:,}", _metrics(report.metrics)) for report in run.reports),
        *((f"test, {name}", _estimate(name, e)) for name, e in view.tests.get(run_id, (0, {}))[1].items()),
    ]
    for label, text in rows:
        table.add_row(Text(plain(label)), Text(plain(text)))
    return Group(table, Text(plain(run.error))) if run.error else table


def _cells(view: StudyView, run: Run) -> tuple[str, ...]:
    origin = f"{run.parent} at {run.fork_position:,}" if run.parent else run.origin
    value = score(view.metric.name, result(run, view.metric)) if run.reports else ""
    seconds = duration(view.ledger.of(run.id).device_seconds)
    position = f"{run.position:,}/{run.horizon:,}"
    name = plain(run.id)
    return name, view.status(run), position, value, hyperparameters_text(run.hyperparameters), plain(origin), seconds


def _estimate(name: str, estimate: Estimate) -> str:
    low, high = score(name, estimate.low), score(name, estimate.high)
    return f"{score(name, estimate.value)} ({low} to {high}, n = {estimate.num_samples:,})"


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score(name, value)}" for name, value in metrics.items())
