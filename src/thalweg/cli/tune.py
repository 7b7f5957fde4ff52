"""`thalweg tune` and `thalweg resume`: run a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, StoreOption, StudyArgument, open_store, print_json

if TYPE_CHECKING:
    from thalweg.study import Study

ReportOption = Annotated[Path, typer.Option("--report", help="Where the report goes.")]


def tune(
    file: Annotated[Path, typer.Argument(help="A study file in TOML.", metavar="FILE")],
    warm_start: Annotated[
        list[str] | None,
        typer.Option(
            "--warm-start",
            metavar="STUDY",
            help="An earlier study to learn from, or STORE:STUDY; repeat it, or give several with commas between.",
        ),
    ] = None,
    report: ReportOption = Path("report.html"),
    json: JsonOption = False,
) -> None:
    """Run the study in FILE, or go on with it where it stopped.

    Example: thalweg tune examples/imdb.toml
    """
    from thalweg.cli import study_file

    study, location = study_file.read(file, warm_start=warm_start)
    _run(study, location, report, json)


def resume(
    study: StudyArgument,
    budget: Annotated[str | None, typer.Option(help="A new budget in all, such as '30 min, 20 runs'.")] = None,
    report: ReportOption = Path("report.html"),
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Go on with a study where it stopped, with a larger budget if you like.

    Example: thalweg resume imdb --budget "30 min"
    """
    import dataclasses

    from thalweg.budget import Budget
    from thalweg.cli import study_file

    with open_store(store, read_only=budget is None) as opened:
        record = opened.study(study)
        known = study_file.from_config(record.config, study)
        limits = Budget(**record.config["budget"]) if budget is None else Budget.parse(budget)
        if budget is not None:
            opened.update_study(study, {**record.config, "budget": limits.limits()})
    _run(dataclasses.replace(known, budget=limits), store, report, json)


def _run(study: Study, location: str, report: Path, json: bool) -> None:
    from rich.console import Console

    from thalweg.report.summary import summary, summary_dict
    from thalweg.study import run_study

    try:
        result = run_study(study, location, quiet=json)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None
    written = result.report(report)
    if json:
        print_json({**summary_dict(result.view), "report": str(written)})
        return
    console = Console()
    console.print(summary(result.view))
    console.print(f"Report: {written}", highlight=False)
