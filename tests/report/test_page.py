"""The HTML report: complete, self-contained, and safe whatever a run is called."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest

from thalweg.report.page import render

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Checker(HTMLParser):
    """Fails on tags that do not match, and collects what is on the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def drawn(page: str) -> dict[str, Any]:
    start = page.index("const figures = ") + len("const figures = ")
    figures: dict[str, Any] = json.JSONDecoder().raw_decode(page[start:])[0]
    return figures["drawn"]


@pytest.mark.parametrize("num_runs", [0, 1, 3, 14])
def test_pages_are_well_formed_and_complete(make: SimpleNamespace, num_runs: int) -> None:
    view = make.rich_view(num_runs) if num_runs else make.view([])
    page = render(view, make.curves(view))
    checker = checked(page)
    ids = [attributes["id"] for _, attributes in checker.seen if "id" in attributes]
    assert ids == [f"figure-{key}" for key in drawn(page)]
    assert [tag for tag, _ in checker.seen].count("script") == 2
    text = " ".join(checker.text)
    assert "Configuration" in text
    assert all(run.id in text for run in view.tree)


def test_a_page_loads_nothing(make: SimpleNamespace) -> None:
    view = make.rich_view(3)
    for tag, attributes in checked(render(view, {})).seen:
        assert tag not in ("link", "iframe", "img")
        assert not {"src", "href"} & set(attributes)


def test_a_page_of_200_runs_stays_small(make: SimpleNamespace) -> None:
    view = make.rich_view(200)
    assert len(render(view, make.curves(view, num=20)).encode()) < 6.3e6


def test_no_text_of_a_study_becomes_markup(make: SimpleNamespace) -> None:
    values = {"lr": 1e-4, "batch_size": 8, "epochs": 3, SCRIPT: SCRIPT}
    failed = make.run(1, id=SCRIPT, hyperparameters=values, status="failed", error=SCRIPT, origin=SCRIPT)
    finished = make.run(2, id=f"a{SCRIPT}", hyperparameters=values, origin=SCRIPT, horizon=6000)
    view = make.view(
        [make.baseline(), failed, finished],
        name=SCRIPT,
        config={"note": SCRIPT},
        strategy={"name": SCRIPT, "sampler": SCRIPT},
    )
    page = render(view, make.curves(view))
    assert "<script>alert" not in page
    assert "<img" not in page
    checker = checked(page)
    assert [tag for tag, _ in checker.seen].count("script") == 2
    # Within the figures too, where Plotly itself reads a little HTML.
    assert "<script" not in json.dumps(drawn(page))
    assert SCRIPT in "".join(checker.text)


def test_figures_are_drawn_in_the_readers_colours(make: SimpleNamespace) -> None:
    page = render(make.rich_view(3), {})
    assert "prefers-color-scheme: dark" in page
    assert all("template" not in figure["layout"] for figure in drawn(page).values())


def test_numbers_are_written_for_people(make: SimpleNamespace) -> None:
    text = " ".join(checked(render(make.rich_view(12), {})).text)
    assert "7.5e-5" in text
    assert "84.9%" in text
    assert not re.search(r"\d\.\d{7}|e-0\d", text)
