"""A project as two Parquet files, compressed with zstd.

`points.parquet` has a row per point, by run, metric and step:

| column | type | |
|---|---|---|
| run | dictionary of string | the run's id |
| metric | dictionary of string | |
| step | int64, or decimal128(19, decimals) where a step is no whole number | exact; milliseconds for `system/...` |
| value | double | bit for bit; NaN is a value, nothing is null |
| time | timestamp[ms, UTC] | when it was logged |
| owner | dictionary of string | the run that logged it: another one where it is inherited |

`runs.parquet` has a row per run, with the columns of `thalweg.runs`. Both have the project's name, its unit and its
decimals as JSON in the schema's metadata, under `thalweg`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from thalweg.track.query_arrow import need, point_table, run_table, step_type
from thalweg.track.query_columns import StepRange, run_columns
from thalweg.track.query_points import Labels, in_batches
from thalweg.track.transfer.write_folder import ExportFolder
from thalweg.track.transfer.write_selection import Exported, Progress, Selection, curves_of, left_behind

GROUP_POINTS = 1 << 20
"""Points in a row group: what is in memory at a time."""

POINTS, RUNS = "points.parquet", "runs.parquet"


def write_parquet(selection: Selection, out: str | Path, progress: Progress) -> Exported:
    """Write both files into a folder, or replace those of an earlier export.

    Raises:
        ConfigError: pyarrow is missing, the folder holds something else, or no run has a metric that was asked for.
    """
    need("--to parquet", "pyarrow")
    folder = ExportFolder(out, project=selection.project, form="parquet", files=[POINTS, RUNS])
    with folder, folder.replace(RUNS) as runs_file, folder.replace(POINTS) as points_file:
        exported = _write_points(selection, points_file, progress, decimal=False)
        if exported is None:
            points_file.seek(0)
            points_file.truncate()
            exported = _write_points(selection, points_file, progress, decimal=True)
        assert exported is not None
        _write_runs(selection, runs_file)
    exported.files = [str(folder.folder / name) for name in folder.files]
    exported.left_out = left_behind(selection)
    return exported


def _write_points(selection: Selection, file: BinaryIO, progress: Progress, *, decimal: bool) -> Exported | None:
    """Write all points; None where a step turns out to be no whole number, and decimals were not asked for."""
    import pyarrow.parquet as pq

    exported, seen = Exported(), StepRange()
    seen.decimals = {run.decimals for run in selection.runs}
    steps = step_type(seen, "decimal" if decimal else "int")
    run_labels, metric_labels = Labels(), Labels()
    schema = _described(point_table([], run_labels, metric_labels, steps), selection).schema
    labels = ["run", "metric", "owner"]
    packed = {"time": "DELTA_BINARY_PACKED"} | ({} if decimal else {"step": "DELTA_BINARY_PACKED"})
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": labels, "column_encoding": packed}
    with pq.ParquetWriter(file, schema, **options) as writer:
        curves = curves_of(selection, exported, progress)
        for batch in in_batches(curves, run_labels, metric_labels, GROUP_POINTS):
            seen.see(batch.positions, batch.decimals)
            if not decimal and not seen.all_whole:
                return None
            writer.write_table(point_table([batch], run_labels, metric_labels, steps).cast(schema), GROUP_POINTS)
    return exported


def _write_runs(selection: Selection, file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    pq.write_table(_described(run_table(run_columns(selection.runs)), selection), file, compression="zstd")


def _described(table: Any, selection: Selection) -> Any:
    record = selection.store.study(selection.project)
    about = {"project": record.name, "unit": record.unit, "decimals": record.decimals}
    return table.replace_schema_metadata({"thalweg": json.dumps(about)})
