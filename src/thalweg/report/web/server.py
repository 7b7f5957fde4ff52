"""A server for a store: its socket, its address, its life."""

from __future__ import annotations

import errno
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import uvicorn

from thalweg.errors import ConfigError
from thalweg.report.web.access import Access, is_loopback
from thalweg.report.web.app import make_app
from thalweg.report.web.events import Feed
from thalweg.track.machine import user

if TYPE_CHECKING:
    from thalweg.track.store import Store

STOP_SECONDS = 3
"""How long requests get to end when the server does."""


@dataclass(frozen=True)
class WebServer:
    """A server whose socket is bound already."""

    url: str
    """Where to open it: with the token, where reading takes it."""
    access: Access
    uvicorn: uvicorn.Server
    listening: socket.socket
    feed: Feed

    def run(self) -> None:
        """Serve until Ctrl-C, or until `stop`."""
        self.uvicorn.run(sockets=[self.listening])

    def stop(self) -> None:
        """Let `run`, in another thread, return."""
        self.uvicorn.should_exit = True


def make_server(
    store: Store, *, host: str = "127.0.0.1", port: int = 8321, token: str | None = None, read_only: bool = False
) -> WebServer:
    """Bind a server.

    Args:
        store: the caller closes it. With `read_only` it should be opened for reading only.
        port: 0 is any that is free.
        token: what everybody must know who reads or writes. None: on a loopback address only writing takes a token,
            which the page is given; on any other one it is drawn at random.
    Raises:
        ConfigError: the port is in use, the address is not this machine's, or the token cannot be sent.
    """
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ConfigError("--token must be ASCII letters, digits and signs, without blanks")
    listening = _bind(host, port)
    port = listening.getsockname()[1]
    access = Access(
        host=host,
        token=token or secrets.token_urlsafe(24),
        guarded=token is not None or not is_loopback(host),
        read_only=read_only,
        cookie=f"thalweg-{port}",
    )
    app, feed = make_app(store, access, user())
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="error",
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = uvicorn.Server(config)
    feed.closing = lambda: server.should_exit
    return WebServer(_url(access, port), access, server, listening, feed)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, number)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"--host {host!r} --port {port} is no address of this machine: {error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(socket.SOMAXCONN)
    except (OSError, OverflowError) as error:
        listening.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} of {host} is in use, perhaps by another 'thalweg serve'. Take another: --port {port + 1},"
                " or --port 0 for any that is free"
            ) from None
        raise ConfigError(f"--host {host!r} --port {port} cannot be listened at: {error}") from None
    listening.set_inheritable(True)
    return listening


def _url(access: Access, port: int) -> str:
    name = socket.gethostname() if access.host in ("0.0.0.0", "::", "") else access.host
    place = f"[{name}]" if ":" in name else name
    return f"http://{place}:{port}/" + (f"?token={quote(access.token, safe='')}" if access.guarded else "")
