"""`thalweg replay`: the schedule of hyperparameters that a run's lineage went through, shown and trained again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, RunArgument, StoreOption, open_store, print_json
from thalweg.errors import ConfigError

if TYPE_CHECKING:
    from thalweg.replay import Stretch
    from thalweg.study import Study
    from thalweg.tree import Run, Tree


def replay(
    run: RunArgument,
    seed: Annotated[int | None, typer.Option(help="Of the replay; by default the run's, for the same again.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the schedule and train nothing.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write the schedule: .toml or .json.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw the schedule: .png, .svg or .html.")] = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Train the schedule of hyperparameters that a run's lineage went through, from scratch.

    Population-based training finds such schedules: each fork changes some hyperparameters in the middle of a run. With
    the run's own seed the replay is the same training again; with another one it shows what the schedule is worth. It
    is trained now, beyond the study's budget.

    Example: thalweg replay pbt-23 --seed 1 --chart schedule.png
    """
    from rich.console import Console

    from thalweg import replay as replaying
    from thalweg.cli import study_file
    from thalweg.report.chart import write_charts
    from thalweg.report.lineage_schedule import schedule_charts, schedule_table

    with open_store(store) as opened:
        name = opened.run_study(run)
        record = opened.study(name)
        if record.kind == "project":
            raise ConfigError(f"run {run} is tracked by a script of yours, which alone can train it again")
        tree = opened.read_tree(name)
        unit = str(record.config["unit"])
    stretches = replaying.schedule(tree, run)
    names = replaying.changes(stretches)
    steps = [(stretch.start, stretch.end, stretch.hyperparameters) for stretch in stretches]
    if export is not None:
        replaying.export(export, tree[run], unit, stretches)
    if chart is not None:
        charts = schedule_charts(steps, names, run=run, unit=unit)
        if not charts:
            raise ConfigError(f"no number changes on the way of {run}, so there is no schedule to draw")
        write_charts(charts, chart)
    console = Console(highlight=False)
    if not json:
        _print_head(run, tree, stretches)
        if names:
            console.print(schedule_table(steps, names, unit=unit))
        for written in (export, chart):
            if written is not None:
                console.print(f"Written: {written}", markup=False)
    made: list[Run] = []
    if not show:
        study = study_file.from_config(record.config, name)
        made = _train(run, study, store, seed, json)
    if json:
        facts = [dataclasses.asdict(stretch) for stretch in stretches]
        print_json({"run": run, "unit": unit, "stretches": facts, "replay": [each.id for each in made]})
    elif made:
        _print_outcome(tree[run], made[-1], study)


def _train(run: str, study: Study, store: str, seed: int | None, json: bool) -> list[Run]:
    from thalweg.replay import replay as train_again

    try:
        return train_again(run, study, store, seed=seed, quiet=json)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None


def _print_head(run: str, tree: Tree, stretches: list[Stretch]) -> None:
    line = " > ".join(each.id for each in tree.lineage(run))
    count = f"{len(stretches)} stretches" if len(stretches) > 1 else "the same hyperparameters throughout"
    print(f"{run}: {line}; {count}")


def _print_outcome(original: Run, replayed: Run, study: Study) -> None:
    metric = study.metric.name

    def value(run: Run) -> str:
        found = run.reports[-1].metrics.get(metric) if run.reports else None
        return "nothing" if found is None else f"{found:.6g}"

    seeds = "the same seed" if original.seed == replayed.seed else f"seed {replayed.seed} for {original.seed}"
    print(
        f"{replayed.id} replays {original.id} with {seeds}: {metric} {value(replayed)} at {replayed.position:,},"
        f" where {original.id} has {value(original)}"
    )
