"""Server-sent events: one task looks at the store for all who listen, and tells each what concerns it.

What a listener has not been sent yet is a set of names, so that a slow one costs no memory; one that takes nothing at
all is let go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from starlette.responses import Response

from thalweg.errors import StoreError
from thalweg.report.web.answers import Refused, encode
from thalweg.report.web.watch import Watch

if TYPE_CHECKING:
    from thalweg.report.web.gate import Receive, Scope, Send
    from thalweg.track.store import Store

LOOK_SECONDS = 0.1
PING_SECONDS = 10.0
SEND_SECONDS = 20.0
"""A listener that has taken nothing for so long is let go."""

MOST_LISTENERS = 500


@dataclass(eq=False)
class Listener:
    """Somebody who listens, and what they have not been told yet."""

    project: str | None
    """The one project that they want to hear of; None is all."""
    runs: dict[str, str] = field(default_factory=dict)
    """Run -> its project."""
    studies: set[str] = field(default_factory=set)
    closed: bool = False
    wake: anyio.Event = field(default_factory=anyio.Event)

    def tell(self, runs: Collection[tuple[str, str]], studies: Collection[str]) -> None:
        """Take in what has changed, as far as it is of interest."""
        self.runs.update({run: name for name, run in runs if self.project in (None, name)})
        self.studies.update(name for name in studies if self.project in (None, name))
        if self.runs or self.studies:
            self.wake.set()

    def close(self) -> None:
        """End the stream."""
        self.closed = True
        self.wake.set()

    def take(self) -> bytes:
        """What is to be sent, as the lines of events; empty where nothing is."""
        self.wake = anyio.Event()
        lines = b""
        if self.runs:
            body = {"ids": list(self.runs), "projects": sorted(set(self.runs.values()))}
            lines += b"event: runs\ndata: " + encode(body) + b"\n\n"
        for name in sorted(self.studies):
            lines += b"event: study\ndata: " + encode({"name": name}) + b"\n\n"
        self.runs.clear()
        self.studies.clear()
        return lines


class Feed:
    """Looks at the store while anybody listens."""

    def __init__(self, store: Store) -> None:
        self.closing: Callable[[], bool] = lambda: False
        """Whether the server is about to end: streams would keep it waiting."""
        self._store = store
        self._listeners: set[Listener] = set()
        self._wanted = anyio.Event()

    @property
    def num_listeners(self) -> int:
        return len(self._listeners)

    def join(self, project: str | None) -> Listener:
        """Begin to listen. `leave` must follow.

        Raises:
            Refused: too many do.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise Refused(503, f"{MOST_LISTENERS} pages listen already: close some")
        listener = Listener(project)
        self._listeners.add(listener)
        self._wanted.set()
        return listener

    def leave(self, listener: Listener) -> None:
        """End listening."""
        self._listeners.discard(listener)

    async def run(self) -> None:
        """Look and tell, until cancelled."""
        # A thread of its own: requests that take long must not keep events waiting.
        limiter = anyio.CapacityLimiter(1)
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            # Begun anew after a pause, a watch tells what has changed within the last seconds: nothing is missed
            # between the loading of a page and its listening.
            watch = Watch(self._store)
            while self._listeners:
                await self._turn(watch, limiter)
                await anyio.sleep(LOOK_SECONDS)

    async def _turn(self, watch: Watch, limiter: anyio.CapacityLimiter) -> None:
        if self.closing():
            for listener in self._listeners:
                listener.close()
            return
        projects = {listener.project for listener in self._listeners}
        names = None if None in projects else {name for name in projects if name is not None}
        try:
            runs = await to_thread.run_sync(watch.runs, limiter=limiter)
            studies = await to_thread.run_sync(watch.studies, names, limiter=limiter)
        except StoreError:
            # Locked or gone for a moment: whoever asks for data is told.
            await anyio.sleep(10 * LOOK_SECONDS)
            return
        for listener in self._listeners:
            listener.tell(runs, studies)


class EventStream(Response):
    """An answer that goes on until one side has had enough."""

    def __init__(self, feed: Feed, project: str | None) -> None:
        super().__init__(
            headers={"cache-control": "no-store", "x-accel-buffering": "no"}, media_type="text/event-stream"
        )
        del self.headers["content-length"]
        self._feed = feed
        self._project = project

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b""})
            return
        listener = self._feed.join(self._project)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
                await self._stream(listener, send)
                tasks.cancel_scope.cancel()
        finally:
            self._feed.leave(listener)

    async def _stream(self, listener: Listener, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        lines = b": hello\n\n"
        while True:
            with anyio.move_on_after(SEND_SECONDS) as patience:
                await send({"type": "http.response.body", "body": lines, "more_body": True})
            if patience.cancelled_caught:
                return
            if listener.closed:
                break
            with anyio.move_on_after(PING_SECONDS):
                await listener.wake.wait()
            lines = listener.take() or b": ping\n\n"
        await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive, scope: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
