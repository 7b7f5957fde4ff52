"""Schedules as TOML: what is printed parses to an equal schedule, and nothing else parses."""

from __future__ import annotations

import dataclasses
import functools
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

from thalweg.errors import ConfigError, nearest
from thalweg.schedules.schedule import Schedule

T = TypeVar("T")


def to_toml(schedule: Schedule) -> str:
    """Print a schedule; compositions hold their parts as tables.

    Raises:
        ConfigError: if it is, or is made of, a function of your own.

    >>> from thalweg.schedules import linear
    >>> print(to_toml(linear(warmup=10, horizon=100)), end="")
    kind = "linear"
    warmup = 10
    horizon = 100
    floor = 0.0
    """
    lines = []
    for name, value in _entries(schedule):
        if isinstance(value, tuple) and value and not isinstance(value[0], int | float):
            rows = "".join(f"  {_print(entry)},\n" for entry in value)
            lines.append(f"{name} = [\n{rows}]\n")
        else:
            lines.append(f"{name} = {_print(value)}\n")
    return "".join(lines)


def from_toml(text: str) -> Schedule:
    """The schedule that a text describes: `kind`, and that kind's own keys.

    Raises:
        ConfigError: if it is not TOML, or a key is unknown, missing, of a wrong type or outside its range; it is named.

    >>> from_toml('kind = "linear"\\nhorizon = 100')
    Linear(warmup=0.0, horizon=100, floor=0.0)
    """
    schedule: Schedule = _convert(parse_toml(text), Schedule, "")
    return schedule


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a text.

    Raises:
        ConfigError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"this is not TOML: {error}") from None


def build(kind: type[T], table: Mapping[str, Any], path: str = "") -> T:
    """An object of a dataclass from a table, by the types of its fields.

    Args:
        path: of the table in its file, for messages: "" or such as "schedules[1].".
    Raises:
        ConfigError: naming the key that is unknown, missing or of a wrong type.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise ConfigError(f"unknown key {path + key!r}. {nearest(key, fields)}")
    for name, field in fields.items():
        if name not in table and field.default is dataclasses.MISSING:
            raise ConfigError(f"{path + name!r} is missing")
    return kind(**{key: _convert(value, hints[key], path + key) for key, value in table.items()})


@functools.cache
def _kinds() -> dict[str, type]:
    """The class behind each name of SCHEDULES."""
    # Not at the top: the package's own file imports this one.
    from thalweg.schedules import SCHEDULES

    return {name: typing.get_type_hints(function)["return"] for name, function in SCHEDULES.items()}


def _entries(value: Any) -> list[tuple[str, Any]]:
    """The keys of an object's table. What is None is left out: TOML has no such thing."""
    names = {kind: name for name, kind in _kinds().items()}
    if not dataclasses.is_dataclass(value):
        raise ConfigError(
            f"{value!r} cannot be printed as TOML: it is a function of your own, not one of our schedules"
        )
    entries = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    kind = [("kind", names[type(value)])] if type(value) in names else []
    return kind + [(name, entry) for name, entry in entries if entry is not None]


def _print(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_print, value))}]"
    return f"{{ {', '.join(f'{name} = {_print(entry)}' for name, entry in _entries(value))} }}"


def _convert(value: Any, hint: Any, path: str) -> Any:
    """A value of a file as its field wants it."""
    if hint == Schedule:
        return _schedule(value, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert(value, next(a for a in arguments if a is not types.NoneType), path)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{path} = {value!r} is unknown. {nearest(str(value), arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path} = {value!r} must be an array")
        return tuple(_convert(entry, arguments[0], f"{path}[{index}]") for index, entry in enumerate(value))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{path} = {value!r} must be a table")
        return build(typing.cast(type, hint), value, f"{path}.")
    accepted, words = _SCALARS[hint]
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path} = {value!r} must be {words}")
    return value


_SCALARS: Mapping[type, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number"),
    int: ((int,), "a whole number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "a string"),
}


def _schedule(value: Any, path: str) -> Any:
    inside = f"{path}." if path else ""
    if not isinstance(value, dict):
        raise ConfigError(f"{path} = {value!r} must be a table with a kind")
    kinds = _kinds()
    kind = value.get("kind")
    if kind is None:
        raise ConfigError(f"{inside + 'kind'!r} is missing. Known: {', '.join(sorted(kinds))}")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{inside}kind = {kind!r} is unknown. {nearest(str(kind), kinds)}")
    return build(kinds[kind], {key: entry for key, entry in value.items() if key != "kind"}, inside)
