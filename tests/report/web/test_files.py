"""Files: those of the page, those that runs saved, and no others."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from thalweg.report.web.files import inside
from thalweg.track.store import Store

SECRET = "the secret of this machine"


@pytest.fixture(scope="module")
def saved(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and a folder of `vision-0`; a secret beside the store."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "page.html").write_text("<script>1</script>")
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(bytes(range(256)))
    (Path(store.location).parent / "secret.txt").write_text(SECRET)
    (Path(store.location).parent.parent / "secret.txt").write_text(SECRET)
    store.save_file("vision-0", folder / "page.html", name="a/page.html", position=1_000_000)
    (folder / "page.html").write_text("second")
    store.save_file("vision-0", folder / "page.html", name="a/page.html", position=2_000_000)
    store.save_file("vision-0", folder / "model", name="model", position=2_000_000)
    store.save_file("vision-0", folder / "page.html", name="elsewhere", position=0, copy=False)
    return folder


def raw_get(server: Any, target: str) -> bytes:
    """GET a path as it is: clients put paths in order before they send them."""
    with socket.create_connection(server.listening.getsockname()) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_a_saved_file_is_downloaded_and_not_shown(client: httpx.Client, saved: Path) -> None:
    files = client.get("/api/runs/vision-0").json()["files"]
    page = [file for file in files if file["name"] == "a/page.html"]
    assert [(file["step"], file["inherited"]) for file in page] == [(1, False), (2, False)]
    first = client.get(page[0]["url"])
    assert first.text == "<script>1</script>"
    assert first.headers["content-disposition"].startswith("attachment")
    assert first.headers["x-content-type-options"] == "nosniff"
    assert client.get(page[1]["url"]).text == "second"
    # Without a position: the newest.
    assert client.get("/api/runs/vision-0/files/a/page.html").text == "second"


def test_a_fork_has_its_parents_files_up_to_the_fork(client: httpx.Client, saved: Path) -> None:
    file = next(file for file in client.get("/api/runs/vision-1").json()["files"] if file["name"] == "a/page.html")
    assert (file["inherited"], file["run"]) == (True, "vision-0")
    assert client.get(file["url"]).status_code == 200


def test_a_file_in_a_saved_folder(client: httpx.Client, saved: Path) -> None:
    folder = next(file for file in client.get("/api/runs/vision-0").json()["files"] if file["name"] == "model")
    assert folder["url"] is None
    assert client.get("/api/runs/vision-0/files/model/weights.bin").content == bytes(range(256))
    assert client.get("/api/runs/vision-0/files/model").status_code == 404
    assert client.get("/api/runs/vision-0/files/model/none.bin").status_code == 404


def test_a_file_that_was_not_copied_is_not_served(client: httpx.Client, saved: Path) -> None:
    file = next(file for file in client.get("/api/runs/vision-0").json()["files"] if file["name"] == "elsewhere")
    assert file["url"] is None
    answer = client.get("/api/runs/vision-0/files/elsewhere")
    assert (answer.status_code, "not copied" in answer.json()["error"]) == (404, True)


@pytest.mark.parametrize(
    "way",
    [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "..%5csecret.txt",
        "....//secret.txt",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "//etc/passwd",
        "x/../../secret.txt",
        "../../../../../../../../../../etc/passwd",
        "%00/etc/passwd",
        "a%00",
        "%252e%252e%252fsecret.txt",
        "a" * 5000,
    ],
)
@pytest.mark.parametrize(
    "start", ["/static/", "/assets/", "/", "/api/runs/vision-0/files/", "/api/runs/vision-0/files/model/"]
)
def test_no_way_leads_out_of_a_folder(server: Any, saved: Path, start: str, way: str) -> None:
    answer = raw_get(server, start + way)
    assert SECRET.encode() not in answer
    assert b"root:" not in answer
    assert answer.split(b" ", 2)[1] in (b"200", b"400", b"404")
    if answer.split(b" ", 2)[1] == b"200":
        assert b"<!doctype html>" in answer


def test_a_link_leads_nowhere_else(client: httpx.Client, store: Store, saved: Path) -> None:
    copied = next(file for file in store.files("vision-0") if file.name == "model").path
    (copied / "link.txt").symlink_to(Path(store.location).parent / "secret.txt")
    (copied / "way").symlink_to(Path(store.location).parent)
    assert client.get("/api/runs/vision-0/files/model/link.txt").status_code == 404
    assert client.get("/api/runs/vision-0/files/model/way/secret.txt").status_code == 404
    page = next(file for file in store.files("vision-0") if file.name == "a/page.html").path
    page.unlink()
    page.symlink_to(Path(store.location).parent / "secret.txt")
    answer = client.get("/api/runs/vision-0/files/a/page.html?position=1000000")
    assert (answer.status_code, SECRET in answer.text) == (404, False)


def test_inside_follows_links_before_it_compares(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home-of-another").mkdir()
    (tmp_path / "home-of-another" / "a").write_text("")
    (tmp_path / "home" / "a").write_text("")
    home = tmp_path / "home"
    assert inside(home, "a") == (home / "a").resolve()
    assert inside(home, "../home/a") == (home / "a").resolve()
    for way in ("../home-of-another/a", "", ".", "b", "a\0b", "a/b"):
        assert inside(home, way) is None


def test_the_pages_files_are_asked_for_again_and_plotly_is_kept(client: httpx.Client) -> None:
    page = client.get("/static/app.js")
    assert page.headers["content-type"].startswith("text/javascript")
    assert page.headers["cache-control"] == "no-cache"
    again = client.get("/static/app.js", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    address = client.get("/api/session").json()["plotly"]
    plotly = client.get(address)
    assert b"plotly.js v" in plotly.content[:300]
    assert "immutable" in plotly.headers["cache-control"]
    assert client.get("/assets/plotly.min.js").headers["cache-control"] == "no-cache"
