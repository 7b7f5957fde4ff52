"""CSV files, read by two readers that are not ours."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.track.positions import to_position
from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.track.transfer.write_csv import quoted, step_texts, time_texts, write_csv
from thalweg.track.transfer.write_selection import Exported, select

NOON = 1_700_000_000_000


def add(store: Store, run: str, metric: str, points: dict[Any, float]) -> None:
    positions = np.array([to_position(step, 6) for step in points], np.int64)
    times = NOON + np.arange(len(points), dtype=np.int64)
    store.import_points(run, metric, positions, times, np.array(list(points.values())))


@pytest.fixture
def project(store: Store) -> Store:
    store.create_project("p")
    tags = ("a,b", 'say "c"')
    settings = {"n": 1, "text": "-1", "flag": False, "many": [1, "x"], "lr": 1e-05}
    finished: dict[str, Any] = {"created": 0.0, "ended": 1.5, "status": "finished"}
    store.track_run("p", NewRun(uid="a", name="=1+1\n2", tags=tags, hyperparameters=settings, **finished))
    store.track_run("p", NewRun(uid="b", name="", parent="a", fork_position=500_000, **finished))
    add(store, "p-0", "loss", {0: math.nan, "0.5": math.inf, 1: 0.1})
    add(store, "p-1", '@cmd, "x"', {"1000000000000.000001": -math.inf, 2: 5e-324})
    return store


def export(store: Store, out: Path, **options: Any) -> Exported:
    return write_csv(select(store, "p", **options), out, lambda done: None)


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def test_points(project: Store, tmp_path: Path) -> None:
    exported = export(project, tmp_path / "out")
    assert (exported.runs, exported.points) == (2, 7)
    text = (tmp_path / "out" / "points.csv").read_bytes().decode()
    assert text.startswith(
        '"run","metric","step","value","time","owner"\r\n"p-0","loss",0,nan,2023-11-14T22:13:20.000Z'
    )
    assert read(tmp_path / "out" / "points.csv")[1:] == [
        ["p-0", "loss", "0", "nan", "2023-11-14T22:13:20.000Z", "p-0"],
        ["p-0", "loss", "0.5", "inf", "2023-11-14T22:13:20.001Z", "p-0"],
        ["p-0", "loss", "1", "0.1", "2023-11-14T22:13:20.002Z", "p-0"],
        ["p-1", '\'@cmd, "x"', "2", "5e-324", "2023-11-14T22:13:20.001Z", "p-1"],
        ["p-1", '\'@cmd, "x"', "1000000000000.000001", "-inf", "2023-11-14T22:13:20.000Z", "p-1"],
        ["p-1", "loss", "0", "nan", "2023-11-14T22:13:20.000Z", "p-0"],
        ["p-1", "loss", "0.5", "inf", "2023-11-14T22:13:20.001Z", "p-0"],
    ]


def test_runs(project: Store, tmp_path: Path) -> None:
    export(project, tmp_path / "out")
    header, *lines = read(tmp_path / "out" / "runs.csv")
    root, child = (dict(zip(header, line, strict=True)) for line in lines)
    assert (root["id"], root["name"], root["tags"]) == ("p-0", "'=1+1\n2", '["a,b", "say \\"c\\""]')
    assert (root["created"], root["ended"]) == ("1970-01-01T00:00:00.000Z", "1970-01-01T00:00:01.500Z")
    assert {name: root[f"hyperparameters.{name}"] for name in ("n", "text", "flag", "many", "lr")} == {
        "n": "1", "text": "'-1", "flag": "false", "many": '[1, "x"]', "lr": "1e-05",
    }  # fmt: skip
    assert (child["parent"], child["fork_step"], child["hyperparameters.n"]) == ("p-0", "0.5", "")
    # An empty name is a name, a missing one is none: the quotes say which.
    texts = {"name": pa.string(), "parent": pa.string(), "waiting_parent": pa.string()}
    empty = pc.ConvertOptions(column_types=texts, strings_can_be_null=True, quoted_strings_can_be_null=False)
    table = pc.read_csv(
        tmp_path / "out" / "runs.csv", pc.ReadOptions(), pc.ParseOptions(newlines_in_values=True), empty
    )
    assert table["name"].to_pylist() == ["'=1+1\n2", ""]
    assert table["parent"].to_pylist() == [None, "p-0"]
    assert table["hyperparameters.n"].to_pylist() == [1, None]


@given(st.text())
def test_text_comes_back(text: str) -> None:
    (line,) = csv.reader([quoted(text)], strict=True) if "\n" not in text and "\r" not in text else [[_unquote(text)]]
    (cell,) = line
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert (cell[1:] if cell.startswith("'") else cell) == text


def _unquote(text: str) -> str:
    cell = quoted(text)
    assert (cell[0], cell[-1]) == ('"', '"')
    return cell[1:-1].replace('""', '"')


@given(st.integers(0, 2**63 - 1), st.integers(0, 9))
def test_steps_come_back(position: int, decimals: int) -> None:
    (text,) = step_texts(np.array([position], np.int64), decimals)
    assert to_position(text, decimals) == position
    assert "e" not in text.lower()


def test_times_before_and_after() -> None:
    assert time_texts(np.array([-1, 4_102_444_800_000])) == ["1969-12-31T23:59:59.999Z", "2100-01-01T00:00:00.000Z"]
