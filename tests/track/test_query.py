"""Runs and curves as tables: against values worked by hand, and against forks made of plain dicts."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thalweg.errors import ConfigError, StoreError
from thalweg.track import query
from thalweg.track.positions import to_decimal, to_position
from thalweg.track.query import curves, runs
from thalweg.track.records import NewRun
from thalweg.track.store import Store

NOON = 1_700_000_000_000


def track(store: Store, uid: str, project: str = "p", **fields: Any) -> str:
    store.create_project(project)
    return store.track_run(project, NewRun(uid=uid, **fields))[0]


def add(store: Store, run: str, metric: str, points: dict[Any, float], decimals: int = 6) -> None:
    """Points by step; each is logged as many milliseconds after noon as it has points before it."""
    positions = np.array([to_position(step, decimals) for step in points], np.int64)
    times = NOON + np.arange(len(points), dtype=np.int64)
    store.import_points(run, metric, positions, times, np.array(list(points.values()), float))


@pytest.fixture
def forks(store: Store) -> Store:
    """p-0, its fork p-1 at step 2, and the fork p-2 of that one at step 3."""
    track(store, "a", hyperparameters={"lr": 1, "n": 3, "flag": True, "opt": "adam"}, tags=("x", "y"), name="the root")
    track(store, "b", parent="a", fork_position=2_000_000, hyperparameters={"lr": 0.5, "n": 4, "odd": [1, 2]})
    track(store, "c", parent="b", fork_position=3_000_000, hyperparameters={"lr": math.nan, "n": None, "odd": "1"})
    add(store, "p-0", "loss", {0: 5.0, 1: 4.0, 2: 3.0, 3: 2.0})
    add(store, "p-0", "only/root", {1: 10.0, 3: 30.0})
    add(store, "p-1", "loss", {2: 2.5, 3: math.nan, 4: math.inf})
    add(store, "p-2", "loss", {4: 0.25})
    add(store, "p-2", "system/cpu", {to_decimal(250, 6): 12.5, to_decimal(500, 6): 25.0})
    return store


# What the curves of the fixture are, by hand: run, metric, step, value, owner.
LOSS = {
    "p-0": [(0, 5.0, "p-0"), (1, 4.0, "p-0"), (2, 3.0, "p-0"), (3, 2.0, "p-0")],
    "p-1": [(0, 5.0, "p-0"), (1, 4.0, "p-0"), (2, 2.5, "p-1"), (3, math.nan, "p-1"), (4, math.inf, "p-1")],
    "p-2": [(0, 5.0, "p-0"), (1, 4.0, "p-0"), (2, 2.5, "p-1"), (3, math.nan, "p-1"), (4, 0.25, "p-2")],
}
ONLY = {"p-0": [(1, 10.0, "p-0"), (3, 30.0, "p-0")], "p-1": [(1, 10.0, "p-0")], "p-2": [(1, 10.0, "p-0")]}
BY_HAND = [
    (run, metric, *point)
    for run in ("p-0", "p-1", "p-2")
    for metric, table in (("loss", LOSS), ("only/root", ONLY))
    for point in table[run]
]


def same(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> bool:
    """Equal, and NaN where NaN is expected: as text they are."""
    return list(map(repr, found)) == list(map(repr, expected))


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return [(r["run"], r["metric"], r["step"], r["value"], r["owner"]) for r in table.to_pylist()]


def test_curves_by_hand(forks: Store) -> None:
    table = curves("p", store=forks, as_="arrow")
    assert same(rows(table), BY_HAND)
    label = pa.dictionary(pa.int32(), pa.string())
    assert table.schema.names == ["run", "metric", "step", "value", "time", "owner"]
    assert table.schema.types == [label, label, pa.int64(), pa.float64(), pa.timestamp("ms", tz="UTC"), label]
    assert table["value"].null_count == 0
    # p-2's points: its own are logged from noon on, and those inherited when they were logged.
    times = [r["time"] for r in table.to_pylist() if r["run"] == "p-2" and r["metric"] == "loss"]
    assert [round((time - datetime.fromtimestamp(NOON / 1000, UTC)).total_seconds() * 1000) for time in times] == [
        0, 1, 0, 1, 0,
    ]  # fmt: skip


def test_the_three_forms_say_the_same(forks: Store) -> None:
    frame = curves("p", store=forks)
    columns = ["run", "metric", "step", "value", "owner"]
    assert same([tuple(row) for row in frame[columns].itertuples(index=False)], BY_HAND)
    assert [str(frame[name].dtype) for name in ("run", "step", "value", "time")] == [
        "category", "int64", "float64", "datetime64[ms, UTC]",
    ]  # fmt: skip
    polars = curves("p", store=forks, as_="polars")
    assert same(polars.select(columns).rows(), BY_HAND)
    assert (polars["value"].null_count(), polars["value"].is_nan().sum()) == (0, 2)
    assert polars.schema["step"] == pl.Int64


def test_what_is_asked_for(forks: Store) -> None:
    own = [entry for entry in BY_HAND if entry[0] == entry[4]]
    assert same(rows(curves("p", store=forks, inherited=False, as_="arrow")), own)
    picked = curves("p", store=forks, runs=["p-2", "p-0"], metrics="loss", as_="arrow")
    assert same(rows(picked), [(run, "loss", *point) for run in ("p-2", "p-0") for point in LOSS[run]])
    only = curves("p", store=forks, runs="p-1", metrics=["only/*"], as_="arrow")
    assert rows(only) == [("p-1", "only/root", 1, 10.0, "p-0")]


def test_system_metrics_are_there_when_asked_for(forks: Store) -> None:
    asked = curves("p", store=forks, metrics=["system/*"], as_="arrow")
    assert rows(asked) == [("p-2", "system/cpu", 250, 12.5, "p-2"), ("p-2", "system/cpu", 500, 25.0, "p-2")]
    assert len(curves("p", store=forks, metrics=["*", "system/cpu"], as_="arrow")) == len(BY_HAND) + 2
    assert set(curves("p", store=forks, metrics=["*"], as_="polars")["metric"]) == {"loss", "only/root"}


def test_wide(forks: Store) -> None:
    table = curves("p", store=forks, wide=True, as_="arrow")
    assert table.schema.names == ["run", "step", "loss", "only/root"]
    found = [tuple(row.values()) for row in table.to_pylist() if row["run"] == "p-1"]
    # NaN is a value that was logged; None is none.
    assert same(
        found,
        [("p-1", 0, 5.0, None), ("p-1", 1, 4.0, 10.0), ("p-1", 2, 2.5, None), ("p-1", 3, math.nan, None),
         ("p-1", 4, math.inf, None)],
    )  # fmt: skip
    assert table["loss"].null_count == 0
    with pytest.raises(ConfigError, match=r"metrics = 'system/cpu' has no steps but milliseconds.*Leave out wide"):
        curves("p", store=forks, wide=True, metrics="system/cpu")
    add(forks, "p-0", "step", {0: 1.0})
    with pytest.raises(ConfigError, match="metric 'step' cannot be a column beside the column 'step'"):
        curves("p", store=forks, wide=True)


def test_types_of_steps(store: Store) -> None:
    track(store, "a")
    add(store, "p-0", "whole", {10**12: 1.0})
    assert curves("p", store=store, as_="arrow")["step"].to_pylist() == [10**12]
    add(store, "p-0", "half", {0.5: 1.0, "999999999.999999": 2.0})
    halves = curves("p", store=store, metrics="half", as_="arrow")["step"]
    assert (halves.type, halves.to_pylist()) == (pa.float64(), [0.5, 999_999_999.999999])
    both = curves("p", store=store, as_="arrow")["step"]
    # A float would not hold both: 10**12 has its place, but then six decimals more make 19 digits.
    assert both.type == pa.decimal128(19, 6)
    assert both.to_pylist() == [Decimal("0.5"), Decimal("999999999.999999"), Decimal(10**12)]
    asked = curves("p", store=store, metrics="half", as_="polars", decimal=True)
    assert (asked.schema["step"], asked["step"].to_list()[0]) == (pl.Decimal(19, 6), Decimal("0.5"))
    assert curves("p", store=store, as_="pandas")["step"].tolist() == both.to_pylist()


def test_greatest_steps(store: Store) -> None:
    track(store, "a")
    greatest = to_decimal(2**63 - 1, 6)
    add(store, "p-0", "m", {greatest: 1.0})
    assert curves("p", store=store, as_="arrow")["step"].to_pylist() == [Decimal("9223372036854.775807")]


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=50))
def test_float_steps_are_printed_as_the_steps(positions: list[int]) -> None:
    from thalweg.track.query_columns import float_steps

    found = float_steps(np.array(positions, np.int64), 6).tolist()
    assert [to_position(step, 6) for step in found] == positions


def test_a_study_beside_a_project(store: Store) -> None:
    fields: dict[str, Any] = {"horizon": 2**60, "until": 2**60, "seed": 0, "origin": "random"}
    run = store.create_run("imdb", hyperparameters={"lr": 0.1}, **fields)
    with store.writer(run.id) as writer:
        writer.log(2**60 + 1, {"loss": 1.0})
        writer.report(2**60 + 2, {"accuracy": 0.5})
    found = curves("imdb", store=store, as_="arrow")
    assert rows(found) == [
        ("imdb-0", "loss", 2**60 + 1, 1.0, "imdb-0"),
        ("imdb-0", "validation/accuracy", 2**60 + 2, 0.5, "imdb-0"),
    ]
    track(store, "a")
    add(store, "p-0", "loss", {0.5: 2.0})
    both = curves(store=store, metrics="loss", as_="arrow")["step"]
    assert both.type == pa.decimal128(25, 6)
    assert both.to_pylist() == [Decimal(2**60 + 1), Decimal("0.5")]
    table = runs(store=store, as_="arrow")
    assert table["project"].to_pylist() == ["imdb", "p"]
    assert table["latest.validation/accuracy"].to_pylist() == [0.5, None]


def test_runs_by_hand(forks: Store) -> None:
    table = runs("p", store=forks, as_="arrow")
    by_run = {row["id"]: row for row in table.to_pylist()}
    root, child = by_run["p-0"], by_run["p-1"]
    assert (root["name"], root["tags"], root["parent"], root["fork_step"]) == ("the root", ["x", "y"], None, None)
    assert (child["name"], child["tags"], child["parent"], child["fork_step"]) == (None, [], "p-0", 2)
    assert (root["uid"], root["unit"], root["waiting_parent"]) == ("a", "steps", None)
    assert (child["latest.loss"], child["latest.loss.step"]) == (math.inf, 4)
    assert (child["latest.only/root"], child["latest.only/root.step"]) == (None, None)
    assert "latest.system/cpu" not in table.schema.names
    columns = {name.removeprefix("hyperparameters."): name for name in table.schema.names if name.startswith("hyper")}
    kinds = {name: table[column].type for name, column in columns.items()}
    assert kinds == {"lr": pa.float64(), "n": pa.int64(), "flag": pa.bool_(), "opt": pa.string(), "odd": pa.string()}
    values = {name: table[column].to_pylist() for name, column in columns.items()}
    assert repr(values["lr"]) == "[1.0, 0.5, nan]"
    assert values["n"] == [3, 4, None]
    assert values["flag"] == [True, None, None]
    assert values["odd"] == [None, "[1, 2]", "1"]


def test_runs_of_pandas_and_polars(forks: Store) -> None:
    frame = runs("p", store=forks)
    assert str(frame["hyperparameters.n"].dtype) == "Int64"
    assert frame["hyperparameters.n"].isna().tolist() == [False, False, True]
    assert frame["fork_step"].tolist()[1:] == [2, 3]
    assert str(frame["created"].dtype) == "datetime64[us, UTC]"
    polars = runs("p", store=forks, as_="polars")
    assert polars["hyperparameters.flag"].to_list() == [True, None, None]
    assert polars["hyperparameters.lr"].is_nan().to_list() == [False, False, True]


def test_times_and_a_parent_that_is_not_there(store: Store) -> None:
    fields = {"created": 1.5, "started": 2.25, "ended": 1_700_000_000.123456, "status": "finished"}
    track(store, "b", parent="nowhere", fork_position=1_500_000, **fields)
    row = runs("p", store=store, as_="arrow").to_pylist()[0]
    assert (row["parent"], row["waiting_parent"], row["fork_step"]) == (None, "nowhere", 1.5)
    assert (row["status"], row["created"].timestamp(), row["started"].timestamp()) == ("finished", 1.5, 2.25)
    assert row["ended"] == datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)


def test_a_metric_named_as_the_step_of_another(store: Store) -> None:
    track(store, "a")
    add(store, "p-0", "loss", {3: 1.0})
    add(store, "p-0", "loss.step", {4: 2.0})
    row = runs("p", store=store, as_="polars").to_dicts()[0]
    latest = {name: value for name, value in row.items() if name.startswith("latest.")}
    assert latest == {"latest.loss": 1.0, "latest.loss.step (step)": 3, "latest.loss.step": 2.0,
                      "latest.loss.step.step": 4}  # fmt: skip


def test_a_name_is_itself_before_it_is_a_pattern(store: Store) -> None:
    track(store, "a")
    for metric in ("a[1]", "a1", "a'\"/😀"):
        add(store, "p-0", metric, {0: 1.0})
    names = lambda asked: curves("p", store=store, metrics=asked, as_="arrow")["metric"].to_pylist()  # noqa: E731
    assert names("a[1]") == ["a1", "a[1]"]
    assert names("a'\"/😀") == ["a'\"/😀"]
    assert names("a?") == ["a1"]


def test_nothing_there(store: Store) -> None:
    store.create_project("p")
    assert curves("p", store=store, as_="arrow").num_rows == 0
    assert runs("p", store=store)["id"].tolist() == []
    assert curves("p", store=store, wide=True).columns.tolist() == ["run", "step"]
    track(store, "a")
    assert curves("p", store=store, as_="arrow")["step"].type == pa.int64()
    assert curves("p", store=store, as_="arrow", decimal=True)["step"].type == pa.decimal128(19, 6)


def test_what_cannot_be_asked_for(forks: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"project 'p' has no run 'p-9'\. .*Known: p-0, p-1, p-2"):
        curves("p", store=forks, runs=["p-9"])
    with pytest.raises(ConfigError, match=r"no run here has a metric that matches 'los'\. Did you mean 'loss'\?"):
        curves("p", store=forks, metrics=["loss", "los"])
    with pytest.raises(StoreError, match=r"unknown .*'q'"):
        runs("q", store=forks)
    with pytest.raises(ConfigError, match=r"as_ = 'panda' is no form of table\. Did you mean 'pandas'"):
        runs("p", store=forks, as_="panda")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"store = '.*nowhere.db' does not exist"):
        runs("p", store=tmp_path / "nowhere.db")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ConfigError, match="as_='polars' needs polars: pip install polars pyarrow"):
        curves("p", store=forks, as_="polars")


def test_the_store_of_the_environment(forks: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THALWEG_STORE", forks.location)
    assert runs("p", as_="arrow")["id"].to_pylist() == ["p-0", "p-1", "p-2"]


# Against a model: each run is (parent, fork position, points of its own).
steps = st.integers(0, 8)
points = st.dictionaries(steps, st.floats(allow_nan=True, allow_infinity=True), max_size=6)
plans = st.lists(st.tuples(st.integers(0, 5), steps, points, points), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("model") / "store.db") as opened:
        yield opened


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans, batch=st.integers(1, 7))
def test_against_plain_dicts(model_store: Store, monkeypatch: pytest.MonkeyPatch, plan: list[Any], batch: int) -> None:
    monkeypatch.setattr(query, "BATCH_POINTS", batch)
    project = f"q{len(model_store.studies())}"
    model: list[dict[str, dict[int, tuple[float, str]]]] = []
    ids: list[str] = []
    for number, (before, fork, *own) in enumerate(plan):
        parent = None if not number else before % number
        uid = f"{project}-{number}"
        fields: dict[str, Any] = {} if parent is None else {"parent": ids[parent], "fork_position": fork}
        model_store.create_project(project, decimals=0)
        ids.append(track(model_store, uid, project, **fields))
        curves_now = {}
        for metric, values in zip(("a", "b"), own, strict=True):
            add(model_store, ids[-1], metric, dict(sorted(values.items())), 0)
            seen = {} if parent is None else {at: p for at, p in model[parent][metric].items() if at <= fork}
            curves_now[metric] = seen | {at: (value, ids[-1]) for at, value in values.items()}
        model.append(curves_now)
    expected = [
        (run, metric, at, *curve[metric][at])
        for run, curve in zip(ids, model, strict=True)
        for metric in ("a", "b")
        for at in sorted(curve[metric])
    ]
    assert same(rows(curves(project, store=model_store, as_="arrow")), expected)
    own_points = [entry for entry in expected if entry[0] == entry[4]]
    assert same(rows(curves(project, store=model_store, as_="arrow", inherited=False)), own_points)
    wide = curves(project, store=model_store, as_="arrow", wide=True).to_pylist()
    of_wide = [
        (row["run"], metric, row["step"], row[metric])
        for metric in ("a", "b")
        for row in wide
        if row.get(metric) is not None
    ]
    assert sorted(map(repr, of_wide)) == sorted(repr(entry[:4]) for entry in expected)


_MEASURE = """
import resource, sys
import numpy as np
import pyarrow
from thalweg.track.query import curves
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
table = curves("p", store=sys.argv[1], as_="arrow")
print(len(table), table.nbytes, peak() - before)
"""


@pytest.mark.slow
def test_ten_million_points_need_little_more_than_the_table(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        for number in range(10):
            run = track(store, str(number))
            at = np.arange(1_000_000, dtype=np.int64)
            store.import_points(run, "loss", at * 10**6, NOON + at, np.sin(at))
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "store.db")]
    num, size, used = map(int, subprocess.check_output(command, text=True).split())
    assert num == 10_000_000
    assert size >= 36 * num
    assert used < size + 300 * 2**20
