"""`thalweg landscape`: the loss along the straight line between two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, StoreOption, complete_runs, open_store, print_json
from thalweg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from thalweg.scaling.landscape import LineShape
    from thalweg.space import Hyperparameters
    from thalweg.track.store import Store
    from thalweg.trainer import Trainer

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_HELP = "A run and a position, such as imdb-7@2000; without @ its newest checkpoint."


@dataclass(frozen=True)
class End:
    """One end of the line."""

    run: str
    position: int
    hyperparameters: Hyperparameters
    weights: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.run}@{self.position}"


def landscape(
    a: Annotated[str, typer.Argument(help=_HELP, metavar="RUN_A@P", autocompletion=complete_runs)],
    b: Annotated[str, typer.Argument(help=_HELP, metavar="RUN_B@Q", autocompletion=complete_runs)],
    points: Annotated[int, typer.Option(help="Points from A to B, both included.")] = 11,
    beyond: Annotated[float, typer.Option(help="How far past A and B to go, in lengths of the line.")] = 0.25,
    split: Annotated[str, typer.Option(help="What to evaluate on: train, validation or test.")] = "validation",
    out: Annotated[Path | None, typer.Option(help="Write a picture: .png, .svg or .html.")] = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Evaluate the loss on the line between two checkpoints: are they in one valley, and is one further down?

    Example: thalweg landscape wsd-0@1000000 wsd-0@2000000 --out landscape.png
    """
    from rich.console import Console

    from thalweg.report.chart import chart_text, write_charts
    from thalweg.report.landscape_chart import landscape_chart
    from thalweg.scaling.landscape import line_shape, places

    if split not in SPLITS:
        raise ConfigError(f"--split {split!r} is not known. {nearest(split, SPLITS)}")
    alphas = places(points, beyond)
    with open_store(store) as opened:
        trainer = _trainer(opened, _split_name(a)[0])
        ends = (_read_end(opened, a), _read_end(opened, b))
    _check_same_model(*ends)
    losses, metric = _evaluate(trainer, ends, alphas, split, quiet=json)
    shape = line_shape(alphas, losses)
    chart = landscape_chart(alphas, losses, ends=(str(ends[0]), str(ends[1])), metric=f"{split} {metric}")
    if out is not None:
        write_charts([chart], out)
    if json:
        print_json(_as_dict(shape, ends, alphas, losses, f"{split} {metric}", out))
        return
    console = Console(highlight=False)
    typer.echo(chart_text(chart, width=min(console.width, 100)))
    console.print(f"A is {ends[0]}, B is {ends[1]}. {shape.text}", markup=False)
    if out is not None:
        typer.echo(f"Picture: {out}")


def _split_name(text: str) -> tuple[str, int | None]:
    """`imdb-7@2000` -> the run and the position."""
    run, at, position = text.partition("@")
    if not at:
        return run, None
    try:
        return run, int(position.replace(",", "").replace("_", ""))
    except ValueError:
        raise ConfigError(
            f"{text!r}: the position after @ must be a whole number, such as {run or 'imdb-7'}@2000"
        ) from None


def _trainer(store: Store, run: str) -> Trainer:
    """The trainer of a run's study, from the file that the study was read from."""
    from thalweg.cli import study_file

    name = store.run_study(run)
    trainer = study_file.from_config(store.study(name).config, name).trainer
    if not hasattr(trainer, "evaluate_weights"):
        raise ConfigError(
            f"run {run}: its trainer, {type(trainer).__name__}, cannot evaluate weights that no run has;"
            " fine-tuning and pre-training can"
        )
    return trainer


def _read_end(store: Store, text: str) -> End:
    """A checkpoint's weights.

    Raises:
        ConfigError: no such checkpoint, or one without weights; the message lists those that there are.
    """
    from thalweg.train import checkpoint
    from thalweg.worker import fork_point

    name, position = _split_name(text)
    run = store.read_run(name)
    if position is None:
        own = store.checkpoints(name)
        position = own[-1].position if own else run.fork_position
    record = fork_point(store, name, position)
    state = checkpoint.read(Path(record.folder), record.digest)
    weights = state.get("model")
    if not isinstance(weights, Mapping):
        raise ConfigError(f"the checkpoint {name}@{position} holds no model weights")
    return End(name, position, run.hyperparameters, weights)


def _check_same_model(a: End, b: End) -> None:
    """Refuse two ends between which there is no line."""
    from thalweg.scaling.landscape import check_same_shapes

    if (a.run, a.position) == (b.run, b.position):
        raise ConfigError(f"{a} and {b} are the same checkpoint: there is no line between them")
    check_same_shapes(a.weights, b.weights)
    name = "lora_alpha"
    scales = [end.hyperparameters.get(name) for end in (a, b)]
    if scales[0] != scales[1]:
        raise ConfigError(
            f"{a} has {name} = {scales[0]} and {b} has {scales[1]}: the same adapter weights mean different models,"
            " so there is no line between the two"
        )


def _evaluate(
    trainer: Any, ends: tuple[End, End], alphas: list[float], split: str, *, quiet: bool
) -> tuple[list[float], str]:
    """The loss at each place, and what it is called."""
    from rich.console import Console
    from rich.progress import Progress

    from thalweg.scaling.landscape import mix

    losses = []
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("loading the model and the data", total=None)
        trainer.setup()
        progress.update(task, description=f"evaluating from {ends[0]} to {ends[1]}", total=len(alphas))
        for alpha in alphas:
            weights = mix(ends[0].weights, ends[1].weights, alpha)
            metrics = trainer.evaluate_weights(weights, hyperparameters=ends[0].hyperparameters, split=split)
            if "loss" not in metrics:
                raise ConfigError(f"the trainer's evaluation gives no loss, only {', '.join(metrics) or 'nothing'}")
            losses.append(float(metrics["loss"]))
            progress.advance(task)
    return losses, "loss"


def _as_dict(
    shape: LineShape, ends: tuple[End, End], alphas: list[float], losses: list[float], metric: str, out: Path | None
) -> dict[str, Any]:
    import dataclasses

    return {
        "a": str(ends[0]),
        "b": str(ends[1]),
        "metric": metric,
        "alphas": alphas,
        "losses": losses,
        **dataclasses.asdict(shape),
        "out": None if out is None else str(out),
    }
