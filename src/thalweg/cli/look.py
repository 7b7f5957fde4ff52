"""`thalweg runs`, `thalweg show` and `thalweg report`: look at what happened."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, RunArgument, StoreOption, StudyArgument, open_store, print_json

if TYPE_CHECKING:
    from thalweg.track.records import RunDetails, StudyRecord
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
    from thalweg.report.tracked_table import tracked_table
    from thalweg.report.view import read_view

    with open_store(store) as opened:
        records = [opened.study(study)] if study is not None else opened.studies()
        if json:
            print_json({record.name: _run_dicts(opened, record) for record in records})
            return
        for record in records:
            if record.kind == "project":
                Console().print(tracked_table(record, opened.run_rows(record.name)))
            else:
                Console().print(run_table(read_view(opened, record.name)))


def show(run: RunArgument, store: StoreOption = DEFAULT, json: JsonOption = False) -> None:
    """Show all about one run: its lineage, evaluations, checkpoints, cost, and error.

    Example: thalweg show imdb-7
    """
    from rich.console import Console

    from thalweg.report.run_table import run_details
    from thalweg.report.tracked_table import tracked_details, tracked_dict
    from thalweg.report.view import read_view

    with open_store(store) as opened:
        known = opened.read_run(run)
        study = opened.study(opened.run_study(run))
        if study.kind == "project":
            found = opened.run_details(run)
            metrics = opened.metrics(run)
            if json:
                print_json({**tracked_dict(study, found.row), **_details(study, found), "metrics": metrics})
            else:
                Console().print(tracked_details(study, found, metrics))
            return
        view = read_view(opened, opened.run_study(run))
        checkpoints = opened.checkpoints(run)
        if json:
            shown = {
                **_run_dict(opened, known),
                "lineage": [ancestor.id for ancestor in view.tree.lineage(run)],
                "checkpoints": [dataclasses.asdict(record) for record in checkpoints],
                "cost": {kind: dataclasses.asdict(cost) for kind, cost in view.ledger.spent.get(run, {}).items()},
                "metrics": opened.metrics(run),
            }
            print_json(shown)
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


def _run_dicts(store: Store, record: StudyRecord) -> list[dict[str, Any]]:
    from thalweg.report.tracked_table import tracked_dict

    if record.kind == "project":
        return [tracked_dict(record, row) for row in store.run_rows(record.name)]
    return [_run_dict(store, run) for run in store.read_tree(record.name)]


def _details(project: StudyRecord, found: RunDetails) -> dict[str, Any]:
    from thalweg.track.positions import to_step

    files = [
        {"name": file.name, "step": to_step(file.position, project.decimals), "path": str(file.path), "run": file.run}
        for file in found.files
    ]
    return {
        "lineage": found.lineage,
        "children": found.children,
        "facts": found.facts,
        "notes": [dataclasses.asdict(note) for note in found.notes],
        "files": files,
    }


def _run_dict(store: Store, run: Run) -> dict[str, Any]:
    crashed = run.status == "running" and not store.run_times(run.id).live
    entry = dataclasses.asdict(run)
    return {**entry, "status": "crashed" if crashed else run.status}
