"""Arrow tables of runs and points, and what pandas and polars make of them. Loaded only where pyarrow is wanted."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import ConfigError, nearest
from thalweg.track.query_columns import Column, StepKind, StepRange, float_steps, whole_steps
from thalweg.track.query_points import Labels, PointBatch
from thalweg.track.series import Ints

As = Literal["pandas", "polars", "arrow"]

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "pandas": ("pandas", "pyarrow"),
    "polars": ("polars", "pyarrow"),
    "arrow": ("pyarrow",),
}

# Every position of a store has at most 19 digits.
_DIGITS = 19


def require(as_: str) -> None:
    """Refuse a form of table that is unknown, or whose library is not installed.

    Raises:
        ConfigError: with the command that installs it.
    """
    if as_ not in _NEEDS:
        raise ConfigError(f"as_ = {as_!r} is no form of table. {nearest(str(as_), _NEEDS)}")
    need(f"as_={as_!r}", *_NEEDS[as_])


def need(what: str, *modules: str) -> None:
    """Refuse what modules are missing for.

    Raises:
        ConfigError: with the command that installs them.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{what} needs {module}: pip install {' '.join(modules)}") from error


def step_type(seen: StepRange, kind: StepKind) -> Any:
    """The Arrow type of a column of steps.

    Decimals have 19 digits, which is every position of a store, the project's decimals among them. Where projects with
    other numbers of decimals meet, there are as many decimals as the finest has, and more digits.
    """
    import pyarrow as pa

    if kind == "decimal":
        most, least = max(seen.decimals, default=0), min(seen.decimals, default=0)
        return pa.decimal128(_DIGITS + most - least, most)
    return pa.int64() if kind == "int" else pa.float64()


def step_array(positions: Ints, decimals: int, to: Any, absent: NDArray[np.bool_] | None = None) -> Any:
    """Positions as steps of an Arrow type that holds them exactly.

    Args:
        absent: where there is no step, but null.
    """
    import pyarrow as pa

    if pa.types.is_int64(to):
        return pa.array(whole_steps(positions, decimals), mask=absent)
    if pa.types.is_float64(to):
        return pa.array(float_steps(positions, decimals), mask=absent)
    # A decimal is a whole number of 128 bits, the lower half first; none is negative.
    halves = np.zeros((len(positions), 2), "<i8")
    halves[:, 0] = positions
    bits = None if absent is None else pa.py_buffer(np.packbits(~absent, bitorder="little"))
    exact = pa.Array.from_buffers(
        pa.decimal128(_DIGITS, decimals), len(positions), [bits, pa.py_buffer(halves.tobytes())]
    )
    return exact if exact.type == to else exact.cast(to)


def run_table(columns: Sequence[Column]) -> Any:
    """An Arrow table of columns."""
    import pyarrow as pa

    arrays = [_column_array(column) for column in columns]
    return pa.table(arrays, names=[column.name for column in columns])


def _column_array(column: Column) -> Any:
    import pyarrow as pa

    values = column.values
    if column.kind == "step":
        return _steps(values)
    if column.kind == "time":
        micros = [None if value is None else round(value * 1_000_000) for value in values]
        return pa.array(micros, pa.timestamp("us", tz="UTC"))
    if column.kind == "strings":
        return pa.array([[_encodable(text) for text in value] for value in values], pa.list_(pa.string()))
    if column.kind == "string":
        return pa.array([None if value is None else _encodable(value) for value in values], pa.string())
    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    # From Python's floats NaN stays NaN: only None is null.
    return pa.array(values, kinds[column.kind], from_pandas=False)


def _encodable(text: str) -> str:
    # Half of a surrogate pair, which JSON may hold, has no UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()


def _steps(values: Sequence[tuple[int, int] | None]) -> Any:
    """A column of (position, decimals), where every run may have its own decimals."""
    import pyarrow as pa

    seen = StepRange()
    for value in values:
        if value is not None:
            seen.see(np.array(value[:1], np.int64), value[1])
    to = step_type(seen, seen.kind)
    absent = np.array([value is None for value in values], bool)
    positions = np.array([0 if value is None else value[0] for value in values], np.int64)
    if len(seen.decimals) == 1:
        return step_array(positions, seen.decimals.pop(), to, absent)
    own = [0 if value is None else value[1] for value in values]
    rows = [step_array(positions[i : i + 1], own[i], to, absent[i : i + 1]) for i in range(len(values))]
    return pa.concat_arrays(rows) if rows else pa.array([], to)


def point_schema(steps: Any) -> Any:
    """The columns of a long table of points: run, metric, step, value, time and owner."""
    import pyarrow as pa

    label = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("run", label),
            ("metric", label),
            ("step", steps),
            ("value", pa.float64()),
            ("time", pa.timestamp("ms", tz="UTC")),
            ("owner", label),
        ]
    )


def point_table(batches: Iterable[PointBatch], run_labels: Labels, metric_labels: Labels, steps: Any) -> Any:
    """A long table of points, in pieces as the batches are; none of them is copied but for its steps."""
    import pyarrow as pa

    schema = point_schema(steps)
    pieces = []
    for batch in batches:
        # The batches may still be coming, and with them new names.
        runs, metrics = (pa.array(labels.names, pa.string()) for labels in (run_labels, metric_labels))
        pieces.append(
            pa.RecordBatch.from_arrays(
                [
                    pa.DictionaryArray.from_arrays(pa.array(batch.runs), runs),
                    pa.DictionaryArray.from_arrays(pa.array(batch.metrics), metrics),
                    step_array(batch.positions, batch.decimals, steps),
                    pa.array(batch.values),
                    pa.array(batch.times_ms).cast(pa.timestamp("ms", tz="UTC")),
                    pa.DictionaryArray.from_arrays(pa.array(batch.owners), runs),
                ],
                schema=schema,
            )
        )
    return pa.Table.from_batches(pieces, schema)


def as_frame(table: Any, as_: str, *, nullable: bool = False) -> Any:
    """A table in the form that was asked for.

    Args:
        nullable: for pandas, whole numbers and truth values in types that have a missing value.
    """
    if as_ == "arrow":
        return table
    if as_ == "polars":
        import polars

        return polars.from_arrow(table)
    import pandas
    import pyarrow as pa

    types = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()} if nullable else {}
    # Columns are given back as they are turned, such that not all is there twice.
    return table.to_pandas(types_mapper=types.get, split_blocks=True, self_destruct=True)
