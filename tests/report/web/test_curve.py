"""Curves on their way to the browser, read by the format's description."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.report.web.curve_data import CurveQuery, curve_bytes
from thalweg.track.records import NewRun
from thalweg.track.store import Store

NUM = 60_000
SPIKE = 31_415

Curve = Callable[..., tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture
def curve(client: httpx.Client, web: Any) -> Curve:
    def read(run: str, metric: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        answer = client.get(f"/api/runs/{run}/curve", params={"metric": metric, **options})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/octet-stream"
        found: tuple[dict[str, Any], dict[str, Any]] = web.decode(answer.content)
        return found

    return read


@pytest.fixture(scope="module")
def long_run(store: Store, web: Any) -> Iterator[str]:
    """60,000 points at steps 0, 1, ...: a sine with a spike and some that are not finite."""
    run, _ = store.track_run("vision", NewRun(uid="long", status="finished"))
    values = np.sin(np.arange(NUM) / 1000)
    values[SPIKE] = 1000.0
    values[[100, 101, 50_000]] = [math.nan, math.inf, -math.inf]
    # Wall time runs at ten points a second.
    times = 1_700_000_000_000 + np.arange(NUM) * 100
    store.import_points(run, "loss", np.arange(NUM) * web.decimals, times, values)
    yield run
    store.delete_run(run)


def test_a_short_curve_is_exact_and_says_whose_points_they_are(curve: Curve) -> None:
    header, columns = curve("vision-1", "loss")
    assert header["kind"] == "points"
    # The parent's 0..5, then the child's own at 5.5.
    assert columns["x"].tolist() == [0, 1, 2, 3, 4, 5, 5.5]
    assert columns["value"].tolist() == [10, 9, 8, 7, 6, 5, 0.25]
    assert columns["owner"].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert header["lineage"] == [{"run": "vision-0", "from_step": 0}, {"run": "vision-1", "from_step": 5}]
    assert (header["total"], header["first_x"], header["last_x"]) == (7, 0, 5.5)
    assert (header["finite_min"], header["finite_max"]) == (0.25, 10.0)


def test_without_what_is_inherited(curve: Curve) -> None:
    header, columns = curve("vision-1", "loss", inherited=0)
    assert columns["x"].tolist() == [5.5]
    assert header["lineage"] == [{"run": "vision-1", "from_step": 5}]


def test_what_is_not_a_number_arrives(curve: Curve) -> None:
    header, columns = curve("vision-0", "loss")
    assert math.isnan(columns["value"][-1])
    assert (header["finite_min"], header["finite_max"]) == (1.0, 10.0)


def test_a_metric_that_is_not_there_is_an_empty_curve(curve: Curve) -> None:
    for options in ({}, {"x": "time"}):
        header, columns = curve("vision-0", "nothing", **options)
        assert (header["num"], header["total"], header["first_x"], header["finite_min"]) == (0, 0, None, None)
        assert len(columns["x"]) == 0


def test_a_long_curve_comes_in_buckets_that_hide_no_spike(curve: Curve, long_run: str) -> None:
    header, columns = curve(long_run, "loss", buckets=50)
    assert header["kind"] == "buckets"
    assert header["columns"] == ["x_first", "x_last", "min", "max", "num_nonfinite"]
    assert header["num"] <= 50
    assert (header["total"], header["first_x"], header["last_x"]) == (NUM, 0, NUM - 1)
    assert (header["finite_min"], header["finite_max"]) == (pytest.approx(-1, abs=1e-6), 1000.0)
    spiked = (columns["x_first"] <= SPIKE) & (columns["x_last"] >= SPIKE)
    assert columns["max"][spiked].tolist() == [1000.0]
    assert columns["num_nonfinite"].sum() == 3
    assert (columns["x_first"][1:] > columns["x_last"][:-1]).all()


def test_zooming_reads_the_exact_points_of_the_range(curve: Curve, long_run: str) -> None:
    header, columns = curve(long_run, "loss", buckets=50, first=SPIKE - 10.5, last=SPIKE + 9.99)
    assert header["kind"] == "points"
    assert columns["x"].tolist() == list(range(SPIKE - 10, SPIKE + 10))
    assert columns["value"][10] == 1000.0
    # The whole is told of, too.
    assert (header["total"], header["first_x"], header["last_x"]) == (NUM, 0, NUM - 1)


def test_points_are_sent_one_by_one_up_to_two_per_bucket(curve: Curve, long_run: str) -> None:
    assert curve(long_run, "loss", buckets=50, first=0, last=99)[0]["kind"] == "points"
    assert curve(long_run, "loss", buckets=50, first=0, last=100)[0]["kind"] == "buckets"


def test_by_time_x_is_seconds_since_1970(curve: Curve, long_run: str) -> None:
    header, columns = curve(long_run, "loss", x="time", buckets=50)
    assert header["kind"] == "buckets"
    assert (header["first_x"], header["last_x"]) == (1_700_000_000.0, 1_700_000_000.0 + (NUM - 1) / 10)
    assert columns["max"].max() == 1000.0
    at = 1_700_000_000 + SPIKE / 10
    header, columns = curve(long_run, "loss", x="time", buckets=50, first=at - 0.05, last=at + 0.15)
    assert columns["x"].tolist() == [at, at + 0.1]
    assert columns["value"][0] == 1000.0
    assert header["total"] == NUM


def test_by_time_points_are_in_the_order_of_time(curve: Curve, store: Store) -> None:
    run, _ = store.track_run("vision", NewRun(uid="disorder", status="finished"))
    positions = np.array([0, 1, 2]) * 10**6
    store.import_points(run, "loss", positions, np.array([3000, 1000, 2000]), np.array([0.0, 1.0, 2.0]))
    _, columns = curve(run, "loss", x="time")
    assert columns["x"].tolist() == [1, 2, 3]
    assert columns["value"].tolist() == [1, 2, 0]
    store.delete_run(run)


def test_the_machines_metrics_are_by_seconds(curve: Curve, store: Store) -> None:
    run, _ = store.track_run("vision", NewRun(uid="machine", status="finished"))
    store.import_points(run, "system/cpu", np.array([1000, 2500]), np.array([0, 1500]), np.array([50.0, 60.0]))
    assert curve(run, "system/cpu")[1]["x"].tolist() == [1, 2.5]
    assert curve(run, "system/cpu", first=2)[1]["value"].tolist() == [60]
    store.delete_run(run)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": "x"},
        {"last": "nan"},
        {"first": "inf"},
        {"buckets": "0"},
        {"buckets": "-1"},
        {"buckets": "1e3"},
        {"buckets": "٣"},
        {"buckets": "9" * 5000},
        {"x": "y"},
        {"inherited": "2"},
    ],
)
def test_a_question_that_cannot_be_is_422(client: httpx.Client, wrong: dict[str, str]) -> None:
    answer = client.get("/api/runs/vision-0/curve", params={"metric": "loss", **wrong})
    assert answer.status_code == 422
    assert next(iter(wrong)) in answer.json()["error"]


def test_a_curve_needs_a_metric(client: httpx.Client) -> None:
    answer = client.get("/api/runs/vision-0/curve")
    assert (answer.status_code, "metric" in answer.json()["error"]) == (422, True)


@pytest.mark.parametrize("end", ["-1e400", "1e400", "-5", "1e-400", "1e999999999999999999"])
def test_a_range_may_end_anywhere(curve: Curve, end: str) -> None:
    everything = [0, 1, 2, 3, 4, 5, 5.5]
    expected = everything if end.startswith("-") else [0] if end == "1e-400" else []
    if end == "1e-400":
        assert curve("vision-1", "loss", last=end)[1]["x"].tolist() == expected
    else:
        assert curve("vision-1", "loss", first=end)[1]["x"].tolist() == expected


@settings(max_examples=40, deadline=None)
@given(
    first=st.floats(-10, NUM + 10),
    length=st.floats(0, NUM),
    num_buckets=st.integers(1, 300),
    by_time=st.booleans(),
)
def test_any_stretch_has_the_extremes_of_its_points(
    store: Store, long_run: str, web: Any, first: float, length: float, num_buckets: int, by_time: bool
) -> None:
    start = 1_700_000_000 if by_time else 0
    rate = 10 if by_time else 1
    low, high = start + first / rate, start + (first + length) / rate
    query = CurveQuery(
        run=long_run,
        metric="loss",
        num_buckets=num_buckets,
        first=repr(low),
        last=repr(high),
        by_time=by_time,
        inherited=True,
    )
    header, columns = web.decode(curve_bytes(store, query, web.decimals))
    x = start + np.arange(NUM) / rate
    values = np.sin(np.arange(NUM) / 1000)
    values[SPIKE] = 1000.0
    values[[100, 101, 50_000]] = math.nan
    inside = values[(x >= low) & (x <= high)]
    finite = inside[np.isfinite(inside)]
    assert header["finite_min"] == (finite.min() if len(finite) else None)
    assert header["finite_max"] == (finite.max() if len(finite) else None)
    if header["kind"] == "points":
        assert header["num"] == len(inside)
    else:
        assert len(inside) > 2 * num_buckets
        assert columns["num_nonfinite"].sum() == len(inside) - len(finite)
