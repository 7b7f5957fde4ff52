"""What the server answers: JSON in which non-finite numbers are strings, and errors as `{"error": text}`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from starlette.responses import Response

from thalweg.errors import ConfigError, StoreError
from thalweg.report.findings import as_json

_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

_PART = 100
"""Entries of a long list that are encoded at once."""


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP, such as 404.
        message: what was wrong and what would work.
        more: entries that the answer has beside `error`.
    """

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.more = more


def encode(value: Any) -> bytes:
    """A value as compact JSON in ASCII; a number that is not finite is the string "nan", "inf" or "-inf".

    >>> encode({"loss": float("nan"), "name": "ä"})
    b'{"loss":"nan","name":"\\\\u00e4"}'
    """
    try:
        # Nearly always there is no such number: looking for one first would take longer than the rest.
        text = _encoder.encode(value)
    except ValueError:
        text = _encoder.encode(as_json(value))
    return text.encode("ascii")


def encode_list(key: str, entries: Iterable[Any]) -> bytes:
    """`{key: entries}`, encoded in parts: one entry's NaN does not slow down all the others.

    >>> encode_list("runs", [{"a": 1}, {"a": float("inf")}])
    b'{"runs":[{"a":1},{"a":"inf"}]}'
    """
    rest = iter(entries)
    parts = []
    while part := list(islice(rest, _PART)):
        parts.append(encode(part)[1:-1])
    return b'{"' + key.encode("ascii") + b'":[' + b",".join(parts) + b"]}"


def json_answer(value: Any, status: int = 200) -> Response:
    """An answer with a JSON object."""
    return json_bytes(encode(value), status)


def json_bytes(body: bytes, status: int = 200) -> Response:
    """An answer with a JSON object that is encoded already. What a store holds changes: it is never cached."""
    return Response(body, status, {"cache-control": "no-store"}, media_type="application/json")


def error_answer(status: int, message: str, **more: Any) -> Response:
    """An answer that says what went wrong."""
    return json_answer({"error": message, **more}, status)


def answered(work: Callable[[], Response]) -> Response:
    """What a piece of work answers, its errors put into HTTP.

    Only errors that are raised on purpose are: anything else is our own mistake and left to show itself.
    """
    try:
        return work()
    except Refused as refused:
        return error_answer(refused.status, refused.message, **refused.more)
    except ConfigError as error:
        return error_answer(422, str(error))
    except StoreError as error:
        return error_answer(404 if is_unknown(error) else 503, str(error))


def is_unknown(error: StoreError) -> bool:
    """Whether a store says that it has no such thing, and not that something is wrong with it."""
    return str(error).startswith("unknown ")
