"""TensorBoard: every scalar of every event file under a folder, with hyperparameters where there are some."""

from __future__ import annotations

import os
import re
import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import ConfigError
from thalweg.track.transfer.incoming import (
    IncomingRun,
    IncomingText,
    Outline,
    Record,
    Skipped,
    as_milliseconds,
    series_of,
    text_lines,
)
from thalweg.tree import Status

_STATUS: dict[int, Status] = {1: "finished", 2: "failed", 3: "running"}


def read_tensorboard(logdir: Path) -> Iterator[Record]:
    """A run for each folder that holds event files, all its files together; where steps overlap, the later file wins.

    Points come without sampling, as float64 of what was written. A folder that `SummaryWriter.add_hparams` made belongs
    to the run above it.

    Raises:
        ConfigError: the package tensorboard is missing, or there is no event file.
    """
    _need_tensorboard()
    folders = _run_folders(logdir)
    if not folders:
        raise ConfigError(f"{str(logdir)!r} holds no TensorBoard event files (their names hold 'tfevents')")
    yield Outline(num_runs=len(folders))
    root = logdir.resolve()
    project = root.name if root.is_dir() else root.parent.name
    for folder, files in folders.items():
        run = _EventRun(root.name if folder == root else _relative(folder, root))
        for file in files:
            run.read(file)
        yield from run.records(project, f"tensorboard:{folder.name}/{files[0].name}")


def _need_tensorboard() -> None:
    try:
        import tensorboard.compat.proto.event_pb2  # noqa: F401
    except ImportError as error:
        raise ConfigError("reading TensorBoard's files needs its package: pip install 'thalweg[import]'") from error


def _relative(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.name


def _run_folders(logdir: Path) -> dict[Path, list[Path]]:
    """Each run's folder with its event files, in the order in which they were begun."""
    root = logdir.resolve()
    if root.is_file():
        return {root.parent: [root]}
    found: dict[Path, list[Path]] = {}
    for place, folders, names in os.walk(root):
        folders.sort()
        files = sorted(name for name in names if "tfevents" in name and not name.endswith(".profile-empty"))
        if not files:
            continue
        folder = Path(place)
        # add_hparams makes a folder that is named after the second in which it was called.
        of_hparams = re.fullmatch(r"\d+\.\d+", folder.name) and folder.parent in found
        found.setdefault(folder.parent if of_hparams else folder, []).extend(folder / name for name in files)
    return found


@dataclass
class _Scalars:
    steps: array[int] = field(default_factory=lambda: array("q"))
    times_ms: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def purge(self, step: int) -> int:
        """Forget the points from a step on. Returns how many."""
        kept = np.frombuffer(self.steps, np.int64) < step if len(self.steps) else np.ones(0, np.bool_)
        gone = int((~kept).sum())
        if gone:
            self.steps = array("q", np.frombuffer(self.steps, np.int64)[kept].tobytes())
            self.times_ms = array("q", np.frombuffer(self.times_ms, np.int64)[kept].tobytes())
            self.values = array("d", np.frombuffer(self.values, np.float64)[kept].tobytes())
        return gone


class _EventRun:
    """What the event files of a run hold."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._scalars: dict[str, _Scalars] = {}
        self._plugins: dict[str, str] = {}  # tag -> plugin: only a tag's first value says it
        self._texts: dict[str, list[tuple[int, float, str]]] = {}
        self._hyperparameters: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._status: Status = "finished"
        self._others: Counter[str] = Counter()
        self._skipped: list[Skipped] = []
        self._first: float | None = None
        self._last: float | None = None

    def read(self, file: Path) -> None:
        from tensorboard.compat.proto import event_pb2

        for offset, data in _records(file, self._skipped):
            try:
                event = event_pb2.Event.FromString(data)
            except Exception as error:  # protobuf's own DecodeError has no stable place
                self._skipped.append(Skipped(place=f"{file}, byte {offset}", reason=f"not an event: {error}"))
                continue
            self._take(event, file)

    def _take(self, event: Any, file: Path) -> None:
        time_ms = as_milliseconds(event.wall_time)
        if time_ms:
            seconds = time_ms / 1000
            self._first = seconds if self._first is None else min(self._first, seconds)
            self._last = seconds if self._last is None else max(self._last, seconds)
        kind = event.WhichOneof("what")
        if kind == "summary":
            for value in event.summary.value:
                self._take_value(event.step, time_ms, value)
        elif kind == "session_log" and event.session_log.status == event.session_log.START and event.step > 0:
            # The writer says that it begins again here: what an earlier one wrote from this step on is void.
            gone = sum(scalars.purge(event.step) for scalars in self._scalars.values())
            if gone:
                reason = f"{gone:,} points from step {event.step} on: a later writer says that it began again there"
                self._skipped.append(Skipped(place=str(file), reason=reason))
        elif kind not in ("file_version", "session_log", None):
            self._others[kind] += 1

    def _take_value(self, step: int, time_ms: int, value: Any) -> None:
        tag = value.tag
        plugin = value.metadata.plugin_data.plugin_name or self._plugins.get(tag, "")
        self._plugins.setdefault(tag, plugin)
        kind = value.WhichOneof("value")
        if plugin == "hparams":
            self._take_hparams(value.metadata.plugin_data.content)
        elif kind == "simple_value":
            self._add(tag, step, time_ms, value.simple_value)
        elif kind == "tensor" and plugin == "text":
            self._texts.setdefault(tag, []).append((step, time_ms / 1000, _text(value.tensor)))
        elif kind == "tensor" and plugin in ("scalars", "") and (number := _number(value.tensor)) is not None:
            self._add(tag, step, time_ms, number)
        else:
            self._others[plugin or kind or "empty"] += 1

    def _add(self, tag: str, step: int, time_ms: int, value: float) -> None:
        scalars = self._scalars.get(tag) or self._scalars.setdefault(tag, _Scalars())
        scalars.steps.append(step)
        scalars.times_ms.append(time_ms)
        scalars.values.append(value)

    def _take_hparams(self, content: bytes) -> None:
        from google.protobuf.json_format import MessageToDict
        from tensorboard.plugins.hparams import plugin_data_pb2

        data = plugin_data_pb2.HParamsPluginData.FromString(content)
        kind = data.WhichOneof("data")
        if kind == "session_start_info":
            info = data.session_start_info
            for name, value in info.hparams.items():
                self._hyperparameters[name] = _plain(MessageToDict(value))
            self._facts |= {
                f"tensorboard/{key}": text
                for key in ("group_name", "model_uri", "monitor_url")
                if (text := getattr(info, key))
            }
        elif kind == "session_end_info":
            self._status = _STATUS.get(data.session_end_info.status, self._status)

    def records(self, project: str, uid: str) -> Iterator[Record]:
        yield IncomingRun(
            project=project,
            uid=uid,
            name=self._name,
            hyperparameters=self._hyperparameters,
            facts=self._facts,
            status=self._status,
            created=self._first,
            started=self._first,
            ended=self._last,
        )
        for tag, scalars in self._scalars.items():
            for record in series_of(self._name, tag, scalars.steps, scalars.times_ms, scalars.values):
                if record is not None:
                    yield record
        for tag, texts in self._texts.items():
            yield IncomingText(name=tag, text=text_lines(texts), step=max(0, texts[-1][0]))
        for kind, num in self._others.items():
            yield Skipped(
                place=f"run {self._name}", reason=f"{num:,} of kind {kind!r}: only scalars and texts come over"
            )
        yield from self._skipped


def _records(file: Path, skipped: list[Skipped]) -> Iterator[tuple[int, bytes]]:
    """The records of a TFRecord file with their places: length, its checksum, data, its checksum.

    A record whose data is damaged is passed over; where a length is damaged nothing after it can be found.
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    with file.open("rb") as stream:
        size, offset = file.stat().st_size, 0
        while header := stream.read(12):
            length, length_sum = struct.unpack("<QI", header) if len(header) == 12 else (0, 0)
            if len(header) < 12 or offset + 16 + length > size:
                whole = len(header) < 12 or masked_crc32c(header[:8]) == length_sum
                what = "the last record is cut off" if whole else "damaged from here to the end"
                reason = f"{what}: {size - offset:,} bytes cannot be read"
                skipped.append(Skipped(place=f"{file}, byte {offset}", reason=reason))
                return
            data, (data_sum,) = stream.read(length), struct.unpack("<I", stream.read(4))
            if masked_crc32c(data) == data_sum:
                yield offset, data
            elif masked_crc32c(header[:8]) == length_sum:
                skipped.append(Skipped(place=f"{file}, byte {offset}", reason=f"a damaged record of {length:,} bytes"))
            else:
                reason = f"damaged from here to the end: {size - offset:,} bytes cannot be read"
                skipped.append(Skipped(place=f"{file}, byte {offset}", reason=reason))
                return
            offset += 16 + length


def _number(tensor: Any) -> float | None:
    """The number in a tensor that holds one, or None."""
    from tensorboard.util import tensor_util

    try:
        values = np.asarray(tensor_util.make_ndarray(tensor))
        return float(values.reshape(-1)[0]) if values.size == 1 and values.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        return None


def _text(tensor: Any) -> str:
    return "\n".join(part.decode("utf-8", "replace") for part in tensor.string_val)


def _plain(value: Any) -> Any:
    """JSON has one kind of number: a whole one is an integer again."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
