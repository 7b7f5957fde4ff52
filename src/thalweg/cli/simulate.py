"""`thalweg simulate`: which strategy suits a study's space and budget, found by simulated studies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, StoreOption, open_store, print_json
from thalweg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from thalweg.comparison import Comparison
    from thalweg.scaling.response import Response
    from thalweg.study import Study

_USUAL = ("auto", "lr_race", "halving", "tpe", "random")
"""Strategies that are compared unless others are named, as far as they exist, beside the study's own."""
_MIN_RUNS = 8
"""A surrogate of fewer runs would say little."""
_NUM_NEIGHBOURS = 3
_NUM_POINTS = 60
"""Points of each curve in the chart."""


def simulate(
    file: Annotated[Path, typer.Argument(help="A study file in TOML.", metavar="FILE")],
    strategies: Annotated[
        str | None, typer.Option(help="Names with commas between; by default the study's own and the usual ones.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Simulated studies of each strategy and budget.")] = 20,
    budgets: Annotated[str, typer.Option(help="Budgets, each the cost of so many whole runs.")] = "5,10,20 runs",
    workers: Annotated[int | None, typer.Option(help="Workers; by default the study's, or one.")] = None,
    from_study: Annotated[
        str | None, typer.Option("--from", metavar="STUDY", help="Learn from this study's runs in the store.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Look up in a CSV: hyperparameters, the metric, maybe position and seed.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="Write a picture: .png, .svg or .html.")] = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Compare strategies on the study in FILE without training anything.

    Regret 0 is the best known, 1 what a random run reaches. See docs/simulate.md for what the studies are simulated on.

    Example: thalweg simulate examples/imdb.toml --budgets "5,10,20 runs"
    """
    import dataclasses

    from thalweg.cli import study_file
    from thalweg.comparison import compare

    study, _ = study_file.read(file)
    if workers is not None:
        study = dataclasses.replace(study, workers=workers)
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} must be at least 1; 20 is usual")
    if chart is not None:
        _check_chart(chart)
    amounts, chosen = _parse_budgets(budgets), _parse_strategies(strategies, study)
    response, about, notes = _response(study, from_study, table, store)
    with _progress(len(chosen) * len(amounts) * seeds, quiet=json) as advance:
        comparison = compare(study, chosen, amounts, range(seeds), response, on_progress=advance)
    notes += list(comparison.notes)
    notes += [f"{name} was left out: {reason}" for name, reason in comparison.refused.items()]
    if chart is not None:
        from thalweg.report.chart import write_charts

        write_charts([_chart(comparison)], chart)
    if json:
        print_json(_as_dict(comparison, about, notes, chart))
        return
    _print(comparison, about, notes, num_workers=study.workers or 1)
    if chart is not None:
        typer.echo(f"Picture: {chart}")


def _parse_budgets(text: str) -> list[float]:
    """`5,10,20 runs` -> 5, 10, 20."""
    amounts = []
    for part in text.split(","):
        word = part.strip().removesuffix("runs").removesuffix("run").strip()
        try:
            amount = float(word)
        except ValueError:
            raise ConfigError(
                f"--budgets {text!r}: {part.strip()!r} is not a number of whole runs; for example '5,10,20 runs'"
            ) from None
        if not 1 <= amount < math.inf:
            raise ConfigError(f"--budgets {text!r}: {part.strip()!r} must be at least one whole run")
        amounts.append(amount)
    return sorted(set(amounts))


def _parse_strategies(text: str | None, study: Study) -> list[Mapping[str, Any]]:
    """Names with the options that the study file has for its own."""
    from thalweg.search import STRATEGIES

    own = str(study.strategy["name"])
    if text is None:
        names = [own, *(name for name in _USUAL if name in STRATEGIES and name != own)]
    else:
        names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in STRATEGIES:
            raise ConfigError(f"--strategies: unknown strategy {name!r}. {nearest(name, STRATEGIES)}")
    if not names:
        raise ConfigError("--strategies is empty; for example 'halving,tpe,random'")
    return [study.strategy if name == own else {"name": name} for name in names]


def _check_chart(path: Path) -> None:
    """Refuse what cannot be written before anything is computed."""
    if path.suffix not in (".png", ".svg", ".html"):
        raise ConfigError(f"--chart {path}: a chart is written as .png, .svg or .html")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--chart {path}: there is no folder {path.absolute().parent}")


def _response(
    study: Study, from_study: str | None, table: Path | None, store: str
) -> tuple[Callable[[int], Response], str, list[str]]:
    """What the studies are simulated on, by seed; what that is, and what was assumed."""
    from thalweg.scaling.response import measured, synthetic

    if from_study is not None and table is not None:
        raise ConfigError("--from and --table both say what to simulate on; give one of them")
    notes: list[str] = []
    if table is not None:
        from thalweg.cli.response_table import read_table

        configurations, notes = read_table(table, study.space, study.metric)
        about = f"the nearest of {len(configurations):,} configurations in {table}"
        looked_up = measured(study.space, study.metric, configurations, about=about)
        return lambda _seed: looked_up, about, notes
    if from_study is not None:
        from thalweg.cli.response_table import read_runs

        with open_store(store) as opened:
            configurations = read_runs(opened, from_study, study.metric)
        if len(configurations) < _MIN_RUNS:
            raise ConfigError(
                f"study {from_study!r} has {len(configurations)} finished or diverged runs that report"
                f" {study.metric.name}; at least {_MIN_RUNS} are needed to simulate on"
            )
        about = f"the {_NUM_NEIGHBOURS} nearest of {len(configurations)} runs of {from_study}"
        learnt = measured(study.space, study.metric, configurations, num_neighbours=_NUM_NEIGHBOURS, about=about)
        notes = [
            "runs of one study say little about places where it has none: differences count only where they are large"
        ]
        return lambda _seed: learnt, about, notes
    return (
        lambda seed: synthetic(study.space, study.metric, seed),
        "made-up surfaces that look like the training of language models, another one for each seed",
        ["the surfaces are not yours: --from STUDY learns from your own runs, --table FILE.csv takes measured ones"],
    )


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; gives what moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("simulating studies"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _print(comparison: Comparison, about: str, notes: Sequence[str], *, num_workers: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    many = "" if num_workers == 1 else f", {num_workers} workers"
    console.print(f"Simulated on {about}; {len(comparison.seeds)} seeds{many}.", markup=False)
    table = Table(
        box=SIMPLE_HEAD,
        title="Regret by budget, in whole runs: median (quartiles)",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("strategy")
    for budget in comparison.budgets:
        table.add_column(f"{budget:g} run{'s' if budget != 1 else ''}", justify="right", no_wrap=True)
    table.add_column("mean rank", justify="right")
    for name in sorted(comparison.strategies, key=comparison.mean_rank):
        cells = [_cell(comparison.quartiles(name, budget)) for budget in comparison.budgets]
        table.add_row(name, *cells, f"{comparison.mean_rank(name):.2f}")
    console.print(table)
    console.print("Regret 0 is the best known, 1 what a random run reaches (median).", markup=False)
    for note in notes:
        console.print(f"Note: {note}.", markup=False)
    console.print(comparison.advice(), markup=False)


def _cell(quartiles: tuple[float, float, float]) -> str:
    low, median, high = (f"{value:.2f}" if math.isfinite(value) else "none" for value in quartiles)
    return f"{median} ({low}-{high})"


def _chart(comparison: Comparison) -> Any:
    """The median regret of what each strategy calls best, against what was spent, at the largest budget."""
    from thalweg.report.chart import Chart, Line

    largest = comparison.budgets[-1]
    places = [largest * (i + 1) / _NUM_POINTS for i in range(_NUM_POINTS)]
    lines = []
    for name in sorted(comparison.strategies, key=comparison.mean_rank):
        studies = [o.steps for o in comparison.outcomes if (o.strategy, o.budget) == (name, largest)]
        curve = [_median([_at(steps, place) for steps in studies]) for place in places]
        lines.append(Line(name=name, x=places, y=curve))
    return Chart(
        title=f"Simulated studies with a budget of {largest:g} whole runs, median of {len(comparison.seeds)} seeds",
        x_label="spent, in whole runs",
        y_label="regret",
        lines=lines,
    )


def _at(steps: Sequence[tuple[float, float]], spent: float) -> float:
    """The regret of what was called best when so much was spent; infinite before anything was."""
    return next((regret for at, regret in reversed(steps) if at <= spent * (1 + 1e-9)), math.inf)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else (low + high) / 2


def _as_dict(comparison: Comparison, about: str, notes: Sequence[str], chart: Path | None) -> dict[str, Any]:
    results = []
    for name in comparison.strategies:
        for budget in comparison.budgets:
            low, median, high = comparison.quartiles(name, budget)
            regrets = comparison.regrets(name, budget)
            results.append(
                {
                    "strategy": name,
                    "budget_whole_runs": budget,
                    "median_regret": median,
                    "quartile_regrets": [low, high],
                    "num_without_finished_run": sum(map(math.isinf, regrets)),
                    "regrets": regrets,
                }
            )
    return {
        "simulated_on": about,
        "num_seeds": len(comparison.seeds),
        "results": results,
        "mean_ranks": {name: comparison.mean_rank(name) for name in comparison.strategies},
        "refused": dict(comparison.refused),
        "notes": list(notes),
        "advice": comparison.advice(),
        "chart": None if chart is None else str(chart),
    }
