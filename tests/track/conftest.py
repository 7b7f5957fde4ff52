from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from thalweg.track.store import Store
from thalweg.tree import Run

NewRun = Callable[..., Run]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "folder" / "thalweg.db") as opened:
        opened.create_study("imdb", {"metric": "max accuracy"})
        yield opened
        assert opened.check_integrity() == []


@pytest.fixture
def new_run(store: Store) -> NewRun:
    def create(parent: str | None = None, at: int = 0, **fields: Any) -> Run:
        defaults: dict[str, Any] = {"hyperparameters": {"lr": 1e-4}, "horizon": 100, "until": 50, "seed": 7}
        defaults |= {"origin": "random", "parent": parent, "fork_position": at}
        return store.create_run("imdb", **(defaults | fields))

    return create
