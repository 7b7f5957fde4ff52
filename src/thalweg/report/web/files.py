"""Files of the package and of runs, and never anything else's."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from importlib import metadata
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import FileResponse, Response

from thalweg.report.web.answers import Refused

if TYPE_CHECKING:
    from thalweg.track.store import Store

STATIC = Path(__file__).parent / "static"

_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
"""By name, and not by what this machine's registry of types says of them."""


def static_answer(relative: str, known_tag: str | None) -> Response:
    """A file of the page, which the browser asks for again each time: an update of thalweg is seen at once.

    Args:
        known_tag: the request's `If-None-Match`.
    Raises:
        Refused: there is none of this name.
    """
    path = inside(STATIC, relative)
    if path is None:
        raise Refused(404, f"there is no file {relative!r}")
    body = path.read_bytes()
    return _cached(body, _TYPES.get(path.suffix, "application/octet-stream"), "no-cache", known_tag)


def plotly_address() -> str:
    """Where the page loads Plotly.js from: another address for each version, so that it can be cached for good."""
    return f"/assets/plotly.min.js?v={metadata.version('plotly')}"


def plotly_answer(versioned: bool, known_tag: str | None) -> Response:
    """Plotly.js as the installed `plotly` brings it."""
    caching = "public, max-age=31536000, immutable" if versioned else "no-cache"
    return _cached(_plotly(), _TYPES[".js"], caching, known_tag)


@lru_cache(maxsize=1)
def _plotly() -> bytes:
    # Not by importing plotly, which takes a second.
    files = metadata.files("plotly") or []
    found = [file for file in files if file.name == "plotly.min.js"]
    if not found:
        raise Refused(404, "the installed plotly has no plotly.min.js: pip install --force-reinstall plotly")
    return Path(str(found[0].locate())).read_bytes()


def _cached(body: bytes, kind: str, caching: str, known_tag: str | None) -> Response:
    tag = f'"{_digest(body)}"'
    headers = {"etag": tag, "cache-control": caching}
    if known_tag is not None and tag in known_tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=kind)


@lru_cache(maxsize=256)
def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def saved_answer(store: Store, run_id: str, name: str, position: int | None) -> Response:
    """The content of a file that a run has saved, or of one in a folder that it has saved.

    The browser is told to keep it and not to show it: it may be a page with scripts.

    Args:
        name: the file's, or a folder's with the way to a file in it.
        position: of one version; None is the newest.
    Raises:
        Refused: there is none, or its content is not kept beside the store.
        StoreError: no such run.
    """
    saved = [file for file in store.files(run_id) if position is None or file.position == position]
    for file in sorted(saved, key=lambda file: (len(file.name), file.position, file.created), reverse=True):
        if name != file.name and not name.startswith(f"{file.name}/"):
            continue
        if not file.copied:
            raise Refused(404, f"{file.name!r} was only noted where it is, {str(file.path)!r}, and not copied")
        path = file.path if name == file.name else inside(file.path, name[len(file.name) + 1 :])
        if path is not None and is_beside(store, path) and path.is_file():
            return FileResponse(
                path, media_type=_type(path), filename=name.rsplit("/", 1)[-1], headers={"cache-control": "no-store"}
            )
        break
    raise Refused(404, f"run {run_id} has no file {name!r}")


def is_beside(store: Store, path: Path) -> bool:
    """Whether a file lies in the folder of files that a store keeps beside it, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(store.files_folder))


def inside(folder: Path, relative: str) -> Path | None:
    """The file of this name in a folder; None where there is none, or where it leads out of the folder.

    Links are followed first, so that none of them leads out either.
    """
    if "\0" in relative:
        return None
    try:
        real = Path(os.path.realpath(folder / relative))
        home = os.path.realpath(folder)
        return real if real.is_relative_to(home) and real.is_file() else None
    except OSError:
        return None


def _type(path: Path) -> str:
    return guess_type(path.name)[0] or "application/octet-stream"
