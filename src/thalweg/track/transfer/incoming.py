"""What the readers of other trackers' files yield.

A reader is a generator of plain records: an `Outline` first, then for each run an `IncomingRun` followed by its
`IncomingSeries` and `IncomingText`, and a `Skipped` wherever something is not taken over. A new source is one new file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.tree import Status

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """How much there is: for a progress bar."""

    num_runs: int


@dataclass(frozen=True, kw_only=True)
class IncomingNote:
    """A text that belongs to a run."""

    text: str
    author: str | None = None


@dataclass(frozen=True, kw_only=True)
class IncomingFile:
    """A file or folder that belongs to a run. It stays where it is."""

    name: str
    path: Path
    step: int | Decimal = 0


@dataclass(frozen=True, kw_only=True)
class IncomingRun:
    """A run with all that it has besides curves. Times are seconds since 1970."""

    project: str
    """The name of the source's project or experiment; made into a valid one where it is written."""
    uid: str
    """The kind of source and the source's own id of the run: what makes a second import find it again."""
    name: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    notes: tuple[IncomingNote, ...] = ()
    files: tuple[IncomingFile, ...] = ()
    parent: str | None = None
    """The uid of the run that it was forked from; it may come later, or never."""
    fork_step: int | float | Decimal = 0
    status: Status = "finished"
    """`running` for one that has not ended in the source: with no process, it is shown as crashed."""
    created: float | None = None
    started: float | None = None
    ended: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class IncomingSeries:
    """All points of a metric of the run that came last, in the order in which they were written; n of them."""

    metric: str
    steps: Ints
    """int64[n]: steps times ten to `decimals`, at least 0."""
    times_ms: Ints
    """int64[n]: milliseconds since 1970."""
    values: Floats
    """float64[n]: any number, NaN and infinities too."""
    decimals: int = 0


@dataclass(frozen=True, kw_only=True)
class IncomingText:
    """A series of texts of the run that came last, a log say: it becomes a text file of the run."""

    name: str
    text: str
    step: int | Decimal = 0
    """That of its last line."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that is not taken over."""

    place: str
    """Where it is in the source: a file with the place in it, a run and a metric."""
    reason: str


Record = Outline | IncomingRun | IncomingSeries | IncomingText | Skipped


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, names joined by `/`; an empty table stays.

    >>> flat({"lr": 0.1, "model": {"layers": 2, "norm": {}}})
    {'lr': 0.1, 'model/layers': 2, 'model/norm': {}}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}/")
        else:
            found[f"{prefix}{name}"] = value
    return found


def series_of(
    run: str, metric: str, steps: ArrayLike, times_ms: ArrayLike, values: ArrayLike, *, decimals: int = 0
) -> tuple[IncomingSeries | None, Skipped | None]:
    """A series without the points whose step a store cannot hold, and what to say of those.

    Args:
        run: the run's name in the source, for the message.
        steps, times_ms, values: n of each, as `IncomingSeries` has them; a step may be negative here.
    """
    places = np.asarray(steps, np.int64)
    good = places >= 0
    skipped = None
    if not good.all():
        num, least = int((~good).sum()), Decimal(int(places.min())).scaleb(-decimals).normalize()
        skipped = Skipped(
            place=f"run {run}, metric {metric!r}", reason=f"{num:,} points at negative steps, down to {least:f}"
        )
    if not good.any():
        return None, skipped
    times, floats = np.asarray(times_ms, np.int64), np.asarray(values, np.float64)
    found = IncomingSeries(
        metric=metric, steps=places[good], times_ms=times[good], values=floats[good], decimals=decimals
    )
    return found, skipped


def as_milliseconds(seconds: float) -> int:
    """Milliseconds since 1970; 0, for a time that is not known, where the number is no time up to the year 9999.

    >>> as_milliseconds(1.5), as_milliseconds(float("nan")), as_milliseconds(1e30)
    (1500, 0, 0)
    """
    return round(seconds * 1000) if 0 <= seconds < 253_402_300_800 else 0


def text_lines(texts: Iterable[tuple[int | Decimal, float | None, str]]) -> str:
    """Step, time and text of each entry, with tabs between, a line each.

    >>> text_lines([(2, 0.5, "a"), (Decimal("2.500000"), None, "b")])
    '2\\t1970-01-01T00:00:00.500Z\\ta\\n2.5\\t-\\tb\\n'
    """
    lines = []
    for step, seconds, text in texts:
        at = f"{step.normalize():f}" if isinstance(step, Decimal) else str(step)
        moment = "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
        lines.append(f"{at}\t{moment.replace('+00:00', 'Z')}\t{text}\n")
    return "".join(lines)
