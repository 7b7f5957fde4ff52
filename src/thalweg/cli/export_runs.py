"""`thalweg export`: a project or study in the files of others."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, StoreOption, StudyArgument, complete_runs, open_store, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from thalweg.track.transfer.write_selection import Exported, Progress, Selection


class Form(StrEnum):
    """What there is to export to."""

    PARQUET = "parquet"
    CSV = "csv"
    MLFLOW = "mlflow"
    TENSORBOARD = "tensorboard"


RunsOption = Annotated[
    list[str] | None, typer.Option("--runs", help="A run; repeat for more.", autocompletion=complete_runs)
]
MetricsOption = Annotated[
    list[str] | None,
    typer.Option("--metrics", help="A metric, or a pattern such as 'train/*'; repeat for more. By default all."),
]
OutOption = Annotated[
    str,
    typer.Option(
        help="A folder. For mlflow also an SQLite file (.db) or a tracking URI, such as http://localhost:5000.",
        show_default=False,
    ),
]


def export(
    project: StudyArgument,
    to: Annotated[Form, typer.Option(help="The format.", show_default=False)],
    out: OutOption,
    runs: RunsOption = None,
    metrics: MetricsOption = None,
    own: Annotated[bool, typer.Option("--own", help="Leave out what forks inherit.")] = False,
    multiply_steps: Annotated[
        int, typer.Option(help="For mlflow and tensorboard, whose steps are whole: what to multiply each step with.")
    ] = 1,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Write a project's or study's runs and curves as Parquet, CSV, MLflow or TensorBoard has them.

    A fork takes the points that it inherits with it. Exporting again replaces what the export before has written;
    MLflow gets only what is new.

    Example: thalweg export imdb --to parquet --out imdb-runs
    """
    from thalweg.track.transfer.write_selection import select

    writer = _writer(to, multiply_steps)
    with open_store(store) as opened:
        selection = select(opened, project, runs=runs, metrics=metrics, inherited=not own)
        exported = _with_progress(selection, lambda progress: writer(selection, out, progress))
    if json:
        print_json(_answer(project, to, exported))
        return
    print(
        f"{_count(exported.runs, 'run')} and {_count(exported.points, 'point')} of"
        f" {_count(len(exported.metrics), 'metric')} of {project} are in {', '.join(exported.files)}"
    )
    for sentence in exported.left_out:
        print(f"  {sentence}")


def _writer(to: Form, multiply: int) -> Callable[[Selection, str, Progress], Exported]:
    from thalweg.errors import ConfigError

    if multiply != 1 and to in (Form.PARQUET, Form.CSV):
        raise ConfigError(f"--multiply-steps {multiply} is not for {to.value}, which keeps every step as it is")
    if to is Form.PARQUET:
        from thalweg.track.transfer.write_parquet import write_parquet

        return write_parquet
    if to is Form.CSV:
        from thalweg.track.transfer.write_csv import write_csv

        return write_csv
    if to is Form.MLFLOW:
        from thalweg.track.transfer.write_mlflow import write_mlflow

        return lambda selection, out, progress: write_mlflow(selection, out, progress, multiply=multiply)
    from thalweg.track.transfer.write_tensorboard import write_tensorboard

    return lambda selection, out, progress: write_tensorboard(selection, out, progress, multiply=multiply)


def _with_progress(selection: Selection, write: Callable[[Progress], Exported]) -> Exported:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("exporting runs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=len(selection.runs))
        return write(lambda done: shown.update(task, completed=done))


def _answer(project: str, to: Form, exported: Exported) -> dict[str, Any]:
    return {
        "project": project,
        "to": to.value,
        "out": exported.files,
        "runs": exported.runs,
        "points": exported.points,
        "metrics": sorted(exported.metrics),
        "left_out": exported.left_out,
    }


def _count(num: int, what: str) -> str:
    return f"{num:,} {what}{'' if num == 1 else 's'}"
