"""`thalweg import wandb`: files that the real client wrote offline, and files written here block by block."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wandb.proto.wandb_internal_pb2 import HistoryRecord, Record, RunExitRecord, RunRecord

from thalweg.errors import ConfigError
from thalweg.track.store import Store
from thalweg.track.transfer.bring_in import Summary, bring_in
from thalweg.track.transfer.incoming import Skipped
from thalweg.track.transfer.read_wandb import _records, read_wandb

SCRIPT = """
import math, sys
import wandb
settings = wandb.Settings(x_stats_sampling_interval=0.2, silent=True)
run = wandb.init(project="näme one", mode="offline", id="aaaa0001", name="first <b>", group="g", tags=["good", "näme"],
                 notes="a note", config={"lr": 3e-4, "model": {"layers": 2, "names": ["a"]}}, settings=settings)
for step, loss in enumerate([0.1, 1e308, math.nan, math.inf, -0.0]):
    run.log({"train": {"loss": loss}, "seen": 2**53, "done": step == 4, "text": "no number"}, step=step * 10)
run.log({"h": wandb.Histogram([1, 2, 3])}, step=50)
run.config.update({"late": 1})
run.summary["best"] = 0.1
with open(run.dir + "/extra.txt", "w") as file:
    file.write("kept")
run.finish(exit_code=3)
run = wandb.init(project="näme one", mode="offline", fork_from="aaaa0001?_step=10", config={"lr": 1e-3})
run.log({"train": {"loss": 7.0}})
run.finish()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the client leaves behind: a run with all kinds of things, and a fork of it."""
    place = tmp_path_factory.mktemp("wandb-runs")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_DIR": str(place)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place / "wandb"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store" / "store.db") as opened:
        yield opened


def bring(store: Store, folder: Path, project: str | None = None) -> Summary:
    return bring_in(store, read_wandb(folder), project=project)


def test_a_run_of_the_real_client_comes_in_whole(store: Store, folder: Path) -> None:
    summary = bring(store, folder)
    assert list(summary.projects) == ["näme one"]
    parent = next(row for row in store.run_rows("näme one") if row.uid == "wandb:näme one/aaaa0001")
    assert (parent.name, parent.status, parent.tags) == ("first <b>", "failed", ("good", "näme"))
    assert parent.hyperparameters == {"lr": 3e-4, "model/layers": 2, "model/names": ["a"], "late": 1}
    loss = store.series(parent.id, "train/loss")
    assert loss.positions.tolist() == [step * 10**7 for step in range(5)]
    expected = [0.1, 1e308, math.nan, math.inf, -0.0]
    assert [value.hex() for value in loss.values.tolist()] == [value.hex() for value in expected]
    assert store.series(parent.id, "seen").values.tolist() == [2.0**53] * 5
    assert store.series(parent.id, "done").values.tolist() == [0, 0, 0, 0, 1]
    details = store.run_details(parent.id)
    assert [note.text for note in details.notes] == ["a note"]
    assert details.facts["summary/best"] == 0.1
    assert details.facts["wandb/group"] == "g"
    assert details.row.error == "exit code 3"
    assert "extra.txt" in {file.name for file in details.files}
    reasons = {skipped.reason for skipped in summary.skipped}
    assert "1 times histogram of 'h': only numbers come over" in reasons
    assert "5 times value of 'text' that is no number: only numbers come over" in reasons
    assert store.check_integrity() == []


def test_a_fork_stays_a_fork(store: Store, folder: Path) -> None:
    bring(store, folder)
    parent, child = sorted(store.run_rows("näme one"), key=lambda row: row.fork_position)
    assert (child.parent, child.fork_position, child.status) == (parent.id, 10 * 10**6, "finished")
    curve = store.series(child.id, "train/loss")
    assert curve.positions.tolist() == [0, 10**7, 11 * 10**6]
    assert curve.values.tolist() == [0.1, 1e308, 7.0]


def test_the_machine_is_told_by_time(store: Store, folder: Path) -> None:
    bring(store, folder)
    run = next(row for row in store.run_rows("näme one") if row.name == "first <b>")
    curve = store.series(run.id, "system/proc.memory.rssMB")
    assert len(curve) > 0
    # Milliseconds of a run that took some seconds.
    assert 0 <= curve.positions[0] <= curve.positions[-1] < 120_000


def test_the_same_again_changes_nothing(store: Store, folder: Path) -> None:
    first = bring(store, folder)
    before = store.run_rows("näme one")
    again = bring(store, folder)
    assert len(first.projects["näme one"].new) == 2
    assert again.projects["näme one"].unchanged == first.projects["näme one"].new
    assert (again.num_points, again.num_files) == (0, 0)
    assert store.run_rows("näme one") == before


# Files that are written here.


def frame(records: Sequence[bytes]) -> bytes:
    """LevelDB's log format, by its description: fragments with checksum, length and kind in blocks of 32 KiB."""
    content = bytearray(struct.pack("<4sHB", b":W&B", 0xBEE1, 0))
    for record in records:
        rest, first = record, True
        while first or rest:
            room = 32_768 - len(content) % 32_768
            if room < 7:
                content += bytes(room)
                continue
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not rest]
            content += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return bytes(content)


def history(step: int, **values: Any) -> bytes:
    items = HistoryRecord(step={"num": step})
    for key, text in values.items():
        items.item.add(nested_key=[key], value_json=str(text))
    items.item.add(nested_key=["_timestamp"], value_json=str(1_700_000_000 + step))
    return bytes(Record(history=items).SerializeToString())


def begin(run_id: str = "r1", **fields: Any) -> bytes:
    return bytes(Record(run=RunRecord(run_id=run_id, project="p", **fields)).SerializeToString())


def exit_with(code: int) -> bytes:
    return bytes(Record(exit=RunExitRecord(exit_code=code)).SerializeToString())


def write(folder: Path, when: str, records: Sequence[bytes], run_id: str = "r1") -> Path:
    path = folder / f"offline-run-{when}-{run_id}" / f"run-{run_id}.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(frame(records))
    return path


def curve(store: Store, run: str, metric: str = "loss") -> dict[int, float]:
    found = store.series(run, metric)
    return {at // 10**6: value for at, value in zip(found.positions.tolist(), found.values.tolist(), strict=True)}


def test_a_resumed_run_is_one_and_the_later_file_wins(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "wandb", "20260101_000000", [begin(), *(history(i, loss=1.0) for i in range(4)), exit_with(1)])
    bring(store, tmp_path / "wandb")
    assert store.run_rows("p")[0].status == "failed"
    later = [begin(tags=["late"]), history(3, loss=2.0), history(4, loss=2.0), exit_with(0)]
    write(tmp_path / "wandb", "20260102_000000", later)
    summary = bring(store, tmp_path / "wandb")
    assert summary.projects["p"].updated == ["p-0"]
    assert curve(store, "p-0") == {0: 1, 1: 1, 2: 1, 3: 2, 4: 2}
    assert store.run_rows("p")[0].tags == ("late",)


def test_a_rewind_voids_what_came_after(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "wandb", "20260101_000000", [begin(), *(history(i, loss=1.0) for i in range(6))])
    rewound = begin(branch_point={"run": "r1", "value": 2, "metric": "_step"})
    write(tmp_path / "wandb", "20260102_000000", [rewound, history(3, loss=2.0), exit_with(0)])
    summary = bring(store, tmp_path / "wandb")
    assert curve(store, "p-0") == {0: 1, 1: 1, 2: 1, 3: 2}
    assert summary.skipped[0].reason == "3 points past step 2: the run was rewound to there"
    assert store.run_rows("p")[0].parent is None


def test_a_run_without_an_end_is_shown_as_crashed_until_it_has_one(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "wandb", "20260101_000000", [begin(), history(1, loss=1.0)])
    bring(store, tmp_path / "wandb")
    assert store.run_rows("p")[0].status == "crashed"
    path.write_bytes(frame([begin(), history(1, loss=1.0), history(2, loss=0.5), exit_with(0)]))
    summary = bring(store, tmp_path / "wandb")
    assert (summary.projects["p"].updated, summary.num_points) == (["p-0"], 1)
    assert store.run_rows("p")[0].status == "finished"


def test_damage_costs_a_block_and_is_said_with_its_place(store: Store, tmp_path: Path) -> None:
    padding = '"' + "x" * 3000 + '"'
    records = [begin(), *(history(i, loss=i, text=padding) for i in range(40)), exit_with(0)]
    path = write(tmp_path / "wandb", "20260101_000000", records)
    content = bytearray(path.read_bytes())
    content[40_000] ^= 1
    path.write_bytes(content)
    summary = bring(store, tmp_path / "wandb")
    [damage] = [skipped for skipped in summary.skipped if "damaged" in skipped.reason]
    place = int(damage.place.rpartition(" ")[2])
    assert 36_000 < place <= 40_000
    found = curve(store, "p-0")
    # Ten records or so fit into a block: those before the damage and after its block are there.
    assert len(found) >= 28
    assert {0, 39} <= set(found)
    assert all(step == value for step, value in found.items())


def test_what_is_no_wandb_file_is_said(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "wandb" / "offline-run-1-x" / "run-x.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    summary = bring(store, tmp_path / "wandb")
    assert [skipped.place for skipped in summary.skipped] == [str(path), str(path)]
    assert summary.projects == {}
    with pytest.raises(ConfigError, match=r"holds no \.wandb file"):
        list(read_wandb(tmp_path / "store"))


RECORDS = st.lists(st.binary(max_size=30) | st.integers(0, 70_000).map(lambda size: b"\xa5" * size), max_size=12)


@settings(max_examples=60, deadline=None)
@given(records=RECORDS, cut=st.floats(0, 1), whole=st.booleans())
def test_any_file_is_read_up_to_where_it_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], cut: float, whole: bool
) -> None:
    content = frame(records)
    size = len(content) if whole else round(cut * len(content))
    path = tmp_path_factory.getbasetemp() / "any.wandb"
    path.write_bytes(content[:size])
    skipped: list[Skipped] = []
    found = [data for _, data in _records(path, skipped)]
    ends = [len(frame(records[:num])) for num in range(len(records) + 1)]
    complete = [num for num, end in enumerate(ends) if end <= size]
    assert found == (records[: complete[-1]] if complete else [])
    lost = not complete or (size > ends[complete[-1]] and any(content[ends[complete[-1]] : size]))
    assert bool(skipped) == lost
