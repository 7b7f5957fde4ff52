"""The commands that there are."""

from __future__ import annotations

from typing import Annotated

import typer

from thalweg.cli import (
    check_mup,
    curves,
    export_runs,
    import_runs,
    landscape,
    look,
    lr_range,
    records,
    replay,
    schedule,
    serve,
    simulate,
    steer,
    suggest,
    tune,
)

app = typer.Typer(
    name="thalweg",
    help="Find good hyperparameters for language models within a stated compute budget.",
    epilog="Start with: thalweg tune examples/imdb.toml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"thalweg {version('thalweg')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command("tune")(tune.tune)
app.command("resume")(tune.resume)
app.command("runs")(look.runs)
app.command("show")(look.show)
app.command("report")(look.report)
app.command("curves")(curves.curves)
app.command("lr-range")(lr_range.lr_range)
app.command("landscape")(landscape.landscape)
app.command("check-mup")(check_mup.check_mup)
app.add_typer(schedule.app, name="schedule")
app.add_typer(suggest.app, name="space")
app.command("stop")(steer.stop)
app.command("fork")(steer.fork)
app.command("restart")(steer.restart)
app.command("serve")(serve.serve)
app.add_typer(import_runs.app, name="import")
app.command("export")(export_runs.export)
app.command("note")(records.note)
app.command("delete")(records.delete)
app.command("copy")(records.copy)
app.command("sync")(records.sync)
app.command("check")(records.check)
app.command("extend")(steer.extend)
app.command("replay")(replay.replay)
app.command("simulate")(simulate.simulate)
app.command("pause")(steer.pause)
app.command("unpause")(steer.unpause)
