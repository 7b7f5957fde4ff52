"""`thalweg curves`: what a run's curves show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, StoreOption, complete_runs, open_store, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from thalweg.report.curve_report import RunReport
    from thalweg.track.store import Store

RunsArgument = Annotated[
    list[str], typer.Argument(help="Runs, such as imdb-7.", metavar="RUN...", autocompletion=complete_runs)
]
OutOption = Annotated[Path | None, typer.Option(help="Write a picture: .png, .svg or .html.")]


def curves(
    runs: RunsArgument,
    out: OutOption = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Show the curves of runs and what they say: spikes, divergence, plateaus, over-fitting, gradient trouble.

    A fork is shown with its whole lineage.

    Example: thalweg curves imdb-3 imdb-7 --out curves.html
    """
    from rich.console import Console

    from thalweg.report.chart import chart_text, write_charts
    from thalweg.report.curve_report import curve_charts, report_dict, terminal_chart

    with open_store(store) as opened:
        reports = _read(opened, runs)
    if out is not None:
        write_charts(curve_charts(reports), out)
    if json:
        print_json({"runs": [report_dict(report) for report in reports], "out": None if out is None else str(out)})
        return
    console = Console(highlight=False)
    chart = terminal_chart(reports)
    if chart is not None:
        typer.echo(chart_text(chart, width=min(console.width, 100)))
    for report in reports:
        _print_findings(console, report)
    if out is not None:
        console.print(f"Picture: {out}", markup=False)


def _read(store: Store, runs: list[str]) -> list[RunReport]:
    from thalweg.errors import ConfigError
    from thalweg.report.curve_report import NAMES, read_report

    reports = [read_report(store, run) for run in dict.fromkeys(runs)]
    for report in reports:
        curves = report.curves
        if curves.training is None and curves.validation is None:
            logged = ", ".join(store.metrics(report.run)) or "nothing"
            raise ConfigError(
                f"run {report.run} has no loss curve: it logged {logged}."
                f" A loss is looked for as {', '.join(NAMES['training'])}, or {', '.join(NAMES['validation'])}"
            )
    if len({report.curves.unit for report in reports}) > 1:
        units = ", ".join(f"{report.run} in {report.curves.unit}" for report in reports)
        raise ConfigError(f"the runs have different units, and so no common axis: {units}")
    return reports


def _print_findings(console: Console, report: RunReport) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from thalweg.report.wording import plain

    forks = ", ".join(
        f"forked at {position:,.0f} into {child}"
        for child, position in zip(report.lineage[1:], report.curves.forks, strict=True)
    )
    origin = f" ({report.lineage[0]}, {forks})" if forks else ""
    console.print(Text(plain(f"{report.run}{origin}"), style="bold"))
    for finding in report.findings:
        style = {"problem": "red", "warning": "yellow"}.get(finding.severity, "")
        text = Text.assemble((f"{finding.severity}: ", style), plain(finding.text))
        console.print(Padding(text, (0, 0, 0, 2)))
    if not report.findings:
        console.print("  Nothing stands out.")
