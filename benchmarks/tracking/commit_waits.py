"""How long this process's writes wait until the store is theirs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection

from thalweg.track.database import Database


class Wait(NamedTuple):
    """Of one transaction."""

    asked: float
    """By `time.perf_counter`."""
    seconds: float


def watch() -> list[Wait]:
    """From now on, how long each write transaction waits until it has begun, in a list that grows."""
    waits: list[Wait] = []
    real = Database.write

    @contextmanager
    def timed(database: Database, **options: Any) -> Iterator[Connection]:
        start = time.perf_counter()
        with real(database, **options) as connection:
            waits.append(Wait(start, time.perf_counter() - start))
            yield connection

    Database.write = timed  # type: ignore[method-assign]
    return waits
