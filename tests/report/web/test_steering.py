"""What is asked for from the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from thalweg.track.store import Store
from thalweg.tree import Continue, Fork, Pause, Restart, Stop, Unpause

Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, web: Any) -> Iterator[Store]:
    """A store of this file's own, as it is changed."""
    folder = tmp_path_factory.mktemp("steering")
    with Store.open(folder / "store.db") as opened:
        web.fill(opened, folder)
        yield opened


def newest(store: Store, study: str = "imdb") -> Any:
    return store.requests(study)[0]


def test_a_request_says_what_and_who(ask: Ask, store: Store) -> None:
    answer = ask("/api/runs/imdb-0/stop").json()
    assert answer["request"] == newest(store).id
    assert "thalweg resume imdb" in answer["message"]
    assert newest(store).ask == Stop("imdb-0")
    assert newest(store).author.endswith(" @ 127.0.0.1")
    ask("/api/runs/imdb-0/stop", {"author": "ada"})
    assert newest(store).author == "ada"


def test_continuing(ask: Ask, store: Store) -> None:
    assert ask("/api/runs/imdb-0/continue", {"until": 80}).status_code == 200
    assert newest(store).ask == Continue("imdb-0", 80)
    assert ask("/api/runs/imdb-0/continue").status_code == 200
    assert newest(store).ask.until > 10**15


def test_forking_with_changes(ask: Ask, store: Store, client: httpx.Client) -> None:
    body = {"at": 50, "changes": {"lr": 1e-5, "batch_size": 16}, "until": 90}
    assert ask("/api/runs/imdb-1/fork", body).status_code == 200
    assert newest(store).ask == Fork("imdb-1", 50, {"lr": 1e-5, "batch_size": 16}, 90)
    shown = client.get("/api/projects/imdb").json()["requests"][0]
    assert shown["ask"] == {"action": "fork", "parent": "imdb-1", "at": 50, "changes": body["changes"], "until": 90}
    assert (shown["answered"], shown["outcome"]) == (None, None)


def test_forking_at_a_checkpoint_of_the_parent(ask: Ask, store: Store) -> None:
    child = store.create_run(
        "imdb",
        hyperparameters={"lr": 1e-4},
        horizon=100,
        until=100,
        seed=0,
        origin="hand",
        parent="imdb-0",
        fork_position=50,
    )
    assert ask(f"/api/runs/{child.id}/fork", {"at": 50}).status_code == 200
    # The parent's checkpoints beyond the fork are another run's.
    with store.writer("imdb-0") as writer:
        writer.checkpoint(60, str(Path("x")), "d", 1)
        writer.finish("paused", 60)
    answer = ask(f"/api/runs/{child.id}/fork", {"at": 60})
    assert (answer.status_code, "no checkpoint at 60. It has: 50" in answer.json()["error"]) == (422, True)


def test_restarting(ask: Ask, store: Store) -> None:
    assert ask("/api/runs/imdb-1/restart", {"from": 50}).status_code == 200
    assert newest(store).ask == Restart("imdb-1", 50)
    # From its beginning, where no checkpoint is needed.
    assert ask("/api/runs/imdb-1/restart", {"from": 0}).status_code == 200
    assert newest(store).ask == Restart("imdb-1", 0)


def test_pausing(ask: Ask, store: Store) -> None:
    assert ask("/api/projects/imdb/pause").status_code == 200
    assert newest(store).ask == Pause()
    assert (newest(store).outcome, store.is_paused("imdb")) == ("done", True)
    assert ask("/api/projects/imdb/unpause").status_code == 200
    assert newest(store).ask == Unpause()
    assert (newest(store).outcome, store.is_paused("imdb")) == ("done", False)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("imdb-3/stop", {}, "already finished"),
        ("imdb-3/continue", {}, "fork it"),
        ("imdb-1/continue", {"until": 50}, "beyond"),
        ("imdb-1/continue", {"until": "90"}, "number"),
        ("imdb-1/continue", {"until": True}, "number"),
        ("imdb-1/continue", {"until": 60.5}, "decimals"),
        ("imdb-1/continue", {"until": -1}, "0 on"),
        ("imdb-1/continue", {"until": 1e300}, "too large"),
        ("imdb-1/continue", {"until": 10**400}, "too large"),
        ("imdb-1/fork", {}, "at = None"),
        ("imdb-1/fork", {"at": 51}, "no checkpoint at 51. It has: 50"),
        ("imdb-1/fork", {"at": 50, "until": 50}, "beyond the fork point"),
        ("imdb-1/fork", {"at": 50, "changes": {"lrr": 1}}, "'lr'"),
        ("imdb-1/fork", {"at": 50, "changes": [1]}, "object"),
        ("imdb-1/fork", {"at": 50, "changes": {"lr": None}}, "finite number"),
        ("imdb-1/fork", {"at": 50, "changes": {"lr": {"a": 1}}}, "finite number"),
        ("imdb-1/fork", {"at": 50, "changes": {"lr": "\ud800"}}, "half of a character"),
        ("imdb-1/restart", {"from": 51}, "no checkpoint there. It has: 0, 50"),
        ("imdb-1/restart", {"from": None}, "number"),
        ("imdb-1/note", {}, "text"),
        ("imdb-1/note", {"text": "  "}, "text"),
        ("imdb-1/note", {"text": "\udfff"}, "half of a character"),
        ("imdb-1/note", {"text": "x" * 200_000}, "100,000"),
        ("imdb-1/note", {"text": "x", "author": 7}, "author"),
        ("imdb-1/tags", {"tags": "x"}, "list"),
        ("imdb-1/tags", {"tags": [""]}, "tag"),
        ("imdb-1/name", {"name": ["x"]}, "name"),
    ],
)
def test_what_cannot_be_is_said(ask: Ask, store: Store, path: str, body: dict[str, Any], said: str) -> None:
    before = len(store.requests("imdb"))
    answer = ask(f"/api/runs/{path}", body)
    assert (answer.status_code, said in answer.json()["error"]) == (422, True), answer.json()
    assert len(store.requests("imdb")) == before


def test_a_number_beyond_floats_is_no_number(client: httpx.Client, server: Any) -> None:
    answer = client.post(
        "/api/runs/imdb-1/fork",
        content=b'{"at": 50, "changes": {"lr": 1e999}}',
        headers={"x-thalweg-token": server.access.token, "content-type": "application/json"},
    )
    assert (answer.status_code, "finite" in answer.json()["error"]) == (422, True)


def test_a_tracked_run_is_stopped_by_its_own_program(ask: Ask, store: Store) -> None:
    answer = ask("/api/runs/vision-2/stop")
    assert answer.status_code == 422  # it has ended
    with store.writer("vision-2"):
        store.update_run("vision-2", status="running")
        assert "should_stop" in ask("/api/runs/vision-2/stop").json()["message"]
    assert newest(store, "vision").ask == Stop("vision-2")


def test_a_tracked_run_is_forked_from_code(ask: Ask) -> None:
    for verb, body, code in (
        ("continue", {}, "init('vision', run='vision-0', store="),
        ("fork", {"at": 1}, "init('vision', fork_of='vision-0', at=10,"),
        ("restart", {"from": 1}, "init('vision', run='vision-0', at=0,"),
    ):
        answer = ask(f"/api/runs/vision-0/{verb}", body)
        assert answer.status_code == 409
        assert code in answer.json()["snippet"]
        compile(answer.json()["snippet"], "snippet", "exec")
    assert ask("/api/projects/vision/pause").status_code == 409


def test_notes_tags_and_names_are_any_text(ask: Ask, client: httpx.Client, web: Any) -> None:
    text = f"{web.script}\n𝔘ñí ‮ \x00 x"
    assert ask("/api/runs/imdb-2/note", {"text": text, "author": web.script}).status_code == 200
    assert ask("/api/runs/imdb-2/tags", {"tags": [web.script, "b", "b"]}).status_code == 200
    assert ask("/api/runs/imdb-2/name", {"name": "x/../😀" * 100}).status_code == 200
    run = client.get("/api/runs/imdb-2").json()
    assert (run["notes"][0]["text"], run["notes"][0]["author"]) == (text, web.script)
    assert run["tags"] == [web.script, "b"]
    assert run["name"] == "x/../😀" * 100
    assert ask("/api/runs/imdb-2/name", {"name": None}).status_code == 200
    assert client.get("/api/runs/imdb-2").json()["name"] is None
    assert ask("/api/runs/imdb-2/tags", {"tags": []}).status_code == 200
    assert client.get("/api/runs/imdb-2").json()["tags"] == []


def test_what_is_not_there(ask: Ask) -> None:
    assert ask("/api/runs/imdb-99/stop").status_code == 404
    assert ask("/api/projects/imbd/pause").status_code == 404
    assert ask("/api/runs/imdb-1/explode").status_code in (404, 405)
