"""`thalweg check-mup`: the coordinate check of muP, drawn and judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.arguments import JsonOption, print_json
from thalweg.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from thalweg.optim.coordinate_check import CoordinateCheck, Coordinates, Verdict
    from thalweg.report.chart import Chart


def check_mup(
    widths: Annotated[
        str, typer.Option(help="Three or more hidden sizes; the smallest is the base.")
    ] = "64,128,256,512",
    layers: Annotated[int, typer.Option(help="Layers of every model.")] = 2,
    lr: Annotated[float, typer.Option(help="Adam's learning rate at the base width; rather large.")] = 0.005,
    steps: Annotated[int, typer.Option(help="Optimizer steps; a few.")] = 4,
    seeds: Annotated[int, typer.Option(help="Models per width, to average over.")] = 3,
    out: Annotated[Path | None, typer.Option(help="A picture or a page: .png, .svg or .html.")] = None,
    json: JsonOption = False,
) -> None:
    """Check that muP makes activations, and how they change in training, independent of width.

    Trains small Llamas of several widths for a few steps, in the standard parametrisation and in muP. The exit code is
    1 if a module depends on width in muP.

    Example: thalweg check-mup --out check.png
    """
    from thalweg.optim.coordinate_check import CoordinateCheck

    check = CoordinateCheck(widths=_numbers(widths), layers=layers, lr=lr, steps=steps, seeds=seeds)
    verdict = _run(check, quiet=json)
    if not json:
        _print(verdict)
    if out is not None:
        from thalweg.report.chart import write_charts

        write_charts(_charts(verdict), out)
    if json:
        print_json({**_verdict_dict(verdict), "out": None if out is None else str(out)})
    elif out is not None:
        print(f"Charts: {out}")
    if not verdict.passed:
        raise typer.Exit(1)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--widths {text!r} must be whole numbers with commas between, such as 64,128,256") from None


def _run(check: CoordinateCheck, *, quiet: bool) -> Verdict:
    from rich.console import Console
    from rich.progress import Progress

    from thalweg.optim.coordinate_check import coordinate_check

    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("training models of each width")
        return coordinate_check(
            check, on_progress=lambda done, total: progress.update(task, completed=done, total=total)
        )


def _print(verdict: Verdict) -> None:
    from rich.console import Console

    from thalweg.optim.coordinate_check import THRESHOLD
    from thalweg.report.chart import chart_text

    console = Console()
    console.print(_table(verdict))
    print(chart_text(_residual_chart(verdict), height=16))
    for finding in verdict.findings:
        if not finding.passed:
            print(f"failed: {finding.sentence}")
    if not verdict.standard_grows:
        print(
            "note: the standard parametrisation looks flat too, so that this check says little; try widths farther"
            " apart, more steps or a larger --lr"
        )
    if verdict.passed:
        print(f"muP is right: every module follows a power of the width of at most {THRESHOLD}.")
    else:
        print(f"muP is broken: a module follows a power of the width of more than {THRESHOLD}.")


def _table(verdict: Verdict) -> Table:
    from rich.table import Table

    last = verdict.check.steps
    table = Table(title="Power of the width (0 is flat)", title_justify="left", box=None, pad_edge=False)
    table.add_column("\n\nmodule", no_wrap=True)
    for which in ("standard", "muP"):
        for what in ("size at\nstep 0", f"size at\nstep {last}", f"change\nby {last}"):
            table.add_column(f"{which}\n{what}", justify="right")
    table.add_column("\n\nmuP is")
    slopes = (verdict.standard.slopes(), verdict.mup.slopes())
    for finding in verdict.findings:
        cells = [finding.module]
        for one in slopes:
            size = one["size"][finding.module]
            change = one["change"].get(finding.module, [None])
            cells += [_power(size[0]), _power(size[-1]), _power(change[-1])]
        table.add_row(*cells, "flat" if finding.passed else "[bold red]FAILED[/]")
    return table


def _power(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _residual_chart(verdict: Verdict) -> Chart:
    from thalweg.report.chart import Chart, Line

    widths = sorted(verdict.check.widths)
    return Chart(
        title=f"Change of the residual stream after {verdict.check.steps} steps",
        x_label="width",
        y_label="mean |change|",
        lines=[
            Line(name=name, x=widths, y=_by_width(measured, measured.change["residual"][-1]))
            for name, measured in (("standard", verdict.standard), ("muP", verdict.mup))
        ],
        log_x=True,
        log_y=True,
    )


def _charts(verdict: Verdict) -> list[Chart]:
    """Both parametrisations: the change of every module over width, then its size."""
    from thalweg.optim.coordinate_check import MODULES
    from thalweg.report.chart import COLOURS, Chart, Line

    widths, steps = sorted(verdict.check.widths), verdict.check.steps
    charts = []
    for what in ("change", "size"):
        for name, measured in (("standard", verdict.standard), ("muP", verdict.mup)):
            values = measured.change if what == "change" else measured.size
            # A line at 0 has no place on a logarithmic axis; a module looks the same in all charts.
            lines = [
                Line(
                    name=module,
                    x=widths,
                    y=_by_width(measured, values[module][-1]),
                    colour=COLOURS[i % len(COLOURS)],
                    dash=i >= len(COLOURS),
                )
                for i, module in enumerate(MODULES)
                if module in values and min(values[module][-1]) > 0
            ]
            title = f"{what.capitalize()} of activations after {steps} steps, {name} parametrisation"
            y_label = "mean |change|" if what == "change" else "mean |activation|"
            charts.append(Chart(title=title, x_label="width", y_label=y_label, lines=lines, log_x=True, log_y=True))
    return charts


def _by_width(measured: Coordinates, values: Any) -> list[float]:
    return [float(value) for _, value in sorted(zip(measured.widths, values, strict=True))]


def _verdict_dict(verdict: Verdict) -> dict[str, Any]:
    import dataclasses

    return {
        "passed": verdict.passed,
        "standard_grows": verdict.standard_grows,
        "check": dataclasses.asdict(verdict.check),
        "findings": [dataclasses.asdict(finding) for finding in verdict.findings],
        "standard": _measured_dict(verdict.standard),
        "mup": _measured_dict(verdict.mup),
    }


def _measured_dict(measured: Coordinates) -> dict[str, Any]:
    return {
        "slopes": measured.slopes(),
        "size": {module: rows.tolist() for module, rows in measured.size.items()},
        "change": {module: rows.tolist() for module, rows in measured.change.items()},
    }
