"""Arguments and options that several commands share, and what the shell completes for them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from thalweg.track.store import Store


def _complete(names: Callable[[Store], list[str]]) -> Callable[[typer.Context, str], list[str]]:
    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from thalweg.errors import ThalwegError

        try:
            with open_store(context.params.get("store") or DEFAULT) as store:
                return [name for name in names(store) if name.startswith(incomplete)]
        except ThalwegError:
            return []

    return complete


def _studies(store: Store) -> list[str]:
    return [record.name for record in store.studies()]


def _runs(store: Store) -> list[str]:
    return [run.id for record in store.studies() for run in store.read_tree(record.name)]


complete_runs = _complete(_runs)
"""What the shell offers for a run's name."""

DEFAULT = ".thalweg/store.db"
StoreOption = Annotated[str, typer.Option("--store", help="The store: a file, or a database URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
RunArgument = Annotated[str, typer.Argument(help="A run, such as imdb-7.", autocompletion=complete_runs)]
StudyArgument = Annotated[str, typer.Argument(help="A study's name.", autocompletion=_complete(_studies))]


def open_store(location: str, *, read_only: bool = True) -> Store:
    """Open a store that exists.

    Raises:
        ConfigError: there is none yet.
    """
    from thalweg.errors import ConfigError
    from thalweg.track.store import Store

    if "://" not in location and not Path(location).exists():
        raise ConfigError(
            f"store {location!r} does not exist: 'thalweg tune FILE' or thalweg.init makes it, or name another"
            " with --store"
        )
    return Store.open(location, read_only=read_only)


def parse_settings(settings: Sequence[str], known: Collection[str] | None = None) -> dict[str, Any]:
    """`--set NAME=VALUE` options: values as TOML has them, anything else is a string.

    Args:
        known: names that may be set; None is any.
    Raises:
        ConfigError: no `=`, or an unknown name.
    """
    from thalweg.errors import ConfigError, nearest

    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {setting!r} must be NAME=VALUE, such as lr=1e-5")
        if known is not None and name not in known:
            raise ConfigError(f"--set: unknown name {name!r}. {nearest(name, known)}")
        try:
            values[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[name] = text
    return values


def print_json(value: Any) -> None:
    """One JSON object on stdout; what is not a finite number is the string "nan", "inf" or "-inf"."""
    from thalweg.report.findings import as_json

    print(json.dumps(as_json(value), indent=2, allow_nan=False))
