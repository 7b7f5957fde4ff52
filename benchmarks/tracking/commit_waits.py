"""How long this process's writes wait until the store is theirs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from thalweg.track.database import Database


def watch() -> list[float]:
    """From now on, the seconds from asking for each write transaction until it has begun, in a list that grows."""
    waits: list[float] = []
    real = Database.write

    @contextmanager
    def timed(database: Database, **options: Any) -> Iterator[Connection]:
        start = time.perf_counter()
        with real(database, **options) as connection:
            waits.append(time.perf_counter() - start)
            yield connection

    Database.write = timed  # type: ignore[method-assign]
    return waits
