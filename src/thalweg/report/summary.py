"""The terminal summary: what was searched, what was found, whether it is more than noise, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from thalweg.budget import SPEND_KINDS, Cost
from thalweg.report import two_stage
from thalweg.report.confirmation import Confirmed, confirmed, mean_text, statement
from thalweg.report.findings import NUM_TOP, changed, summary_dict, verdict
from thalweg.report.front import front, objective_values, value_text
from thalweg.report.view import StudyView
from thalweg.report.wording import (
    CostField,
    amount,
    cost_text,
    duration,
    first_line,
    hyperparameters_text,
    number,
    plain,
    range_text,
    result,
    score,
)
from thalweg.trainer import Estimate
from thalweg.tree import Run

__all__ = ["estimate_text", "searched_text", "statuses_text", "summary", "summary_dict"]

NUM_FAILURES = 5
NUM_FRONT = 12


def summary(view: StudyView) -> RenderableType:
    """The facts of `summary_dict` for a terminal of 80 columns or more."""
    parts: list[RenderableType] = [Rule(Text(plain(view.name))), Text(searched_text(view)), Text()]
    best = view.best
    if best is not None:
        parts += [_comparison(view, best), Text()]
    parts += [Text(verdict(view), style="bold"), Text()]
    if groups := confirmed(view.tree, view.metric):
        parts += [_confirmation(view, groups), Text(plain(statement(groups, view.metric))), Text()]
    if view.objectives and (runs := front(view)):
        parts += [_front(view, runs), Text()]
    if len(view.ranked()) > 1:
        parts += [_top(view), Text()]
    if view.stopped_by is not None:
        parts += [Text(plain(f"Stopping rule met: {view.stopped_by.reason}")), Text()]
    parts += [part for line in two_stage.sentences(view) for part in (Text(plain(line)), Text())]
    parts += [_costs(view), Text(), Text(statuses_text(view))]
    return Group(*parts, *_failures(view))


def searched_text(view: StudyView) -> str:
    """What was searched, how, and within what budget."""
    names = ", ".join(f"{plain(name)} ({range_text(dim)})" for name, dim in view.space.dimensions.items())
    sampler = f" with {view.strategy['sampler']}" if view.strategy.get("sampler") else ""
    budget = view.budget.describe() or "no limit"
    goal = "highest" if view.metric.goal == "max" else "lowest"
    beside = f" and the best trade-offs with {', '.join(map(str, view.objectives))}," if view.objectives else ""
    return (
        f"Searched {plain(names)} for the {goal} {plain(view.metric.name)}{plain(beside)}"
        f" by {plain(str(view.strategy.get('name')))}{plain(sampler)}, seed {view.seed}. Budget: {budget}."
    )


def statuses_text(view: StudyView) -> str:
    """Runs by status, the most frequent status first."""
    counts = Counter(view.status(run) for run in view.tree)
    total = f"{len(view.tree)} run{'s' if len(view.tree) != 1 else ''}"
    return total + (f": {', '.join(f'{n} {status}' for status, n in counts.most_common())}." if counts else ".")


def estimate_text(metric: str, estimate: Estimate | None) -> str:
    """A held-back result with its interval and the number of samples that it rests on."""
    if estimate is None:
        return "none"
    interval = f"{score(metric, estimate.low)} to {score(metric, estimate.high)}"
    return f"{score(metric, estimate.value)} ({interval}), n = {estimate.num_samples:,}"


def cost_rows(costs: Sequence[Cost]) -> list[tuple[str, list[str]]]:
    """A row per part of a cost that any of them has: its label, and a text per cost."""
    fields: list[tuple[str, CostField]] = [
        ("device time", "device_seconds"),
        ("wall time", "seconds"),
        ("samples", "samples"),
        ("tokens", "tokens"),
        ("FLOPs", "flops"),
    ]
    rows = [(label, field, [getattr(cost, field) for cost in costs]) for label, field in fields]
    return [
        (label, [amount(field, value).removesuffix(f" {label}") for value in values])
        for label, field, values in rows
        if any(values)
    ]


def _comparison(view: StudyView, best: Run) -> Table:
    baseline = view.baseline
    runs = [best] if baseline is None or baseline.id == best.id else [best, baseline]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for run in runs:
        title = f"Best: {run.id}" if run is best else f"Baseline: {run.id}"
        table.add_column(Text(plain(title)), overflow="fold")
    different = changed(view, best)
    for name in dict.fromkeys(name for run in runs for name in run.hyperparameters):
        style = "bold" if len(runs) == 2 and name in different else ""
        table.add_row(_text(name), *(_text(_value(run, name), style=style) for run in runs))
    name = view.metric.name
    cells = [score(name, result(run, view.metric)) for run in runs]
    table.add_row(_text(f"validation {name}"), *map(_text, cells))
    if view.tests:
        table.add_row(_text(f"test {name} (95%)"), *(_text(estimate_text(name, view.test(run))) for run in runs))
    for label, texts in cost_rows([view.ledger.of(run.id) for run in runs]):
        table.add_row(label, *texts)
    return table


def _top(view: StudyView) -> Table:
    table = Table(title=f"Top {min(NUM_TOP, len(view.ranked()))} runs", title_justify="left", box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("validation", justify="right", no_wrap=True)
    table.add_column("hyperparameters", ratio=1)
    table.add_column("cost", justify="right", no_wrap=True)
    for run in view.ranked()[:NUM_TOP]:
        marks = " (baseline)" if run.origin == "baseline" else ""
        table.add_row(
            _text(run.id + marks),
            score(view.metric.name, result(run, view.metric)),
            _text(hyperparameters_text({n: run.hyperparameters[n] for n in _searched(view, run)})),
            main_cost(view.ledger.of(run.id)),
        )
    return table


def _confirmation(view: StudyView, groups: Sequence[Confirmed]) -> Table:
    table = Table(title="Configurations over seeds", title_justify="left", box=None, pad_edge=False)
    for heading in ("runs", "seeds", f"mean {view.metric.name} (95%)", "hyperparameters"):
        table.add_column(_text(heading), justify="right" if heading == "seeds" else "left")
    for group in groups[:NUM_TOP]:
        searched = {n: v for n, v in group.hyperparameters.items() if n not in view.space.fixed}
        texts = (", ".join(group.runs), str(len(group.seeds)), mean_text(group, view.metric))
        table.add_row(*map(_text, (*texts, hyperparameters_text(searched))))
    return table


def _front(view: StudyView, runs: Sequence[Run]) -> Table:
    table = Table(title="Best trade-offs", title_justify="left", box=None, pad_edge=False)
    metrics, values = (view.metric, *view.objectives), objective_values(view)
    table.add_column("run", no_wrap=True)
    for metric in metrics:
        table.add_column(_text(metric.name), justify="right", no_wrap=True)
    table.add_column("hyperparameters", ratio=1)
    for run in runs[:NUM_FRONT]:
        cells = [value_text(view, m, v) for m, v in zip(metrics, values[run.id], strict=True)]
        searched = {n: run.hyperparameters[n] for n in _searched(view, run)}
        table.add_row(*map(_text, (run.id, *cells, hyperparameters_text(searched))))
    if len(runs) > NUM_FRONT:
        table.caption = f"The {NUM_FRONT} with the best {plain(view.metric.name)} of {len(runs)}; --json has all."
    return table


def _searched(view: StudyView, run: Run) -> list[str]:
    """Names that can differ between runs: what is fixed for all is not repeated."""
    return [name for name in run.hyperparameters if name not in view.space.fixed]


def _costs(view: StudyView) -> Table:
    kinds = view.ledger.by_kind()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("spent on", "device", "tokens", "FLOPs"):
        table.add_column(column, justify="left" if column == "spent on" else "right")
    rows: list[tuple[str, Cost]] = [(kind, kinds[kind]) for kind in SPEND_KINDS if kinds[kind] != Cost()]
    for label, cost in [*rows, ("the whole search", view.total_cost)]:
        _cost_row(table, label, cost, style="bold" if label == "the whole search" else "")
    if view.lost() != Cost():
        _cost_row(table, "of it by failed and diverged runs", view.lost())
    if view.ledger.wall_seconds:
        table.add_row("wall time", duration(view.ledger.wall_seconds), "", "")
    return table


def _cost_row(table: Table, label: str, cost: Cost, style: str = "") -> None:
    device = amount("device_seconds", cost.device_seconds).replace("device-minutes", "min").replace("device-hours", "h")
    table.add_row(label, device, amount("tokens", cost.tokens).split(" token")[0], number(cost.flops), style=style)


def main_cost(cost: Cost) -> str:
    """The part of a cost that says most: device time, or what there is."""
    if cost.device_seconds or not (cost.seconds or cost.flops or cost.tokens):
        return amount("device_seconds", cost.device_seconds)
    return cost_text(cost).split(", ")[0]


def _failures(view: StudyView) -> Sequence[RenderableType]:
    failed = [run for run in view.tree if run.status in ("failed", "diverged")]
    lines = [Text(f"{plain(run.id)} {run.status}: {first_line(run.error)}") for run in failed[:NUM_FAILURES]]
    if len(failed) > NUM_FAILURES:
        lines.append(Text(f"... and {len(failed) - NUM_FAILURES} more."))
    return lines


def _value(run: Run, name: str) -> str:
    return number(run.hyperparameters[name]) if name in run.hyperparameters else "-"


def _text(text: str, style: str = "") -> Text:
    # A string would be read as rich's markup.
    return Text(plain(text), style=style)
