"""Weights & Biases: the `.wandb` files that its client keeps of every run, offline or not."""

from __future__ import annotations

import json
import math
import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thalweg.errors import ConfigError
from thalweg.track.calls import SYSTEM
from thalweg.track.transfer.incoming import (
    IncomingFile,
    IncomingNote,
    IncomingRun,
    Outline,
    Record,
    Skipped,
    as_milliseconds,
    flat,
    series_of,
)
from thalweg.tree import Status

# A LevelDB log: blocks of 32 KiB that hold fragments, each with checksum, length and kind; the file begins with a word.
_BLOCK = 32_768
_FRAGMENT = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)


def read_wandb(folder: Path) -> Iterator[Record]:
    """A run for each run id: all files of a run that was resumed are one run, in the order in which they were written.

    Args:
        folder: a `wandb` folder with `offline-run-*` and `run-*` in it, one of those, a folder with any of them below
            it, or a `.wandb` file.
    Raises:
        ConfigError: the package wandb is missing, or there is no `.wandb` file.
    """
    try:
        from wandb.proto import wandb_internal_pb2  # noqa: F401
    except ImportError as error:
        raise ConfigError("reading W&B files needs its package: pip install 'thalweg[import]'") from error
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.wandb"))
    if not files:
        raise ConfigError(f"{str(folder)!r} holds no .wandb file; name the folder that holds 'offline-run-...'")
    # A run's id is in its file's name, so that a run that was resumed is found without reading all files first.
    by_run: dict[str, list[Path]] = {}
    for file in sorted(files, key=lambda file: (file.parent.name.removeprefix("offline-"), file)):
        by_run.setdefault(file.stem.removeprefix("run-"), []).append(file)
    yield Outline(num_runs=len(by_run))
    for run_id, parts in by_run.items():
        runs: dict[str, _LoggedRun] = {}
        for file in parts:
            _read_file(file, run_id, runs)
        for run in runs.values():
            yield from run.records()


def _read_file(file: Path, run_id: str, runs: dict[str, _LoggedRun]) -> None:
    """Read a file into the run of its project, which a later file of the same id may share."""
    from wandb.proto import wandb_internal_pb2

    parse = wandb_internal_pb2.Record.FromString  # type: ignore[attr-defined]
    skipped: list[Skipped] = []
    run: _LoggedRun | None = None
    for offset, data in _records(file, skipped):
        try:
            record = parse(data)
        except Exception as error:  # protobuf's own DecodeError has no stable place
            skipped.append(Skipped(place=f"{file}, byte {offset}", reason=f"not a record: {error}"))
            continue
        if run is None and record.WhichOneof("record_type") in ("run", "history", "exit"):
            project = record.run.project or "uncategorized"
            run = runs.setdefault(project, _LoggedRun(project, run_id))
            run.begin(file)
        if run is not None:
            run.take(record)
    if run is None:
        skipped.append(Skipped(place=str(file), reason="no run can be read from it"))
        run = next(iter(runs.values()), None) or runs.setdefault("", _LoggedRun("", run_id))
    run.skipped += skipped


class _LoggedRun:
    """What the files of a run hold."""

    def __init__(self, project: str, run_id: str) -> None:
        self._project, self._id = project, run_id
        self._found = False
        self._name: str | None = None
        self._config: dict[str, Any] = {}
        self._summary: dict[str, Any] = {}
        self._facts: dict[str, Any] = {"wandb/run_id": run_id, "wandb/project": project}
        self._tags: tuple[str, ...] = ()
        self._notes: dict[str, None] = {}
        self._files: dict[str, Path] = {}
        self._branch: tuple[str, int] | None = None
        self._points: dict[str, tuple[array[int], array[int], array[float]]] = {}
        self._others: Counter[str] = Counter()
        self._started: float | None = None
        self._last: float | None = None
        self._exit_code: int | None = None
        self.skipped: list[Skipped] = []

    def begin(self, file: Path) -> None:
        """Another file of this run; its folder's files are the run's."""
        self._found = True
        # A run that goes on has not ended yet.
        self._exit_code = None
        kept = file.parent / "files"
        self._files |= {path.relative_to(kept).as_posix(): path for path in sorted(kept.rglob("*")) if path.is_file()}

    def take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            self._take_history(record.history)
        elif kind == "run":
            self._take_run(record.run)
        elif kind == "config":
            _apply(self._config, record.config)
        elif kind == "summary":
            _apply(self._summary, record.summary)
        elif kind == "stats":
            self._take_stats(record.stats)
        elif kind == "environment":
            self._take_environment(record.environment)
        elif kind == "exit":
            self._exit_code = record.exit.exit_code
        elif kind in ("artifact", "alert"):
            self._others[f"{kind} record"] += 1

    def _take_run(self, run: Any) -> None:
        _apply(self._config, run.config)
        _apply(self._summary, run.summary)
        self._name = run.display_name or self._name
        self._tags = tuple(dict.fromkeys((*self._tags, *run.tags)))
        if run.notes:
            self._notes[run.notes] = None
        named = {"group": run.run_group, "job_type": run.job_type, "sweep_id": run.sweep_id, "host": run.host}
        named |= {"entity": run.entity, "git_remote": run.git.remote_url, "git_commit": run.git.commit}
        self._facts |= {f"wandb/{key}": value for key, value in named.items() if value}
        seconds = _seconds(run.start_time)
        if seconds:
            self._started = seconds if self._started is None else min(self._started, seconds)
        if run.branch_point.run:
            self._take_branch(run.branch_point.run, int(run.branch_point.value))

    def _take_branch(self, parent: str, step: int) -> None:
        if parent != self._id:
            self._branch = (parent, step)
            return
        # A rewind: what an earlier file wrote past this step is void.
        gone = 0
        for metric, (steps, times, values) in self._points.items():
            if metric.startswith(SYSTEM):
                continue
            kept = [i for i, at in enumerate(steps) if at <= step]
            gone += len(steps) - len(kept)
            self._points[metric] = (
                array("q", [steps[i] for i in kept]),
                array("q", [times[i] for i in kept]),
                array("d", [values[i] for i in kept]),
            )
        if gone:
            reason = f"{gone:,} points past step {step}: the run was rewound to there"
            self.skipped.append(Skipped(place=f"run {self._id}", reason=reason))

    def _take_history(self, history: Any) -> None:
        step, seconds = history.step.num, self._last or self._started or 0.0
        found: dict[str, Any] = {}
        for item in history.item:
            key = "/".join(item.nested_key) or item.key
            if key == "_step":
                step = _whole(_value(item.value_json), step)
            elif key == "_timestamp" and isinstance(value := _value(item.value_json), (int, float)):
                seconds = as_milliseconds(value) / 1000 or seconds
            elif not key.startswith("_"):
                found[key] = _value(item.value_json)
        self._last = seconds
        media = {key.rpartition("/")[0] for key in found if key.endswith("/_type")}
        for key, value in flat(found).items():
            if any(key.startswith(f"{name}/") for name in media):
                continue
            if isinstance(value, (bool, int, float)):
                self._add(key, step, as_milliseconds(seconds), value)
            else:
                self._others[f"value of {key!r} that is no number"] += 1
        self._others.update(f"{found.get(f'{name}/_type')} of {name!r}" for name in media)

    def _take_stats(self, stats: Any) -> None:
        time_ms = as_milliseconds(_seconds(stats.timestamp))
        for item in stats.item:
            value = _value(item.value_json)
            if isinstance(value, (int, float)):
                self._add(f"{SYSTEM}{item.key}", time_ms, time_ms, value)

    def _take_environment(self, environment: Any) -> None:
        for key in ("os", "python", "program", "host", "username", "executable", "gpu_type", "gpu_count", "cpu_count"):
            if getattr(environment, key):
                self._facts[f"wandb/{key}"] = getattr(environment, key)
        if environment.args:
            self._facts["wandb/args"] = list(environment.args)

    def _add(self, metric: str, step: int, time_ms: int, value: float) -> None:
        points = self._points.get(metric)
        if points is None:
            points = self._points[metric] = (array("q"), array("q"), array("d"))
        try:
            number = float(value)
            points[0].append(step)
        except OverflowError:
            self._others[f"value of {metric!r} or its step that is too large"] += 1
            return
        points[1].append(time_ms)
        points[2].append(number)

    def records(self) -> Iterator[Record]:
        place = f"run {self._id}"
        if self._found:
            yield self._run()
            for metric, points in self._points.items():
                for record in series_of(self._id, metric, *points):
                    if record is not None:
                        yield record
        for what, num in self._others.items():
            yield Skipped(place=place, reason=f"{num:,} times {what}: only numbers come over")
        yield from self.skipped

    def _run(self) -> IncomingRun:
        status: Status = "running" if self._exit_code is None else "failed" if self._exit_code else "finished"
        summary = flat(
            {key: value for key, value in self._summary.items() if not (key.startswith("_") or _media(value))}
        )
        facts = self._facts | {f"summary/{key}": value for key, value in summary.items()}
        branch = self._branch
        return IncomingRun(
            project=self._project,
            uid=f"wandb:{self._project}/{self._id}",
            name=self._name or self._id,
            hyperparameters=flat({key: value for key, value in self._config.items() if key != "_wandb"}),
            facts=facts,
            tags=self._tags,
            notes=tuple(IncomingNote(text=text) for text in self._notes),
            files=tuple(IncomingFile(name=name, path=path) for name, path in self._files.items()),
            parent=None if branch is None else f"wandb:{self._project}/{branch[0]}",
            fork_step=0 if branch is None else branch[1],
            status=status,
            created=self._started,
            started=self._started,
            ended=self._last if self._exit_code is not None else None,
            error=f"exit code {self._exit_code}" if self._exit_code else None,
        )


def _records(file: Path, skipped: list[Skipped]) -> Iterator[tuple[int, bytes]]:
    """The records of a `.wandb` file with their places. After a damaged one, reading goes on in the next block."""
    data = file.read_bytes()
    if data[: len(_HEADER)] != _HEADER:
        skipped.append(Skipped(place=str(file), reason="it does not begin as a .wandb file of version 0 does"))
        return
    at, begun = len(_HEADER), 0
    parts: list[bytes] = []
    while at < len(data):
        room = _BLOCK - at % _BLOCK
        if room < _FRAGMENT.size:
            at += room
            continue
        fragment = _fragment(data, at)
        if fragment is None:
            rest = min(room, len(data) - at)
            last = at + rest == len(data)
            reason = f"{'the last record is cut off or damaged' if last else 'damaged'}: {rest:,} bytes cannot be read"
            skipped.append(Skipped(place=f"{file}, byte {at}", reason=reason))
            at, parts = at + rest, []
            continue
        kind, payload = fragment
        if kind in (_WHOLE, _FIRST):
            begun, parts = at, []
        elif not parts:
            # The beginning of this record was lost in a block before.
            at += _FRAGMENT.size + len(payload)
            continue
        parts.append(payload)
        at += _FRAGMENT.size + len(payload)
        if kind in (_WHOLE, _LAST):
            yield begun, b"".join(parts)
            parts = []
    if parts:
        skipped.append(Skipped(place=f"{file}, byte {begun}", reason="the last record is cut off"))


def _fragment(data: bytes, at: int) -> tuple[int, bytes] | None:
    """Kind and payload of the fragment that begins there, or None where none does."""
    if at + _FRAGMENT.size > len(data):
        return None
    checksum, length, kind = _FRAGMENT.unpack_from(data, at)
    payload = data[at + _FRAGMENT.size : at + _FRAGMENT.size + length]
    fits = at % _BLOCK + _FRAGMENT.size + length <= _BLOCK and len(payload) == length
    if not fits or not _WHOLE <= kind <= _LAST or zlib.crc32(payload, zlib.crc32(bytes([kind]))) != checksum:
        return None
    return kind, payload


def _apply(values: dict[str, Any], record: Any) -> None:
    """Carry out a record of changes: `update` sets, `remove` takes away; a nested key is a path."""
    for item in record.update:
        path = list(item.nested_key) or [item.key]
        place = values
        for name in path[:-1]:
            inner = place.get(name)
            place[name] = place = inner if isinstance(inner, dict) else {}
        place[path[-1]] = _value(item.value_json)
    for item in record.remove:
        path = list(item.nested_key) or [item.key]
        place = values
        for name in path[:-1]:
            inner = place.get(name)
            place = inner if isinstance(inner, dict) else {}
        place.pop(path[-1], None)


def _value(text: str) -> Any:
    """A value that is kept as JSON; NaN and infinities too."""
    try:
        return json.loads(text, parse_int=_integer)
    except ValueError:
        return text


def _integer(text: str) -> int | float:
    # The client writes -0.0 so.
    return -0.0 if text == "-0" else int(text)


def _media(value: Any) -> bool:
    return isinstance(value, dict) and "_type" in value


def _whole(value: Any, otherwise: int) -> int:
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else otherwise


def _seconds(timestamp: Any) -> float:
    return float(timestamp.seconds + timestamp.nanos / 1e9)
