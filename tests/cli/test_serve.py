"""`thalweg serve`, as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from thalweg.cli.serve import serve
from thalweg.errors import ConfigError
from thalweg.track.records import NewRun
from thalweg.track.store import Store

# The command by itself: what the whole command line prints around it is tested elsewhere.
PROGRAM = "import typer; from thalweg.cli.serve import serve; app = typer.Typer(); app.command()(serve); app()"


@pytest.fixture
def location(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        store.create_project("vision")
        store.track_run("vision", NewRun(uid="a", status="finished"))
    return path


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and the first line that it prints."""
    made = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert made.stdout is not None
        yield made, made.stdout.readline()
    finally:
        made.kill()
        made.communicate()


def run(*arguments: str) -> None:
    """The command in this process, for what it refuses."""
    app = typer.Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, arguments)
    assert result.exception is not None
    raise result.exception


def test_it_prints_where_it_is_and_ends_with_ctrl_c(location: Path) -> None:
    with process("--store", str(location), "--port", "0") as (made, line):
        url = line.split()[-1]
        assert line.startswith("Thalweg at http://127.0.0.1:")
        assert httpx.get(f"{url}api/projects").json()["projects"][0]["name"] == "vision"
        made.send_signal(signal.SIGINT)
        out, error = made.communicate(timeout=10)
        assert (made.returncode, out, error) == (0, "", "")


def test_json_is_one_line_with_the_address(location: Path) -> None:
    with process("--store", str(location), "--port", "0", "--json", "--read-only") as (_, line):
        answer = json.loads(line)
        assert answer["read_only"] is True
        assert httpx.get(f"{answer['url']}api/session").json()["read_only"] is True


def test_what_another_process_writes_is_seen_read_only(location: Path) -> None:
    with process("--store", str(location), "--port", "0", "--json", "--read-only") as (_, line):
        url = json.loads(line)["url"]
        for number in range(3):
            code = (
                "from thalweg.track.store import Store; import sys\n"
                "with Store.open(sys.argv[1]) as store: store.add_note('vision-0', 'x', None)"
            )
            subprocess.run([sys.executable, "-c", code, str(location)], check=True, timeout=60)
            assert httpx.get(f"{url}api/runs/vision-0").json()["num_notes"] == number + 1


def test_any_address_but_this_machines_own_takes_a_token(location: Path) -> None:
    with process("--store", str(location), "--port", "0", "--host", "0.0.0.0") as (_, line):
        url = httpx.URL(line.split()[-1])
        assert url.params["token"]
        here = f"http://127.0.0.1:{url.port}/api/projects"
        assert httpx.get(here).status_code == 401
        assert httpx.get(here, headers={"authorization": f"Bearer {url.params['token']}"}).status_code == 200


def test_a_port_in_use_says_what_would_work(location: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} .* is in use.*--port 0"):
            run("--store", str(location), "--port", str(port))


def test_an_address_of_another_machine_is_refused(location: Path) -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        run("--store", str(location), "--port", "0", "--host", "192.0.2.1")


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        run("--store", str(tmp_path / "none.db"))
    assert not os.listdir(tmp_path)


def test_missing_packages_are_named(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'thalweg\[web\]'"):
        run("--store", str(location))
