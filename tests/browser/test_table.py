"""The run table: filter, order, groups, columns, selection, differences, the keyboard, and 10,000 rows."""

from __future__ import annotations

import json
import math
import random
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg.track.records import NewRun
from thalweg.track.store import Store

BEGAN = 1_770_000_000.0
SCALE = 10**6

LOSSES = (0.5, 0.3, math.nan, 0.4, None, 0.2)
"""The last loss of each run of `few`: one is not a number, one run has logged nothing."""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs of "few": lr 1e-2 ... 1e-7, batch_size 8 or 16 (the last run has none), depth the same in all."""
    path = tmp_path_factory.mktemp("few") / "store.db"
    with Store.open(path) as store:
        store.create_project("few")
        store.create_project("none")
        store.create_project("one")
        store.track_run("one", NewRun(uid="only", status="finished"))
        for i, loss in enumerate(LOSSES):
            parameters: dict[str, Any] = {"lr": 10.0 ** -(i + 2), "depth": 12}
            if i < 5:
                parameters["batch_size"] = 8 * (1 + i % 2)
            new = NewRun(
                uid=f"u{i}", name=f"run {i}", hyperparameters=parameters, tags=("first",) if i == 0 else (),
                status="failed" if i == 3 else "finished", created=BEGAN + i, started=BEGAN + i, ended=BEGAN + 9 * i,
            )  # fmt: skip
            run, _ = store.track_run("few", new)
            if loss is not None:
                at = np.array([100 * SCALE])
                store.import_points(run, "loss", at, np.array([int(BEGAN * 1000)]), np.array([loss]))
    return path


@pytest.fixture(scope="module")
def address(serve: Callable[..., str], few: Path) -> str:
    return serve(few)


@pytest.fixture
def show(page: Any, address: str) -> Callable[..., Any]:
    def go(query: str = "", project: str = "few") -> Any:
        page.goto(f"{address}/p/{project}{query}")
        page.wait_for_selector(".runs tbody tr:not(.spacer), .empty")
        return page

    return go


def column(page: Any, title: str) -> list[str]:
    """What stands in a column, from top to bottom."""
    titles = [text.strip() for text in page.locator(".runs thead .sorter-title").all_inner_texts()]
    index = titles.index(title) + 2
    return list(page.locator(f".runs tbody tr[aria-selected] td:nth-child({index})").all_inner_texts())


def click_head(page: Any, title: str, **options: Any) -> None:
    page.locator(".runs thead .sorter", has=page.locator(f'.sorter-title:text-is("{title}")')).click(**options)


def until(page: Any, expression: str) -> None:
    """Wait for an expression to be true; Playwright's own way needs an eval, which the page forbids."""
    end = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(20)


def until_rows(page: Any, number: int, kind: str = "[aria-selected]") -> None:
    until(page, f"document.querySelectorAll('.runs tbody tr{kind}').length === {number}")


def wait_for_url(page: Any, part: str) -> None:
    until(page, f"location.search.includes({json.dumps(part)})")


def test_runs_are_listed_newest_first(show: Callable[..., Any]) -> None:
    page = show()
    assert column(page, "Run") == [f"run {i}" for i in (5, 4, 3, 2, 1, 0)]
    # What differs is shown, what is the same in all runs is not; the failed one is told by its status.
    titles = page.locator(".sorter-title").all_inner_texts()
    assert {"lr", "batch_size", "loss"} <= set(titles)
    assert "depth" not in titles
    assert "1 hyperparameter the same in all runs" in page.locator(".same").inner_text()
    assert column(page, "Status").count("failed") == 1
    assert page.locator(".total").inner_text() == "6 runs"


@pytest.mark.slow
def test_sorting_keeps_what_has_no_value_last_either_way(show: Callable[..., Any]) -> None:
    page = show("?sort=number")
    click_head(page, "loss")
    assert column(page, "loss") == ["0.2", "0.3", "0.4", "0.5", "NaN", ""]
    click_head(page, "loss")
    assert column(page, "loss") == ["0.5", "0.4", "0.3", "0.2", "NaN", ""]
    assert page.locator('th[aria-sort="descending"]').inner_text().startswith("loss")
    click_head(page, "batch_size")
    # Runs that are equal keep their order: they were created in it.
    assert column(page, "Run") == ["run 0", "run 2", "run 4", "run 1", "run 3", "run 5"]
    click_head(page, "lr", modifiers=["Shift"])
    assert column(page, "Run") == ["run 4", "run 2", "run 0", "run 3", "run 1", "run 5"]
    wait_for_url(page, "sort=h%3Abatch_size&sort=h%3Alr")
    page.reload()
    page.wait_for_selector(".runs tbody tr[aria-selected]")
    assert column(page, "Run") == ["run 4", "run 2", "run 0", "run 3", "run 1", "run 5"]


FILTERS = {
    "": {0, 1, 2, 3, 4, 5},
    "run": {0, 1, 2, 3, 4, 5},
    "failed": {3},
    "FIRST": {0},
    "status = failed": {3},
    "status != failed": {0, 1, 2, 4, 5},
    "lr > 1e-4": {0, 1},
    "lr >= 1e-4 and lr < 0.01": {1, 2},
    "lr>=1e-4 lr<0.01": {1, 2},
    "batch_size = 8": {0, 2, 4},
    "batch_size = none": {5},
    "batch_size != 8": {1, 3, 5},
    "not batch_size = 8": {1, 3, 5},
    "(batch_size = 8 or status = failed) and lr < 1e-3": {2, 3, 4},
    "batch_size = 8 or status = failed and lr < 1e-3": {0, 2, 3, 4},
    "loss < 0.35": {1, 5},
    "loss = nan": {2},
    "loss = none": {4},
    "not (loss < 100)": {2, 4},
    'name = "run 2"': {2},
    "name ~ 'N 3'": {3},
    "name !~ 3": {0, 1, 2, 4, 5},
    "tags = first": {0},
    "tags = none": {1, 2, 3, 4, 5},
    "h:lr <= 1e-6": {4, 5},
    "LR <= 1e-6": {4, 5},
    "id = few-2": {2},
    "number > 3": {4, 5},
    "depth = 12 and number < 1": {0},
    "lr > text": set(),
    '"run 1"': {1},
    "nothing-has-this": set(),
}


@pytest.mark.slow
def test_filters_by_hand(show: Callable[..., Any]) -> None:
    page = show()
    for text, wanted in FILTERS.items():
        page.locator(".filter").fill(text)
        until(page, f"(new URLSearchParams(location.search).get('filter') ?? '') === {json.dumps(text)}")
        found = {int(name.removeprefix("run ")) for name in column(page, "Run")}
        assert found == wanted, text
        assert page.locator(".table-tools .problem").is_hidden(), text
    assert page.locator(".empty-title").inner_text() == "No run passes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lrr > 1", 'There is no column "lrr". Did you mean lr?'),
        ("zzzzzzzz > 1", 'There is no column "zzzzzzzz". A column\'s name belongs there.'),
        ("lr >", 'A value is missing after "lr >".'),
        ("lr > > 2", 'A value is missing after "lr >".'),
        ("(lr > 1", "A ) is missing."),
        ("lr > 1)", "There is a ) too many."),
        ("> 1", "What should be > something? A name belongs before >."),
        ("lr > 1 and", "The filter ends too early: something is missing at its end."),
        ("or lr > 1", 'Something is missing before "or".'),
        ('name = "x', 'A quotation mark is not closed: "x'),
    ],
)
def test_what_is_wrong_with_a_filter_is_said_and_the_rows_stay(
    show: Callable[..., Any], text: str, message: str
) -> None:
    page = show()
    page.locator(".filter").fill("batch_size = 8")
    until_rows(page, 3)
    page.locator(".filter").fill(text)
    page.wait_for_selector(".table-tools .problem:not([hidden])")
    assert page.locator(".table-tools .problem").inner_text() == message
    assert page.locator(".filter").get_attribute("aria-invalid") == "true"
    assert column(page, "Run") == ["run 4", "run 2", "run 0"]


@pytest.mark.slow
def test_no_text_brings_the_filter_down(show: Callable[..., Any]) -> None:
    random.seed(0)
    words = [
        "lr",
        "and",
        "or",
        "not",
        "(",
        ")",
        "=",
        "!=",
        "!",
        "<",
        ">=",
        "~",
        '"',
        "'",
        "\\",
        "1e-4",
        "nan",
        " ",
        "é",
        "𝒳",
    ]
    texts = ["".join(random.choices(words, k=random.randrange(12))) for _ in range(3000)]
    page = show()
    outcome = page.evaluate(
        """async (texts) => {
          const { readFilter, FilterError } = await import("/static/filter_query.js");
          const fields = new Map([["lr", (run) => run.lr]]);
          let [read, refused] = [0, 0];
          for (const text of texts) {
            try {
              const test = readFilter(text, fields, () => "a");
              if (test && typeof test({ lr: 1 }) !== "boolean") throw new Error(`no answer: ${text}`);
              read++;
            } catch (error) {
              if (!(error instanceof FilterError)) throw new Error(`${text}: ${error}`);
              refused++;
            }
          }
          return [read, refused];
        }""",
        texts,
    )
    assert sum(outcome) == 3000
    assert min(outcome) > 100


@pytest.mark.slow
def test_sets_of_runs_are_short_and_exact_in_the_url(show: Callable[..., Any]) -> None:
    random.seed(1)
    sets = [sorted(random.sample(range(60), random.randrange(40))) for _ in range(200)]
    page = show()
    back = page.evaluate(
        """async (sets) => {
          const { readNumbers, writeNumbers } = await import("/static/run_numbers.js");
          const all = Array.from({ length: 60 }, (_, index) => index);
          return [sets.map((set) => all.filter(readNumbers(writeNumbers(set)))), writeNumbers([7, 0, 1, 2, 3])];
        }""",
        sets,
    )
    assert back == [sets, "0-3.7"]


@pytest.mark.slow
def test_groups_have_their_count_best_and_mean(show: Callable[..., Any]) -> None:
    page = show("?sort=loss")
    page.locator(".table-tools select").select_option(label="batch_size")
    heads = page.locator("tr.group").all_inner_texts()
    # Losses at batch size 8: 0.5, nan, none; at 16: 0.3, 0.4; without one: 0.2.
    assert [re.sub(r"\s+", " ", head).strip() for head in heads] == [
        "batch_size: 8 3 runs best loss 0.5, mean 0.5",
        "batch_size: 16 2 runs best loss 0.3, mean 0.35",
        "batch_size: none 1 run best loss 0.2, mean 0.2",
    ]
    page.locator("tr.group").first.click()
    assert column(page, "Run") == ["run 1", "run 3", "run 5"]
    wait_for_url(page, "shut=")
    page.reload()
    page.wait_for_selector("tr.group")
    assert len(column(page, "Run")) == 3


@pytest.mark.slow
def test_columns_are_chosen_and_kept_in_the_url(show: Callable[..., Any]) -> None:
    page = show()
    page.locator("summary", has_text="Columns").click()
    page.get_by_label("Find a column").fill("dep")
    page.locator(".picker-list label", has_text="depth").locator("input").check()
    page.wait_for_selector('.sorter-title:text-is("depth")')
    assert column(page, "depth") == ["12"] * 6
    assert page.locator(".same").is_hidden()
    page.get_by_label("Find a column").fill("status")
    page.locator(".picker-list label", has_text="Status").locator("input").uncheck()
    page.wait_for_selector('.sorter-title:text-is("Status")', state="detached")
    until(page, "location.search.includes('cols=h%3Adepth') && !location.search.includes('cols=status')")
    page.reload()
    page.wait_for_selector('.sorter-title:text-is("depth")')
    assert not page.locator('.sorter-title:text-is("Status")').count()


@pytest.mark.slow
def test_runs_are_selected_compared_and_hidden(show: Callable[..., Any]) -> None:
    page = show()
    boxes = page.locator(".runs tbody input")
    boxes.nth(0).check()
    boxes.nth(2).click(modifiers=["Shift"])
    assert page.locator(".selection b").inner_text() == "3 selected"
    wait_for_url(page, "sel=3-5")
    page.get_by_role("button", name="Differences").click()
    table = page.locator("section", has_text="Differences in hyperparameters").locator("table")
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in table.locator("tbody tr").all_inner_texts()}
    assert set(rows) == {"lr", "batch_size"}
    assert rows["batch_size"] == ["16", "8", "–"]
    page.get_by_role("button", name="Hide").click()
    until_rows(page, 3)
    assert column(page, "Run") == ["run 2", "run 1", "run 0"]
    wait_for_url(page, "hide=3-5")
    page.reload()
    page.wait_for_selector(".runs tbody tr[aria-selected]")
    assert column(page, "Run") == ["run 2", "run 1", "run 0"]
    page.get_by_label("show 3 hidden").check()
    page.wait_for_selector("tr.dimmed")
    assert page.locator("tr.dimmed").count() == 3
    page.locator(".runs tbody tr.dimmed input").first.check()
    page.get_by_role("button", name="Show again").click()
    until_rows(page, 2, ".dimmed")


@pytest.mark.slow
def test_what_is_selected_goes_to_the_chart_and_to_the_comparison(show: Callable[..., Any]) -> None:
    page = show("?sel=0-1")
    page.get_by_role("button", name="Chart", exact=True).click()
    page.wait_for_selector(".legend-item")
    assert page.locator(".legend-item").count() == 2
    wait_for_url(page, "tab=chart")
    page.get_by_role("tab", name="Runs").click()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("h1:has-text('2 runs side by side')")


@pytest.mark.slow
def test_the_keyboard_is_enough(show: Callable[..., Any]) -> None:
    page = show()
    page.locator("table.runs").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    assert page.locator(".selection b").inner_text() == "1 selected"
    active = page.locator("table.runs").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('run 0')")
    assert page.url.endswith("/r/few-0")


@pytest.mark.slow
def test_exact_values_are_there_on_hovering(show: Callable[..., Any]) -> None:
    page = show("?sort=number")
    cell = page.locator(".runs tbody tr[aria-selected]").first.locator("td.num", has_text="0.01").first
    assert cell.get_attribute("title") == "0.01"
    assert page.locator(".runs td.num .problem").inner_text() == "NaN"


@pytest.mark.slow
def test_no_run_and_one_run(show: Callable[..., Any]) -> None:
    page = show(project="none")
    assert page.locator(".empty-title").inner_text() == "No runs yet"
    page = show(project="one")
    page.wait_for_selector(".runs tbody tr[aria-selected]")
    assert column(page, "Run") == ["one-0"]


@pytest.mark.slow
def test_nonsense_in_the_url_is_passed_over(show: Callable[..., Any]) -> None:
    page = show("?sort=-nothing&sort=h:&group=zzz&cols=name&cols=nope&sel=a.1-x.99999999999&hide=,,&shut=q&tab=qq")
    assert column(page, "Run") == [f"run {i}" for i in range(6)]
    assert page.locator(".sorter-title").all_inner_texts() == ["Run"]


@pytest.mark.slow
def test_rows_follow_what_is_logged(page: Any, serve: Callable[..., str], tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.create_project("live")
        run, _ = store.track_run("live", NewRun(uid="a"))
        address = serve(tmp_path / "store.db")
        page.goto(f"{address}/p/live?cols=name&cols=status&cols=m:loss&sel=0")
        with store.writer(run) as writer:
            page.wait_for_selector(".runs tbody tr[aria-selected]")
            writer.log(SCALE, {"loss": 0.625})
            writer.flush()
            page.wait_for_selector('.runs td:text-is("0.625")', timeout=5000)
            row = page.locator(".runs tbody tr[aria-selected]").element_handle()
            for value in (0.5, 0.375, 0.25):
                writer.log(2 * SCALE, {"loss": value})
                writer.flush()
                page.wait_for_selector(f'.runs td:text-is("{value}")', timeout=5000)
            # The row is the same element: a click that has begun on it is not lost.
            assert row.evaluate("(row) => row.isConnected")
            store.track_run("live", NewRun(uid="b"))
            until_rows(page, 2)
            assert page.locator(".selection b").inner_text() == "1 selected"
            writer.finish("finished", 2 * SCALE)
        page.wait_for_selector(".runs .status:text-is('finished')")


def multiply(path: Path, num: int) -> None:
    """Give the only run of a store `num - 1` siblings that differ in number, id, uid and hyperparameters."""
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        first = dict(connection.execute("select * from run").fetchone())
        names = list(first)
        rng = np.random.default_rng(0)
        rows = []
        for number in range(1, num):
            parameters = {f"p{k}": float(rng.random()) for k in range(12)}
            parameters |= {"optimizer": ("adamw", "muon", "sgd")[number % 3], **{f"same{k}": k for k in range(8)}}
            points = {name: [100 * SCALE, float(rng.random())] for name in ("train/loss", "val/loss", "lr")}
            changed = {
                "key": number + 1, "id": f"big-{number}", "number": number, "uid": f"u{number}",
                "hyperparameters": json.dumps(parameters), "latest": json.dumps(points), "created": BEGAN + number,
            }  # fmt: skip
            rows.append(tuple({**first, **changed}[name] for name in names))
        marks = ", ".join("?" * len(names))
        quoted = ", ".join(f'"{name}"' for name in names)
        connection.executemany(f"insert into run ({quoted}) values ({marks})", rows)
        connection.execute("update study set num_created = ?", (num,))


@pytest.mark.slow
def test_ten_thousand_runs(page: Any, serve: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        store.create_project("big")
        new = NewRun(
            uid="u0", hyperparameters={"p0": 0.5}, status="finished", created=BEGAN, started=BEGAN, ended=BEGAN
        )
        store.track_run("big", new)
    multiply(path, 10_000)
    address = serve(path)
    page.goto(address)
    page.wait_for_selector("a:has-text('big')")
    began = time.perf_counter()
    page.goto(f"{address}/p/big")
    page.wait_for_selector(".runs tbody tr[aria-selected]")
    seconds = time.perf_counter() - began
    print(f"10,000 rows after {seconds:.2f} s")
    # The benchmark has the target, 1 s; here other tests may be running on the same cores.
    assert seconds < 4
    assert page.locator(".total").inner_text() == "10,000 runs"
    assert page.locator(".runs tbody tr").count() < 120
    page.locator("table.runs").focus()
    page.keyboard.press("End")
    page.wait_for_selector('.runs td.name a:text-is("big-0")')
    assert page.locator(".runs tbody tr").count() < 120
    page.locator(".filter").fill("optimizer = muon and p3 < 0.5")
    until(page, "document.querySelector('.total').textContent.includes(' of 10,000 runs')")
    page.get_by_label("Select all runs that are shown").check()
    until(page, "document.querySelector('.selection b')?.textContent.endsWith('selected')")
