"""A real server, a real store, a real Chromium.

Where Chromium or Playwright is missing the tests skip, unless THALWEG_BROWSER=required: then they fail. CI sets it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg.track.records import NewRun
from thalweg.track.store import Store

SCALE = 10**6
"""Positions per step of a project."""

BEGAN = 1_770_000_000.0
"""When the runs of these tests began, in seconds since 1970."""

SERVE = "import typer; from thalweg.cli.serve import serve; typer.run(serve)"


# Not for the whole session: while Playwright is open its event loop runs, and no test of anything else could run one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium, headless."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        reason = "no Chromium or no Playwright here: apt-get install chromium; pip install playwright"
        if os.environ.get("THALWEG_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # Software rendering in a container needs no GPU process of its own.
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = playwright.chromium.launch(executable_path=chromium, args=options)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of its own; at the end the test fails if anything was written to its console as an error.

    `page.expected_errors` takes parts of messages that a test provokes on purpose.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id="UTC")
    opened = context.new_page()
    opened.set_default_timeout(15_000)
    errors: list[str] = []
    opened.expected_errors = []
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    found = [text for text in errors if not any(part in text for part in opened.expected_errors)]
    assert not found, "errors on the browser's console:\n" + "\n".join(found)


def start_server(store: Path, *options: str, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address. The caller ends it."""
    command = [sys.executable, "-c", SERVE, "--store", str(store), "--port", str(port), "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the server ended before it said where it is"
    return process, str(json.loads(line)["url"]).rstrip("/")


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., str]]:
    """serve(store, *options) -> the address of a server of that store, which runs until the tests end."""
    running: list[subprocess.Popen[str]] = []

    def start(store: Path, *options: str) -> str:
        process, url = start_server(store, *options)
        running.append(process)
        return url

    yield start
    for process in running:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def add_run(
    store: Store,
    project: str,
    uid: str,
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    **fields: Any,
) -> str:
    """A run with curves of (step, value), a point per second; fork_step= and the fields of NewRun."""
    store.create_project(project)
    fork_step = fields.pop("fork_step", 0)
    fields.setdefault("status", "finished")
    new = NewRun(
        uid=uid,
        fork_position=round(fork_step * SCALE),
        **{"created": BEGAN, "started": BEGAN, "ended": BEGAN + 1000} | fields,
    )
    run, _ = store.track_run(project, new)
    for metric, points in (curves or {}).items():
        steps = np.array([step for step, _ in points])
        times = ((BEGAN + np.arange(len(points))) * 1000).astype(np.int64)
        values = np.array([value for _, value in points], np.float64)
        store.import_points(run, metric, np.rint(steps * SCALE).astype(np.int64), times, values)
    return run


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the project "demo".

    demo-0 runs to step 1,000; demo-1 forks it at 400 with half the learning rate, demo-2 forks demo-1 at 600, demo-3
    waits for a parent that is not there, demo-4 is alone and has values that are not finite.
    """
    path = tmp_path_factory.mktemp("family") / "store.db"

    def curve(first: int, last: int, level: float) -> list[tuple[float, float]]:
        return [(step, level + 8.0 / (1 + step / 50)) for step in range(first, last + 1, 5)]

    with Store.open(path) as store:
        lr, rates = "lr", [(step, 1e-3) for step in range(0, 1001, 5)]
        norms = [(step, 1.0 + (step % 7) / 10) for step in range(0, 1001, 5)]
        root = add_run(
            store, "demo", "root", {"loss": curve(0, 1000, 1.0), lr: rates, "grad_norm": norms},
            name="the root", hyperparameters={"lr": 1e-3, "batch_size": 32, "optimizer": "adamw"}, tags=("baseline",),
            facts={"code": {"commit": "abc1234", "dirty": False}, "python": "3.11"},
        )  # fmt: skip
        child = add_run(
            store, "demo", "child", {"loss": curve(405, 1000, 0.5), lr: [(s, v / 2) for s, v in rates if s > 400]},
            parent=root, fork_step=400, hyperparameters={"lr": 5e-4, "batch_size": 32, "optimizer": "adamw"},
        )  # fmt: skip
        add_run(
            store, "demo", "grandchild", {"loss": curve(605, 900, 0.2)}, name="<b>bold</b> & {fine}", parent=child,
            fork_step=600, status="failed", error="Traceback (most recent call last):\n  ...\nValueError: too hot",
            hyperparameters={"lr": 5e-4, "batch_size": 64, "optimizer": "adamw"},
        )  # fmt: skip
        add_run(store, "demo", "orphan", {"loss": curve(305, 500, 0.9)}, parent="not-there", fork_step=300)
        values = [(0, 5.0), (1, 4.0), (2, float("nan")), (3, float("inf")), (4, -float("inf")), (5, 3.0)]
        add_run(store, "demo", "odd", {"loss": values}, status="diverged")
        store.add_note(root, "Began well.", "ada")
    return path


@pytest.fixture(scope="session")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with big-1, a fork of big-0 at step 600,000: 1,000,000 points of loss, lr and grad_norm in the lineage.

    The loss has one point far above all others, at step 700,001.
    """
    path = tmp_path_factory.mktemp("million") / "store.db"
    steps = np.arange(1_000_000, dtype=np.int64)
    noise = np.random.default_rng(0).normal(0, 0.05, len(steps))
    loss = 2 + 6 / (1 + steps / 20_000) + noise
    loss[700_001] = 40.0
    curves = {"loss": loss, "lr": 1e-3 * np.minimum(1, steps / 10_000), "grad_norm": 1 + np.abs(noise)}
    with Store.open(path) as store:
        root = add_run(store, "big", "root")
        fork = add_run(store, "big", "fork", parent=root, fork_step=600_000, started=BEGAN + 600)
        for metric, values in curves.items():
            for run, part in ((root, slice(0, 600_001)), (fork, slice(600_001, None))):
                times = (BEGAN * 1000 + steps[part]).astype(np.int64)
                store.import_points(run, metric, steps[part] * SCALE, times, values[part])
    return path
