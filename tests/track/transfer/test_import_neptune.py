"""`thalweg import neptune`: an export as neptune-exporter documents it, written here row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thalweg.errors import ConfigError
from thalweg.track.store import Store
from thalweg.track.transfer.bring_in import Summary, bring_in
from thalweg.track.transfer.read_neptune import read_neptune

# As the exporter's README lists them.
SCHEMA = pa.schema(
    [
        ("project_id", pa.string()),
        ("run_id", pa.string()),
        ("attribute_path", pa.string()),
        ("attribute_type", pa.string()),
        ("step", pa.decimal128(18, 6)),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("int_value", pa.int64()),
        ("float_value", pa.float64()),
        ("string_value", pa.string()),
        ("bool_value", pa.bool_()),
        ("datetime_value", pa.timestamp("ms", tz="UTC")),
        ("string_set_value", pa.list_(pa.string())),
        ("file_value", pa.struct([("path", pa.string())])),
        (
            "histogram_value",
            pa.struct([("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))]),
        ),
    ]
)
PROJECT = "team/language models"
FOLDER = "team_language_models-0123456789abcdef"
BORN = datetime(2025, 3, 1, 12, 0, 0, tzinfo=UTC)
BORN_MS = 1_740_830_400_000

Row = dict[str, Any]


def scalar(run: str, path: str, kind: str, value: Any) -> Row:
    return {"run_id": run, "attribute_path": path, "attribute_type": kind, f"{kind}_value": value}


def points(run: str, path: str, values: dict[str, float | None]) -> list[Row]:
    return [
        {
            "run_id": run,
            "attribute_path": path,
            "attribute_type": "float_series",
            "step": Decimal(step),
            "timestamp": BORN_MS + 1000 * i,
            "float_value": value,
        }
        for i, (step, value) in enumerate(values.items())
    ]


def about(run: str, parent: str | None = None, at: float = 0.0) -> list[Row]:
    rows = [
        scalar(run, "sys/custom_run_id", "string", run),
        scalar(run, "sys/id", "string", f"LM-{run}"),
        scalar(run, "sys/name", "string", "pretraining"),
        scalar(run, "sys/creation_time", "datetime", BORN),
        scalar(run, "sys/state", "string", "Inactive"),
        scalar(run, "sys/failed", "bool", False),
    ]
    if parent is not None:
        rows += [scalar(run, "sys/forking/parent", "string", parent), scalar(run, "sys/forking/step", "float", at)]
    return rows


def write(data: Path, run: str, rows: list[Row], *, part: int = 0, **options: Any) -> Path:
    path = data / FOLDER / f"{run}-0011_part_{part}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([{"project_id": PROJECT, **row} for row in rows], schema=SCHEMA)
    pq.write_table(table, path, compression="snappy", **options)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store" / "store.db") as opened:
        yield opened


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """Three levels of forks; in the order of files, the child comes before its parent and the root is the last."""
    data = tmp_path / "exports" / "data"
    write(data, "a-leaf", [*about("a-leaf", "b-child", 1.5), *points("a-leaf", "loss", {"1.75": 0.25})])
    child = [*about("b-child", "c-root", 1.0), *points("b-child", "loss", {"1.25": 0.75, "1.5": 0.5, "2": 9.0})]
    write(data, "b-child", child)
    root = points("c-root", "loss", {"0.333333": 3.0, "1": None, "1.000001": 2.0, "3": math.inf})
    write(data, "c-root", [*about("c-root"), *root])
    return data.parent


def bring(store: Store, exports: Path, project: str | None = None) -> Summary:
    return bring_in(store, read_neptune(exports), project=project)


def ids(store: Store, project: str = "lm") -> dict[str, str]:
    return {row.uid.rpartition("/")[2]: row.id for row in store.run_rows(project)}


def test_forks_come_in_as_forks_in_whatever_order(store: Store, exports: Path) -> None:
    summary = bring(store, exports, "lm")
    run = ids(store)
    assert summary.skipped == []
    assert summary.waiting == []
    assert store.run_details(run["a-leaf"]).lineage == (run["c-root"], run["b-child"], run["a-leaf"])
    rows = {row.id: row for row in store.run_rows("lm")}
    assert [rows[run[name]].fork_position for name in ("c-root", "b-child", "a-leaf")] == [0, 1_000_000, 1_500_000]
    curve = store.series(run["a-leaf"], "loss")
    # The root up to and including 1, the child up to and including 1.5, then its own.
    assert curve.positions.tolist() == [333_333, 1_000_000, 1_250_000, 1_500_000, 1_750_000]
    assert np.array_equal(curve.values, [3.0, math.nan, 0.75, 0.5, 0.25], equal_nan=True)
    assert store.check_integrity() == []


def test_steps_values_and_times_are_exact(store: Store, exports: Path) -> None:
    far = {"999999999999.999999": 1e308, "0": -0.0, "0.000001": 5e-324, "12": -math.inf}
    write(exports / "data", "d-far", [*about("d-far"), *points("d-far", "näme 🎉/\"'<b>", far)])
    bring(store, exports, "lm")
    curve = store.series(ids(store)["d-far"], "näme 🎉/\"'<b>")
    assert curve.positions.tolist() == [0, 1, 12_000_000, 999_999_999_999_999_999]
    assert [value.hex() for value in curve.values.tolist()] == [
        value.hex() for value in (-0.0, 5e-324, -math.inf, 1e308)
    ]
    assert curve.times.tolist() == [BORN_MS / 1000 + offset for offset in (1, 2, 3, 0)]


def test_attributes_find_their_places(store: Store, tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    rows = [
        *about("r"),
        scalar("r", "sys/tags", "string_set", ["good", "näme"]),
        scalar("r", "sys/group_tags", "string_set", ["good", "group"]),
        scalar("r", "sys/description", "string", "the long one"),
        scalar("r", "sys/owner", "string", "ann"),
        scalar("r", "sys/hostname", "string", "node-1"),
        scalar("r", "config/lr", "float", 3e-4),
        scalar("r", "config/layers", "int", 2**60),
        scalar("r", "config/tied", "bool", False),
        scalar("r", "config/when", "datetime", BORN),
        scalar("r", "config/names", "string_set", ["a", "b"]),
        scalar("r", "config/absent", "string", None),
        scalar("r", "monitoring/0/pid", "string", "77"),
    ]
    write(exports / "data", "r", rows)
    summary = bring(store, exports)
    assert list(summary.projects) == ["team-language models"]
    details = store.run_details(summary.projects["team-language models"].new[0])
    assert details.row.hyperparameters == {
        "config/lr": 3e-4,
        "config/layers": 2**60,
        "config/tied": False,
        "config/when": "2025-03-01T12:00:00+00:00",
        "config/names": ["a", "b"],
    }
    assert details.row.name == "pretraining"
    assert details.row.tags == ("good", "näme", "group")
    assert details.row.status == "finished"
    assert details.row.created == BORN_MS / 1000
    assert [(note.text, note.author) for note in details.notes] == [("the long one", "ann")]
    assert details.facts["sys/hostname"] == "node-1"
    assert details.facts["monitoring/0/pid"] == "77"
    assert details.facts["neptune/run_id"] == "r"
    assert "config/lr" not in details.facts


@pytest.mark.parametrize(
    ("state", "failed", "status"),
    [("Inactive", True, "failed"), ("Inactive", False, "finished"), ("Active", False, "crashed")],
)
def test_the_state_of_a_run(store: Store, tmp_path: Path, state: str, failed: bool, status: str) -> None:
    rows = [scalar("r", "sys/state", "string", state), scalar("r", "sys/failed", "bool", failed)]
    write(tmp_path / "data", "r", rows)
    bring(store, tmp_path, "lm")
    assert [row.status for row in store.run_rows("lm")] == [status]


def test_texts_and_files_come_over(store: Store, tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    kept = exports / "files" / FOLDER / "r" / "model.bin"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    (exports / "secret").write_text("no")

    def file(path: str, place: str, step: str | None = None) -> Row:
        kind = "file" if step is None else "file_series"
        entry = {"run_id": "r", "attribute_path": path, "attribute_type": kind, "file_value": {"path": place}}
        return entry if step is None else {**entry, "step": Decimal(step), "timestamp": BORN_MS}

    rows = [
        *about("r"),
        file("model", "r/model.bin"),
        file("samples", "r/model.bin", "2.5"),
        file("gone", "r/gone.bin"),
        file("outside", "../../secret"),
    ]
    for i, text in enumerate(("second\nline", "first")):
        series = {"run_id": "r", "attribute_path": "runtime/stdout", "attribute_type": "string_series"}
        rows.append({**series, "step": Decimal(2 - i), "timestamp": BORN_MS, "string_value": text})
    write(exports / "data", "r", rows)
    summary = bring(store, exports, "lm")
    run = ids(store)["r"]
    found = {file.name: file for file in store.files(run)}
    assert set(found) == {"model", "samples", "runtime/stdout.txt"}
    assert (found["model"].path, found["model"].copied) == (kept, False)
    assert found["samples"].position == 2_500_000
    assert found["runtime/stdout.txt"].path.read_text() == (
        "1\t2025-03-01T12:00:00.000Z\tfirst\n2\t2025-03-01T12:00:00.000Z\tsecond\nline\n"
    )
    assert sorted(skipped.place for skipped in summary.skipped) == ["run r, file 'gone'", "run r, file 'outside'"]
    assert bring(store, exports, "lm").num_files == 0
    assert len(store.files(run)) == 3


def test_machine_series_are_told_by_time_and_not_inherited(store: Store, exports: Path) -> None:
    rows = points("c-root", "monitoring/0/cpu", {"0": 10.0, "1": 20.0})
    write(exports / "data", "c-root", rows, part=1)
    bring(store, exports, "lm")
    run = ids(store)
    curve = store.series(run["c-root"], "system/monitoring/0/cpu")
    assert (curve.positions.tolist(), curve.values.tolist()) == ([0, 1000], [10.0, 20.0])
    assert "system/monitoring/0/cpu" not in store.run_rows("lm")[2].latest


def test_the_same_again_changes_nothing_and_what_has_grown_is_added(store: Store, exports: Path) -> None:
    first = bring(store, exports, "lm")
    assert (len(first.projects["lm"].new), first.num_points) == (3, 8)
    before = [(row.id, row.updated, row.latest) for row in store.run_rows("lm")]
    again = bring(store, exports, "lm")
    assert (again.projects["lm"].new, again.projects["lm"].updated, again.num_points) == ([], [], 0)
    assert [(row.id, row.updated, row.latest) for row in store.run_rows("lm")] == before
    more = [
        *points("c-root", "loss", {"4": 1.0}),
        scalar("c-root", "config/late", "int", 1),
        scalar("c-root", "sys/tags", "string_set", ["late"]),
    ]
    write(exports / "data", "c-root", more, part=1)
    grown = bring(store, exports, "lm")
    run = ids(store)
    assert (grown.projects["lm"].updated, grown.num_points) == ([run["c-root"]], 1)
    assert store.series(run["c-root"], "loss").positions.tolist()[-1] == 4_000_000
    assert store.run_details(run["c-root"]).row.tags == ("late",)
    assert store.run_details(run["c-root"]).row.hyperparameters == {"config/late": 1}


def test_a_fork_waits_for_a_parent_that_is_not_exported(store: Store, exports: Path) -> None:
    write(exports / "data", "x", [*about("x", "later", 2.0), *points("x", "loss", {"3": 1.0})])
    summary = bring(store, exports, "lm")
    assert summary.waiting == [ids(store)["x"]]
    write(exports / "data", "later", [*about("later"), *points("later", "loss", {"1": 5.0, "2.5": 6.0})])
    assert bring(store, exports, "lm").waiting == []
    assert store.series(ids(store)["x"], "loss").values.tolist() == [5.0, 1.0]


def test_a_parent_may_be_named_by_its_short_id(store: Store, exports: Path) -> None:
    write(exports / "data", "y", [*about("y", "LM-c-root", 1.0), *points("y", "loss", {"2": 1.0})])
    bring(store, exports, "lm")
    run = ids(store)
    assert store.run_details(run["y"]).row.parent == run["c-root"]


def test_a_series_over_several_parts_and_row_groups_is_one(store: Store, tmp_path: Path) -> None:
    data = tmp_path / "data"
    values = {str(step): step / 7 for step in range(100)}
    rows = [*about("r"), *points("r", "loss", values), *points("r", "other", {"1": 1.0})]
    write(data, "r", rows, row_group_size=7)
    # What comes later wins.
    write(data, "r", points("r", "loss", {"50": 1.0, "200": 2.0}), part=10)
    write(data, "r", points("r", "loss", {"50": 3.0}), part=2)
    summary = bring(store, tmp_path, "lm")
    curve = store.series("lm-0", "loss")
    assert curve.values.tolist() == [*(1.0 if step == 50 else step / 7 for step in range(100)), 2.0]
    assert summary.num_replaced == 2
    missing = [skipped.place.rpartition("_")[2] for skipped in summary.skipped]
    assert missing == [f"{number}.parquet" for number in (1, 3, 4, 5, 6, 7, 8, 9)]
    assert summary.num_points == 102


def test_what_cannot_be_read_is_said_and_the_rest_comes_in(store: Store, exports: Path) -> None:
    data = exports / "data"
    cut = write(data, "d-cut", points("d-cut", "loss", {"1": 1.0}), part=1)
    write(data, "d-cut", [*about("d-cut"), *points("d-cut", "loss", {"0": 2.0})])
    cut.write_bytes(cut.read_bytes()[:-20])
    (data / FOLDER / "e_part_0.parquet.tmp").write_bytes(b"")
    (data / FOLDER / "odd_part_0.parquet").write_bytes(b"nothing of the kind")
    pq.write_table(pa.table({"a": [1]}), data / FOLDER / "other_part_0.parquet")
    write(data, "f", [{"run_id": "f", "attribute_path": "h", "attribute_type": "histogram_series", "step": Decimal(1)}])
    stepless = {"run_id": "f", "attribute_path": "loss", "attribute_type": "float_series", "float_value": 1.0}
    negative = points("f", "loss", {"-1.5": 1.0, "2": 2.0})
    write(data, "f", [stepless, *negative], part=1)
    summary = bring(store, exports, "lm")
    said = {skipped.place: skipped.reason for skipped in summary.skipped}
    assert str(cut) in said
    assert "not finished" in said[str(data / FOLDER / "e_part_0.parquet.tmp")]
    assert str(data / FOLDER / "odd_part_0.parquet") in said
    assert "no column 'run_id'" in said[str(data / FOLDER / "other_part_0.parquet")]
    assert said["run f"] == "1 values of type 'histogram_series': the store has none"
    assert "1 points of series 'loss' without a step" in said.values()
    assert said["run f, metric 'loss'"] == "1 points at negative steps, down to -1.5"
    assert store.series(ids(store)["d-cut"], "loss").values.tolist() == [2.0]
    assert store.series(ids(store)["f"], "loss").values.tolist() == [2.0]


def test_a_damaged_row_group_costs_only_itself(store: Store, tmp_path: Path) -> None:
    rows = points("r", "loss", {str(step): float(step) for step in range(3000)})
    path = write(tmp_path / "data", "r", rows, row_group_size=1000, use_dictionary=False)
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(1).column(SCHEMA.get_field_index("float_value"))
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 64] = b"\xff" * 64
    path.write_bytes(content)
    summary = bring(store, tmp_path, "lm")
    assert [skipped.place for skipped in summary.skipped] == [f"{path}, row group 1"]
    assert store.series("lm-0", "loss").values.tolist() == [*range(1000), *range(2000, 3000)]


def test_a_project_of_whole_steps_says_what_does_not_fit(store: Store, exports: Path) -> None:
    store.create_project("whole", decimals=0)
    summary = bring(store, exports, "whole")
    said = {skipped.place: skipped.reason for skipped in summary.skipped}
    assert "more than the 0 decimals" in said["run pretraining (neptune:team/language models/a-leaf)"]
    assert said["run pretraining, metric 'loss'"] == "2 points whose steps do not fit a project with 0 decimals"


def test_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no Parquet files; name neptune-exporter's --data-path"):
        list(read_neptune(tmp_path))


def test_the_model_registry_is_no_run(store: Store, exports: Path) -> None:
    scope = exports / "data" / FOLDER / "models"
    scope.mkdir()
    write(exports / "data", "m", about("m")).rename(scope / "m_part_0.parquet")
    bring(store, exports / "data", "lm")
    assert set(ids(store)) == {"a-leaf", "b-child", "c-root"}
