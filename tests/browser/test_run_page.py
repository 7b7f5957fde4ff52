"""A run's page, the bar on top, and live updates, in a real browser."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import thalweg
from thalweg.track.records import NewRun
from thalweg.track.store import Store

HERE = Path(__file__).parent
HOSTILE = (
    '<script>window.pwned=1</script><img src=x onerror="window.pwned=1"><a href="javascript:window.pwned=1">x</a>{%y}'
)


@pytest.fixture(scope="module")
def family_url(serve: Callable[..., str], family: Path) -> str:
    return serve(family)


def card(page: Any, title: str) -> Any:
    return page.locator("section.card", has=page.get_by_role("heading", name=title, exact=True))


def wait_for_chart(page: Any) -> None:
    page.wait_for_function("() => document.querySelector('.chart-count')?.textContent.length > 0")


def test_all_about_a_run(page: Any, family_url: str) -> None:
    page.goto(f"{family_url}/r/demo-0")
    wait_for_chart(page)
    assert page.title() == "the root \u00b7 demo \u00b7 Thalweg"
    assert page.inner_text("h1") == "the root"
    assert card(page, "Hyperparameters").locator("tr").all_inner_texts() == [
        "lr\t0.001",
        "batch_size\t32",
        "optimizer\tadamw",
    ]
    assert "Began well." in card(page, "Notes").inner_text()
    assert card(page, "Tags").locator(".tag").inner_text().split("\n")[0] == "baseline"
    assert card(page, "Code and environment").locator("tr").all_inner_texts() == [
        "code.commit\tabc1234",
        "code.dirty\tfalse",
        "python\t3.11",
    ]
    assert card(page, "Lineage and forks").get_by_role("link").all_inner_texts() == ["demo-1"]
    page.wait_for_selector(".live.on")


@pytest.mark.slow
def test_what_a_fork_changed_and_why_it_failed(page: Any, family_url: str) -> None:
    page.goto(f"{family_url}/r/demo-2")
    wait_for_chart(page)
    assert page.inner_text("h1") == "<b>bold</b> & {fine}"
    assert card(page, "Hyperparameters").locator("tr.changed").all_inner_texts() == ["batch_size\t64 was 32"]
    assert page.inner_text(".problem") == "ValueError: too hot"
    assert card(page, "Lineage and forks").get_by_role("link").all_inner_texts()[:2] == ["demo-0", "demo-1"]


@pytest.mark.slow
def test_going_from_page_to_page_without_reloading(page: Any, family_url: str) -> None:
    page.goto(f"{family_url}/r/demo-1")
    wait_for_chart(page)
    page.evaluate("window.mark = 1")
    page.locator(".meta").get_by_role("link", name="demo-0").click()
    page.wait_for_function("() => document.querySelector('h1')?.textContent === 'the root'")
    page.go_back()
    page.wait_for_function("() => document.querySelector('h1')?.textContent === 'demo-1'")
    assert page.evaluate("window.mark") == 1
    # Each page listens while it is shown, and no longer.
    wait_for_chart(page)
    assert page.locator(".chart-plot").count() == 1


@pytest.mark.slow
def test_notes_and_tags_are_added(page: Any, serve: Callable[..., str], tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.create_project("notes")
        store.track_run("notes", NewRun(uid="a", status="finished", tags=("old",)))
    page.goto(f"{serve(tmp_path / 'store.db')}/r/notes-0")
    page.get_by_label("A new note").fill(f"first line\n{HOSTILE}")
    page.get_by_role("button", name="Add note").last.click()
    page.wait_for_selector(".note-item")
    assert page.locator(".note-item p").inner_text() == f"first line\n{HOSTILE}"
    page.get_by_label("Add a tag").fill("good <b>")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.tag').length === 2")
    page.get_by_label("Remove the tag old").click()
    page.wait_for_function("() => document.querySelectorAll('.tag').length === 1")
    with Store.open(tmp_path / "store.db") as store:
        details = store.run_details("notes-0")
    assert details.row.tags == ("good <b>",)
    assert [note.text for note in details.notes] == [f"first line\n{HOSTILE}"]
    assert page.evaluate("window.pwned ?? null") is None


@pytest.mark.slow
def test_read_only_offers_nothing_to_write(page: Any, serve: Callable[..., str], family: Path) -> None:
    page.goto(f"{serve(family, '--read-only')}/r/demo-0")
    wait_for_chart(page)
    assert page.get_by_label("A new note").count() == 0
    assert page.get_by_label("Add a tag").count() == 0
    assert page.get_by_role("button", name="Stop").count() == 0


@pytest.mark.slow
def test_names_are_data_on_every_page(page: Any, serve: Callable[..., str], tmp_path: Path) -> None:
    with thalweg.init(
        "names", store=tmp_path / "store.db", name=HOSTILE, hyperparameters={HOSTILE: HOSTILE}, tags=[HOSTILE],
        notes=HOSTILE, system_seconds=0, code=False,
    ) as root:  # fmt: skip
        root.log({HOSTILE: 1.0, "loss": 2.0}, step=0)
        root.log({HOSTILE: 3.0, "loss": float("nan")}, step=1)
    with thalweg.init(
        "names", store=tmp_path / "store.db", name=HOSTILE, fork_of=root, hyperparameters={HOSTILE: 2},
        system_seconds=0, code=False,
    ) as fork:  # fmt: skip
        fork.log({HOSTILE: 1.0, "loss": 2.0}, step=2)
    url = serve(tmp_path / "store.db")
    for address in (f"/r/{root.id}", f"/r/{fork.id}", f"/compare?runs={root.id},{fork.id}"):
        page.goto(url + address)
        wait_for_chart(page)
        page.locator(".picker summary").click()
        page.get_by_label(HOSTILE, exact=True).first.check()
        page.wait_for_function("() => document.querySelector('.chart-plot').data.some(({yaxis}) => yaxis === 'y2')")
        page.keyboard.press("Escape")
        # None while the chart is drawn anew.
        while (area := page.locator(".chart-plot .nsewdrag").first.bounding_box()) is None:
            page.wait_for_timeout(50)
        for share in (0.02, 0.5, 0.98):
            page.mouse.move(area["x"] + area["width"] * share, area["y"] + area["height"] * 0.5)
            page.wait_for_timeout(80)
        if page.locator(".tree-node").count():
            page.locator(".tree-node").first.hover()
        titles = page.locator(".chart-plot .annotation-text").all_text_contents()
        assert HOSTILE in titles
        assert page.locator("main img, main script, main a[href^=javascript]").count() == 0
        assert page.locator(".chart-plot a").count() == 0
    assert page.evaluate("window.pwned ?? null") is None


@pytest.mark.slow
def test_what_is_not_there_is_said(page: Any, family_url: str) -> None:
    page.expected_errors.append("404")
    page.goto(f"{family_url}/r/nobody-7")
    page.wait_for_selector(".empty")
    assert "nobody-7" in page.inner_text(".empty")
    page.goto(f"{family_url}/compare")
    page.wait_for_selector(".empty")
    assert page.inner_text(".empty-title") == "No runs are chosen"


@pytest.mark.slow
def test_a_narrow_window_and_the_dark_colours(page: Any, family_url: str) -> None:
    page.set_viewport_size({"width": 800, "height": 900})
    page.goto(f"{family_url}/r/demo-2")
    wait_for_chart(page)
    page.wait_for_selector(".tree-node")
    assert page.evaluate("document.documentElement.scrollWidth") <= 800
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    page.wait_for_function(
        "() => document.querySelector('.chart-plot').layout.template.layout.font.color === '#dde2e8'"
    )
    page.reload()
    wait_for_chart(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


@pytest.mark.slow
def test_a_logged_point_appears_by_itself(page: Any, serve: Callable[..., str], tmp_path: Path) -> None:
    run = thalweg.init("live", store=tmp_path / "store.db", system_seconds=0, code=False)
    run.log({"loss": 5.0}, step=0)
    run.flush()
    page.goto(f"{serve(tmp_path / 'store.db')}/r/{run.id}")
    wait_for_chart(page)
    page.wait_for_selector(".live.on")
    waits = []
    for step in range(1, 8):
        begun = time.perf_counter()
        run.log({"loss": 5.0 - step / 10}, step=step)
        page.wait_for_function(
            f"() => document.querySelector('.chart-plot').data[0].x.length === {step + 1}", polling=10
        )
        waits.append(time.perf_counter() - begun)
    # The target, 0.5 s, is measured in benchmarks/; here the machine may be busy with other tests.
    assert sorted(waits)[len(waits) // 2] < 1.5
    run.log({"accuracy": 0.5}, step=9)
    page.wait_for_function("() => document.querySelector('.picker summary').textContent.includes('of 2')")
    run.finish()
    page.wait_for_function("() => document.querySelector('.heading .status').textContent === 'finished'")


@pytest.mark.slow
def test_a_thousand_updates_leave_nothing_behind(page: Any, serve: Callable[..., str], tmp_path: Path) -> None:
    run = thalweg.init("live", store=tmp_path / "store.db", system_seconds=0, code=False)
    for step in range(2_000):
        run.log({"loss": 1 / (1 + step), "lr": 1e-3, "grad_norm": 1.0}, step=step)
    run.flush()
    page.goto(f"{serve(tmp_path / 'store.db')}/r/{run.id}")
    wait_for_chart(page)
    protocol = page.context.new_cdp_session(page)
    # What an event from the server does, a thousand times without the waiting in between.
    script = """async ([id, num]) => {
      const { drawChart } = await import('/static/chart.js');
      const { viewState } = await import('/static/view_state.js');
      window.state ??= viewState(() => {}, '');
      const run = {id, name: null, fork_step: 0, started: 0, ended: 1, parent: null, metrics: ['loss']};
      if (!window.chart) {
        const root = document.querySelector('.page');
        root.replaceChildren();
        window.chart = drawChart(root, {runs: [run], unit: 'steps', state: window.state, wait: 0});
        await window.chart.ready;
      }
      for (let update = 0; update < num; update++) await window.chart.refresh([id]);
    }"""

    def held() -> dict[str, float]:
        protocol.send("HeapProfiler.collectGarbage")
        return {item["name"]: item["value"] for item in protocol.send("Performance.getMetrics")["metrics"]}

    protocol.send("Performance.enable")
    page.evaluate(script, [run.id, 100])
    before = held()
    page.evaluate(script, [run.id, 1_000])
    after = held()
    run.finish()
    assert after["JSHeapUsedSize"] < before["JSHeapUsedSize"] + 3_000_000
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 20
    assert after["Nodes"] <= before["Nodes"] + 300


@pytest.mark.slow
def test_a_lost_server_is_said_and_found_again(page: Any, family: Path) -> None:
    # However far a request had come when the server ended.
    page.expected_errors.append("Failed to load resource: net::ERR_")
    page.expected_errors.append("ERR_INCOMPLETE_CHUNKED")
    spec = importlib.util.spec_from_file_location("browser_fixtures", HERE / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    first, url = fixtures.start_server(family)
    page.goto(f"{url}/r/demo-0")
    wait_for_chart(page)
    page.wait_for_selector(".live.on")
    first.kill()
    first.wait(10)
    page.wait_for_selector(".live.off")
    second, _ = fixtures.start_server(family, port=int(url.rsplit(":", 1)[1]))
    try:
        page.wait_for_selector(".live.on")
    finally:
        for process in (first, second):
            process.kill()
            process.wait(10)
            process.stdout.close()
