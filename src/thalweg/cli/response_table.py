"""Measured configurations for `thalweg simulate`: rows of a CSV, or runs in a store."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from thalweg.errors import ConfigError, nearest
from thalweg.scaling.response import Measured
from thalweg.space import Choice, Dimension, Space, Value
from thalweg.tree import Metric

if TYPE_CHECKING:
    from thalweg.track.store import Store

_Key = tuple[tuple[str, Value], ...]
_Curves = dict[str, dict[float, float]]
"""Seed -> position -> value."""


def read_table(path: Path, space: Space, metric: Metric) -> tuple[list[Measured], list[str]]:
    """Read a CSV: a column for each hyperparameter of the space (or some of them), the metric, and where there are
    several rows for a configuration `position`, `seed`, or both. An empty metric, or `nan`, is a diverged run.

    Returns:
        The configurations, and what was assumed.
    Raises:
        ConfigError: the file cannot be read, a column is missing, or a cell cannot be read; the line is named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            names = _check_columns(path, columns, space, metric)
            found: dict[_Key, _Curves] = {}
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                key = tuple((name, _cell(space.dimensions[name], name, row[name], where)) for name in names)
                position = _number("position", row["position"], where) if "position" in columns else 1.0
                curve = found.setdefault(key, {}).setdefault(row.get("seed") or "", {})
                if position in curve:
                    raise ConfigError(
                        f"{where}: there is a row before with the same hyperparameters, position and seed"
                    )
                curve[position] = _value(metric.name, row[metric.name], where)
    except FileNotFoundError:
        raise ConfigError(f"--table {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--table {path}: cannot be read as CSV: {error}") from None
    if not found:
        raise ConfigError(f"--table {path}: it has no rows")
    return [_measured(key, curves) for key, curves in found.items()], _notes(columns, names, space, metric)


def read_runs(store: Store, study: str, metric: Metric) -> list[Measured]:
    """The roots of a study that finished or diverged, by what they reported on the way."""
    measured = []
    for run in store.read_tree(study).roots():
        reports = [(report.position, report.metrics.get(metric.name, math.nan)) for report in run.reports]
        curve = {position / run.horizon: value for position, value in reports if math.isfinite(value)}
        if run.status == "diverged":
            curve[1.0] = math.nan
        elif run.status != "finished" or not curve:
            continue
        shares = sorted(curve)
        measured.append(Measured(hyperparameters=run.hyperparameters, curves=[(shares, [curve[s] for s in shares])]))
    return measured


def _check_columns(path: Path, columns: list[str], space: Space, metric: Metric) -> list[str]:
    """The columns that are hyperparameters."""
    if not columns:
        raise ConfigError(f"--table {path}: it is empty; its first line must name the columns")
    if metric.name not in columns:
        raise ConfigError(
            f"--table {path}: no column {metric.name!r}, the study's metric. {nearest(metric.name, columns)}"
        )
    names = [name for name in space.dimensions if name in columns]
    if not names:
        raise ConfigError(
            f"--table {path}: none of its columns ({', '.join(columns)}) is a hyperparameter of the space"
            f" ({', '.join(space.dimensions)})"
        )
    return names


def _notes(columns: list[str], names: list[str], space: Space, metric: Metric) -> list[str]:
    notes = []
    if absent := [name for name in space.dimensions if name not in names]:
        notes.append(f"the table has no column for {', '.join(absent)}, which therefore changes nothing")
    if ignored := [name for name in columns if name not in (*names, "position", "seed", metric.name)]:
        notes.append(f"columns that are not in the space are ignored: {', '.join(ignored)}")
    if "position" not in columns:
        notes.append(
            "the table has no positions, so the curves before each run's end are made up, and what is said of"
            " strategies that stop runs early is a guess"
        )
    return notes


def _measured(key: _Key, curves: Mapping[str, Mapping[float, float]]) -> Measured:
    """Positions become shares of the configuration's last."""
    last = max(position for curve in curves.values() for position in curve)
    shared = []
    for curve in curves.values():
        positions = sorted(curve)
        shared.append(([position / last for position in positions], [curve[position] for position in positions]))
    return Measured(hyperparameters=dict(key), curves=shared)


def _cell(dimension: Dimension, name: str, text: str | None, where: str) -> Value:
    """A hyperparameter's value, as the space has it."""
    text = (text or "").strip()
    if not isinstance(dimension, Choice):
        number = _number(name, text, where)
        if dimension.log and number <= 0:
            raise ConfigError(f"{where}: {name} = {text} must be above zero, as it is on a log scale")
        return number
    for option in dimension.options:
        same_text = text.lower() == str(option).lower() if isinstance(option, bool) else text == str(option)
        if same_text or (isinstance(option, int | float) and not isinstance(option, bool) and _equal(text, option)):
            return option
    raise ConfigError(f"{where}: {name} = {text!r} is none of the space's {', '.join(map(str, dimension.options))}")


def _equal(text: str, option: float) -> bool:
    try:
        return float(text) == option
    except ValueError:
        return False


def _number(name: str, text: str | None, where: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (name == "position" and number <= 0):
        wanted = "a position above zero" if name == "position" else "a number"
        raise ConfigError(f"{where}: {name} = {text!r} must be {wanted}")
    return number


def _value(name: str, text: str | None, where: str) -> float:
    text = (text or "").strip()
    if text.lower() in ("", "nan", "inf", "-inf"):
        return math.nan
    return _number(name, text, where)
