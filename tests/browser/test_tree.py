"""The fork tree: its order by hand, and its drawing in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def family_url(serve: Callable[..., str], family: Path) -> str:
    return serve(family)


@pytest.fixture(scope="module")
def quiet_page(browser: Any, family_url: str) -> Any:
    """A page without a chart, for calling functions of the modules and drawing trees of made-up runs."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{family_url}/compare")
    page.wait_for_selector(".empty")
    yield page
    context.close()


def run(number: int, parent: int | None = None, fork_step: float = 0, step: float = 100, **more: Any) -> dict[str, Any]:
    """A run as the API gives it."""
    return {
        "id": f"p-{number}",
        "name": None,
        "number": number,
        "parent": None if parent is None else f"p-{parent}",
        "waiting_parent": None,
        "fork_step": fork_step,
        "step": step,
        "horizon": 0,
        "status": "finished",
        "hyperparameters": {},
        "latest": {},
        "tags": [],
    } | more


def rows(page: Any, runs: list[dict[str, Any]], *shut: str) -> list[Any]:
    """[id, depth, parent's row, hidden forks] of each row."""
    script = """async ([runs, shut]) => {
      const { treeRows } = await import('/static/tree_layout.js');
      const rows = treeRows(runs, new Set(shut));
      return rows.map(({run, depth, parentRow, numHidden}) => [run.id, depth, parentRow, numHidden]);
    }"""
    return list(page.evaluate(script, [runs, list(shut)]))


@pytest.mark.slow
def test_forks_follow_their_parent_the_latest_first(quiet_page: Any) -> None:
    runs = [run(0), run(1, 0, 20), run(2, 0, 80), run(3, 1, 50), run(4)]
    assert rows(quiet_page, runs) == [
        ["p-0", 0, -1, 0],
        ["p-2", 1, 0, 0],
        ["p-1", 1, 0, 0],
        ["p-3", 2, 2, 0],
        ["p-4", 0, -1, 0],
    ]
    assert rows(quiet_page, runs, "p-0") == [["p-0", 0, -1, 3], ["p-4", 0, -1, 0]]


@pytest.mark.slow
def test_parents_that_are_not_there(quiet_page: Any) -> None:
    waiting = run(1, None, 30, waiting_parent="far-away")
    assert rows(quiet_page, [waiting]) == [["waiting for far-away", 0, -1, 0], ["p-1", 1, 0, 0]]
    # Outside of what is shown is not the same as not there.
    assert rows(quiet_page, [run(2, 1, 30)]) == [["p-2", 0, -1, 0]]


@pytest.mark.slow
def test_a_lineage_of_ten_thousand(quiet_page: Any) -> None:
    runs = [run(number, number - 1 if number else None, number) for number in range(10_000)]
    got = rows(quiet_page, runs)
    assert [row[0] for row in got] == [f"p-{number}" for number in range(10_000)]
    assert got[-1][1] == 9_999
    assert rows(quiet_page, runs, "p-10")[-1] == ["p-10", 10, 9, 9_989]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 30), st.integers(0, 9)), min_size=1, max_size=30),
    st.integers(0, 29),
    st.integers(1, 9),
)
def test_lines_to_forks_cross_no_run_and_are_all_in_view(
    quiet_page: Any, tree: list[tuple[int, int]], first: int, height: int
) -> None:
    # Each run forks an earlier one, at the parent's own fork or later.
    runs: list[dict[str, Any]] = []
    for number, (parent, later) in enumerate(tree):
        known = parent % number if number and parent >= 0 else None
        runs.append(run(number, known, 0 if known is None else runs[known]["fork_step"] + later))
    first = min(first, len(runs) - 1)
    end = min(first + height, len(runs))
    script = """async ([runs, first, end]) => {
      const { treeRows, inView } = await import('/static/tree_layout.js');
      const rows = treeRows(runs);
      return [rows.map(({run, row, parentRow}) => [run.fork_step, row, parentRow]), inView(rows, first, end).lines];
    }"""
    ordered, lines = quiet_page.evaluate(script, [runs, first, end])
    for fork_step, row, parent in ordered:
        if parent < 0:
            continue
        for between in range(parent + 1, row):
            # What lies between begins no earlier than where the line comes down: the line passes left of it.
            assert ordered[between][0] >= fork_step
        if parent < end and row >= first:
            drawn = [line for line in lines if line["x"] == fork_step and line["from"] <= parent and line["to"] >= row]
            assert drawn, f"the line from row {parent} to row {row} is missing in {first}..{end}"
    for line in lines:
        assert line["from"] < end
        assert line["to"] >= first


@pytest.mark.slow
def test_the_family_of_a_run(quiet_page: Any) -> None:
    runs = [run(0), run(1, 0, 20), run(2, 1, 30), run(3, 0, 40), run(4, 3, 50), run(5), run(6, 2, 60)]
    script = """async ([runs, id]) => (await import('/static/tree_layout.js')).familyOf(runs, id).map(({id}) => id)"""
    # Ancestors and their other forks, but not what those led to; all that came of the run itself.
    assert quiet_page.evaluate(script, [runs, "p-2"]) == ["p-0", "p-1", "p-2", "p-3", "p-6"]
    assert quiet_page.evaluate(script, [runs, "p-5"]) == ["p-5"]


@pytest.mark.slow
def test_round_numbers_on_the_axis(quiet_page: Any) -> None:
    script = """async (ends) => (await import('/static/tree_layout.js')).ticks(...ends)"""
    assert quiet_page.evaluate(script, [1000, 5]) == [0, 200, 400, 600, 800, 1000]
    assert quiet_page.evaluate(script, [0.35, 4]) == [0, 0.1, 0.2, 0.3]
    assert quiet_page.evaluate(script, [1e12, 2]) == [0, 5e11, 1e12]
    assert quiet_page.evaluate(script, [0, 4]) == [0]


DRAW = """async (runs) => {
  const { drawTree } = await import('/static/tree.js');
  const { viewState } = await import('/static/view_state.js');
  window.clean?.();
  const root = document.querySelector('.page');
  root.replaceChildren();
  const begun = performance.now();
  window.state = viewState(() => {}, '');
  window.clean = drawTree(root, runs, {unit: 'steps', state: window.state});
  root.getBoundingClientRect();
  return performance.now() - begun;
}"""


@pytest.mark.slow
def test_ten_thousand_runs_are_drawn_at_once_and_scroll(quiet_page: Any) -> None:
    runs = [run(n, n // 3 if n % 3 and n > 5 else None, min(n // 3 % 7 * 10, 90)) for n in range(10_000)]
    milliseconds = quiet_page.evaluate(DRAW, runs)
    assert milliseconds < 2_000
    tree = quiet_page.locator(".tree-scroll")
    assert quiet_page.inner_text(".tree .total") == "10,000 runs"
    # Only what is in view is there.
    assert 10 < quiet_page.locator(".tree-node").count() < 60
    order = [row[0] for row in rows(quiet_page, runs)]
    tree.focus()
    quiet_page.keyboard.press("End")
    quiet_page.wait_for_selector(f'.tree-node[data-run="{order[-1]}"].active')
    assert (
        quiet_page.evaluate(
            "document.getElementById(document.querySelector('.tree-scroll').getAttribute('aria-activedescendant')).dataset.run"
        )
        == order[-1]
    )
    quiet_page.evaluate("document.querySelector('.tree-scroll').scrollTop = 26 * 5000")
    quiet_page.wait_for_selector(f'.tree-node[data-run="{order[5005]}"]')


@pytest.mark.slow
def test_news_are_drawn_in_place(quiet_page: Any) -> None:
    quiet_page.evaluate(DRAW, [run(0)])
    quiet_page.evaluate("(runs) => window.clean.update(runs)", [run(0), run(1, 0, 50)])
    quiet_page.wait_for_selector('.tree-node[data-run="p-1"]')
    assert quiet_page.locator(".tree").count() == 1
    quiet_page.evaluate("window.clean()")
    assert quiet_page.locator(".tree").count() == 0


@pytest.mark.slow
def test_colours_by_a_metric(quiet_page: Any) -> None:
    runs = [run(n, latest={"loss": [100, value]}) for n, value in enumerate([1.0, 2.0, 3.0, "nan"])] + [run(4)]
    quiet_page.evaluate(DRAW, runs)
    quiet_page.get_by_label("What the colours show").select_option("loss")
    # The legend changes at once, the tree with the next frame.
    quiet_page.wait_for_selector('.tree-node[data-run="p-4"] circle[fill="#8a9099"]')
    dots = [quiet_page.locator(f'.tree-node[data-run="p-{n}"] circle').get_attribute("fill") for n in range(5)]
    assert len(set(dots[:3])) == 3
    # Without a number they are grey, like each other and like no number.
    assert dots[3] == dots[4] == "#8a9099"
    assert quiet_page.evaluate("window.state.get('colour')") == "loss"


def test_the_family_on_a_runs_page(page: Any, family_url: str) -> None:
    page.goto(f"{family_url}/r/demo-1")
    page.wait_for_selector(".tree-node")
    labels = page.locator(".tree-node").evaluate_all("nodes => nodes.map((node) => node.getAttribute('aria-label'))")
    assert labels == [
        "the root, demo-0, finished at 1,000 steps",
        "demo-1, finished at 1,000 steps, fork of demo-0 at 400, lr 0.001 \u2192 5e\u22124",
        "<b>bold</b> & {fine}, demo-2, failed at 900 steps, fork of demo-1 at 600, batch_size 32 \u2192 64",
    ]
    page.locator(".tree-node").nth(2).hover()
    assert page.locator(".tree-tip").inner_text().split("\n\n") == [
        "<b>bold</b> & {fine} (demo-2)",
        "failed at 900 steps",
        "fork of demo-1 at 600",
        "batch_size 32 \u2192 64",
    ]
    # The line goes from the fork to where the run is, on the axis' scale.
    script = """() => [...document.querySelectorAll('.tree-node')].map((node) => {
      const line = [...node.querySelectorAll('line')].pop();
      return [Number(line.getAttribute('x1')), Number(line.getAttribute('x2'))];
    })"""
    (zero, thousand), (first, last), (later, end) = page.evaluate(script)
    assert [first, last, later, end] == pytest.approx(
        [zero + share * (thousand - zero) for share in (0.4, 1.0, 0.6, 0.9)], abs=0.01
    )
    page.locator(".tree-node").nth(0).click()
    page.wait_for_url("**/r/demo-0")


@pytest.mark.slow
def test_the_tree_by_keyboard(page: Any, family_url: str) -> None:
    page.goto(f"{family_url}/r/demo-0")
    page.wait_for_selector(".tree-node")
    page.locator(".tree-scroll").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator(".tree-node.active").get_attribute("data-run") == "demo-1"
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.querySelectorAll('.tree-node').length === 2")
    assert page.locator(".tree-node.active").get_attribute("aria-expanded") == "false"
    page.wait_for_url("**tree.shut=demo-1*")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelectorAll('.tree-node').length === 3")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/r/demo-2")


@pytest.mark.slow
def test_a_run_whose_parent_is_not_there_yet(page: Any, family_url: str) -> None:
    page.goto(f"{family_url}/r/demo-3")
    page.wait_for_selector(".tree-node")
    ghost = page.locator(".tree-node").first
    assert ghost.get_attribute("aria-label") == "not-there, not there yet: its forks wait for it"
    assert ghost.get_attribute("href") is None
    assert "its parent not-there is not there yet" in page.inner_text(".meta")
