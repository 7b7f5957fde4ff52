"""A store that cannot be read or written for a moment."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from thalweg.errors import StoreError
from thalweg.report.web.answers import answered, encode
from thalweg.track.store import Store


def test_a_locked_store_is_503_and_reading_goes_on(tmp_path: Path, web: Any) -> None:
    with Store.open(tmp_path / "store.db", wait_seconds=0.1) as store:
        web.fill(store, tmp_path)
        holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with web.running(store) as server, httpx.Client(base_url=server.url) as client:
            answer = client.post(
                "/api/runs/vision-0/note", json={"text": "x"}, headers={"x-thalweg-token": server.access.token}
            )
            assert (answer.status_code, "locked" in answer.json()["error"]) == (503, True)
            assert client.get("/api/projects").status_code == 200
            holder.execute("ROLLBACK")
            answer = client.post(
                "/api/runs/vision-0/note", json={"text": "x"}, headers={"x-thalweg-token": server.access.token}
            )
            assert answer.status_code == 200
        holder.close()


def test_our_own_mistakes_are_not_hidden() -> None:
    def mistake() -> Any:
        raise KeyError("x")

    def unknown() -> Any:
        raise StoreError("unknown run 'x'. Known: y")

    with pytest.raises(KeyError):
        answered(mistake)
    assert answered(unknown).status_code == 404


def test_numbers_that_json_has_not() -> None:
    assert encode({"a": [1.0, float("nan"), {"b": float("-inf")}]}) == b'{"a":[1.0,"nan",{"b":"-inf"}]}'
