"""Who is let in: the rule itself, then over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from thalweg.errors import ConfigError
from thalweg.report.web.access import Access, refusal
from thalweg.report.web.server import make_server
from thalweg.track.store import Store

LOCAL = Access(host="127.0.0.1", token="secret", guarded=False, read_only=False)
SHARED = Access(host="0.0.0.0", token="secret", guarded=True, read_only=False)
NAMED = Access(host="box.example", token="secret", guarded=True, read_only=False)


def status(
    access: Access, method: str = "GET", path: str = "/api/projects", cookie: str | None = None, **headers: str
) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found = refusal(access, method, path, {"host": "127.0.0.1:8321", **named}, cookie)
    return 200 if found is None else found[0]


@pytest.mark.parametrize("host", ["127.0.0.1:8321", "127.0.0.1", "localhost:9000", "[::1]:8321", "LOCALHOST"])
def test_a_local_server_answers_to_local_names(host: str) -> None:
    assert status(LOCAL, host=host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "10.0.0.7", "", "a b", "[::", "localhost:x"]
)
def test_a_local_server_answers_to_no_other_name(host: str) -> None:
    assert status(LOCAL, host=host) == 403


def test_a_named_server_answers_to_its_name_and_to_addresses() -> None:
    assert status(NAMED, host="box.example", x_thalweg_token="secret") == 200
    assert status(NAMED, host="10.0.0.7:8321", x_thalweg_token="secret") == 200
    assert status(NAMED, host="evil.example", x_thalweg_token="secret") == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_sites_page_cannot_read_or_write(site: str) -> None:
    assert status(LOCAL, sec_fetch_site=site) == 403
    assert status(LOCAL, "POST", sec_fetch_site=site, x_thalweg_token="secret") == 403
    # A link to the page itself is followed.
    assert status(LOCAL, path="/r/imdb-0", sec_fetch_site=site) == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9", "http://[", "https://localhost:8321"]
)
def test_writing_from_another_origin_is_refused(origin: str) -> None:
    assert status(LOCAL, "POST", origin=origin, x_thalweg_token="secret") == 403


def test_writing_takes_the_token_here_too() -> None:
    assert status(LOCAL, "POST") == 401
    assert status(LOCAL, "POST", x_thalweg_token="wrong") == 401
    assert status(LOCAL, "POST", x_thalweg_token="sécret") == 401
    assert status(LOCAL, "POST", x_thalweg_token="secret", origin="http://127.0.0.1:8321") == 200
    assert status(LOCAL, "POST", authorization="Bearer secret") == 200
    # A browser sends a cookie along whoever asks: it is no proof.
    assert status(LOCAL, "POST", cookie="secret") == 401
    assert status(SHARED, "POST", cookie="secret") == 401


def test_elsewhere_reading_takes_the_token() -> None:
    assert status(SHARED) == 401
    assert status(SHARED, path="/") == 401
    assert status(SHARED, path="/static/app.js") == 401
    for right in ({"cookie": "secret"}, {"x_thalweg_token": "secret"}, {"authorization": "bearer secret"}):
        assert status(SHARED, **right) == 200  # type: ignore[arg-type]
    for wrong in ({"cookie": "secre"}, {"x_thalweg_token": ""}, {"authorization": "Basic secret"}):
        assert status(SHARED, **wrong) == 401  # type: ignore[arg-type]


def test_reading_only_refuses_every_change() -> None:
    access = Access(host="127.0.0.1", token="secret", guarded=False, read_only=True)
    assert status(access) == 200
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert status(access, method, x_thalweg_token="secret") == 403


def test_the_page_gets_the_token_and_no_other_site_may_read_it(client: httpx.Client, server: Any) -> None:
    answer = client.get("/api/session")
    assert answer.json()["token"] == server.access.token
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert client.get("/api/session", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/api/session", headers={"host": "evil.example"}).status_code == 403


def test_every_answer_has_the_headers_of_safety(client: httpx.Client) -> None:
    for path in ("/", "/static/app.js", "/api/projects", "/api/nothing", "/assets/plotly.min.js"):
        headers = client.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["script-src"] == "'self'"
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_a_post_must_be_json_and_short(client: httpx.Client, server: Any) -> None:
    headers = {"x-thalweg-token": server.access.token, "content-type": "application/json"}

    def post(content: bytes, kind: str = "application/json") -> int:
        answer = client.post("/api/runs/vision-0/note", content=content, headers={**headers, "content-type": kind})
        assert answer.json()["error"]
        return answer.status_code

    assert post(b'{"text": "x"}', "text/plain") == 400
    assert post(b"text=x", "application/x-www-form-urlencoded") == 400
    assert post(b"{") == 400
    assert post(b"\xff") == 400
    assert post(b'{"text": NaN}') == 400
    assert post(b"[" * 100_000) == 400
    assert post(b"[1]") == 422
    assert post(b'{"text": "' + b"x" * 2**20 + b'"}') == 413


@pytest.fixture(scope="module")
def shared(store: Store, web: Any) -> Iterator[Any]:
    with web.running(store, host="0.0.0.0") as started:
        yield started


def test_the_token_in_the_address_opens_the_page_and_is_gone_from_it(shared: Any) -> None:
    port = shared.listening.getsockname()[1]
    assert shared.url.endswith(f"?token={shared.access.token}")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        answer = client.get(f"/p/vision?sort=lr&token={shared.access.token}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/p/vision?sort=lr")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        # The client has kept the cookie.
        assert client.get("/p/vision").status_code == 200
        assert client.get("/api/projects").status_code == 200
        assert client.get("/api/session").json()["token"] == shared.access.token


def test_a_link_on_another_site_lets_in_too(shared: Any) -> None:
    # A browser keeps the cookie back on a redirect that began elsewhere, so the page goes on by itself.
    port = shared.listening.getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        answer = client.get(f"/?token={shared.access.token}", headers={"sec-fetch-site": "cross-site"})
        assert (answer.status_code, answer.headers["refresh"]) == (200, "0; url=/")
        assert client.get("/").status_code == 200


def test_the_token_in_the_address_leads_to_no_other_host(shared: Any) -> None:
    port = shared.listening.getsockname()[1]
    with httpx.Client() as client:
        answer = client.get(f"http://127.0.0.1:{port}//evil.example/?token={shared.access.token}")
        assert answer.status_code == 303
        assert re.match(r"/[^/\\]", answer.headers["location"])


def test_a_token_given_is_asked_for_on_this_machine_too(store: Store, web: Any) -> None:
    with web.running(store, token="chosen") as server, httpx.Client(base_url=server.url.split("?")[0]) as client:
        assert client.get("/api/projects").status_code == 401
        assert client.get("/api/projects", headers={"authorization": "Bearer chosen"}).status_code == 200


def test_a_token_that_cannot_be_sent_is_refused(store: Store) -> None:
    for token in ("", "a b", "ä", "a\n"):
        with pytest.raises(ConfigError, match="--token"):
            make_server(store, port=0, token=token)


def test_a_read_only_server_sees_what_another_process_writes(store: Store, web: Any) -> None:
    reader = Store.open(store.location, read_only=True)
    with reader, web.running(reader, read_only=True) as server, httpx.Client(base_url=server.url) as client:
        assert (
            client.get("/api/session").json() | {"token": None, "read_only": True} == client.get("/api/session").json()
        )
        assert client.get("/api/projects").json()["read_only"] is True
        before = client.get("/api/runs/vision-0").json()["num_notes"]
        store.add_note("vision-0", "later", None)
        assert client.get("/api/runs/vision-0").json()["num_notes"] == before + 1
        headers = {"x-thalweg-token": server.access.token}
        for path in ("/api/runs/vision-0/note", "/api/runs/imdb-0/stop", "/api/projects/imdb/pause"):
            answer = client.post(path, json={"text": "x"}, headers=headers)
            assert (answer.status_code, "read" in answer.json()["error"]) == (403, True)
        assert client.get("/api/runs/vision-0").json()["num_notes"] == before + 1
