"""A folder that an export fills, and fills again: each file is replaced whole, and nobody else's is touched.

`thalweg-export.json` in it says what is ours. It is written before the first file and again after the last one, so that
an export that was killed can be made again over what it has left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from thalweg.errors import ConfigError

MARKER = "thalweg-export.json"
_PARTIAL = ".partial"


class ExportFolder:
    """The files of one export. Use it as a context manager; left without an error, what the export before it had made
    and this one has not is removed.

    Args:
        files: all that will be written, paths in the folder with slashes.
    Raises:
        ConfigError: the folder, or a place in it, holds something else.
    """

    def __init__(self, folder: str | Path, *, project: str, form: str, files: Sequence[str]) -> None:
        self.folder = Path(folder).expanduser()
        self.files = list(files)
        self._is = {"thalweg_export": 1, "project": project, "to": form}
        self._before = self._read_marker()
        for name in files:
            path = self.folder / name
            if name not in self._before and path.exists():
                raise ConfigError(f"{path} is there, and is not of an earlier export; move it, or name another folder")

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_marker({*self.files, *self._before})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        for name in self._before.difference(self.files):
            self._remove(name)
        self._write_marker(self.files)

    @contextmanager
    def replace(self, name: str) -> Iterator[BinaryIO]:
        """Write a file beside the one of that name, and put it in its place when the block ends without an error."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + _PARTIAL)
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _read_marker(self) -> set[str]:
        if not self.folder.exists():
            return set()
        if not self.folder.is_dir():
            raise ConfigError(f"--out {self.folder} is a file; name a folder")
        marker = self.folder / MARKER
        if not marker.exists():
            some = sorted(entry.name for entry in self.folder.iterdir() if entry.name != MARKER + _PARTIAL)[:3]
            if some:
                raise ConfigError(
                    f"--out {self.folder} holds something else ({', '.join(some)}); name a new folder, or an empty one"
                )
            return set()
        try:
            found = json.loads(marker.read_text("utf-8"))
            files = {str(name) for name in found.pop("files")}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(f"{marker} cannot be read: {error}. Name a new folder") from error
        if found != self._is:
            raise ConfigError(
                f"--out {self.folder} holds an export of {found.get('project')!r} to {found.get('to')};"
                " name another folder, or remove it"
            )
        return {name for name in files if self._is_inside(name)}

    def _is_inside(self, name: str) -> bool:
        # The marker is a file that anybody may have changed: it must not make us remove what lies elsewhere.
        parts = Path(name).parts
        return bool(parts) and not Path(name).is_absolute() and ".." not in parts

    def _write_marker(self, files: Iterable[str]) -> None:
        partial = self.folder / (MARKER + _PARTIAL)
        partial.write_text(json.dumps(self._is | {"files": sorted(files)}, indent=1) + "\n", "utf-8")
        partial.replace(self.folder / MARKER)

    def _remove(self, name: str) -> None:
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.with_name(path.name + _PARTIAL).unlink(missing_ok=True)
        folder = path.parent
        if folder != self.folder and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
