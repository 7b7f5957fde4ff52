"""Whatever is asked, the server has an answer, and keeps to its own description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.generation import GenerationMode

from thalweg.report.web.openapi import document
from thalweg.report.web.steering import VERBS
from thalweg.track.store import Store

KNOWN = {
    "run": ["vision-0", "vision-1", "vision-2", "imdb-0", "imdb-3"],
    "name": ["vision", "imdb"],
    "kind": ["history", "slices"],
}
ANSWERS = {200, 400, 401, 403, 404, 405, 409, 413, 422, 503}
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]

DOCUMENT = document("0", list(VERBS))


def _operations() -> Iterator[tuple[str, str, GenerationMode]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            if path == "/api/events":  # a stream does not end
                continue
            yield path, method, GenerationMode.POSITIVE
            # Only a body or a query can be other than described; any text is a name.
            if "requestBody" in operation or any(entry["in"] == "query" for entry in operation["parameters"]):
                yield path, method, GenerationMode.NEGATIVE


OPERATIONS = list(_operations())

fuzzing = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, web: Any) -> Iterator[Store]:
    """A store of this file's own, as it is changed."""
    folder = tmp_path_factory.mktemp("fuzz")
    with Store.open(folder / "store.db") as opened:
        web.fill(opened, folder)
        yield opened
        assert opened.check_integrity() == []


@pytest.fixture(scope="module")
def schema(server: Any) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}api/openapi.json")


@pytest.mark.parametrize("num_examples", [25, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_the_api_keeps_to_its_description(
    schema: Any, server: Any, path: str, method: str, mode: Any, num_examples: int
) -> None:
    headers = {"x-thalweg-token": server.access.token}
    cases = schema[path][method.upper()].as_strategy(generation_mode=mode)

    @settings(fuzzing, max_examples=num_examples)
    @given(case=cases, known=st.integers(0, 9))
    def fuzz(case: Any, known: int) -> None:
        if known < 8:
            for name in set(case.path_parameters or {}) & set(KNOWN):
                case.path_parameters[name] = KNOWN[name][known % len(KNOWN[name])]
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=20)

    fuzz()


odd_text = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", ".", "..", "../..", "a/b", "%", "%00", "\0", "'", '"; --', "😀", "vision-0 ", "x" * 3000, "-1", "imdb-0'"]
    ),
)


@settings(fuzzing, max_examples=150)
@given(
    parts=st.lists(odd_text, max_size=3),
    tail=st.sampled_from(["", "/runs", "/curve", "/files/", "/plots/"]),
    kind=st.sampled_from(["runs", "projects", "x", "events"]),
)
def test_odd_addresses(client: httpx.Client, parts: list[str], tail: str, kind: str) -> None:
    path = "/".join(quote(part.encode("utf-8", "replace"), safe="") for part in parts)
    answer = client.get(f"/api/{kind}/{path}{tail}")
    assert answer.status_code in ANSWERS
    assert answer.status_code == 200 or answer.json()["error"]


@settings(fuzzing, max_examples=100)
@given(
    query=st.dictionaries(
        st.sampled_from(["metric", "buckets", "first", "last", "x", "inherited", "position", "ids", "token", "v"]),
        st.one_of(
            odd_text,
            st.floats().map(str),
            st.integers().map(str),
            st.sampled_from(["loss", "time", "step", "1e999", "1" * 400]),
        ),
    ),
    path=st.sampled_from(
        [
            "runs/vision-1/curve",
            "runs/imdb-0/curve",
            "projects/imdb/runs",
            "runs/vision-0/files/x",
            "projects/imdb/plots/history",
        ]
    ),
)
def test_odd_questions(client: httpx.Client, query: dict[str, str], path: str) -> None:
    answer = client.get(f"/api/{path}", params={name: text.encode("utf-8", "replace") for name, text in query.items()})
    assert answer.status_code in ANSWERS
    assert answer.status_code == 200 or answer.json()["error"]


odd_json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=10**18, max_value=10**4000),
        st.floats(),
        st.text(st.characters(), max_size=20),  # half characters among them
        st.sampled_from([50, "lr", 1e-5, 1e308, -0.0]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@settings(fuzzing, max_examples=250)
@given(
    verb=st.sampled_from([*VERBS, "pause", "unpause", "explode"]),
    run=st.sampled_from(KNOWN["run"]),
    body=st.one_of(
        odd_json,
        st.dictionaries(
            st.sampled_from(["at", "changes", "until", "from", "text", "tags", "name", "author"]), odd_json, max_size=4
        ),
    ),
    key=st.sampled_from([None, "lr", "batch_size"]),
)
def test_odd_requests(client: httpx.Client, server: Any, verb: str, run: str, body: Any, key: str | None) -> None:
    if key is not None and isinstance(body, dict):
        body = {**body, "at": 50, "from": 50, "changes": {key: body.get("changes")}}
    where = f"/api/projects/{run[:4]}/{verb}" if verb in ("pause", "unpause") else f"/api/runs/{run}/{verb}"
    headers = {"x-thalweg-token": server.access.token, "content-type": "application/json"}
    answer = client.post(where, content=json.dumps(body), headers=headers)
    assert answer.status_code in ANSWERS
    if answer.status_code != 200:
        assert answer.json()["error"]


@settings(fuzzing, max_examples=60)
@given(body=st.binary(max_size=200))
def test_bytes_that_are_no_json(client: httpx.Client, server: Any, body: bytes) -> None:
    headers = {"x-thalweg-token": server.access.token, "content-type": "application/json"}
    assert client.post("/api/runs/imdb-0/note", content=body, headers=headers).status_code in ANSWERS


def test_after_all_that_everything_can_still_be_read(client: httpx.Client, store: Store) -> None:
    for name in KNOWN["name"]:
        assert client.get(f"/api/projects/{name}").status_code == 200
        assert client.get(f"/api/projects/{name}/runs").status_code == 200
    for run in KNOWN["run"]:
        assert client.get(f"/api/runs/{run}").status_code == 200
