"""The server as an ASGI app: its addresses, and what answers at each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thalweg.errors import ConfigError
from thalweg.report.web import files, steering
from thalweg.report.web.answers import Refused, answered, encode_list, error_answer, json_answer, json_bytes
from thalweg.report.web.curve_data import CurveQuery, curve_bytes
from thalweg.report.web.events import EventStream, Feed
from thalweg.report.web.gate import App, gated
from thalweg.report.web.openapi import document
from thalweg.report.web.plots import plot_json
from thalweg.report.web.project_data import project_data, project_entry
from thalweg.report.web.run_data import run_data, run_entries
from thalweg.report.web.summaries import Summaries

if TYPE_CHECKING:
    from thalweg.report.web.access import Access
    from thalweg.track.store import Store

MOST_BODY = 2**20
"""Bytes in the body of a request."""

MOST_BUCKETS = 100_000


@dataclass(frozen=True)
class Served:
    """What the server serves, and under which conditions."""

    store: Store
    access: Access
    user: str
    """Who started the server: the author of what is asked for from its page."""
    feed: Feed
    summaries: Summaries


Work = Callable[[Served, Request], Response]


def make_app(store: Store, access: Access, user: str) -> tuple[App, Feed]:
    """The app, and the feed of its events."""
    feed = Feed(store)
    served = Served(store, access, user, feed, Summaries(store))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.run)
            yield
            tasks.cancel_scope.cancel()

    routes = [
        *(Route(path, _get(served, work)) for path, work in _READ.items()),
        Route("/api/events", _listen(served)),
        Route("/api/projects/{name}/pause", _post(served, partial(_pause, resume=False)), methods=["POST"]),
        Route("/api/projects/{name}/unpause", _post(served, partial(_pause, resume=True)), methods=["POST"]),
        *(
            Route(f"/api/runs/{{run}}/{verb}", _post(served, partial(_steer, verb=verb)), methods=["POST"])
            for verb in steering.VERBS
        ),
        Route("/{path:path}", _get(served, _page)),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _http_error, Exception: _our_mistake}
    return gated(Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers), access), feed


def _get(served: Served, work: Work) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await to_thread.run_sync(answered, partial(work, served, request))

    return endpoint


def _post(
    served: Served, work: Callable[[Served, Request, Mapping[str, Any]], Response]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            body = await _json_body(request)
        except Refused as refused:
            return error_answer(refused.status, refused.message)
        return await to_thread.run_sync(answered, partial(work, served, request, body))

    return endpoint


async def _json_body(request: Request) -> Mapping[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(400, f"content type {kind!r} must be application/json")
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > MOST_BODY:
            raise Refused(413, f"the body must have at most {MOST_BODY:,} bytes")
    try:
        body = json.loads(raw.decode() or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(422, "the body must be a JSON object, such as {}")
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _session(served: Served, _request: Request) -> Response:
    access = served.access
    return json_answer(
        {
            "token": None if access.read_only else access.token,
            "read_only": access.read_only,
            "user": served.user,
            "version": metadata.version("thalweg"),
            "plotly": files.plotly_address(),
        }
    )


def _projects(served: Served, _request: Request) -> Response:
    store = served.store
    entries = [project_entry(store, record, served.summaries) for record in store.studies()]
    return json_answer(
        {"projects": entries, "read_only": served.access.read_only, "version": metadata.version("thalweg")}
    )


def _project(served: Served, request: Request) -> Response:
    return json_answer(project_data(served.store, request.path_params["name"], served.summaries))


def _runs(served: Served, request: Request) -> Response:
    wanted = request.query_params.get("ids")
    ids = None if wanted is None else [run for run in wanted.split(",") if run]
    entries = run_entries(served.store, request.path_params["name"], served.summaries, ids)
    return json_bytes(encode_list("runs", entries))


def _run(served: Served, request: Request) -> Response:
    return json_answer(run_data(served.store, request.path_params["run"], served.summaries))


def _curve(served: Served, request: Request) -> Response:
    given, store = request.query_params, served.store
    run = request.path_params["run"]
    query = CurveQuery(
        run=run,
        metric=_required(request, "metric"),
        num_buckets=_whole(request, "buckets", 2000, 1, MOST_BUCKETS),
        first=given.get("first"),
        last=given.get("last"),
        by_time=_choice(request, "x", {"step": False, "time": True}),
        inherited=_choice(request, "inherited", {"1": True, "0": False, "true": True, "false": False}),
    )
    scale = store.study(store.run_study(run)).scale
    return Response(
        curve_bytes(store, query, scale), headers={"cache-control": "no-store"}, media_type="application/octet-stream"
    )


def _file(served: Served, request: Request) -> Response:
    position = _whole(request, "position", 0, 0, 2**63 - 1) if "position" in request.query_params else None
    return files.saved_answer(served.store, request.path_params["run"], request.path_params["name"], position)


def _plot(served: Served, request: Request) -> Response:
    options = dict(request.query_params)
    return json_bytes(plot_json(served.store, request.path_params["name"], request.path_params["kind"], options))


def _openapi(_served: Served, _request: Request) -> Response:
    return json_answer(document(metadata.version("thalweg"), list(steering.VERBS)))


def _static(_served: Served, request: Request) -> Response:
    return files.static_answer(request.path_params["path"], request.headers.get("if-none-match"))


def _plotly(_served: Served, request: Request) -> Response:
    return files.plotly_answer("v" in request.query_params, request.headers.get("if-none-match"))


def _page(_served: Served, request: Request) -> Response:
    """The page at every address of its own; an unknown file or an unknown part of the API is not there."""
    path = request.url.path
    last = path.rsplit("/", 1)[-1]
    if path.startswith(("/api/", "/static/", "/assets/")) or path == "/api":
        raise Refused(404, f"there is nothing at {path!r}; what there is: /api/openapi.json")
    if "." in last and not path.startswith(("/p/", "/r/")):
        raise Refused(404, f"there is no file {path!r}")
    return files.static_answer("index.html", request.headers.get("if-none-match"))


_READ: dict[str, Work] = {
    "/api/session": _session,
    "/api/openapi.json": _openapi,
    "/api/projects": _projects,
    "/api/projects/{name}": _project,
    "/api/projects/{name}/runs": _runs,
    "/api/projects/{name}/plots/{kind}": _plot,
    "/api/runs/{run}": _run,
    "/api/runs/{run}/curve": _curve,
    "/api/runs/{run}/files/{name:path}": _file,
    "/static/{path:path}": _static,
    "/assets/plotly.min.js": _plotly,
}


def _listen(served: Served) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        project = request.query_params.get("project")

        def known() -> Response:
            if project is not None:
                served.store.study(project)
            return EventStream(served.feed, project)

        return await to_thread.run_sync(answered, known)

    return endpoint


def _pause(served: Served, request: Request, body: Mapping[str, Any], *, resume: bool) -> Response:
    name = request.path_params["name"]
    return json_answer(steering.pause(served.store, name, body, _author(served, request), resume=resume))


def _steer(served: Served, request: Request, body: Mapping[str, Any], *, verb: str) -> Response:
    run = request.path_params["run"]
    return json_answer(steering.steer_run(served.store, run, verb, body, _author(served, request)))


def _author(served: Served, request: Request) -> str:
    return f"{served.user} @ {request.client.host if request.client else 'unknown'}"


def _required(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if value is None:
        raise ConfigError(f"{name} is missing: add ?{name}=... to the address")
    return value


def _whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise ConfigError(f"{name} = {text[:100]!r} must be a whole number from {least} to {most:,}")
    return int(text)


def _choice(request: Request, name: str, choices: Mapping[str, bool]) -> bool:
    """One of a few words; the first of them where none is given."""
    text = request.query_params.get(name, next(iter(choices)))
    if text not in choices:
        raise ConfigError(f"{name} = {text[:100]!r} must be one of {', '.join(choices)}")
    return choices[text]


async def _http_error(_request: Request, error: HTTPException) -> Response:
    answer = error_answer(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


async def _our_mistake(_request: Request, _error: Exception) -> Response:
    # The traceback goes to the terminal: uvicorn prints what has not been answered on purpose.
    return error_answer(500, "thalweg made a mistake; the terminal in which it runs says more")
