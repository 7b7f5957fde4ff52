"""The HTTP API as an OpenAPI document, for people, for clients, and for the fuzzer of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_NULLABLE_STEP = {"type": ["number", "null"], "minimum": 0}
_OBJECT: dict[str, Any] = {"type": "object"}

_ERRORS = {
    "400": "the request is not one",
    "401": "the token is missing or wrong",
    "403": "read-only, or a page of another site asked",
    "404": "there is no such thing",
    "409": "not in the state that things are in",
    "413": "the body is too long",
    "422": "a value that cannot work",
    "503": "the store cannot be read or written now",
}

_BODIES: dict[str, dict[str, Any]] = {
    "stop": {},
    "continue": {"until": _NULLABLE_STEP},
    "fork": {"at": {"type": "number", "minimum": 0}, "changes": _OBJECT, "until": _NULLABLE_STEP},
    "restart": {"from": {"type": "number", "minimum": 0}},
    "note": {"text": _TEXT},
    "tags": {"tags": {"type": "array", "items": _TEXT}},
    "name": {"name": {"type": ["string", "null"]}},
    "pause": {},
    "unpause": {},
}
_REQUIRED = {"fork": ["at"], "restart": ["from"], "note": ["text"], "tags": ["tags"], "name": ["name"]}

_CURVE = """\
A curve: uint32 length of the header, the header as JSON padded with blanks to a multiple of 8, then float64 columns one
after the other, all little endian. The header's `kind` is `points` (columns x, value, owner: an index into `lineage`)
or `buckets` (columns x_first, x_last, min, max, num_nonfinite). x is a step, seconds since the writer began for metrics
named system/..., or with x=time seconds since 1970."""


def document(version: str, verbs: Sequence[str]) -> dict[str, Any]:
    """The document.

    Args:
        version: of thalweg.
        verbs: what can be asked for of a run.
    """
    run, name = _parameter("run", "path"), _parameter("name", "path")
    paths = {
        "/api/session": _read("Who I am, and the token for POST requests"),
        "/api/openapi.json": _read("This document"),
        "/api/projects": _read("All projects and studies", required=["projects", "read_only", "version"]),
        "/api/projects/{name}": _read("A project without its runs", [name], required=["name", "kind", "metrics"]),
        "/api/projects/{name}/runs": _read(
            "A project's runs; with ids, separated by commas, only those", [name, _parameter("ids")], required=["runs"]
        ),
        "/api/projects/{name}/plots/{kind}": _read(
            "A plot of a search as Plotly's JSON", [name, _parameter("kind", "path")], required=["figure"]
        ),
        "/api/runs/{run}": _read("All about a run", [run], required=["id", "project", "lineage", "metrics"]),
        "/api/runs/{run}/curve": _read(_CURVE, [run, *_curve_parameters()], media="application/octet-stream"),
        "/api/runs/{run}/files/{path}": _read(
            "A file that the run has saved", [run, _parameter("path", "path"), _parameter("position")], media="*/*"
        ),
        **{f"/api/runs/{{run}}/{verb}": _write(f"{verb} a run", [run], verb) for verb in verbs},
        **{f"/api/projects/{{name}}/{verb}": _write(f"{verb} a study", [name], verb) for verb in ("pause", "unpause")},
    }
    events = _read("Server-sent events: `runs` {ids, projects}, `study` {name}", [_parameter("project")])
    events["get"]["responses"]["200"]["content"] = {"text/event-stream": {"schema": _TEXT}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "thalweg serve", "version": version},
        "paths": {**paths, "/api/events": events},
        "components": {
            "schemas": {"Error": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}},
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Thalweg-Token"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _curve_parameters() -> list[dict[str, Any]]:
    return [
        {**_parameter("metric"), "required": True},
        {**_parameter("buckets"), "schema": {"type": "integer", "minimum": 1, "maximum": 100_000}},
        {**_parameter("first"), "schema": _NUMBER},
        {**_parameter("last"), "schema": _NUMBER},
        {**_parameter("x"), "schema": {"enum": ["step", "time"]}},
        {**_parameter("inherited"), "schema": {"enum": ["0", "1"]}},
    ]


def _parameter(name: str, place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": _TEXT}


def _read(
    summary: str,
    parameters: Sequence[dict[str, Any]] = (),
    *,
    required: Sequence[str] = (),
    media: str = "application/json",
) -> dict[str, Any]:
    schema = {"type": "object", "required": list(required)} if media == "application/json" else _TEXT
    responses = _responses(schema, media)
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _write(summary: str, parameters: Sequence[dict[str, Any]], verb: str) -> dict[str, Any]:
    body = {"type": "object", "properties": {**_BODIES[verb], "author": {"type": ["string", "null"]}}}
    body["required"] = _REQUIRED.get(verb, [])
    answer = {
        "type": "object",
        "required": ["request", "message"],
        "properties": {"request": {"type": ["integer", "null"]}, "message": _TEXT},
    }
    return {
        "post": {
            "summary": summary,
            "parameters": list(parameters),
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": _responses(answer, "application/json"),
            "security": [{"token": []}, {"bearer": []}],
        }
    }


def _responses(schema: dict[str, Any], media: str) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    failures = {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    return {"200": {"description": "done", "content": {media: {"schema": schema}}}, **failures}
