"""`thalweg import`: runs of Neptune, TensorBoard, MLflow and Weights & Biases into a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, StoreOption, print_json

if TYPE_CHECKING:
    from thalweg.track.transfer.bring_in import Summary
    from thalweg.track.transfer.incoming import Record, Skipped

app = typer.Typer(
    help="Bring in runs of another tracker. The same again changes nothing; what has grown is added.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ProjectOption = Annotated[
    str | None, typer.Option("--project", help="The project they go into; by default as in the source.")
]

_MOST_SHOWN = 20


@app.command("neptune")
def neptune(
    folder: Annotated[Path, typer.Argument(help="The folder of neptune-exporter: its --data-path, or above it.")],
    files: Annotated[
        Path | None, typer.Option(help="Its --files-path; by default the folder 'files' beside the data.")
    ] = None,
    project: ProjectOption = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Bring in what neptune-exporter wrote, forks included.

    Example: thalweg import neptune exports --project language-models
    """
    from thalweg.track.transfer.read_neptune import read_neptune

    _bring_in(read_neptune(folder, files), project, store, json)


@app.command("tensorboard")
def tensorboard(
    logdir: Annotated[Path, typer.Argument(help="A folder with event files at any depth.")],
    project: ProjectOption = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Bring in TensorBoard's event files: a run for each folder that holds some.

    Example: thalweg import tensorboard runs
    """
    from thalweg.track.transfer.read_tensorboard import read_tensorboard

    _bring_in(read_tensorboard(logdir), project, store, json)


@app.command("mlflow")
def mlflow(
    location: Annotated[str, typer.Argument(help="A folder 'mlruns', a file 'mlflow.db', or a database's URL.")],
    project: ProjectOption = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Bring in an MLflow store: a project for each experiment.

    Example: thalweg import mlflow mlflow.db
    """
    from thalweg.track.transfer.read_mlflow import read_mlflow

    _bring_in(read_mlflow(location), project, store, json)


@app.command("wandb")
def wandb(
    folder: Annotated[Path, typer.Argument(help="A folder 'wandb' with offline-run-* or run-* in it.")],
    project: ProjectOption = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Bring in the runs that Weights & Biases keeps on this machine, offline or not.

    Example: thalweg import wandb wandb
    """
    from thalweg.track.transfer.read_wandb import read_wandb

    _bring_in(read_wandb(folder), project, store, json)


def _bring_in(records: Iterable[Record], project: str | None, location: str, json: bool) -> None:
    from itertools import chain

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from thalweg.track.store import Store
    from thalweg.track.transfer.bring_in import bring_in

    records = iter(records)
    # A source that is not there must not leave an empty store behind.
    first = next(records, None)
    records = records if first is None else chain([first], records)
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        Store.open(location) as store,
        Progress(*columns, console=console, transient=True, disable=json) as progress,
    ):
        task = progress.add_task("importing", total=None)
        summary = bring_in(
            store,
            records,
            project=project,
            progress=lambda done, of: progress.update(task, completed=done, total=of),
        )
    if json:
        print_json(dataclasses.asdict(summary))
        return
    _print(summary, location)


def _print(summary: Summary, location: str) -> None:
    for name, found in summary.projects.items():
        num = len(found.new) + len(found.updated) + len(found.unchanged)
        print(
            f"{name}: {num:,} runs, {len(found.new):,} new, {len(found.updated):,} updated,"
            f" {len(found.unchanged):,} unchanged"
        )
    replaced = (
        f"; {summary.num_replaced:,} were replaced by later ones at the same step" if summary.num_replaced else ""
    )
    print(f"{summary.num_points:,} new points and {summary.num_files:,} new files{replaced}")
    if summary.waiting:
        some = ", ".join(summary.waiting[:5])
        print(f"{len(summary.waiting):,} forks wait for their parent, which has not come yet: {some}")
    if summary.skipped:
        print(f"Not brought in ({len(summary.skipped):,}; all of them: --json):")
        for skipped in summary.skipped[:_MOST_SHOWN]:
            print(f"  {_line(skipped)}")
    where = "" if location == DEFAULT else f" --store {location}"
    for name in list(summary.projects)[:1]:
        print(f"See: thalweg runs {name}{where}")


def _line(skipped: Skipped) -> str:
    return f"{skipped.place}: {skipped.reason}"
