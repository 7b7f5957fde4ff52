"""Steering from the page: what is asked for, with whom, after a question, and not at all where it may not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.tree import Continue, Fork, Pause, Restart, Stop, Unpause

SPACE = {
    "lr": {"log": [1e-6, 1e-3]}, "epochs": {"integer": [1, 3]}, "optimizer": {"choice": ["adamw", "sgd"]},
    "nesterov": True, "note": "x",
}  # fmt: skip
VALUES = {"lr": 1e-4, "epochs": 2, "optimizer": "adamw", "nesterov": True, "note": "x"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The study "imdb": run 0 is paused at 300 of 900, with checkpoints at 100 and 300; run 1 is its fork at 100, with
    one at 200; run 2 has failed without any. The project "mine" has one run that is over."""
    with Store.open(tmp_path / "store.db") as opened:
        config = {"metric": "max accuracy", "unit": "samples", "space": SPACE, "seed": 0, "strategy": {"name": "tpe"}}
        opened.create_study("imdb", config)
        fields: dict[str, Any] = {"hyperparameters": VALUES, "horizon": 900, "until": 900, "seed": 0, "origin": "tpe"}
        for number, (fork, points, status) in enumerate(
            [
                ({}, (100, 300), "paused"),
                ({"parent": "imdb-0", "fork_position": 100}, (200,), "paused"),
                ({}, (), "failed"),
            ]
        ):
            run = opened.create_run("imdb", **fields, **fork)
            with opened.writer(run.id) as writer:
                for position in points:
                    writer.checkpoint(position, str(tmp_path / f"{number}-{position}"), "digest", 1000)
                last = points[-1] if points else 10
                writer.finish(status, last, "broken" if status == "failed" else None)  # type: ignore[arg-type]
        opened.create_project("mine")
        opened.track_run("mine", NewRun(uid="a", hyperparameters={"lr": 0.1}, status="finished"))
        yield opened


@pytest.fixture
def address(serve: Callable[..., str], store: Store, tmp_path: Path) -> str:
    return serve(tmp_path / "store.db")


def open_run(page: Any, address: str, run: str) -> Any:
    page.goto(f"{address}/r/{run}")
    page.wait_for_selector(".steering button")
    return page.locator(".steering")


def press(page: Any, name: str) -> Any:
    """Press a button of the bar; the dialog that opens."""
    page.locator(".steering").get_by_role("button", name=name, exact=True).click()
    page.wait_for_selector("dialog[open]")
    return page.locator("dialog")


def confirm(page: Any, name: str) -> None:
    page.locator("dialog .dialog-actions").get_by_role("button", name=name, exact=True).click()


def asks(store: Store, study: str = "imdb") -> list[Any]:
    return [request.ask for request in store.requests(study)]


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)


def test_nothing_is_asked_for_without_a_yes(page: Any, address: str, store: Store) -> None:
    open_run(page, address, "imdb-0")
    dialog = press(page, "Stop")
    assert "Stop imdb-0?" in dialog.inner_text()
    confirm(page, "Cancel")
    page.wait_for_selector("dialog", state="detached")
    assert asks(store) == []
    press(page, "Stop")
    confirm(page, "Stop")
    page.wait_for_selector(".message.done")
    assert asks(store) == [Stop("imdb-0")]
    author = store.requests("imdb")[0].author
    assert author
    assert author.endswith("@ 127.0.0.1")
    # It is shown beside the buttons, and in the list of what was asked for, with who did.
    page.wait_for_selector(".pending-asks:has-text('Stop imdb-0')")
    page.locator(".pending-asks a", has_text="waits").click()
    page.wait_for_selector("table.asked tbody tr")
    row = page.locator("table.asked tbody tr").inner_text()
    assert "Stop imdb-0" in row
    assert author in row
    store.answer_request(store.requests("imdb")[0].id, "stopped by hand")
    page.wait_for_selector("table.asked td:has-text('stopped by hand')", timeout=5000)


@pytest.mark.slow
def test_continue_until(page: Any, address: str, store: Store) -> None:
    open_run(page, address, "imdb-0")
    dialog = press(page, "Continue")
    field = dialog.get_by_label("Until, in samples")
    for text, message in (("abc", "must be a number from 0"), ("200", "Until must lie beyond 300"), ("-1", "from 0")):
        field.fill(text)
        confirm(page, "Continue")
        page.wait_for_selector(f"dialog .problem:has-text('{message}')")
    assert asks(store) == []
    field.fill("600")
    confirm(page, "Continue")
    page.wait_for_selector("dialog", state="detached")
    assert asks(store) == [Continue("imdb-0", 600)]


@pytest.mark.slow
def test_a_fork_changes_what_was_changed_and_nothing_else(page: Any, address: str, store: Store) -> None:
    open_run(page, address, "imdb-0")
    dialog = press(page, "Fork")
    assert dialog.get_by_label("Fork at").locator("option").all_inner_texts() == ["300", "100"]
    assert "was 1e−4, 1e−6 to 0.001" in dialog.inner_text()
    dialog.get_by_label("Fork at").select_option("100")
    for text, message in (
        ("", "lr = nothing must be a finite number"),
        ("inf", "must be a finite"),
        ("-1", "above zero"),
    ):
        dialog.get_by_label("lr", exact=True).fill(text)
        assert dialog.get_by_label("lr", exact=True).get_attribute("aria-invalid") == "true"
        confirm(page, "Fork")
        page.wait_for_selector(f"dialog .problem:has-text('{message}')")
    dialog.get_by_label("lr", exact=True).fill("2e-5")
    dialog.get_by_label("epochs", exact=True).fill("2.5")
    confirm(page, "Fork")
    page.wait_for_selector("dialog .problem:has-text('epochs = 2.5 must be a whole number')")
    dialog.get_by_label("epochs", exact=True).fill("2")
    dialog.get_by_label("optimizer", exact=True).select_option(label="sgd")
    dialog.get_by_label("nesterov", exact=True).select_option(label="false")
    dialog.get_by_label("Until, in samples").fill("800")
    confirm(page, "Fork")
    page.wait_for_selector("dialog", state="detached")
    assert asks(store) == [Fork("imdb-0", 100, {"lr": 2e-5, "optimizer": "sgd", "nesterov": False}, 800)]


@pytest.mark.slow
def test_a_fork_may_begin_at_an_ancestors_checkpoint(page: Any, address: str, store: Store) -> None:
    open_run(page, address, "imdb-1")
    dialog = press(page, "Fork")
    # Run 0's checkpoint at 300 lies beyond the place where run 1 left it.
    assert dialog.get_by_label("Fork at").locator("option").all_inner_texts() == ["200", "100 (imdb-0)"]
    dialog.get_by_label("Fork at").select_option("100")
    confirm(page, "Fork")
    page.wait_for_selector("dialog", state="detached")
    [fork] = asks(store)
    assert (fork.parent, fork.at, fork.changes) == ("imdb-1", 100, {})


@pytest.mark.slow
def test_restart_from_an_earlier_checkpoint(page: Any, address: str, store: Store) -> None:
    open_run(page, address, "imdb-0")
    dialog = press(page, "Restart")
    assert dialog.get_by_label("Restart from").locator("option").all_inner_texts() == ["300", "100", "0"]
    dialog.get_by_label("Restart from").select_option("100")
    confirm(page, "Restart")
    page.wait_for_selector("dialog", state="detached")
    assert asks(store) == [Restart("imdb-0", 100)]


@pytest.mark.slow
def test_without_a_checkpoint_the_page_says_so(page: Any, address: str, store: Store) -> None:
    bar = open_run(page, address, "imdb-2")
    assert not bar.get_by_role("button", name="Stop").count()
    assert not bar.get_by_role("button", name="Continue").count()
    assert "keep_checkpoints" in press(page, "Fork").inner_text()
    confirm(page, "Close")
    page.wait_for_selector("dialog", state="detached")
    # From its beginning it can be restarted without any.
    assert press(page, "Restart").get_by_label("Restart from").locator("option").all_inner_texts() == ["0"]
    confirm(page, "Restart")
    page.wait_for_selector("dialog", state="detached")
    assert asks(store) == [Restart("imdb-2", 0)]


@pytest.mark.slow
def test_what_the_server_refuses_is_shown_in_the_dialog(page: Any, address: str, store: Store) -> None:
    page.expected_errors = ["Failed to load resource"]
    open_run(page, address, "imdb-0")
    press(page, "Stop")
    # Meanwhile it has been stopped from elsewhere.
    store.update_run("imdb-0", status="stopped")
    confirm(page, "Stop")
    page.wait_for_selector("dialog .problem:has-text('nothing to stop')")
    assert asks(store) == []


@pytest.mark.slow
def test_notes_tags_and_names(page: Any, address: str, store: Store) -> None:
    open_run(page, address, "mine-0")
    press(page, "Note").get_by_label("Note").fill("  looks <b>good</b>")
    confirm(page, "Add note")
    until(lambda: store.run_details("mine-0").notes)
    assert store.run_details("mine-0").notes[0].text == "  looks <b>good</b>"
    press(page, "Tags").get_by_label("New tags, separated by commas").fill("best, <i>x</i>,,best")
    confirm(page, "Save")
    until(lambda: store.run_details("mine-0").row.tags == ("best", "<i>x</i>"))
    page.reload()
    page.wait_for_selector(".steering button")
    press(page, "Tags").get_by_label("<i>x</i>").uncheck()
    confirm(page, "Save")
    until(lambda: store.run_details("mine-0").row.tags == ("best",))
    press(page, "Rename").get_by_label("Name").fill("the one")
    confirm(page, "Rename")
    page.wait_for_selector("h1:has-text('the one')")


@pytest.mark.slow
def test_a_tracked_run_is_forked_from_python(page: Any, address: str, store: Store) -> None:
    bar = open_run(page, address, "mine-0")
    assert not bar.get_by_role("button", name="Stop").count()
    assert "fork_of='mine-0'" in press(page, "Fork").locator("pre").inner_text()
    confirm(page, "Close")
    page.wait_for_selector("dialog", state="detached")
    text = press(page, "Restart").locator("pre").inner_text()
    assert 'thalweg.init("mine", run="mine-0", at=0, store=' in text
    compile(text, "snippet", "exec")
    assert asks(store, "mine") == []


@pytest.mark.slow
def test_pause_and_go_on(page: Any, address: str, store: Store) -> None:
    page.goto(f"{address}/p/imdb")
    page.get_by_role("button", name="Pause the study").click()
    page.wait_for_selector("dialog[open]")
    assert asks(store) == []
    confirm(page, "Pause the study")
    page.wait_for_selector(".heading .status:has-text('paused')")
    assert asks(store) == [Pause()]
    assert store.is_paused("imdb")
    page.get_by_role("button", name="Go on").click()
    confirm(page, "Go on")
    page.get_by_role("button", name="Pause the study").wait_for()
    assert asks(store) == [Unpause(), Pause()]
    assert not store.is_paused("imdb")


@pytest.mark.slow
def test_several_runs_at_once(page: Any, address: str, store: Store) -> None:
    page.goto(f"{address}/p/imdb?sel=0-2")
    bar = page.locator(".selection")
    bar.get_by_role("button", name="Stop").click()
    # The failed one is over already.
    page.wait_for_selector("dialog h2:has-text('Stop 2 runs?')")
    confirm(page, "Stop")
    until(lambda: asks(store) == [Stop("imdb-1"), Stop("imdb-0")] or asks(store) == [Stop("imdb-0"), Stop("imdb-1")])
    bar.get_by_role("button", name="Tags").click()
    page.get_by_label("New tags, separated by commas").fill("week 7")
    confirm(page, "Save")
    until(lambda: all(row.tags == ("week 7",) for row in store.run_rows("imdb")))
    page.wait_for_selector(".runs .tag:has-text('week 7')", timeout=5000)


@pytest.mark.slow
def test_read_only_offers_nothing(page: Any, serve: Callable[..., str], store: Store, tmp_path: Path) -> None:
    address = serve(tmp_path / "store.db", "--read-only")
    page.goto(f"{address}/p/imdb?sel=0")
    page.wait_for_selector(".selection b")
    buttons = page.locator("#page button").all_inner_texts()
    assert not {"Stop", "Pause the study", "Note", "Tags"} & set(buttons)
    page.goto(f"{address}/r/imdb-0")
    page.wait_for_selector("h1:has-text('imdb-0')")
    page.wait_for_timeout(300)
    assert page.locator(".steering button").count() == 0
