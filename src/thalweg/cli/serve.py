"""`thalweg serve`: the live dashboard."""

from __future__ import annotations

import gc
import importlib.util
import json as json_text
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.arguments import DEFAULT, JsonOption, StoreOption, open_store

if TYPE_CHECKING:
    from thalweg.report.web.server import WebServer


def serve(
    store: StoreOption = DEFAULT,
    host: Annotated[str, typer.Option(help="The address to listen at; any but a loopback one needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 is any that is free.")] = 8321,
    read_only: Annotated[bool, typer.Option("--read-only", help="Only show; nothing can be asked for.")] = False,
    token: Annotated[
        str | None, typer.Option(help="What everybody must know; by default drawn at random where one is needed.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a store as a live page, and steer its studies from there. Ctrl-C ends it.

    Example: thalweg serve --open
    """
    from thalweg.errors import ConfigError

    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"the dashboard needs {' and '.join(missing)}: pip install 'thalweg[web]'")
    from thalweg.report.web.server import make_server

    with open_store(store, read_only=read_only) as opened:
        server = make_server(opened, host=host, port=port, token=token, read_only=read_only)
        _announce(server, json)
        if open_:
            import webbrowser

            # The socket listens already: the browser waits until the server has started.
            webbrowser.open(server.url)
        # A list of 10,000 runs makes half a million objects, none of them garbage before it is sent: looking for some
        # among them at every 700th, as Python does by default, takes a third of the time.
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        # How a server ends: no fault.
        with suppress(KeyboardInterrupt):
            server.run()


def _announce(server: WebServer, json: bool) -> None:
    if json:
        print(json_text.dumps({"url": server.url, "read_only": server.access.read_only}), flush=True)
        return
    print(f"Thalweg at {server.url}", flush=True)
    if server.access.guarded:
        typer.echo(
            "Whoever has this address can read everything here" + ("." if server.access.read_only else ", and steer."),
            err=True,
        )
