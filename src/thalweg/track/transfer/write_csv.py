"""A project as two CSV files (RFC 4180, UTF-8): `points.csv` with a row per point, `runs.csv` with a row per run.

The columns are those of the Parquet export. Steps are exact, floats are as Python prints them (each comes back bit for
bit, with nan, inf and -inf), times are ISO 8601 in UTC. Text is always in quotes, so that an empty cell without quotes
is a missing value and never an empty text.

A spreadsheet takes text that begins with = + - @ for a formula. Such text, and text that begins with a tab, a carriage
return or an apostrophe, has an apostrophe put before it. Whoever wants the text itself takes one apostrophe off.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from thalweg.track.positions import to_decimal
from thalweg.track.query_columns import Column, all_whole, run_columns, whole_steps
from thalweg.track.query_points import Labels, PointBatch, in_batches
from thalweg.track.series import Ints
from thalweg.track.transfer.write_folder import ExportFolder
from thalweg.track.transfer.write_selection import Exported, Progress, Selection, curves_of, left_behind

BATCH_POINTS = 1 << 16
POINTS, RUNS = "points.csv", "runs.csv"

_HEADER = ("run", "metric", "step", "value", "time", "owner")
_ESCAPED = ("=", "+", "-", "@", "\t", "\r", "'")


def write_csv(selection: Selection, out: str | Path, progress: Progress) -> Exported:
    """Write both files into a folder, or replace those of an earlier export.

    Raises:
        ConfigError: the folder holds something else, or no run has a metric that was asked for.
    """
    exported = Exported()
    folder = ExportFolder(out, project=selection.project, form="csv", files=[POINTS, RUNS])
    with folder, folder.replace(RUNS) as runs_file, folder.replace(POINTS) as points_file:
        points_file.write(_line([quoted(name) for name in _HEADER]))
        runs, metrics = Labels(), Labels()
        for batch in in_batches(curves_of(selection, exported, progress), runs, metrics, BATCH_POINTS):
            _write_batch(points_file, batch, runs, metrics)
        _write_runs(runs_file, run_columns(selection.runs))
    exported.files = [str(folder.folder / name) for name in folder.files]
    exported.left_out = left_behind(selection)
    return exported


def quoted(text: str) -> str:
    '''Text as a cell.

    >>> print(quoted('say "a, b"'), quoted("=1+1"), quoted(""))
    "say ""a, b""" "'=1+1" ""
    '''
    doubled = text.replace('"', '""')
    return f'"\'{doubled}"' if text.startswith(_ESCAPED) else f'"{doubled}"'


def step_texts(positions: Ints, decimals: int) -> list[str]:
    """Steps as they are read by people, exact.

    >>> step_texts(np.array([3_000_000, 2_500_000]), 6)
    ['3', '2.5']
    """
    if all_whole(positions, decimals):
        return list(map(str, whole_steps(positions, decimals).tolist()))
    return [f"{to_decimal(position, decimals).normalize():f}" for position in positions.tolist()]


def time_texts(milliseconds: Ints) -> list[str]:
    """Milliseconds since 1970 in ISO 8601.

    >>> time_texts(np.array([1_500]))
    ['1970-01-01T00:00:01.500Z']
    """
    texts: list[str] = np.datetime_as_string(milliseconds.astype("datetime64[ms]"), timezone="UTC").tolist()
    return texts


def _write_batch(file: BinaryIO, batch: PointBatch, run_labels: Labels, metric_labels: Labels) -> None:
    runs, metrics = ([quoted(name) for name in labels.names] for labels in (run_labels, metric_labels))
    cells = zip(
        [runs[i] for i in batch.runs.tolist()],
        [metrics[i] for i in batch.metrics.tolist()],
        step_texts(batch.positions, batch.decimals),
        map(repr, batch.values.tolist()),
        time_texts(batch.times_ms),
        [runs[i] for i in batch.owners.tolist()],
        strict=True,
    )
    file.write(b"".join(map(_line, cells)))


def _write_runs(file: BinaryIO, columns: Sequence[Column]) -> None:
    file.write(_line([quoted(column.name) for column in columns]))
    texts = [[_cell(column, value) for value in column.values] for column in columns]
    file.write(b"".join(map(_line, zip(*texts, strict=True))))


def _cell(column: Column, value: Any) -> str:
    if value is None:
        return ""
    match column.kind:
        case "string":
            return quoted(value)
        case "strings":
            return quoted(json.dumps(value, ensure_ascii=False))
        case "bool":
            return "true" if value else "false"
        case "float":
            return repr(value)
        case "step":
            return step_texts(np.array(value[:1], np.int64), value[1])[0]
        case "time":
            return time_texts(np.array([round(value * 1000)], np.int64))[0]
        case "int":
            return str(value)


def _line(cells: Sequence[str]) -> bytes:
    # Half of a surrogate pair, which JSON may hold, has no UTF-8.
    return (",".join(cells) + "\r\n").encode("utf-8", "backslashreplace")
