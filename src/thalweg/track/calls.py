"""Log calls on their way from a training loop to the store: packed in memory, gathered into batches.

Appending a call is all that a training loop waits for. A thread takes what has gathered, as a batch with a number: one
that reaches the store twice, from memory and from a spool, counts once.
"""

from __future__ import annotations

import itertools
import operator
import struct
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import time_ns
from typing import Any

from thalweg.budget import Cost, SpendKind
from thalweg.errors import ConfigError
from thalweg.track.json_text import encode
from thalweg.track.series import journal_layout

ROW_CALLS = 16_384
"""The most calls in one journal row."""

SYSTEM = "system/"
"""Metrics of the machine begin with this: their positions are milliseconds since the run was created, and no fork
inherits them."""

Call = tuple[tuple[str, ...], bytes]
"""Names, and what `journal_layout` packs: position, time and values."""

JournalRow = tuple[str, int, bytes]
"""Names as JSON, number of calls, their packed points one after the other."""


@dataclass
class Batch:
    """What is committed at once, in the order in which it came."""

    number: int
    """Rises by one from a writer's batch to its next one."""
    rows: list[JournalRow]
    num_calls: int
    spent: dict[SpendKind, Cost] = field(default_factory=dict)
    end: Mapping[str, Any] | None = None
    """Where the writer says how the run ended: `status`, `error`, `ended` (seconds since 1970)."""


class CallBuffer:
    """Calls that no batch has taken yet. Threads may share it; appending takes no lock."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._spent: deque[tuple[SpendKind, Cost]] = deque()
        self._packers: dict[tuple[str, ...], Callable[..., bytes]] = {}
        self._num_batches = 0
        self.closed: Callable[[], Exception] | None = None
        """Once set, what logging raises."""

    def __bool__(self) -> bool:
        return bool(self._calls or self._spent)

    def log(self, position: int, metrics: Mapping[str, float]) -> None:
        """Keep a point of each metric.

        Raises:
            ConfigError: a position, name or value that cannot be recorded; nothing of the call is.
        """
        # A training loop may call this for every step of a small model: each check here is one that it needs.
        names = tuple(metrics)
        pack = self._packers.get(names) or self._new_packer(names)
        try:
            packed = pack(position, time_ns(), *metrics.values())
            if position < 0:
                raise ValueError
        except (struct.error, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise _refusal(position, metrics) from error
        # Appending to a deque is atomic: no lock, so that a signal may come at any point.
        self._calls.append((names, packed))

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        """Keep what was spent."""
        if self.closed is not None:
            raise self.closed()
        self._spent.append((kind, cost))

    def close(self, why: Callable[[], Exception]) -> None:
        """Take no more; what is kept already stays."""
        self.closed = why
        self._packers = {}

    def take(self, end: Mapping[str, Any] | None = None) -> Batch | None:
        """All that is there now as the next batch; None where there is nothing. One thread at a time."""
        # As many as there are now: a fast caller must not keep the loop going.
        calls = [self._calls.popleft() for _ in range(len(self._calls))]
        spent: dict[SpendKind, Cost] = {}
        for _ in range(len(self._spent)):
            kind, cost = self._spent.popleft()
            spent[kind] = spent.get(kind, Cost()) + cost
        if not calls and not spent and end is None:
            return None
        self._num_batches += 1
        return Batch(self._num_batches, journal_rows(calls), len(calls), spent, end)

    def _new_packer(self, names: tuple[str, ...]) -> Callable[..., bytes]:
        # A closed buffer knows no packers, so that it comes here.
        if self.closed is not None:
            raise self.closed()
        check_names(names)
        self._packers[names] = journal_layout(len(names)).pack
        return self._packers[names]


def journal_rows(calls: list[Call]) -> list[JournalRow]:
    """Calls as journal rows, few of them, such that each metric's calls stay in their order."""
    rows: list[tuple[tuple[str, ...], list[bytes]]] = []
    holder: dict[str, int] = {}  # metric -> the row that has its last call
    for names, group in itertools.groupby(calls, operator.itemgetter(0)):
        # They join an older row only where nothing that came since then holds one of their metrics.
        places = {holder.get(name, -1) for name in names}
        place = places.pop() if len(places) == 1 else -1
        packed = [call for _, call in group]
        if place < 0 or rows[place][0] != names or len(rows[place][1]) + len(packed) > ROW_CALLS:
            place = len(rows)
            rows += [(names, []) for _ in range(0, len(packed), ROW_CALLS)]
            for i in range(0, len(packed), ROW_CALLS):
                rows[place + i // ROW_CALLS][1].extend(packed[i : i + ROW_CALLS])
            holder.update(dict.fromkeys(names, len(rows) - 1))
        else:
            rows[place][1].extend(packed)
    return [(encode(list(names), "names"), len(packed), b"".join(packed)) for names, packed in rows]


def check_names(names: Iterable[object]) -> None:
    """Refuse what cannot name a metric."""
    for name in names:
        if not isinstance(name, str) or not name or not (name.isprintable() or _has_no_control(name)):
            raise ConfigError(f"metric name {name!r} must be a printable string, such as 'train/loss'")


def _has_no_control(name: str) -> bool:
    # Emoji are made of several characters, joined by some that Python does not call printable.
    return not any(unicodedata.category(char) in ("Cc", "Cs", "Cn", "Zl", "Zp") for char in name)


def as_float(metric: str, value: object) -> float:
    """A metric's value as a float; ConfigError for what is no number."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ConfigError(f"{metric} = {value!r} is not one number") from error


def _refusal(position: object, metrics: Mapping[str, object]) -> ConfigError:
    """What is wrong with a call that could not be packed."""
    for name, value in metrics.items():
        try:
            as_float(name, value)
        except ConfigError as error:
            return error
    return ConfigError(f"position = {position!r} must be a whole number from 0 to 2**63 - 1")
