"""`thalweg lr-range`: train once while the learning rate rises, and read from the loss how large it may be."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.arguments import JsonOption, parse_settings, print_json
from thalweg.errors import ConfigError, ThalwegError

if TYPE_CHECKING:
    from thalweg.scaling.lr_range import LRRange
    from thalweg.space import Hyperparameters, Space, Value
    from thalweg.study import Result, Study
    from thalweg.trainer import Trainer

SHARE = 0.1
"""Length of the test as a share of a whole run, where none is given."""
MIN_STEPS = 100
"""Least length, where none is given."""


def lr_range(
    file: Annotated[Path, typer.Argument(help="A study file in TOML.", metavar="FILE")],
    low: Annotated[float, typer.Option("--from", help="The learning rate at the start.")] = 1e-7,
    high: Annotated[float, typer.Option("--to", help="The learning rate at the end.")] = 1.0,
    length: Annotated[
        int | None, typer.Option(help="Length, in the trainer's unit; by default a tenth of a run, at least 100 steps.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A hyperparameter's value; repeat for more.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a picture: .png, .svg or .html.")] = None,
    json: JsonOption = False,
) -> None:
    """Find the range of learning rates to search: train once while the rate rises from --from to --to.

    All else is as in the study file: fixed values, then the baseline's, then the middle of the space. A run that
    diverges is what the test is for. It is recorded in the study's store, as NAME-lr-range-1 and so on.

    Example: thalweg lr-range examples/imdb.toml --from 1e-7 --to 0.1 --out range.png
    """
    from rich.console import Console

    from thalweg.cli import study_file
    from thalweg.report.chart import write_charts
    from thalweg.report.range_chart import range_chart
    from thalweg.study import run_study

    with Console(quiet=json).status("reading the study and its data ..."):
        study, location = study_file.read(file)
        test = range_study(study, location, low=low, high=high, length=length, settings=parse_settings(set_ or []))
    try:
        result = run_study(test, location, quiet=json)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command begins a new test", err=True)
        raise typer.Exit(130) from None
    found = read_result(result)
    chart = range_chart(found, f"{test.name}: loss while the learning rate rises")
    if out is not None:
        write_charts([chart], out)
    run = next(iter(result.tree))
    if json:
        print_json({"study": test.name, "run": run.id, "status": run.status, **_as_dict(found, out)})
        return
    _print(found, run.id, chart, out)


def range_study(
    study: Study, location: str, *, low: float, high: float, length: int | None, settings: Hyperparameters
) -> Study:
    """The test as a study of one run.

    Raises:
        ConfigError: rates that are no range, a length that the trainer cannot have, or an unknown setting.
    """
    from thalweg.budget import Budget
    from thalweg.space import Choice, Space

    if not 0 < low < high < float("inf"):
        raise ConfigError(f"--from {low:g} --to {high:g}: the rates must be above 0, and --from below --to")
    if length is not None and length < 1:
        raise ConfigError(f"--length {length} must be at least 1")
    base = _without(_point(study.space, study.baseline or {}, settings), "lr", "schedule", "floor", "warmup")
    base |= _length(study.trainer, {**base, "lr": high, "schedule": "constant", "warmup": 0.0}, length)
    fixed: dict[str, Value] = {**_without(base, "schedule", "warmup"), "schedule": "lr_range", "floor": low / high}
    return dataclasses.replace(
        study,
        name=_free_name(study.name, location),
        space=Space({"lr": Choice((high,))}, fixed),
        budget=Budget(runs=1),
        strategy={"name": "random"},
        baseline=None,
        workers=1,
        hold_back=False,
        file=None,
    )


def read_result(result: Result) -> LRRange:
    """Judge the run's loss over its learning rate.

    Raises:
        ConfigError: the run logged no loss or no learning rate.
        ThalwegError: it failed.
    """
    from thalweg.report.curve_report import NAMES, read_report
    from thalweg.report.wording import first_line
    from thalweg.scaling.lr_range import read_lr_range
    from thalweg.track.store import Store

    run = next(iter(result.tree))
    if run.status == "failed":
        raise ThalwegError(f"the run {run.id} failed: {first_line(run.error)}; see: thalweg show {run.id}")
    with Store.open(result.store, read_only=True) as store:
        curves = read_report(store, run.id).curves
    loss, rate = curves.training, curves.rate
    if loss is None or rate is None or not len(rate):
        missing = "loss" if loss is None else "learning rate"
        known = NAMES["training" if loss is None else "rate"]
        raise ConfigError(f"run {run.id} logged no {missing}: it is looked for as {', '.join(known)}")
    positions, losses = [*loss.positions, *loss.broken], [*loss.values, *[float("nan")] * len(loss.broken)]
    rates = [rate.at(position) for position in positions]
    if run.status == "diverged" and not len(loss.broken) and len(rate) > 1:
        # The step that broke was not logged; the rates before it tell its own, as they rise by equal factors.
        rates.append(float(rate.values[-1] ** 2 / rate.values[-2]))
        losses.append(float("nan"))
    return read_lr_range(rates, losses)


def _point(space: Space, baseline: Hyperparameters, settings: Hyperparameters) -> dict[str, Value]:
    """One value per hyperparameter: as set, else the baseline's, else the prior or the middle of the space."""
    from thalweg.space import Choice

    chosen: dict[str, Value] = {**space.fixed, **baseline, **settings}
    for name in space.ordered:
        dimension = space.dimensions[name]
        if name not in chosen and space.is_active(name, chosen):
            middle = dimension.options[0] if isinstance(dimension, Choice) else dimension.at(0.5)
            chosen[name] = middle if dimension.prior is None else dimension.prior
    return chosen


def _without(hyperparameters: Hyperparameters, *names: str) -> dict[str, Value]:
    """All but these, by whatever name they are given."""
    from thalweg.train.hyperparameters import ALIASES

    return {given: value for given, value in hyperparameters.items() if ALIASES.get(given, given) not in names}


def _length(trainer: Trainer, hyperparameters: Hyperparameters, length: int | None) -> dict[str, Value]:
    """The changes that give the test its length; none where a run's own is all that the trainer can have."""
    try:
        wanted = length if length is not None else _default_length(trainer, hyperparameters)
        return dict(trainer.extended(hyperparameters, wanted))
    except ConfigError:
        if length is None or length == trainer.horizon(hyperparameters):
            return {}
        raise


def _default_length(trainer: Trainer, hyperparameters: Hyperparameters) -> int:
    horizon = trainer.horizon(hyperparameters)
    return max(1, round(SHARE * horizon), MIN_STEPS * _step_length(trainer, hyperparameters, horizon))


def _step_length(trainer: Trainer, hyperparameters: Hyperparameters, horizon: int) -> int:
    """Positions in a step, found from where the predicted cost rises by a second step; 1 where it tells nothing."""

    def work(until: int) -> float:
        return trainer.cost(hyperparameters, 0, until).tokens

    one_step, low, high = work(1), 1, horizon
    if work(high) <= one_step:
        return 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if work(middle) <= one_step else (low, middle)
    return low


def _free_name(name: str, location: str) -> str:
    from thalweg.track.store import Store

    with Store.open(location) as store:
        taken = {record.name for record in store.studies()}
    return next(free for k in range(1, len(taken) + 2) if (free := f"{name}-lr-range-{k}") not in taken)


def _as_dict(found: LRRange, out: Path | None) -> dict[str, Any]:
    arrays = {"rates": found.rates, "losses": found.losses, "smoothed": found.smoothed}
    return {
        "suggestion": found.suggestion,
        "rule": found.rule,
        "steepest": found.steepest,
        "minimum": found.minimum,
        "diverges": found.diverges,
        **{name: values.tolist() for name, values in arrays.items()},
        "out": None if out is None else str(out),
    }


def _print(found: LRRange, run: str, chart: Any, out: Path | None) -> None:
    from rich.console import Console

    from thalweg.report.chart import chart_text
    from thalweg.report.wording import number

    console = Console(highlight=False)
    typer.echo(chart_text(chart, width=min(console.width, 100)))
    places = {
        "the loss falls most steeply at": found.steepest,
        "it is least at": found.minimum,
        "it diverges at": found.diverges,
    }
    for text, rate in places.items():
        if rate is not None:
            typer.echo(f"  {text:<32}{number(rate)}")
    suggested = "none" if found.suggestion is None else number(found.suggestion)
    console.print(f"Suggested learning rate: {suggested}. {found.rule}", markup=False)
    typer.echo(f"Run: {run}{'' if out is None else f'. Picture: {out}'}")
