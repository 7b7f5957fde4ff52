"""Neptune: the Parquet files of neptune-exporter, from Neptune 2 or 3, with forks and exact steps.

A row is one value of one attribute of one run: `project_id`, `run_id`, `attribute_path`, `attribute_type`, then `step`
as decimal(18, 6), `timestamp`, and one column for each type of value. A run has files `RUN_part_N.parquet` in its
project's folder; a part is written under another name until its run is complete.
Source: the schema in neptune-exporter's README and `model.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import ConfigError
from thalweg.track.calls import SYSTEM
from thalweg.track.transfer.incoming import (
    IncomingFile,
    IncomingNote,
    IncomingRun,
    IncomingText,
    Outline,
    Record,
    Skipped,
    series_of,
    text_lines,
)
from thalweg.tree import Status

Points = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Steps times ten to DECIMALS, milliseconds since 1970, values."""
Texts = list[tuple[int | Decimal, float | None, str]]
"""Step, seconds since 1970, text."""

DECIMALS = 6
"""Those of a step."""

_VALUES = {
    "int": "int_value",
    "float": "float_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
}
_NEEDED = ("run_id", "attribute_path", "attribute_type")
_FACTS = ("sys/", "monitoring/", "runtime/", "source_code/")
"""Scalar attributes under these describe the run and its machine; all others are hyperparameters."""
_MACHINE = ("monitoring/", "runtime/")
"""Series under these are the machine's."""
_SCOPES = ("models", "model_versions")
"""Folders of Neptune's model registry, which holds no runs."""
_ELSEWHERE = (
    "sys/name",
    "sys/tags",
    "sys/group_tags",
    "sys/description",
    "sys/creation_time",
    "sys/forking/parent",
    "sys/forking/step",
)
"""Attributes that have their own place in the store."""
_SERIES = ("float_series", "string_series")

_COLUMNS = ("project_id", *_NEEDED, "step", *_VALUES.values(), "file_value")
"""What the first reading needs: all but the numbers of the series."""


@dataclass
class _Source:
    """A run: where its rows are, and all that it has besides its series."""

    project: str
    run_id: str
    folder: str
    """The name of its project's folder, in which its files are too."""
    groups: list[tuple[Path, int]] = field(default_factory=list)
    """A file and the number of a row group in it."""
    num_groups: Counter[str] = field(default_factory=Counter)
    """Float series -> how many row groups hold a part of it."""
    scalars: dict[str, Any] = field(default_factory=dict)
    files: list[tuple[str, Decimal, str]] = field(default_factory=list)
    """Name, step, and the path in the project's folder of files."""
    others: Counter[str] = field(default_factory=Counter)
    """Type -> how many values of it there are that do not come over."""


Sources = dict[tuple[str, str], _Source]
"""(project, run id) -> its source."""


def read_neptune(folder: Path, files: Path | None = None) -> Iterator[Record]:
    """A run for each exported run.

    Args:
        folder: what was given to the exporter as `--data-path`, or the folder above it where that is `data`.
        files: its `--files-path`; by default the folder `files` beside the data.
    Raises:
        ConfigError: the package pyarrow is missing, or there is no Parquet file.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError("reading Parquet needs pyarrow: pip install 'thalweg[import]'") from error
    data = folder / "data" if (folder / "data").is_dir() else folder
    parts = _parts(data)
    if not parts:
        raise ConfigError(f"{str(folder)!r} holds no Parquet files; name neptune-exporter's --data-path")
    for path in sorted([*data.glob("*.parquet.tmp"), *data.glob("*/*.parquet.tmp")]):
        yield Skipped(place=str(path), reason="the exporter had not finished this run")
    yield from _missing_parts(parts)
    sources: Sources = {}
    for path in parts:
        yield from _survey(path, sources)
    yield Outline(num_runs=len(sources))
    known = _known_ids(sources)
    root = files if files is not None else data.parent / "files"
    for source in sources.values():
        yield from _read_run(source, known, root / source.folder)


def _parts(data: Path) -> list[Path]:
    found = [*data.glob("*.parquet"), *(path for path in data.glob("*/*.parquet") if path.parent.name not in _SCOPES)]

    return sorted(found, key=_part)


def _part(path: Path) -> tuple[str, int]:
    """The file's run, and the number of the part."""
    run, _, number = path.stem.rpartition("_part_")
    return str(path.parent / run), int(number) if number.isdigit() else 0


def _missing_parts(parts: list[Path]) -> Iterator[Skipped]:
    """Parts whose successors are there."""
    numbers: dict[str, set[int]] = {}
    for path in parts:
        run, number = _part(path)
        numbers.setdefault(run, set()).add(number)
    for run, there in numbers.items():
        for number in sorted(set(range(max(there))) - there):
            yield Skipped(
                place=f"{run}_part_{number}.parquet", reason="this part of a run is not there, later ones are"
            )


def _survey(path: Path, sources: Sources) -> Iterator[Skipped]:
    """Note which runs a file holds, and all but the points of their series: a run may be spread over its files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        yield Skipped(place=str(path), reason=f"cannot be read: {error}")
        return
    with file:
        names = file.schema_arrow.names
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            yield Skipped(place=str(path), reason=f"not a file of neptune-exporter: it has no column {missing[0]!r}")
            return
        for group in range(file.num_row_groups):
            try:
                table = file.read_row_group(group, columns=[name for name in _COLUMNS if name in names])
            except (pa.ArrowException, OSError) as error:
                num = file.metadata.row_group(group).num_rows
                yield Skipped(place=f"{path}, row group {group}", reason=f"{num:,} rows cannot be read: {error}")
                continue
            _note_group(_with_project(table, path), path, group, sources)


def _with_project(table: Any, path: Path) -> Any:
    import pyarrow as pa

    if "project_id" in table.column_names:
        return table
    return table.append_column("project_id", pa.array([path.parent.name] * len(table), pa.string()))


def _note_group(table: Any, path: Path, group: int, sources: Sources) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = ["project_id", "run_id", "attribute_path", "attribute_type"]
    for row in table.select(keys).group_by(keys).aggregate([]).to_pylist():
        key = (row["project_id"], row["run_id"])
        source = sources.setdefault(key, _Source(*key, path.parent.name))
        if (path, group) not in source.groups[-1:]:
            source.groups.append((path, group))
        if row["attribute_type"] == "float_series":
            source.num_groups[row["attribute_path"]] += 1
    of_series = pc.is_in(table["attribute_type"], pa.array(_SERIES))
    for row in table.filter(pc.invert(of_series)).to_pylist():
        _note_value(sources[row["project_id"], row["run_id"]], row)


def _note_value(source: _Source, row: dict[str, Any]) -> None:
    kind, name = row["attribute_type"], row["attribute_path"]
    if kind in _VALUES:
        value = row.get(_VALUES[kind])
        # The exporter makes one wide table of several runs first: what a run does not have is empty there.
        if value is not None:
            source.scalars[name] = value
    elif kind in ("file", "file_series"):
        place = row.get("file_value")
        if place is not None and place["path"]:
            source.files.append((name, row.get("step") or Decimal(0), place["path"]))
    else:
        source.others[kind] += 1


def _known_ids(sources: Sources) -> dict[tuple[str, str], str]:
    """(project, any id of a run) -> the id that its uid is made of. `sys/forking/parent` may name either."""
    known = {}
    for name in ("sys/id", "sys/custom_run_id"):
        for (project, run_id), source in sources.items():
            if isinstance(source.scalars.get(name), str):
                known[project, source.scalars[name]] = run_id
    return known | {key: key[1] for key in sources}


def _read_run(source: _Source, known: dict[tuple[str, str], str], files: Path) -> Iterator[Record]:
    found, problems = _files(source, files)
    yield _run(source, known, found)
    yield from problems
    for kind, num in source.others.items():
        yield Skipped(place=f"run {source.run_id}", reason=f"{num:,} values of type {kind!r}: the store has none")
    yield from _read_series(source)


def _run(source: _Source, known: dict[tuple[str, str], str], files: tuple[IncomingFile, ...]) -> IncomingRun:
    scalars = source.scalars
    parent = scalars.get("sys/forking/parent")
    fork_step = scalars.get("sys/forking/step")
    tags = [*(scalars.get("sys/tags") or ()), *(scalars.get("sys/group_tags") or ())]
    description = scalars.get("sys/description")
    plain = {name: value for name, value in scalars.items() if name not in _ELSEWHERE}
    plain = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in plain.items()}
    created = _seconds(scalars.get("sys/creation_time"))
    status = _status(scalars)
    return IncomingRun(
        project=source.project,
        uid=_uid(source.project, source.run_id),
        name=scalars.get("sys/name") or scalars.get("sys/custom_run_id") or source.run_id,
        hyperparameters={name: value for name, value in plain.items() if not name.startswith(_FACTS)},
        facts={name: value for name, value in plain.items() if name.startswith(_FACTS)}
        | {"neptune/project": source.project, "neptune/run_id": source.run_id},
        tags=tuple(tags),
        notes=(IncomingNote(text=description, author=scalars.get("sys/owner")),) if description else (),
        files=files,
        parent=None if parent is None else _uid(source.project, known.get((source.project, parent), parent)),
        fork_step=fork_step if parent is not None and fork_step is not None else 0,
        status=status,
        created=created,
        started=created,
        ended=None if status == "running" else _seconds(scalars.get("sys/ping_time")),
    )


def _uid(project: str, run_id: str) -> str:
    return f"neptune:{project}/{run_id}"


def _status(scalars: dict[str, Any]) -> Status:
    if str(scalars.get("sys/state", "")).lower() in ("active", "running"):
        return "running"
    return "failed" if scalars.get("sys/failed") else "finished"


def _seconds(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _files(source: _Source, root: Path) -> tuple[tuple[IncomingFile, ...], list[Skipped]]:
    """The files that are there, and what to say of those that are not."""
    found, problems = [], []
    inside = root.resolve()
    for name, step, place in source.files:
        path = (root / place).resolve()
        if not path.is_relative_to(inside):
            reason = f"its path {place!r} leads out of {root}"
        elif not path.exists():
            reason = f"{path} is not there"
        else:
            found.append(IncomingFile(name=name, path=path, step=step))
            continue
        problems.append(Skipped(place=f"run {source.run_id}, file {name!r}", reason=reason))
    return tuple(found), problems


def _read_series(source: _Source) -> Iterator[Record]:
    """The series: each as soon as all its row groups are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts: dict[str, list[Points]] = {}
    texts: dict[str, Texts] = {}
    left = Counter(source.num_groups)
    for path, group in source.groups:
        place = f"{path}, row group {group}"
        try:
            with pq.ParquetFile(path) as file:
                table = _own(_with_project(file.read_row_group(group), path), source)
                found = list(_points(table, source))
                _gather_texts(table, texts)
        except (pa.ArrowException, OSError, KeyError) as error:
            yield Skipped(place=place, reason=f"the series of run {source.run_id} cannot be read: {error}")
            continue
        for name, points, num_without in found:
            if num_without:
                yield Skipped(place=place, reason=f"{num_without:,} points of series {name!r} without a step")
            parts.setdefault(name, []).append(points)
            left[name] -= 1
            if not left[name]:
                yield from _join(source, name, parts.pop(name))
    # Those of which a part could not be read.
    for name, kept in parts.items():
        yield from _join(source, name, kept)
    for name, lines in texts.items():
        lines.sort(key=lambda line: line[0])
        yield IncomingText(name=name, text=text_lines(lines), step=lines[-1][0])


def _own(table: Any, source: _Source) -> Any:
    import pyarrow.compute as pc

    return table.filter(
        pc.and_(pc.equal(table["project_id"], source.project), pc.equal(table["run_id"], source.run_id))
    )


def _points(table: Any, source: _Source) -> Iterator[tuple[str, Points, int]]:
    """Each float series of a run in a row group, and how many of its points have no step."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = table.filter(pc.equal(table["attribute_type"], "float_series")).combine_chunks()
    if not len(table):
        return
    names = table["attribute_path"].combine_chunks().dictionary_encode()
    indices = names.indices.to_numpy(zero_copy_only=False)
    step = table["step"].cast(pa.decimal128(18, DECIMALS)).combine_chunks()
    has_step = step.is_valid().to_numpy(zero_copy_only=False)
    # A decimal is a 128-bit whole number, the low half first; 18 digits fit into that.
    steps = np.frombuffer(step.buffers()[1], "<i8")[2 * step.offset : 2 * (step.offset + len(step)) : 2]
    # The exporter's way through pandas turns NaN into null.
    values = table["float_value"].to_numpy().astype(np.float64)
    times = table["timestamp"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())
    created = _seconds(source.scalars.get("sys/creation_time")) or 0.0
    times_ms = times.fill_null(round(created * 1000)).to_numpy()
    order = np.argsort(indices, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(indices[order])) + 1):
        kept = rows[has_step[rows]]
        name = names.dictionary[int(indices[rows[0]])].as_py()
        yield name, (steps[kept], times_ms[kept], values[kept]), len(rows) - len(kept)


def _gather_texts(table: Any, texts: dict[str, Texts]) -> None:
    """Add the string series of a run in a row group."""
    import pyarrow.compute as pc

    table = table.filter(pc.equal(table["attribute_type"], "string_series"))
    if not len(table):
        return
    for row in table.select(["attribute_path", "step", "timestamp", "string_value"]).to_pylist():
        step = row["step"] if row["step"] is not None else Decimal(0)
        text = row["string_value"] if row["string_value"] is not None else ""
        texts.setdefault(row["attribute_path"], []).append((step, _seconds(row["timestamp"]), text))


def _join(source: _Source, name: str, parts: list[Points]) -> Iterator[Record]:
    steps, times_ms, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(steps):
        return
    # The machine's metrics are told by time: their steps count samples.
    metric = f"{SYSTEM}{name}" if name.startswith(_MACHINE) else name
    for record in series_of(source.run_id, metric, steps, times_ms, values, decimals=DECIMALS):
        if record is not None:
            yield record
