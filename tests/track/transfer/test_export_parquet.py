"""Parquet files hold what the store holds, bit for bit, and are replaced whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.track.transfer import write_parquet as module
from thalweg.track.transfer.write_parquet import write_parquet
from thalweg.track.transfer.write_selection import Exported, select

NOON = 1_700_000_000_000


def track(store: Store, uid: str, **fields: Any) -> str:
    store.create_project("p")
    return store.track_run("p", NewRun(uid=uid, **fields))[0]


def add(store: Store, run: str, metric: str, positions: list[int], values: list[float] | np.ndarray) -> None:
    times = NOON + np.arange(len(positions), dtype=np.int64)
    store.import_points(run, metric, np.array(positions, np.int64), times, np.asarray(values, float))


def export(store: Store, out: Path, project: str = "p", **options: Any) -> Exported:
    return write_parquet(select(store, project, **options), out, lambda done: None)


def bits(values: Any) -> list[int]:
    return np.asarray(values, np.float64).view(np.int64).tolist()


def of_store(store: Store, runs: list[str]) -> list[tuple[Any, ...]]:
    """run, metric, position, bits of the value, milliseconds, owner: read curve by curve."""
    found = []
    for run in runs:
        for metric in store.metrics(run):
            series = store.series(run, metric)
            times = [round(time * 1000) for time in series.times.tolist()]
            owners = [series.runs[i] for i in series.owners]
            columns = zip(series.positions.tolist(), bits(series.values), times, owners, strict=True)
            found += [(run, metric, *point) for point in columns]
    return found


def of_file(path: Path) -> list[tuple[Any, ...]]:
    table = pq.read_table(path)
    positions = [int(Decimal(step) * 10**6) for step in table["step"].to_pylist()]
    columns = [table[name].to_pylist() for name in ("run", "metric", "owner")]
    times = table["time"].cast(pa.int64()).to_pylist()
    return list(zip(*columns[:2], positions, bits(table["value"]), times, columns[2], strict=True))


@pytest.fixture
def forked(store: Store) -> Store:
    track(store, "a", hyperparameters={"lr": 0.1}, name="=SUM(A1)")
    track(store, "b", parent="a", fork_position=1_000_000)
    add(store, "p-0", "loss", [0, 10**6, 2 * 10**6], [1.0, float("nan"), -0.0])
    add(store, "p-1", "loss", [3 * 10**6], [float("-inf")])
    return store


def test_what_is_written(forked: Store, tmp_path: Path) -> None:
    done: list[int] = []
    exported = write_parquet(select(forked, "p"), tmp_path / "out", done.append)
    assert (exported.runs, exported.points, exported.metrics) == (2, 6, {"loss"})
    assert exported.files == [str(tmp_path / "out" / name) for name in ("points.parquet", "runs.parquet")]
    assert done == [0, 1, 2]
    label = pa.dictionary(pa.int32(), pa.string())
    points = pq.read_table(tmp_path / "out" / "points.parquet")
    assert points.schema.names == ["run", "metric", "step", "value", "time", "owner"]
    assert points.schema.types == [label, label, pa.int64(), pa.float64(), pa.timestamp("ms", tz="UTC"), label]
    about = {"project": "p", "unit": "steps", "decimals": 6}
    assert json.loads(points.schema.metadata[b"thalweg"]) == about
    assert points["owner"].to_pylist() == ["p-0", "p-0", "p-0", "p-0", "p-0", "p-1"]
    runs = pq.read_table(tmp_path / "out" / "runs.parquet")
    assert json.loads(runs.schema.metadata[b"thalweg"]) == about
    assert runs["name"].to_pylist() == ["=SUM(A1)", None]
    assert runs["fork_step"].to_pylist() == [None, 1]
    assert runs["hyperparameters.lr"].to_pylist() == [0.1, None]
    codec = pq.ParquetFile(tmp_path / "out" / "points.parquet").metadata.row_group(0).column(0).compression
    assert codec == "ZSTD"
    # Another library reads the same.
    of_polars = pl.read_parquet(tmp_path / "out" / "points.parquet")
    assert of_polars["step"].to_list() == [0, 1, 2, 0, 1, 3]
    assert of_polars["value"].null_count() == 0


def test_what_is_chosen(forked: Store, tmp_path: Path) -> None:
    add(forked, "p-1", "system/cpu", [250], [1.0])
    add(forked, "p-1", "other", [0], [2.0])
    all_of_it = export(forked, tmp_path / "all")
    assert all_of_it.metrics == {"loss", "other", "system/cpu"}
    some = export(forked, tmp_path / "some", runs=["p-1"], metrics=["lo*", "system/*"], inherited=False)
    assert (some.runs, some.points, some.metrics) == (1, 2, {"loss", "system/cpu"})
    assert pl.read_parquet(tmp_path / "some" / "points.parquet")["step"].to_list() == [3, 250]
    assert pl.read_parquet(tmp_path / "some" / "runs.parquet")["id"].to_list() == ["p-1"]


def test_fractional_steps_are_decimals(forked: Store, tmp_path: Path) -> None:
    # The last curve of all: by then whole numbers have been written.
    add(forked, "p-1", "zz", [10**18 + 1], [1.0])
    export(forked, tmp_path / "out")
    points = pq.read_table(tmp_path / "out" / "points.parquet")
    assert points.schema.field("step").type == pa.decimal128(19, 6)
    assert points["step"].to_pylist()[-1] == Decimal("1000000000000.000001")
    assert of_file(tmp_path / "out" / "points.parquet") == of_store(forked, ["p-0", "p-1"])


def test_a_study(store: Store, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"horizon": 10, "until": 10, "seed": 0, "origin": "random"}
    run = store.create_run("imdb", hyperparameters={"lr": 0.1}, **fields)
    with store.writer(run.id) as writer:
        writer.log(2**62, {"loss": 0.5})
    export(store, tmp_path / "out", "imdb")
    assert pl.read_parquet(tmp_path / "out" / "points.parquet").rows()[0][2:4] == (2**62, 0.5)


def test_twice_is_once(forked: Store, tmp_path: Path) -> None:
    export(forked, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    export(forked, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert before.keys() == {"points.parquet", "runs.parquet", "thalweg-export.json"}
    add(forked, "p-1", "loss", [4 * 10**6], [7.0])
    export(forked, tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out" / "points.parquet")["value"].to_list()[-1] == 7.0


def test_an_export_that_fails_leaves_the_one_before(forked: Store, tmp_path: Path) -> None:
    export(forked, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ConfigError, match=r"no run here has a metric that matches 'acc'.*Known: loss"):
        export(forked, tmp_path / "out", metrics=["acc"])
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found["points.parquet"] == before["points.parquet"]
    assert found["runs.parquet"] == before["runs.parquet"]
    assert found.keys() == before.keys()


def test_without_pyarrow(forked: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="--to parquet needs pyarrow: pip install pyarrow"):
        export(forked, tmp_path / "out")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("many") / "store.db") as opened:
        yield opened


# All 64 bits: NaNs with a payload, subnormal numbers, both zeros.
any_value = st.integers(-(2**63), 2**63 - 1)
a_curve = st.dictionaries(st.integers(0, 2**63 - 1), any_value, max_size=8)
some_metrics = st.dictionaries(st.text("ab/='", min_size=1), a_curve, max_size=3)
a_run = st.tuples(st.none() | st.integers(0, 3), st.integers(0, 2**63 - 1), some_metrics)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(a_run, min_size=1, max_size=4), scale=st.sampled_from([1, 10**6]), group=st.integers(1, 9))
def test_read_back_it_is_the_store(
    many: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[Any], scale: int, group: int
) -> None:
    monkeypatch.setattr(module, "GROUP_POINTS", group)
    name = f"r{len(many.studies())}"
    many.create_project(name)
    ids: list[str] = []
    for number, (before, fork, metrics) in enumerate(runs):
        parent = None if before is None or not number else ids[before % number]
        fork_position = 0 if parent is None else fork
        made = NewRun(uid=str(number), parent=parent, fork_position=fork_position)
        ids.append(many.track_run(name, made)[0])
        for metric, curve in metrics.items():
            # Whole steps in half of the cases.
            positions = sorted({at // scale * scale for at in curve})
            values = np.array([*curve.values()][: len(positions)], np.int64).view(np.float64)
            add(many, ids[-1], metric, positions, values)
    export(many, tmp_path / name, name)
    assert of_file(tmp_path / name / "points.parquet") == of_store(many, ids)
    assert pl.read_parquet(tmp_path / name / "runs.parquet")["id"].to_list() == ids
