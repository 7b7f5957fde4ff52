"""The dashboard in a headless Chromium: how soon what is asked for is on the screen, and whether memory stays flat."""

from __future__ import annotations

import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from environments import Lab, scratch

import thalweg
from thalweg.track.records import NewRun
from thalweg.track.store import Store

sys.path.append(str(Path(__file__).parents[1]))
import result

SCALE = 10**6
"""Positions a step."""

NUM_PARTS = 4
"""Runs in the long lineage, each a fork of the one before."""

ON_SCREEN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

MANY_UPDATES = """async ([id, num]) => {
  const { drawChart } = await import('/static/chart.js');
  const { viewState } = await import('/static/view_state.js');
  const run = {id, name: null, fork_step: 0, started: 0, ended: 1, parent: null, metrics: ['loss']};
  if (!window.chart) {
    const root = document.querySelector('.page');
    root.replaceChildren();
    window.chart = drawChart(root, {runs: [run], unit: 'steps', state: viewState(() => {}, ''), wait: 0});
    await window.chart.ready;
  }
  for (let update = 0; update < num; update++) await window.chart.refresh([id]);
}"""
"""What an event from the server does, over and over without the waiting in between."""


def claims(lab: Lab) -> list[dict[str, Any]]:
    """Of everything here; without Chromium or Playwright, one that does not hold and says so."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        measured = {"problem": "no Chromium or no Playwright here: apt-get install chromium; pip install playwright"}
        return [result.claim("the dashboard in a browser", measured, 0.0, holds=False)]
    with sync_playwright() as playwright, scratch() as folder:
        folder.mkdir()
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        found = [*lineage(lab, browser, folder), table(lab, browser, folder), *live(lab, browser, folder)]
        browser.close()
    return found


def lineage(lab: Lab, browser: Any, folder: Path) -> list[dict[str, Any]]:
    """A chart of a long lineage: opened cold, then zoomed."""
    num = lab.pick(1_000_000, 40_000)
    print(f"a lineage of {num:,} points in a browser", flush=True)
    store = folder / "lineage.db"
    last = make_lineage(store, num)
    cold, zooms = [], []
    for _ in range(lab.pick(5, 1)):
        # Server, browser context and connection are new each time: nothing is cached anywhere.
        with serving(store) as address, opened(browser) as page:
            start = time.perf_counter()
            page.goto(f"{address}/r/{last}?metric=loss", wait_until="commit")
            page.wait_for_function(
                "() => document.querySelector('.chart-count')?.textContent.length > 0", polling="raf"
            )
            page.evaluate(ON_SCREEN)
            cold.append(1e3 * (time.perf_counter() - start))
            # As long as nobody can have found the place yet, the rest of the page may go on loading.
            time.sleep(0.5)
            zooms += [zoom(page, num, first) for first in np.linspace(0.1, 0.8, lab.pick(8, 2)) * num]
    chart = f"a chart of a lineage of {num:,} points in {NUM_PARTS} runs"
    return [
        claim(f"milliseconds until {chart} is drawn, page, server and browser's cache cold, the slowest", cold, 2000),
        claim(f"milliseconds until a zoom into {chart} shows its exact points, the slowest", zooms, 300),
    ]


def zoom(page: Any, num: int, first: float) -> float:
    """To 1,001 points, as a box that is drawn with the mouse does when it is let go."""
    start = time.perf_counter()
    first = round(first)
    page.evaluate(
        "(range) => { Plotly.relayout(document.querySelector('.chart-plot'), {'xaxis.range': range}); }",
        [first, first + 1000],
    )
    page.wait_for_function(
        """([first, text]) => document.querySelector('.chart-count').textContent.includes(text)
          && document.querySelector('.chart-plot').data.some(({x}) => x.includes(first + 500))""",
        arg=[first, f"1,001 of {num:,}"],
        polling="raf",
    )
    page.evaluate(ON_SCREEN)
    return 1e3 * (time.perf_counter() - start)


def table(lab: Lab, browser: Any, folder: Path) -> dict[str, Any]:
    """A table of many runs, opened cold."""
    num = lab.pick(10_000, 200)
    print(f"a table of {num:,} runs in a browser", flush=True)
    store = folder / "table.db"
    make_table(store, num)
    times = []
    for _ in range(lab.pick(5, 1)):
        with serving(store) as address, opened(browser) as page:
            start = time.perf_counter()
            page.goto(f"{address}/p/many", wait_until="commit")
            page.wait_for_function(
                "() => document.querySelector('.runs tbody tr[aria-selected] td.name')?.textContent.length > 0",
                polling="raf",
            )
            page.evaluate(ON_SCREEN)
            times.append(1e3 * (time.perf_counter() - start))
            assert page.locator(".total").inner_text() == f"{num:,} runs"
    return claim(f"milliseconds until a table of {num:,} runs is there, all cold, the slowest", times, 1000)


def live(lab: Lab, browser: Any, folder: Path) -> list[dict[str, Any]]:
    """A point that a script logs while its run is on the screen; and memory over many of them."""
    print("live updates in a browser", flush=True)
    store = folder / "live.db"
    with thalweg.init("live", store=store, system_seconds=0, code=False) as run:
        for step in range(100):
            run.log({"loss": 1 / (1 + step)}, step=step)
        run.flush()
        with serving(store) as address, opened(browser) as page:
            page.goto(f"{address}/r/{run.id}")
            page.wait_for_selector(".live.on")
            page.wait_for_function("() => document.querySelector('.chart-plot')?.data?.[0]?.x.length === 100")
            times = []
            for step in range(100, 100 + lab.pick(40, 5)):
                # Not in step with the clocks of the writer, the server or the page.
                time.sleep(0.3 + 0.1 * (step * 0.618 % 1))
                start = time.perf_counter()
                run.log({"loss": 1 / (1 + step)}, step=step)
                script = f"() => document.querySelector('.chart-plot').data[0].x.length === {step + 1}"
                page.wait_for_function(script, polling="raf")
                page.evaluate(ON_SCREEN)
                times.append(1e3 * (time.perf_counter() - start))
            memory = memory_claim(lab, page, run.id)
    return [claim("milliseconds from a log call until its point is on the screen, the slowest", times, 500), memory]


def memory_claim(lab: Lab, page: Any, run: str) -> dict[str, Any]:
    """What the page holds after many updates of its chart, over what it held before them."""
    num = lab.pick(1000, 30)
    protocol = page.context.new_cdp_session(page)
    protocol.send("Performance.enable")

    def held() -> dict[str, float]:
        protocol.send("HeapProfiler.collectGarbage")
        return {item["name"]: item["value"] for item in protocol.send("Performance.getMetrics")["metrics"]}

    # Chromium compiles what runs often, and keeps that: it is not what an update leaves behind.
    page.evaluate(MANY_UPDATES, [run, num // 2])
    before = held()
    page.evaluate(MANY_UPDATES, [run, num])
    after = held()
    names = ("JSHeapUsedSize", "JSEventListeners", "Nodes")
    measured = {
        f"{name}, {when}": values[name] for name in names for when, values in (("before", before), ("after", after))
    }
    text = f"the page's memory after {num:,} updates of its chart, over before, garbage collected"
    return result.claim(text, measured, after["JSHeapUsedSize"] / before["JSHeapUsedSize"], at_most=1.1)


def claim(text: str, times: list[float], at_most: float) -> dict[str, Any]:
    """The slowest counts."""
    measured = {"median_ms": statistics.median(times), "slowest_ms": max(times), "times": len(times)}
    return result.claim(text, measured, max(times), at_most=at_most)


@contextmanager
def serving(store: Path) -> Iterator[str]:
    """A server of a store; its address."""
    command = [sys.executable, "-m", "thalweg", "serve", "--store", str(store), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the server ended before it said where it is")
        yield str(json.loads(line)["url"]).rstrip("/")
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@contextmanager
def opened(browser: Any) -> Iterator[Any]:
    """A page in a context of its own; an error on its console ends the benchmark."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    if errors:
        raise RuntimeError(f"errors on the page: {errors[:3]}")


def make_lineage(path: Path, num: int) -> str:
    """Runs that fork each other, with `num` points of loss in all; returns the last one's id."""
    rng = np.random.default_rng(0)
    steps = np.arange(num)
    values = 2 + 6 / (1 + steps / 20_000) + rng.normal(0, 0.05, num)
    parts = np.array_split(steps, NUM_PARTS)
    parent = None
    with Store.open(path) as store:
        store.create_project("lineage")
        for part in parts:
            fork = 0 if parent is None else int(part[0] - 1) * SCALE
            new = NewRun(uid=f"part-{part[0]}", parent=parent, fork_position=fork, status="finished")
            parent, _ = store.track_run("lineage", new)
            store.import_points(parent, "loss", part * SCALE, 1_770_000_000_000 + part, values[part])
    assert parent is not None
    return parent


def make_table(path: Path, num: int) -> None:
    """A project of many runs with 12 hyperparameters and 3 metrics each, their rows written at once."""
    began = 1_770_000_000.0
    with Store.open(path) as store:
        store.create_project("many")
        times = {"created": began, "started": began, "ended": began}
        store.track_run("many", NewRun(uid="u0", hyperparameters={"p0": 0.5}, status="finished", **times))
    rng = np.random.default_rng(0)
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        first = dict(connection.execute("SELECT * FROM run").fetchone())
        changed: Callable[[int], dict[str, Any]] = lambda number: {  # noqa: E731
            "key": first["key"] + number,
            "id": f"many-{number}",
            "number": number,
            "uid": f"u{number}",
            "created": began + number,
            "hyperparameters": json.dumps({f"p{k}": float(value) for k, value in enumerate(rng.random(12))}),
            "latest": json.dumps({f"metric/{k}": [100 * SCALE, float(value)] for k, value in enumerate(rng.random(3))}),
        }
        rows = [tuple((first | changed(number)).values()) for number in range(1, num)]
        columns = ", ".join(f'"{name}"' for name in first)
        connection.executemany(f"INSERT INTO run ({columns}) VALUES ({', '.join('?' * len(first))})", rows)
        connection.execute("UPDATE study SET num_created = ?", (num,))
    connection.close()


if __name__ == "__main__":
    sys.exit("run.py runs this: python benchmarks/tracking/run.py --only browser")
