"""Asking a store for runs and curves as tables: pandas, polars or Arrow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.errors import ConfigError
from thalweg.track.calls import SYSTEM
from thalweg.track.query_columns import StepRange, run_columns
from thalweg.track.query_points import (
    ChosenRun,
    Curve,
    Labels,
    MetricPatterns,
    PointBatch,
    choose_runs,
    in_batches,
    opened,
    read_curves,
)

if TYPE_CHECKING:
    from thalweg.track.query_arrow import As
    from thalweg.track.store import Store

BATCH_POINTS = 1 << 18
"""Points in a piece of a table: short curves are gathered, long ones are cut."""


def runs(project: str | None = None, *, store: str | Path | Store | None = None, as_: As = "pandas") -> Any:
    """A table with a row per run.

    Args:
        project: a project's or study's name; None is all of them.
        store: a place or an open store; None is $THALWEG_STORE, or .thalweg/store.db.
        as_: "pandas" (a DataFrame), "polars" (a DataFrame) or "arrow" (a pyarrow.Table).
    Returns:
        Columns `id`, `name`, `project`, `status`, `parent`, `fork_step`, `tags` (a list), `created`, `started` and
        `ended` (UTC), `unit` (of steps), `uid`, `waiting_parent` (the uid of a parent that is not there yet), `error`;
        a column `hyperparameters.NAME` for each one that a run has; `latest.METRIC` and `latest.METRIC.step`, the last
        point that the run itself has logged, for each metric but `system/...`.

        A hyperparameter's column is int64 where all its values are whole numbers, float64 where all are numbers, bool,
        or else text, where a value that is no string is JSON. What a run does not have is null, and nothing else is:
        NaN is a value (but pandas knows no difference in a float column). Steps are int64 where all are whole, else
        float64, or decimal128 where a float would not hold one exactly.
    Raises:
        ConfigError: there is no such store, or a library is missing.
        StoreError: no such project.
    """
    from thalweg.track.query_arrow import as_frame, require, run_table

    require(as_)
    with opened(store) as source:
        chosen = choose_runs(source, project)
    return as_frame(run_table(run_columns(chosen)), as_, nullable=True)


def curves(
    project: str | None = None,
    *,
    runs: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    inherited: bool = True,
    store: str | Path | Store | None = None,
    as_: As = "pandas",
    decimal: bool = False,
    wide: bool = False,
) -> Any:
    """The points of runs, a row for each: by run, metric and step.

    Args:
        project: a project's or study's name; None is all of them.
        runs: ids, in the order in which they are wanted; None is all.
        metrics: names, or patterns such as "train/*"; None is all but those named `system/...`. These are matched only
            by patterns that begin with "system/", since their steps are milliseconds since their writer began.
        inherited: whether a fork's curve begins with what it inherits, or holds only what it has logged itself.
        store: a place or an open store; None is $THALWEG_STORE, or .thalweg/store.db.
        as_: "pandas" (a DataFrame), "polars" (a DataFrame) or "arrow" (a pyarrow.Table).
        decimal: steps as decimals, whatever they are.
        wide: instead a row per run and step with columns `run`, `step` and one for each metric, null where it has no
            point there.
    Returns:
        Columns `run`, `metric`, `step`, `value` (float64, NaN is a value), `time` (UTC, to the millisecond) and
        `owner`, the run that logged the point: another than `run` where it is inherited. Names are dictionary-encoded
        (categories in pandas and polars).

        `step` is int64 where all steps are whole numbers. Otherwise it is float64, as long as every step is
        exactly what its float is printed as (15 significant digits: below 10**9 with six decimals). Otherwise, or with
        `decimal`, it is decimal128(19, decimals of the project), which holds every step of a store.
    Raises:
        ConfigError: an unknown run; a metric that no run has; no such store; a library is missing; for `wide`, metrics
            that cannot be columns.
        StoreError: no such project.
    """
    from thalweg.track.query_arrow import as_frame, point_table, require, step_type

    require(as_)
    patterns = MetricPatterns(metrics)
    if wide:
        _check_wide(patterns)
    with opened(store) as source:
        chosen = choose_runs(source, project, runs)
        found = (curve for run in chosen for curve in read_curves(source, run, patterns, inherited=inherited))
        if wide:
            table = _wide_table(chosen, found, decimal=decimal)
            patterns.check_used()
            return as_frame(table, as_)
        run_labels, metric_labels, seen = Labels(), Labels(), StepRange()
        batches: deque[PointBatch] = deque()
        for batch in in_batches(found, run_labels, metric_labels, BATCH_POINTS):
            seen.see(batch.positions, batch.decimals)
            batches.append(batch)
    patterns.check_used()
    # Of a project without points the type of steps is still known.
    for run in chosen if not batches else ():
        seen.see(np.zeros(0, np.int64), run.decimals)
    steps = step_type(seen, "decimal" if decimal else seen.kind)
    return as_frame(point_table(_taken(batches), run_labels, metric_labels, steps), as_)


def _taken(batches: deque[PointBatch]) -> Iterator[PointBatch]:
    # Each is let go before the next is turned, such that not all is there twice.
    while batches:
        yield batches.popleft()


def _check_wide(patterns: MetricPatterns) -> None:
    of_system = [pattern for pattern in patterns.patterns if pattern.startswith(SYSTEM)]
    if of_system:
        raise ConfigError(
            f"metrics = {of_system[0]!r} has no steps but milliseconds, which a row per step cannot hold."
            " Leave out wide=True, or that metric"
        )


def _wide_table(chosen: Sequence[ChosenRun], found: Iterator[Curve], *, decimal: bool) -> Any:
    import pyarrow as pa

    from thalweg.track.query_arrow import step_array, step_type

    seen = StepRange()
    for run in chosen:
        seen.see(np.zeros(0, np.int64), run.decimals)
    rows: list[tuple[str, int, Any, dict[str, Any]]] = []
    metrics: set[str] = set()
    for run_id, group in _by_run(found):
        positions = np.unique(np.concatenate([curve.positions for curve in group]))
        seen.see(positions, group[0].decimals)
        columns = {curve.metric: _spread(curve, positions) for curve in group}
        metrics |= columns.keys()
        rows.append((run_id, group[0].decimals, positions, columns))
    for name in ("run", "step"):
        if name in metrics:
            raise ConfigError(
                f"metric {name!r} cannot be a column beside the column {name!r}: choose others by metrics="
            )
    steps = step_type(seen, "decimal" if decimal else seen.kind)
    ordered = sorted(metrics)
    label = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([("run", label), ("step", steps), *((name, pa.float64()) for name in ordered)])
    names = pa.array([run_id for run_id, *_ in rows], pa.string())
    pieces = []
    for place, (_, decimals, positions, columns) in enumerate(rows):
        num = len(positions)
        run = pa.DictionaryArray.from_arrays(pa.array(np.full(num, place, np.int32)), names)
        values = [columns[name] if name in columns else pa.nulls(num, pa.float64()) for name in ordered]
        pieces.append(pa.RecordBatch.from_arrays([run, step_array(positions, decimals, steps), *values], schema=schema))
    return pa.Table.from_batches(pieces, schema)


def _by_run(found: Iterator[Curve]) -> Iterator[tuple[str, list[Curve]]]:
    group: list[Curve] = []
    for curve in found:
        if group and group[0].run != curve.run:
            yield group[0].run, group
            group = []
        group.append(curve)
    if group:
        yield group[0].run, group


def _spread(curve: Curve, positions: Any) -> Any:
    """A curve's values at the positions that it has, null at the others."""
    import pyarrow as pa

    values, absent = np.zeros(len(positions)), np.ones(len(positions), bool)
    places = np.searchsorted(positions, curve.positions)
    values[places], absent[places] = curve.values, False
    return pa.array(values, mask=absent, from_pandas=False)
