"""The progress of a running study: a live display on a terminal, a line per event anywhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thalweg.budget import Budget, Ledger
from thalweg.report.wording import duration, first_line, hyperparameters_text, plain, result, score
from thalweg.tree import Metric, Run, Tree, Unit

Positions = Mapping[str, tuple[int, Mapping[str, float]]]
"""Run id -> the position that its worker has reached, and the latest value of each metric there."""

NUM_EVENTS = 4
NUM_ACTIVE = 8
"""Rows of active runs; more are counted in a line."""


class Progress:
    """Shows what a study is doing. Use it as a context manager, and call `update` as often as there is news."""

    def __init__(
        self,
        study: str,
        metric: Metric,
        unit: Unit,
        budget: Budget,
        *,
        console: Console | None = None,
        quiet: bool = False,
    ) -> None:
        """
        Args:
            budget: what its bars run to.
            console: where to; stdout by default. A console that is no terminal gets a line per event.
            quiet: show nothing at all.
        """
        self._study, self._metric, self._unit, self._budget = study, metric, unit, budget
        self._console = console or Console()
        self._quiet = quiet
        self._before: dict[str, Run] | None = None
        self._events: deque[str] = deque(maxlen=NUM_EVENTS)
        live = self._console.is_terminal and not quiet
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def update(self, tree: Tree, ledger: Ledger, positions: Positions, message: str | None = None) -> None:
        """Show the study as it stands.

        Args:
            positions: of the active runs; the tree's own positions stand where one is missing.
            message: something to tell besides the events, which are found by comparing with the tree of the last call.
        """
        # What a resumed study did in earlier sessions is no news.
        before = self._before if self._before is not None else {run.id: run for run in tree if not _is_new(run)}
        news = [*events(before, tree, self._metric, self._unit), *([plain(message)] if message else [])]
        self._before = dict(tree.runs)
        self._events.extend(news)
        if self._quiet:
            return
        if self._live:
            self._live.update(self.render(tree, ledger, positions), refresh=True)
            return
        for line in news:
            self._console.print(Text(f"[{duration(ledger.wall_seconds)}] {line}"), soft_wrap=True)

    def render(self, tree: Tree, ledger: Ledger, positions: Positions) -> RenderableType:
        """The display, for a terminal of 80 columns or more."""
        active = tree.active()
        rows = Table.grid(padding=(0, 1), expand=False)
        for width in (14, 14, 5, 17, 24):
            rows.add_column(width=width, no_wrap=True, overflow="ellipsis")
        for run in active[:NUM_ACTIVE]:
            self._row(rows, run, *positions.get(run.id, (run.position, {})))
        more = [Text(f"... and {len(active) - NUM_ACTIVE} more", style="dim")] if len(active) > NUM_ACTIVE else []
        return Group(self._bars(ledger), rows, *more, self._best(tree), *(_line(e, "dim") for e in self._events))

    def _bars(self, ledger: Ledger) -> RenderableType:
        left = self._budget.left(ledger).amounts
        header = Table.grid(padding=(0, 1))
        for width in (24, 20, 34):
            header.add_column(width=width, no_wrap=True, overflow="ellipsis")
        header.add_row(_line(self._study, "bold"), "", f"{duration(ledger.wall_seconds)}, {ledger.num_runs} runs")
        for name, limit in self._budget.limits().items():
            used = limit - left[name]
            one = Budget(**{name: limit})  # type: ignore[arg-type]
            bar = ProgressBar(total=limit, completed=used, width=20)
            header.add_row(f"budget: {name.replace('_', '-')}", bar, f"{used / limit:.0%} of {one.describe()}")
        return header

    def _row(self, rows: Table, run: Run, position: int, metrics: Mapping[str, float]) -> None:
        length = max(run.until - run.fork_position, 1)
        done = min(max(position - run.fork_position, 0), length)
        loss = next((metrics[name] for name in ("train/loss", "loss") if name in metrics), None)
        rows.add_row(
            _line(run.id),
            ProgressBar(total=length, completed=done, width=14),
            f"{done / length:.0%}".rjust(4),
            f"loss {score('loss', loss)}" if loss is not None else run.status if position == run.fork_position else "",
            _line(hyperparameters_text(run.hyperparameters), "dim"),
        )

    def _best(self, tree: Tree) -> Text:
        best = tree.best(self._metric)
        if best is None:
            return Text("no finished run yet")
        reached = f"{self._metric.name} {score(self._metric.name, result(best, self._metric))}"
        return _line(f"best so far: {best.id}, {reached} ({hyperparameters_text(best.hyperparameters)})", "bold")


def events(before: Mapping[str, Run], tree: Tree, metric: Metric, unit: Unit) -> list[str]:
    """What happened between two looks at a tree, in words, a line per event, in order of the runs."""
    return [line for run in tree for line in _events_of(before.get(run.id), run, metric, unit)]


def _events_of(before: Run | None, run: Run, metric: Metric, unit: Unit) -> list[str]:
    name = plain(run.id)
    lines = []
    if (before is None or before.status == "pending") and run.status != "pending":
        fork = f" as a fork of {plain(run.parent)} at {run.fork_position:,}" if run.parent else ""
        lines.append(f"started {name}{fork}: {hyperparameters_text(run.hyperparameters)}")
    elif before is not None and run.until > before.until:
        lines.append(f"promoted {name} from {before.until:,} to {run.until:,} {unit}")
    elif before is not None and before.status == "interrupted" and run.status == "running":
        lines.append(f"resumed {name} at {run.position:,} {unit}")
    num_known = len(before.reports) if before else 0
    reached = [
        f"{name} reached {report.position:,} of {run.horizon:,} {unit}: "
        f"{plain(metric.name)} {score(metric.name, report.metrics.get(metric.name))}"
        for report in run.reports[num_known:]
    ]
    if run.status == (before.status if before else "pending"):
        return lines + reached
    match run.status:
        case "finished":
            lines += reached[:-1]
            lines.append(f"finished {name}: {plain(metric.name)} {score(metric.name, result(run, metric))}")
        case "failed" | "diverged":
            lines += [*reached, f"{run.status} {name} at {run.position:,} {unit}: {first_line(run.error)}"]
        case "stopped" | "interrupted":
            lines += [*reached, f"{run.status} {name} at {run.position:,} {unit}"]
        case _:
            lines += reached
    return lines


def _is_new(run: Run) -> bool:
    return run.position == run.fork_position and not run.ended


def _line(text: str, style: str = "") -> Text:
    return Text(plain(text), style=style, no_wrap=True, overflow="ellipsis")
