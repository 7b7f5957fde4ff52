"""`thalweg stop`, `fork` and `extend`: what a person wants joins a study through the same actions as its strategy's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.arguments import (
    DEFAULT,
    JsonOption,
    RunArgument,
    StoreOption,
    StudyArgument,
    open_store,
    parse_settings,
    print_json,
)
from thalweg.errors import ConfigError

if TYPE_CHECKING:
    from thalweg.track.store import Store
    from thalweg.tree import Action, Restart


def stop(run: RunArgument, store: StoreOption = DEFAULT, json: JsonOption = False) -> None:
    """Give a run up: it writes a checkpoint and is not trained any further.

    Example: thalweg stop imdb-7
    """
    from thalweg.tree import Stop

    with open_store(store, read_only=False) as opened:
        known = opened.read_run(run)
        if known.ended:
            raise ConfigError(f"run {run} has already {'failed' if known.status == 'failed' else f'{known.status}'}")
        if opened.study(opened.run_study(run)).kind == "project" and not opened.run_times(run).live:
            raise ConfigError(f"run {run} is not being written by any process now")
        _request(opened, store, Stop(run), json)


def fork(
    run: RunArgument,
    at: Annotated[int | None, typer.Option(help="The position to begin at; by default the newest checkpoint.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A changed hyperparameter; repeat for more.")] = None,
    until: Annotated[int | None, typer.Option(help="The position to train to; by default the horizon.")] = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Begin a new run from a checkpoint of another, with some hyperparameters changed.

    Example: thalweg fork imdb-7 --at 2000 --set lr=1e-5
    """
    from thalweg.tree import Fork
    from thalweg.worker import fork_point

    with open_store(store, read_only=False) as opened:
        parent = opened.read_run(run)
        _refuse_tracked(opened, run, f"fork it from your script: thalweg.init(..., fork_of={run!r}, at=STEP)")
        config = opened.study(opened.run_study(run)).config
        changes = parse_settings(set_ or [], config["space"])
        if at is None:
            records = opened.checkpoints(run)
            at = records[-1].position if records else parent.fork_position
        fork_point(opened, run, at)
        if until is not None and until <= at:
            raise ConfigError(f"--until {until} must lie beyond the fork point, {at}")
        # Longer than any horizon means: to the child's own horizon, which its hyperparameters decide.
        _request(opened, store, Fork(run, at, changes, until if until is not None else 2**62), json)


def restart(
    run: RunArgument,
    from_: Annotated[int, typer.Option("--from", help="A position with a checkpoint, or where the run began.")],
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Rewind a run, after a failure or a loss spike, and train it again from there.

    What it did past the position is hidden, and nothing is deleted. A run that a script of your own tracks goes on when
    that script does: thalweg.init(..., run=RUN, at=POSITION).

    Example: thalweg restart imdb-7 --from 2000
    """
    from thalweg import asked
    from thalweg.tree import Restart

    with open_store(store, read_only=False) as opened:
        known = opened.read_run(run)
        name = opened.run_study(run)
        if opened.study(name).kind == "project":
            raise ConfigError(
                f"run {run} is trained by a script of yours: thalweg.init({name!r}, run={run!r}, at={from_}) rewinds it"
                " and goes on"
            )
        if opened.live_session(name) is not None:
            _request(opened, store, Restart(run, from_), json)
            return
        hidden = known.position
        asked.restart(opened, run, from_)
        if json:
            print_json({"run": run, "position": from_, "study": name, "running": False})
            return
        where = "" if store == DEFAULT else f" --store {store}"
        print(f"{run} is back at {from_:,} (it was at {hidden:,}); thalweg resume {name}{where} trains it on")


def pause(study: StudyArgument, store: StoreOption = DEFAULT, json: JsonOption = False) -> None:
    """Let a study's runs write their checkpoints and train nothing more for now.

    Example: thalweg pause imdb
    """
    _set_paused(study, store, json, paused=True)


def unpause(study: StudyArgument, store: StoreOption = DEFAULT, json: JsonOption = False) -> None:
    """Let a paused study go on.

    Example: thalweg unpause imdb
    """
    _set_paused(study, store, json, paused=False)


def _set_paused(study: str, store: str, json: bool, *, paused: bool) -> None:
    with open_store(store, read_only=False) as opened:
        if opened.study(study).kind == "project":
            raise ConfigError(f"{study} is a project, whose runs your own scripts train: thalweg stop RUN ends one")
        running = opened.live_session(study) is not None
        opened.set_paused(study, paused)
    if json:
        print_json({"study": study, "paused": paused, "running": running})
    elif running:
        print(f"the running study {study!r} {'pauses' if paused else 'goes on'} within seconds")
    else:
        print(f"{study!r} is {'paused' if paused else 'not paused'}; it is not running now")


def extend(
    run: RunArgument,
    to: Annotated[int, typer.Option(help="The new horizon: a position in tokens, samples or steps.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="A changed hyperparameter; repeat for more.")] = None,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Extend a run to a larger budget without repeating what it has trained at its peak learning rate.

    A run with schedule wsd or constant goes on from the checkpoint before its decay; one with a cyclic schedule from
    its end. The new run is a fork of the old one. It is trained now, beyond the study's budget.

    Example: thalweg extend pretrain-7 --to 2000000
    """
    from rich.console import Console

    from thalweg.cli import study_file
    from thalweg.extension import carry_out, extension
    from thalweg.report.run_table import run_details
    from thalweg.report.view import read_view

    with open_store(store, read_only=False) as opened:
        parent = opened.read_run(run)
        _refuse_tracked(opened, run, f"fork it from your script: thalweg.init(..., fork_of={run!r}, at=STEP)")
        name = opened.run_study(run)
        config = opened.study(name).config
        study = study_file.from_config(config, name)
        action = extension(study.trainer, opened, parent, to, parse_settings(set_ or []))
        if opened.live_session(name) is not None:
            _request(opened, store, action, json)
            return
    if not json:
        unit = study.trainer.unit
        print(f"{run} reached {parent.position:,} {unit}; a fork of it goes on from {action.at:,} to {to:,}")
    try:
        made = carry_out(action, study, store, quiet=json)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; thalweg resume {name} goes on where it stopped", err=True)
        raise typer.Exit(130) from None
    with open_store(store) as opened:
        view = read_view(opened, name)
        if json:
            print_json({"runs": [dataclasses.asdict(child) for child in made]})
            return
        for child in made:
            records = [(record.position, record.num_bytes) for record in opened.checkpoints(child.id)]
            Console().print(run_details(view, child.id, records))


def _refuse_tracked(store: Store, run: str, instead: str) -> None:
    if store.study(store.run_study(run)).kind == "project":
        raise ConfigError(f"run {run} is tracked by a script of yours, not trained by a study: {instead}")


def _request(store: Store, location: str, ask: Action | Restart, json: bool) -> None:
    from thalweg.track.machine import user

    run = ask.parent if hasattr(ask, "parent") else ask.run  # type: ignore[union-attr]
    study = store.run_study(run)
    number = store.add_request(study, ask, user())
    tracked = store.study(study).kind == "project"
    live = tracked or store.live_session(study) is not None
    if not json and tracked:
        print(f"asked the script of {run}; it sees it within seconds, as run.should_stop")
        return
    if json:
        print_json({"request": number, "study": study, "running": live})
    elif live:
        print(f"asked the running study {study!r}; see: thalweg runs {study}")
    else:
        where = "" if location == DEFAULT else f" --store {location}"
        print(f"noted; study {study!r} is not running now: thalweg resume {study}{where} carries it out")
