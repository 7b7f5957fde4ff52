"""The list of projects, a project's tabs, a study's plots and budget; and that nothing in the data is ever markup."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from thalweg.budget import Cost
from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.tree import Fork, Stop

BEGAN = 1_770_000_000.0
SCALE = 10**6
HOSTILE = '<script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
PLOTS = ("history", "parallel", "importance", "slices", "contour", "rungs", "pareto")


def add_study(store: Store, name: str, metric: str, names: tuple[str, str, str], option: str = "adamw") -> None:
    """Twelve runs of a halving search over a log, a whole and a chosen hyperparameter; run 0 is the best."""
    log, whole, chosen = names
    space = {log: {"log": [1e-6, 1e-3]}, whole: {"integer": [1, 3]}, chosen: {"choice": [option, "sgd"]}, "fixed": 0.5}
    config = {
        "metric": f"max {metric}", "unit": "samples", "space": space, "seed": 0,
        "strategy": {"name": "halving", "sampler": "tpe", "eta": 3}, "budget": {"device_seconds": 100.0, "runs": 24},
    }  # fmt: skip
    store.create_study(name, config)
    for i in range(12):
        values = {log: 10.0 ** -(3.2 + i / 5), whole: 1 + i % 3, chosen: (option, "sgd")[i % 2], "fixed": 0.5}
        until = (900, 300, 100)[min(i % 4, 2)]
        run = store.create_run(name, hyperparameters=values, horizon=900, until=until, seed=0, origin="halving")
        with store.writer(run.id) as writer:
            writer.spend("train", Cost(seconds=4.0, device_seconds=4.0, tokens=100 * until))
            writer.spend("evaluate", Cost(seconds=1.0, device_seconds=1.0, tokens=50))
            for position in (100, 300, 900):
                if position <= until:
                    writer.log(position, {f"train/{metric}": 1.0})
                    writer.report(position, {metric: 0.9 - i / 100 + position / 10_000})
            writer.finish("finished" if until == 900 else "paused", until)


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study "imdb" with two requests, one of them answered, and a study with one run that has no result."""
    path = tmp_path_factory.mktemp("search") / "store.db"
    with Store.open(path) as store:
        add_study(store, "imdb", "accuracy", ("lr", "epochs", "optimizer"))
        first = store.add_request("imdb", Stop("imdb-2"), "ada @ lab")
        store.answer_request(first, "stopped")
        store.add_request("imdb", Fork("imdb-0", 300, {"lr": 1e-5}, 900), "grace @ lab")
        config = {**store.study("imdb").config, "strategy": {"name": "tpe"}}
        store.create_study("young", config)
        store.create_run("young", hyperparameters={"lr": 1e-4}, horizon=900, until=900, seed=0, origin="tpe")
    return path


@pytest.fixture(scope="module")
def address(serve: Callable[..., str], search: Path) -> str:
    return serve(search)


def until(page: Any, expression: str) -> None:
    """Wait for an expression to be true; Playwright's own way needs an eval, which the page forbids."""
    end = time.monotonic() + 15
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(30)


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    until(
        page,
        f"""document.querySelector('[role=tab][aria-selected="true"]').textContent.startsWith({json.dumps(name)})""",
    )


def test_projects_are_listed_with_their_best_run(page: Any, address: str) -> None:
    page.goto(address)
    row = page.locator(".projects tbody tr", has_text="imdb")
    text = row.inner_text()
    assert "study" in text
    assert "12" in text
    # The best that has finished: run 0, 0.9 + 900 / 10,000.
    assert "accuracy 0.99" in text
    row.get_by_role("link", name="imdb-0").click()
    page.wait_for_selector("h1:has-text('imdb-0')")


@pytest.mark.slow
def test_an_empty_store_says_how_to_begin(page: Any, serve: Callable[..., str], tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        page.goto(serve(tmp_path / "store.db"))
        assert "Nothing is tracked" in page.locator(".empty-title").inner_text()
        assert "thalweg.init(" in page.locator("pre").inner_text()
        store.create_project("first")
        store.track_run("first", NewRun(uid="a"))
        page.wait_for_selector(".projects a:has-text('first')")


@pytest.mark.slow
def test_the_heading_says_what_the_study_is(page: Any, address: str) -> None:
    page.goto(f"{address}/p/imdb")
    page.wait_for_selector(".runs tbody tr[aria-selected]")
    assert page.locator("h1").inner_text() == "imdb"
    meta = page.locator(".meta").first.inner_text()
    assert "max accuracy" in meta
    assert "halving (sampler tpe, eta 3)" in meta
    assert "12 runs" in meta
    assert page.get_by_role("tab").all_inner_texts() == [
        "Runs", "Chart", "Tree", "Search", "Budget", "Asked for (1)", "Settings"
    ]  # fmt: skip


@pytest.mark.slow
def test_tabs_are_in_the_url_and_under_the_arrow_keys(page: Any, address: str) -> None:
    page.goto(f"{address}/p/imdb?tab=settings")
    page.wait_for_selector("pre.settings")
    assert '"eta": 3' in page.locator("pre.settings").inner_text()
    page.get_by_role("tab", name="Settings").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("table.asked")
    until(page, "location.search === '?tab=asked'")
    open_tab(page, "Tree")
    page.wait_for_selector(".tree-node")
    open_tab(page, "Chart")
    page.wait_for_selector(".legend-item")
    assert "newest 8" in page.locator("#page").inner_text()


@pytest.mark.slow
def test_what_was_asked_for_is_shown_with_who_and_what_came_of_it(page: Any, address: str) -> None:
    page.goto(f"{address}/p/imdb?tab=asked")
    page.wait_for_selector("table.asked tbody tr")
    rows = [row.split("\t") for row in page.locator("table.asked tbody tr").all_inner_texts()]
    assert [row[1:] for row in rows] == [
        ["grace @ lab", "Fork imdb-0 at 300 with lr = 1e−5 until 900", "waits for the study's loop"],
        ["ada @ lab", "Stop imdb-2", "stopped"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLOTS)
def test_every_plot_is_drawn(page: Any, address: str, kind: str) -> None:
    page.goto(f"{address}/p/imdb?tab=search&plot={kind}")
    page.wait_for_selector(".plot .main-svg", timeout=40_000)
    assert page.locator(".plot-note").inner_text().endswith(".")
    assert page.locator('.plot-kinds [aria-pressed="true"]').count() == 1
    drawn = page.evaluate("document.querySelector('.plot').data.length")
    assert drawn > 0


@pytest.mark.slow
def test_a_click_on_a_point_opens_its_run(page: Any, address: str) -> None:
    page.goto(f"{address}/p/imdb?tab=search&plot=pareto")
    page.wait_for_selector(".plot .main-svg", timeout=40_000)
    point = page.locator(".plot .scatterlayer .point").last
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".hoverlayer .hovertext")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(page, "location.pathname.startsWith('/r/imdb-')")


@pytest.mark.slow
def test_the_options_of_a_plot_are_controls_and_in_the_url(page: Any, address: str) -> None:
    page.goto(f"{address}/p/imdb?tab=search&plot=contour")
    page.get_by_label("across").wait_for(timeout=40_000)
    assert page.get_by_label("across").input_value() == "lr"
    assert page.get_by_label("upwards").input_value() == "epochs"
    # The one that is taken changes places with the other.
    page.get_by_label("across").select_option("epochs")
    until(page, "location.search.includes('contour.x=epochs') && location.search.includes('contour.y=lr')")
    until(page, "document.querySelector('.plot').layout.xaxis.title.text === 'epochs'")
    page.reload()
    page.get_by_label("across").wait_for()
    assert page.get_by_label("across").input_value() == "epochs"
    page.get_by_label("upwards").select_option("optimizer")
    until(page, "document.querySelector('.plot-note').textContent.includes('between choices')")


@pytest.mark.slow
def test_too_few_runs_and_bad_options_are_said(page: Any, address: str) -> None:
    page.expected_errors = ["Failed to load resource"]
    page.goto(f"{address}/p/young?tab=search&plot=slices")
    page.wait_for_selector(".empty-title:has-text('Nothing to draw here yet')", timeout=40_000)
    assert "needs at least one run with a result" in page.locator("#page").inner_text()
    # The strategy has no rungs: there is no such plot to choose.
    assert "Rungs" not in page.locator(".plot-kinds").inner_text()
    page.goto(f"{address}/p/imdb?tab=search&plot=contour&contour.x=nonsense")
    page.get_by_role("button", name="Reset the plot's options").click(timeout=40_000)
    page.wait_for_selector(".plot .main-svg")


@pytest.mark.slow
def test_the_budget_by_hand(page: Any, address: str) -> None:
    page.goto(f"{address}/p/imdb?tab=budget")
    page.wait_for_selector(".plot .main-svg", timeout=40_000)
    limits = page.locator(".limits").inner_text()
    # Twelve runs of 4 + 1 device seconds each.
    assert "1 min of 1 min 40 s" in limits
    assert "12 of 24" in limits
    rows = {row.split("\t")[0]: row.split("\t")[1:3] for row in page.locator(".spent tbody tr").all_inner_texts()}
    assert rows == {"Training": ["48 s", "48 s"], "Evaluating": ["12 s", "12 s"], "In all": ["1 min", "1 min"]}


@pytest.mark.slow
def test_plots_follow_the_theme(page: Any, address: str) -> None:
    page.goto(f"{address}/p/imdb?tab=search&plot=slices")
    page.wait_for_selector(".plot .main-svg", timeout=40_000)
    ink = "document.querySelector('.plot').layout.template.layout.font.color"
    before = page.evaluate(ink)
    page.locator("button.theme").click()
    until(page, f"{ink} !== {json.dumps(before)}")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project and a study in which every name, tag, note, value and metric is markup."""
    path = tmp_path_factory.mktemp("hostile") / "store.db"
    with Store.open(path) as store:
        store.create_project("project")
        for i in range(2):
            new = NewRun(
                uid=f"u{i}{HOSTILE}", name=HOSTILE, hyperparameters={HOSTILE: HOSTILE, "lr": i, f"{HOSTILE}2": i},
                tags=(HOSTILE,), facts={HOSTILE: {HOSTILE: HOSTILE}}, status="failed" if i else "finished",
                error=f"{HOSTILE}\n{HOSTILE}" if i else None, created=BEGAN, started=BEGAN, ended=BEGAN + 9,
                parent=f"u0{HOSTILE}" if i else f"gone {HOSTILE}", fork_position=5 * SCALE,
            )  # fmt: skip
            run, _ = store.track_run("project", new)
            for metric in (f"loss {HOSTILE}", f"system/{HOSTILE}"):
                steps = np.arange(6 * i, 6 * i + 20)
                values = np.where(steps == 7, math.nan, steps / 10.0)
                store.import_points(run, metric, steps * SCALE, steps * 1000, values)
            store.add_note(run, HOSTILE, HOSTILE)
        store.add_request("project", Stop("project-0"), HOSTILE)
        add_study(store, "study", HOSTILE.replace(" ", "_"), (HOSTILE, f"{HOSTILE}<b>", f"%{{x}}{HOSTILE}"), HOSTILE)
        number = store.add_request("study", Fork("study-0", 100, {HOSTILE: 1e-5}, 900), HOSTILE)
        store.answer_request(number, HOSTILE)
        store.add_request("study", Stop("study-1"), HOSTILE)
    return path


HOSTILE_PAGES = (
    "/", "/p/project", "/p/project?tab=chart", "/p/project?tab=tree", "/p/project?tab=asked", "/p/project?tab=settings",
    "/p/study", "/p/study?tab=chart", "/p/study?tab=tree", "/p/study?tab=budget", "/p/study?tab=asked",
    "/p/study?tab=settings",
    *(f"/p/study?tab=search&plot={kind}" for kind in PLOTS),
    f"/p/study?tab=search&plot=contour&contour.y={quote(HOSTILE)}&contour.x={quote('%{x}' + HOSTILE)}",
    f"/p/project?group=tags&sel=0-1&diff=1&filter={quote('name ~ img')}", f"/p/project?group={quote('h:' + HOSTILE)}",
    f"/p/project?filter={quote(HOSTILE)}", "/r/project-0?system=1", "/r/project-1", "/r/study-0",
    "/compare?runs=project-0,project-1", f"/p/{quote(HOSTILE)}", f"/r/{quote(HOSTILE)}",
    f"/compare?runs={quote(HOSTILE)}",
)  # fmt: skip


@pytest.mark.slow
def test_no_name_tag_note_value_or_metric_is_ever_run(page: Any, serve: Callable[..., str], hostile: Path) -> None:
    # Unknown projects and runs, and plots with too few runs, are answered with an error on purpose.
    page.expected_errors = ["Failed to load resource"]
    address = serve(hostile)
    for path in HOSTILE_PAGES:
        page.goto(address + path)
        page.wait_for_load_state("load")
        page.wait_for_selector("#page .page > *")
        if "plot=" in path or "tab=chart" in path or "/compare" in path or path.startswith("/r/project"):
            page.wait_for_selector(".main-svg:visible, .empty-title:visible", timeout=40_000)
        page.wait_for_timeout(250)
        hover_everything(page)
        assert page.evaluate("typeof window.pwned") == "undefined", path
        assert page.evaluate("document.querySelectorAll('img, main script').length") == 0, path
        shown = page.locator("#page").inner_text()
        assert shown.strip(), path
    # And it was there to be run: as a text.
    page.goto(f"{address}/p/project")
    page.wait_for_selector(".runs td.name a")
    assert page.locator(".runs td.name a").first.inner_text() == HOSTILE


@pytest.mark.slow
def test_dialogs_do_not_run_it_either(page: Any, serve: Callable[..., str], hostile: Path) -> None:
    address = serve(hostile)
    for path, buttons in (
        ("/r/project-0", ("Fork", "Restart", "Tags", "Rename", "Note")),
        ("/r/study-1", ("Stop", "Fork")),
    ):
        page.goto(address + path)
        for button in buttons:
            page.locator(".steering").get_by_role("button", name=button, exact=True).click()
            page.wait_for_selector("dialog[open]")
            assert page.evaluate("document.querySelectorAll('img').length") == 0
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog", state="detached")
    assert page.evaluate("typeof window.pwned") == "undefined"


def hover_everything(page: Any) -> None:
    """Bring up the boxes that show on hovering: of Plotly's points and of the tree's runs."""
    for selector in (".scatterlayer .point", ".tree-node", ".heatmaplayer", ".barlayer .point"):
        found = page.locator(selector)
        if found.count() and (box := found.first.bounding_box()):
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.wait_for_timeout(60)
