"""`thalweg note`, `delete`, `copy`, `sync` and `check`: what is kept of runs, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, RunArgument, StoreOption, open_store, print_json


def note(
    run: RunArgument,
    text: Annotated[str, typer.Argument(help="What to remember about it.")],
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Write something about a run.

    Example: thalweg note imdb-7 "the learning rate was too high"
    """
    from thalweg.track.machine import user

    with open_store(store, read_only=False) as opened:
        opened.add_note(run, text, user())
        num_notes = len(opened.run_details(run).notes)
    if json:
        print_json({"run": run, "num_notes": num_notes})


def delete(
    run: RunArgument,
    keep_children: Annotated[
        bool, typer.Option("--keep-children", help="First copy into its forks what they inherit from it.")
    ] = False,
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Delete a run with its curves and files. What it has spent stays in the ledger.

    A run with forks is refused, as their curves begin with its points, unless they are to keep a copy.

    Example: thalweg delete imdb-7
    """
    with open_store(store, read_only=False) as opened:
        children = opened.run_details(run).children
        opened.delete_run(run, materialise=keep_children)
    if json:
        print_json({"deleted": run, "children": list(children)})
        return
    kept = f"; {', '.join(children)} kept what they had from it" if children else ""
    print(f"deleted {run}{kept}")


def copy(
    out: Annotated[Path, typer.Argument(help="The file to make.")],
    store: StoreOption = DEFAULT,
    json: JsonOption = False,
) -> None:
    """Copy a store, also while runs are being written. Files that runs saved and checkpoints are not in it.

    Example: thalweg copy backup.db
    """
    with open_store(store) as opened:
        opened.copy(out)
    num_bytes = out.stat().st_size
    if json:
        print_json({"copy": str(out), "bytes": num_bytes})
    else:
        print(f"{out}: {num_bytes:,} bytes")


def sync(store: StoreOption = DEFAULT, json: JsonOption = False) -> None:
    """Bring in what scripts had to keep in spools, while the store could not be written.

    The next `thalweg.init` does this by itself.

    Example: thalweg sync
    """
    from thalweg.track.store import Store

    # The store itself may be what was missing.
    with Store.open(store) as opened:
        merged = opened.merge_spools()
    if json:
        spools = [{"file": str(m.path), "run": m.run, "calls": m.num_calls, "problem": m.problem} for m in merged]
        print_json({"spools": spools})
    elif not merged:
        print("there are no spools to bring in")
    else:
        for one in merged:
            what = f"{one.num_calls:,} calls of {one.run} are in the store" if one.run else "not brought in"
            print(f"{one.path}: {what}" + (f"; {one.problem}" if one.problem else ""))
    if any(one.problem for one in merged):
        raise typer.Exit(1)


def check(store: StoreOption = DEFAULT, json: JsonOption = False) -> None:
    """Read all of a store and say what is wrong with it.

    Example: thalweg check
    """
    with open_store(store) as opened:
        problems = opened.check_integrity()
    if json:
        print_json({"problems": problems})
    else:
        print("\n".join(problems) if problems else "nothing is wrong")
    if problems:
        raise typer.Exit(1)
