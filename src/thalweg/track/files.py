"""What training scripts save beside their points: copied into a folder beside the store, or remembered where it is."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from thalweg.errors import ConfigError
from thalweg.track.lineage import own_link, read_lineage
from thalweg.track.records import SavedFile
from thalweg.track.runs import as_position, find_run
from thalweg.track.schema import file


def keep(source: Path, folder: Path, run_id: str, *, copy: bool) -> dict[str, Any]:
    """Copy a file or folder to where a run's files are kept, or only look at it.

    Args:
        folder: the store's folder of files.
    Returns:
        The columns that say where it is.
    Raises:
        ConfigError: there is nothing.
        OSError: it cannot be copied; nothing is left behind.
    """
    if not source.exists():
        raise ConfigError(f"save: there is no file or folder at {source}")
    if not copy:
        place = source.absolute()
        return {"place": str(place), "copied": False, "num_bytes": _size(place), "digest": None}
    place = Path(run_id) / uuid.uuid4().hex / source.absolute().name
    target = folder / place
    target.parent.mkdir(parents=True)
    try:
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    except BaseException:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise
    digest = None if target.is_dir() else _digest(target)
    return {"place": place.as_posix(), "copied": True, "num_bytes": _size(target), "digest": digest}


def add_file(connection: Connection, run_id: str, name: str, position: int, kept: Mapping[str, Any]) -> None:
    if not name:
        raise ConfigError("save: name = '' must not be empty")
    row = find_run(connection, run_id, lock=True)
    entry = {"run_key": row.key, "name": name, "position": as_position("position", position)}
    entry |= {"generation": row.generation, "created": time.time(), **kept}
    connection.execute(insert(file).values(entry))


def read_files(connection: Connection, run_id: str, folder: Path, *, inherited: bool) -> list[SavedFile]:
    """A run's files, those of its ancestors up to the fork first, each run's in the order they were saved."""
    key = find_run(connection, run_id).key
    links = read_lineage(connection, key) if inherited else [own_link(connection, key)]
    by_run: dict[int, list[Any]] = {}
    wanted = select(file).where(file.c.run_key.in_([link.key for link in links])).order_by(file.c.key)
    for row in connection.execute(wanted):
        by_run.setdefault(row.run_key, []).append(row)
    return [
        SavedFile(
            run=link.run_id,
            name=row.name,
            position=row.position,
            path=folder / row.place if row.copied else Path(row.place),
            num_bytes=row.num_bytes,
            digest=row.digest,
            created=row.created,
            copied=row.copied,
        )
        for link in links
        for row in by_run.get(link.key, [])
        if row.position <= link.visible_until(row.generation)
    ]


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(
        os.path.getsize(Path(folder) / name)
        for folder, _, names in os.walk(path)
        for name in names
        if (Path(folder) / name).is_file()
    )


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
