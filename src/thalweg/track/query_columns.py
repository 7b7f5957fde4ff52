"""Columns of a table of runs: what each is called, what its type is, and its values, before any table format.

The formats make of them what they have: Arrow arrays (`query_arrow.py`) or text (`transfer/write_csv.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from thalweg.track.query_points import ChosenRun
from thalweg.track.series import Ints

Kind = Literal["string", "strings", "int", "float", "bool", "time", "step"]

MOST_FLOAT_POSITION = 10**15
"""Up to here a step has at most 15 significant digits, so that its float is printed as the step itself."""


@dataclass(frozen=True)
class Column:
    """One column: a value per run, None where the run has none.

    A time is in seconds since 1970, a step is (position, decimals).
    """

    name: str
    kind: Kind
    values: Sequence[Any]


def run_columns(runs: Sequence[ChosenRun]) -> list[Column]:
    """A table with a row per run.

    `parent` is None for a root, and for a fork whose parent is not there yet; then `waiting_parent` has its uid.
    """
    rows = [run.row for run in runs]
    forks = [
        (row.fork_position, run.decimals) if row.parent is not None or row.waiting_parent is not None else None
        for run, row in zip(runs, rows, strict=True)
    ]
    return [
        Column("id", "string", [row.id for row in rows]),
        Column("name", "string", [row.name for row in rows]),
        Column("project", "string", [run.project for run in runs]),
        Column("status", "string", [row.status for row in rows]),
        Column("parent", "string", [row.parent for row in rows]),
        Column("fork_step", "step", forks),
        Column("tags", "strings", [list(row.tags) for row in rows]),
        Column("created", "time", [row.created for row in rows]),
        Column("started", "time", [row.started for row in rows]),
        Column("ended", "time", [row.ended for row in rows]),
        Column("unit", "string", [run.unit for run in runs]),
        Column("uid", "string", [row.uid for row in rows]),
        Column("waiting_parent", "string", [row.waiting_parent for row in rows]),
        Column("error", "string", [row.error for row in rows]),
        *_hyperparameter_columns(runs),
        *_latest_columns(runs),
    ]


def _hyperparameter_columns(runs: Sequence[ChosenRun]) -> list[Column]:
    names = _in_order(run.row.hyperparameters for run in runs)
    columns = []
    for name in names:
        kind, values = typed([run.row.hyperparameters.get(name) for run in runs])
        columns.append(Column(f"hyperparameters.{name}", kind, values))
    return columns


def _latest_columns(runs: Sequence[ChosenRun]) -> list[Column]:
    metrics = sorted(_in_order(run.row.latest for run in runs))
    taken = {f"latest.{metric}" for metric in metrics}
    columns = []
    for metric in metrics:
        points = [run.row.latest.get(metric) for run in runs]
        steps = [None if point is None else (point[0], run.decimals) for point, run in zip(points, runs, strict=True)]
        name = f"latest.{metric}.step"
        # Another metric may be called like that.
        while name in taken:
            name += " (step)"
        taken.add(name)
        columns.append(Column(f"latest.{metric}", "float", [None if point is None else point[1] for point in points]))
        columns.append(Column(name, "step", steps))
    return columns


def _in_order(mappings: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def typed(values: Sequence[Any]) -> tuple[Kind, list[Any]]:
    """The one type that holds all values as they are, and the values in it. None stays None.

    Whole numbers alone are int, numbers float, truth values bool. All else, and numbers that such a type would
    change, become text: strings as they are, other values as JSON.

    >>> typed([1, None, 2])
    ('int', [1, None, 2])
    >>> typed([1, 0.5])
    ('float', [1.0, 0.5])
    >>> typed([1, True])
    ('string', ['1', 'true'])
    >>> typed([2**60 + 1, 0.5])
    ('string', ['1152921504606846977', '0.5'])
    """
    present = [value for value in values if value is not None]
    types = {type(value) for value in present}
    if types == {bool}:
        return "bool", list(values)
    if types == {int} and all(-(2**63) <= value < 2**63 for value in present):
        return "int", list(values)
    if types and types <= {int, float} and float in types and all(_is_float(value) for value in present):
        return "float", [None if value is None else float(value) for value in values]
    return "string", [None if value is None else as_text(value) for value in values]


def as_text(value: Any) -> str:
    """A string as it is; anything else as JSON, with NaN and Infinity as Python writes them."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_float(value: int | float) -> bool:
    try:
        return isinstance(value, float) or int(float(value)) == value
    except OverflowError:
        return False


StepKind = Literal["int", "float", "decimal"]


class StepRange:
    """What is seen of the positions that share a column, to choose the column's type by."""

    def __init__(self) -> None:
        self.all_whole = True
        self.greatest = 0
        self.decimals: set[int] = set()

    def see(self, positions: Ints, decimals: int) -> None:
        """Take more positions into account."""
        self.decimals.add(decimals)
        if len(positions):
            self.greatest = max(self.greatest, int(positions.max()))
            self.all_whole = self.all_whole and all_whole(positions, decimals)

    @property
    def kind(self) -> StepKind:
        """The simplest type that changes no step.

        Whole numbers where all are. Floats where each is printed as the step itself: with at most 15 significant
        digits, so below 10**9 with six decimals. Otherwise decimals.
        """
        if self.all_whole:
            return "int"
        return "float" if self.greatest <= MOST_FLOAT_POSITION else "decimal"


def all_whole(positions: Ints, decimals: int) -> bool:
    """Whether all steps are whole numbers."""
    return not decimals or not bool((positions % 10**decimals).any())


def whole_steps(positions: Ints, decimals: int) -> Ints:
    """The whole numbers that positions stand for."""
    steps: Ints = positions // 10**decimals if decimals else positions
    return steps


def float_steps(positions: Ints, decimals: int) -> Any:
    """Float64[n] steps, each the float nearest to the step; positions up to `MOST_FLOAT_POSITION`."""
    # Both are whole floats, so that the quotient is rounded once.
    return positions.astype(np.float64) / float(10**decimals)
