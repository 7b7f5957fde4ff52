"""A store with a project and a study, and a real server over it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from thalweg.budget import Cost
from thalweg.report.web.server import WebServer, make_server
from thalweg.track.records import NewRun
from thalweg.track.store import Store

SCRIPT = '<script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
DECIMALS = 10**6

STUDY = {
    "metric": "max accuracy",
    "unit": "samples",
    "space": {"lr": {"log": [1e-6, 1e-3]}, "batch_size": {"choice": [8, 16]}, "dropout": 0.1},
    "strategy": {"name": "random"},
    "budget": {"runs": 10, "device_seconds": 100.0},
    "seed": 0,
    "trainer": {"kind": "finetune"},
    "baseline": None,
}


def fill(store: Store, folder: Path) -> None:
    """Project `vision` with a root, a fork and one that waits; study `imdb` with runs in several states."""
    store.create_project("vision")
    root, _ = store.track_run(
        "vision",
        NewRun(
            uid="root",
            name=SCRIPT,
            tags=[SCRIPT, "a/b"],
            hyperparameters={"lr": 0.5, SCRIPT: SCRIPT},
            facts={"git": "abc"},
        ),
    )
    with store.writer(root) as writer:
        for step in range(10):
            writer.log(step * DECIMALS, {"loss": 10.0 - step, "acc/top 1": step / 10})
        writer.log(10 * DECIMALS, {"loss": float("nan")})
        writer.finish("finished", 10 * DECIMALS)
    fork, _ = store.track_run("vision", NewRun(uid="fork", parent="root", fork_position=5 * DECIMALS))
    with store.writer(fork) as writer:
        writer.log(5_500_000, {"loss": 0.25})
        writer.finish("finished", 5_500_000)
    store.track_run("vision", NewRun(uid="orphan", parent="not here", fork_position=DECIMALS, status="finished"))
    store.add_note(root, "first", "ada")
    store.create_study("imdb", STUDY)
    for number in range(4):
        run = store.create_run(
            "imdb",
            hyperparameters={"lr": 1e-4, "batch_size": 8, "dropout": 0.1},
            horizon=100,
            until=50,
            seed=0,
            origin="random",
        )
        with store.writer(run.id) as writer:
            for step in range(0, 60, 10):
                writer.log(step, {"train/loss": 1.0 / (step + 1)})
            writer.report(50, {"accuracy": 0.5 + number / 10})
            writer.spend("train", Cost(samples=50, seconds=2.0, device_seconds=4.0))
            writer.checkpoint(50, str(folder / run.id / "50"), "digest", 1000)
            writer.finish("paused" if number < 3 else "finished", 50)


@contextmanager
def running(store: Store, **options: Any) -> Iterator[WebServer]:
    """A server in a thread of this process."""
    server = make_server(store, port=0, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.uvicorn.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("web")
    with Store.open(folder / "project" / "store.db") as opened:
        fill(opened, folder)
        yield opened


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[WebServer]:
    with running(store) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: WebServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as opened:
        yield opened


@pytest.fixture(scope="module")
def ask(client: httpx.Client, server: WebServer) -> Callable[..., httpx.Response]:
    """POST as the page does."""

    def post(path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {"x-thalweg-token": server.access.token, "content-type": "application/json", **headers}
        # Written here: the client's own way refuses half characters.
        return client.post(path, content=json.dumps({} if body is None else body), headers=sent)

    return post


@pytest.fixture(scope="session")
def web() -> SimpleNamespace:
    """The builders above: test files cannot import them from here."""
    return SimpleNamespace(running=running, fill=fill, script=SCRIPT, decimals=DECIMALS, decode=decode)


def decode(blob: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """A curve's bytes, by the format's description and not by our code."""
    length = int.from_bytes(blob[:4], "little")
    header = json.loads(blob[4 : 4 + length])
    assert (4 + length) % 8 == 0
    numbers = np.frombuffer(blob[4 + length :], "<f8").reshape(len(header["columns"]), header["num"])
    return header, dict(zip(header["columns"], numbers, strict=True))
