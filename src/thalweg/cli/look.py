"""`thalweg runs`, `thalweg show` and `thalweg report`: look at what happened."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, RunArgument, StoreOption, StudyArgument, open_store, print_json

if TYPE_CHECKING:
    from thalweg.track.store import Store
    from thalweg.tree import Run


def runs(
    study: Annotated[str | None, typer.Argument(help="A study's name; by default all studies.")] = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """List runs: hyperparameters, where they stand, their result.

    Example: thalweg runs imdb
    """
    from rich.console import Console

    from thalweg.report.run_table import run_table
    from thalweg.report.view import read_view

    with open_store(store) as opened:
        names = [study] if study is not None else [record.name for record in opened.studies()]
        views = [read_view(opened, name) for name in names]
        if json:
            print_json({view.name: [_run_dict(opened, run) for run in view.tree] for view in views})
            return
        for view in views:
            Console().print(run_table(view))


def show(run: RunArgument, store: StoreOption = DEFAULT, json: JsonOption = False) -> None:
    """Show all about one run: its lineage, evaluations, checkpoints, cost, and error.

    Example: thalweg show imdb-7
    """
    from rich.console import Console

    from thalweg.report.run_table import run_details
    from thalweg.report.view import read_view

    with open_store(store) as opened:
        known = opened.read_run(run)
        view = read_view(opened, opened.run_study(run))
        checkpoints = opened.checkpoints(run)
        if json:
            found = {
                **_run_dict(opened, known),
                "lineage": [ancestor.id for ancestor in view.tree.lineage(run)],
                "checkpoints": [dataclasses.asdict(record) for record in checkpoints],
                "cost": {kind: dataclasses.asdict(cost) for kind, cost in view.ledger.spent.get(run, {}).items()},
                "metrics": opened.metrics(run),
            }
            print_json(found)
            return
        Console().print(run_details(view, run, [(record.position, record.num_bytes) for record in checkpoints]))


def report(
    study: StudyArgument,
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("report.html"),
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Print a study's summary and write its report as one self-contained page.

    Example: thalweg report imdb --out report.html
    """
    from rich.console import Console

    from thalweg.report.page import write_report
    from thalweg.report.summary import summary, summary_dict
    from thalweg.report.view import read_view

    with open_store(store) as opened:
        view = read_view(opened, study)
        written = write_report(opened, study, out)
    if json:
        print_json({**summary_dict(view), "report": str(written)})
        return
    Console().print(summary(view))
    print(f"Report: {written}")


def _run_dict(store: Store, run: Run) -> dict[str, Any]:
    crashed = run.status == "running" and not store.run_times(run.id).live
    entry = dataclasses.asdict(run)
    return {**entry, "status": "crashed" if crashed else run.status}
