"""`thalweg stop`, `fork` and `extend`: what a person wants joins a study through the same actions as its strategy's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, RunArgument, StoreOption, open_store, parse_settings, print_json
from thalweg.errors import ConfigError

if TYPE_CHECKING:
    from thalweg.track.store import Store
    from thalweg.tree import Action


def stop(run: RunArgument, store: StoreOption = DEFAULT, json: JsonOption = False) -> None:
    """Give a run up: it writes a checkpoint and is not trained any further.

    Example: thalweg stop imdb-7
    """
    from thalweg.tree import Stop

    with open_store(store, read_only=False) as opened:
        known = opened.read_run(run)
        if known.ended:
            raise ConfigError(f"run {run} has already {'failed' if known.status == 'failed' else f'{known.status}'}")
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


def _request(store: Store, location: str, action: Action, json: bool) -> None:
    run = action.parent if hasattr(action, "parent") else action.run  # type: ignore[union-attr]
    study = store.run_study(run)
    number = store.add_request(study, action)
    live = store.live_session(study) is not None
    if json:
        print_json({"request": number, "study": study, "running": live})
    elif live:
        print(f"asked the running study {study!r}; see: thalweg runs {study}")
    else:
        where = "" if location == DEFAULT else f" --store {location}"
        print(f"noted; study {study!r} is not running now: thalweg resume {study}{where} carries it out")
