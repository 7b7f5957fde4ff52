"""A file for what a store cannot take now: a full disk, a lock that is never released, a share that is gone.

A spool belongs to one writer. It begins with a line of JSON that says to which store and run it belongs, and holds
batches, each with its length and checksum. The writer itself moves them into the store as soon as that works; where its
process is gone, whoever opens the store next does. Batches are numbered, so that none counts twice.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thalweg.budget import Cost
from thalweg.errors import StoreError
from thalweg.track.calls import Batch
from thalweg.track.json_text import decode, encode
from thalweg.track.liveness import DEAD_AFTER_SECONDS, Process, runs_here, this_process

_FRAME = struct.Struct("<II")
_SUFFIX = ".spool"


class Spool:
    """The spool of one writer; no file is made before something is kept."""

    def __init__(self, folders: list[Path], uid: str, header: Mapping[str, Any]) -> None:
        """
        Args:
            folders: where the file may be made; the first that works is taken.
            uid: the writer's.
            header: `store` and `run`; where the run is not in the store yet, what it takes to enter it there.
        """
        self._folders = folders
        self._uid = uid
        process = this_process()
        owner = {"host": process.host, "pid": process.pid, "pid_started": process.started}
        self._header = {**header, "writer": uid, **owner}
        self._path: Path | None = None
        self.num_batches = 0

    @property
    def path(self) -> Path | None:
        """The file, where there is one."""
        return self._path

    def append(self, batch: Batch) -> None:
        """Keep a batch such that it survives the process and the machine.

        Raises:
            OSError: nowhere is room for it.
        """
        payload = _encode(batch)
        frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        if self._path is not None:
            self._write(self._path, frame)
        else:
            self._begin(frame)
        self.num_batches += 1

    def batches(self) -> list[Batch]:
        """All that are kept, in their order."""
        return [] if self._path is None else list(_read_batches(self._path.read_bytes()))

    def clear(self) -> None:
        """All of it is in the store."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._path = None
        self.num_batches = 0

    def _begin(self, frame: bytes) -> None:
        start = encode(self._header, "spool").encode() + b"\n"
        failed: OSError | None = None
        for folder in self._folders:
            path = folder / f"{self._uid}{_SUFFIX}"
            try:
                # Hyperparameters and notes may be private.
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._write(path, start + frame, mode="xb")
            except OSError as error:
                path.unlink(missing_ok=True)
                failed = error
                continue
            self._path = path
            return
        raise failed or OSError("there is no folder for a spool")

    @staticmethod
    def _write(path: Path, data: bytes, mode: str = "ab") -> None:
        # Without a buffer, which would try to write the rest again when it is closed.
        with open(path, mode, buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
                os.fsync(file.fileno())
            except OSError:
                # Half a frame would hide those that come after it.
                os.ftruncate(file.fileno(), size)
                raise


@dataclasses.dataclass(frozen=True)
class LeftSpool:
    """A spool whose process is gone, as whoever opens the store finds it."""

    path: Path
    header: Mapping[str, Any]
    batches: tuple[Batch, ...]
    whole: bool
    """False where its end is cut off: the machine died while it was written."""


def spool_folders(where: str) -> list[Path]:
    """Where a store's spools may be: beside its file, then in the user's cache, then for temporary files."""
    beside = [] if "://" in where else [Path(where).absolute().parent / "spool"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thalweg" / "spool"
    return [*beside, cache, Path(tempfile.gettempdir()) / f"thalweg-spool-{os.getuid()}"]


def left_spools(where: str) -> Iterator[LeftSpool]:
    """The spools of a store that no process writes any more.

    Raises:
        StoreError: one cannot be read.
    """
    for folder in spool_folders(where):
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            # A folder for temporary files is open to all: another user's file is nothing to us.
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            found = read_spool(path)
            owner = Process(found.header["host"], found.header["pid"], found.header["pid_started"])
            closed = any(batch.end is not None for batch in found.batches)
            if found.header["store"] == where and (closed or _is_gone(owner, path)):
                yield found


def _is_gone(owner: Process, spool: Path) -> bool:
    if owner.host == socket.gethostname():
        return not runs_here(owner)
    # Another machine's process cannot be seen; one that lives writes, or has merged, what it has.
    return time.time() - spool.stat().st_mtime > DEAD_AFTER_SECONDS


def read_spool(path: Path) -> LeftSpool:
    """Read a spool as far as it is whole.

    Raises:
        StoreError: it is none.
    """
    data = path.read_bytes()
    start, newline, frames = data.partition(b"\n")
    try:
        header = json.loads(start)
        complete = bool(newline) and {"store", "writer", "host", "pid", "pid_started"} <= set(header)
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is no spool: {error}. Move it away if it is not thalweg's") from error
    if not complete:
        raise StoreError(f"{path} is no spool: its first line does not say whose it is. Move it away")
    batches = tuple(_read_batches(data))
    length = sum(_FRAME.size + len(_encode(batch)) for batch in batches)
    return LeftSpool(path, header, batches, length == len(frames))


def _read_batches(data: bytes) -> Iterator[Batch]:
    place = data.find(b"\n") + 1
    while place and place + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, place)
        payload = data[place + _FRAME.size : place + _FRAME.size + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return
        yield _decode(payload)
        place += _FRAME.size + length


def _encode(batch: Batch) -> bytes:
    described = {
        "number": batch.number,
        "num_calls": batch.num_calls,
        "rows": [[names, num, len(blob)] for names, num, blob in batch.rows],
        "spent": {kind: dataclasses.asdict(cost) for kind, cost in batch.spent.items()},
        "end": batch.end,
    }
    return encode(described, "batch").encode() + b"\n" + b"".join(blob for _, _, blob in batch.rows)


def _decode(payload: bytes) -> Batch:
    start, _, blobs = payload.partition(b"\n")
    described = decode(start.decode())
    rows, place = [], 0
    for names, num, length in described["rows"]:
        rows.append((names, num, blobs[place : place + length]))
        place += length
    spent = {kind: Cost(**amounts) for kind, amounts in described["spent"].items()}
    return Batch(described["number"], rows, described["num_calls"], spent, described["end"])
