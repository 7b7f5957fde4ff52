"""Server-sent events: prompt, to whom they concern, and nothing left behind."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest

from thalweg.report.web import watch as watching
from thalweg.report.web.events import Listener
from thalweg.report.web.watch import Watch
from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.tree import Stop


@contextmanager
def listening(url: str, project: str | None = None) -> Iterator[Any]:
    """The events of a stream, as (name, data, when) in a queue."""
    found: queue.Queue[tuple[str, dict[str, Any], float]] = queue.Queue()
    ready = threading.Event()
    client = httpx.Client(base_url=url, timeout=30)
    params = {} if project is None else {"project": project}
    with client, client.stream("GET", "/api/events", params=params) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()

        def read() -> None:
            name = ""
            try:
                for line in lines:
                    ready.set()
                    if line.startswith("event: "):
                        name = line[7:]
                    elif line.startswith("data: "):
                        found.put((name, json.loads(line[6:]), time.time()))
            except (httpx.HTTPError, httpx.StreamError, OSError):
                pass

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        assert ready.wait(5)
        yield found


def drain(found: Any, seconds: float = 0.5) -> list[tuple[str, dict[str, Any], float]]:
    """What comes until nothing more does for a while."""
    events = []
    while True:
        try:
            events.append(found.get(timeout=seconds))
        except queue.Empty:
            return events


def expect(found: Any, name: str, data: dict[str, Any]) -> None:
    """Wait for an event."""
    deadline = time.monotonic() + 5
    while True:
        event = found.get(timeout=max(deadline - time.monotonic(), 0.01))
        if event[:2] == (name, data):
            return


@pytest.fixture
def live(store: Store, web: Any) -> Iterator[Any]:
    with web.running(store) as started:
        yield started


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_a_logged_point_is_announced_within_half_a_second(store: Store, server: Any, web: Any) -> None:
    run, _ = store.track_run("vision", NewRun(uid="live"))
    with listening(server.url, "vision") as found, store.writer(run) as writer:
        drain(found)
        delays = []
        for step in range(5):
            sent = time.time()
            writer.log(step * web.decimals, {"loss": 1.0})
            name, data, came = found.get(timeout=5)
            assert (name, data["ids"], data["projects"]) == ("runs", [run], ["vision"])
            delays.append(came - sent)
            drain(found, 0.25)
        # The first of them finds a writer that has only begun.
        assert sorted(delays)[2] < 0.5
        writer.finish("finished", 5 * web.decimals)


def test_only_the_project_that_is_asked_for(store: Store, server: Any) -> None:
    with listening(server.url, "imdb") as found, listening(server.url) as everything:
        drain(found, 1.0)
        drain(everything)
        store.add_note("vision-0", "x", None)
        store.add_note("imdb-1", "x", None)
        # Runs that were written before and have been silent since are told of as well.
        runs = {run for name, data, _ in drain(found, 1.0) if name == "runs" for run in data["ids"]}
        assert "imdb-1" in runs
        assert not [run for run in runs if not run.startswith("imdb-")]
        assert {run for _, data, _ in drain(everything) for run in data["ids"]} >= {"vision-0", "imdb-1"}


def test_requests_and_a_pause_are_announced(store: Store, server: Any) -> None:
    with listening(server.url, "imdb") as found:
        drain(found)
        number = store.add_request("imdb", Stop("imdb-1"), "ada")
        expect(found, "study", {"name": "imdb"})
        store.answer_request(number, "done")
        expect(found, "study", {"name": "imdb"})
        session = store.open_session("imdb")
        expect(found, "study", {"name": "imdb"})
        session.close()
        expect(found, "study", {"name": "imdb"})
        store.set_paused("imdb", True)
        expect(found, "study", {"name": "imdb"})
        store.set_paused("imdb", False)


def test_what_was_written_before_listening_began_is_not_missed(store: Store, live: Any) -> None:
    # Between a page's loading and its listening there is a moment.
    store.add_note("vision-0", "x", None)
    with listening(live.url, "vision") as found:
        assert "vision-0" in found.get(timeout=5)[1]["ids"]


def test_nobody_is_left_after_they_have_gone(store: Store, live: Any, web: Any) -> None:
    feed = live.feed
    for _ in range(2):
        clients = [httpx.Client(base_url=live.url) for _ in range(12)]
        streams = [client.send(client.build_request("GET", "/api/events"), stream=True) for client in clients]
        wait_for(lambda: feed.num_listeners == 12)
        for stream, client in zip(streams, clients, strict=True):
            stream.close()
            client.close()
        wait_for(lambda: feed.num_listeners == 0)


def test_a_server_ends_although_pages_listen(store: Store, web: Any) -> None:
    with web.running(store) as server, listening(server.url):
        started = time.monotonic()
        server.stop()
        wait_for(lambda: server.feed.num_listeners == 0)
        assert time.monotonic() - started < 2


def test_somebody_slow_is_told_of_each_run_once() -> None:
    async def scenario() -> None:
        listener = Listener("a")
        for _ in range(1000):
            listener.tell([("a", "a-1"), ("b", "b-1")], ["a"])
        lines = listener.take().decode()
        assert lines == 'event: runs\ndata: {"ids":["a-1"],"projects":["a"]}\n\nevent: study\ndata: {"name":"a"}\n\n'
        assert listener.take() == b""

    anyio.run(scenario)


def test_a_look_tells_of_each_change_once(store: Store) -> None:
    watch = Watch(store)
    watch.runs()
    assert watch.runs() == []
    store.add_note("vision-0", "x", None)
    assert watch.runs() == [("vision", "vision-0")]
    assert watch.runs() == []


def test_a_run_that_falls_silent_is_told_of_again(store: Store) -> None:
    # A clock of its own: the servers of these tests sleep by the system's.
    now = 1000.0
    watch = Watch(store, lambda: now)
    store.add_note("imdb-0", "x", None)
    assert ("imdb", "imdb-0") in watch.runs()
    told = []
    for _ in range(50):
        now += 1
        told += [now - 1000 for _, run in watch.runs() if run == "imdb-0"]
    assert told == list(watching.QUIET_SECONDS)


def test_a_clock_that_is_ahead_hides_nobody_elses_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(store)
    watch.runs()
    real = time.time
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: real() + 3600)
        store.add_note("imdb-2", "from the future", None)
    assert ("imdb", "imdb-2") in watch.runs()
    store.add_note("imdb-1", "now", None)
    assert ("imdb", "imdb-1") in watch.runs()
    store.add_note("imdb-2", "now", None)  # put its time right for the tests after this one
