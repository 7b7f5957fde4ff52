"""What the tests of all callbacks share: a store of their own, and how to look into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from thalweg.track.store import Store

Curve = dict[float, float]


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store's path, which `thalweg.init` uses unless told otherwise; the tests work in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "store" / "thalweg.db")
    monkeypatch.setenv("THALWEG_STORE", path)
    return path


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    """The same store, opened to look into."""
    with Store.open(location) as opened:
        yield opened
        assert opened.check_integrity() == []


@pytest.fixture
def curve(store: Store) -> Callable[..., Curve]:
    """Step -> value of a run's metric."""

    def read(run: str, metric: str, *, inherited: bool = True) -> Curve:
        series = store.series(run, metric, inherited=inherited)
        steps = series.positions / 10**6
        return dict(zip(steps.tolist(), series.values.tolist(), strict=True))

    return read
