"""`thalweg import tensorboard`: event files of real writers, whole, damaged and cut off."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util.tensor_util import make_tensor_proto

from thalweg.errors import ConfigError
from thalweg.track.store import Store
from thalweg.track.transfer.bring_in import Summary, bring_in
from thalweg.track.transfer.read_tensorboard import read_tensorboard

START = 1_700_000_000.25


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store" / "store.db") as opened:
        yield opened


def bring(store: Store, logdir: Path, project: str | None = None) -> Summary:
    return bring_in(store, read_tensorboard(logdir), project=project)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def event(step: int, **values: float) -> Event:
    found = Event(wall_time=START + step, step=step)
    for tag, value in values.items():
        found.summary.value.add(tag=tag, simple_value=value)
    return found


def write(folder: Path, events: list[Event], name: str = "events.out.tfevents.1700000000.host.1.0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    first = Event(wall_time=START, file_version="brain.Event:2")
    path = folder / name
    path.write_bytes(b"".join(record(found.SerializeToString()) for found in [first, *events]))
    return path


def curve(store: Store, run: str, metric: str) -> dict[int, float]:
    found = store.series(run, metric)
    return {at // 10**6: value for at, value in zip(found.positions.tolist(), found.values.tolist(), strict=True)}


def writer(logdir: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        # torch's package looks at an attribute of tensorboard's that is being taken away.
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(logdir), **options)


def test_every_point_of_a_torch_writer_comes_in(store: Store, tmp_path: Path) -> None:
    # More than the 10,000 that TensorBoard itself keeps of a tag.
    log = writer(tmp_path / "logs" / "a" / "b")
    values = np.sin(np.arange(12_000)).astype(np.float32)
    for step, value in enumerate(values):
        log.add_scalar("train/loss", value, step)
    log.add_scalar("odd", math.nan, 10**12)
    log.add_scalar("odd", -math.inf, 3)
    log.add_scalar("new style", 2.5, 7, new_style=True)
    log.add_text("about", "näme", 2)
    log.add_histogram("weights", np.arange(4.0), 1)
    log.close()
    summary = bring(store, tmp_path / "logs")
    assert list(summary.projects) == ["logs"]
    assert summary.num_points == 12_003
    [row] = store.run_rows("logs")
    assert (row.name, row.status) == ("a/b", "finished")
    assert store.series(row.id, "train/loss").values.tolist() == values.astype(np.float64).tolist()
    odd = store.series(row.id, "odd")
    assert odd.positions.tolist() == [3 * 10**6, 10**18]
    assert np.array_equal(odd.values, [-math.inf, math.nan], equal_nan=True)
    assert curve(store, row.id, "new style") == {7: 2.5}
    [text] = store.files(row.id)
    assert text.name == "about/text_summary.txt"
    assert text.path.read_text("utf-8").endswith("\tnäme\n")
    assert [(skipped.place, skipped.reason) for skipped in summary.skipped] == [
        ("run a/b", "1 of kind 'histo': only scalars and texts come over")
    ]


def test_hyperparameters_join_the_run_that_they_belong_to(store: Store, tmp_path: Path) -> None:
    log = writer(tmp_path / "logs" / "run")
    log.add_scalar("loss", 0.5, 1)
    log.add_hparams({"lr": 0.1, "layers": 3, "adam": True, "name": "näme"}, {"best": 0.25})
    log.close()
    bring(store, tmp_path / "logs")
    [row] = store.run_rows("logs")
    assert row.hyperparameters == {"lr": 0.1, "layers": 3, "adam": True, "name": "näme"}
    assert isinstance(row.hyperparameters["layers"], int)
    assert curve(store, row.id, "loss") == {1: 0.5}
    assert curve(store, row.id, "best") == {0: 0.25}


def test_tensor_scalars_need_their_plugin_only_once(store: Store, tmp_path: Path) -> None:
    def of(step: int, value: Any, *, first: bool, plugin: str = "scalars") -> Event:
        found = Event(wall_time=START, step=step)
        entry = found.summary.value.add(tag=plugin, tensor=make_tensor_proto(np.asarray(value)))
        if first:
            entry.metadata.plugin_data.plugin_name = plugin
        return found

    events = [of(1, np.float32(0.5), first=True), of(2, np.float64(1e300), first=False), of(3, 7, first=False)]
    events += [of(1, [[1, 2]], first=True, plugin="histograms"), of(2, [3.0], first=False, plugin="histograms")]
    write(tmp_path / "logs" / "r", events)
    summary = bring(store, tmp_path / "logs")
    assert curve(store, "logs-0", "scalars") == {1: 0.5, 2: 1e300, 3: 7.0}
    assert store.metrics("logs-0") == ["scalars"]
    assert summary.skipped[0].reason == "2 of kind 'histograms': only scalars and texts come over"


def test_a_restart_overlaps_and_the_later_file_wins(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "r"
    write(folder, [event(step, loss=1.0) for step in range(6)], "events.out.tfevents.1700000000.h")
    write(folder, [event(step, loss=2.0) for step in (4, 5, 6)], "events.out.tfevents.1700000009.h")
    summary = bring(store, tmp_path / "logs")
    assert curve(store, "logs-0", "loss") == {0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2}
    assert (summary.num_points, summary.num_replaced) == (7, 2)
    assert bring(store, tmp_path / "logs").num_points == 0


def test_a_writer_that_begins_again_voids_what_came_after(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "logs" / "r", [event(step, loss=1.0) for step in range(6)], "events.out.tfevents.1.h")
    log = writer(tmp_path / "logs" / "r", purge_step=3)
    log.add_scalar("loss", 2.0, 3)
    log.close()
    summary = bring(store, tmp_path / "logs")
    assert curve(store, "logs-0", "loss") == {0: 1, 1: 1, 2: 1, 3: 2}
    assert summary.skipped[0].reason.startswith("3 points from step 3 on")


def test_the_same_again_changes_nothing_and_what_has_grown_is_added(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "logs" / "r", [event(1, loss=1.0), event(1, loss=1.5), event(2, loss=2.0)])
    bring(store, tmp_path / "logs")
    before = store.run_rows("logs")
    assert bring(store, tmp_path / "logs").projects["logs"].unchanged == ["logs-0"]
    assert store.run_rows("logs") == before
    with path.open("ab") as stream:
        stream.write(record(event(3, loss=3.0).SerializeToString()))
    # The folder above it may have moved.
    (tmp_path / "logs").rename(tmp_path / "moved")
    grown = bring(store, tmp_path / "moved", "logs")
    assert (grown.projects["logs"].updated, grown.num_points) == (["logs-0"], 1)
    assert curve(store, "logs-0", "loss") == {1: 1.5, 2: 2.0, 3: 3.0}


def test_runs_of_one_name_are_told_apart(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "logs" / "a" / "train", [event(1, loss=1.0)], "events.out.tfevents.1.h")
    write(tmp_path / "logs" / "b" / "train", [event(1, loss=2.0)], "events.out.tfevents.2.h")
    write(tmp_path / "logs", [event(1, loss=3.0)], "events.out.tfevents.3.h")
    bring(store, tmp_path / "logs")
    found = {row.name: curve(store, row.id, "loss")[1] for row in store.run_rows("logs")}
    assert found == {"logs": 3.0, "a/train": 1.0, "b/train": 2.0}


def test_a_file_cut_off_anywhere_gives_what_is_whole_and_says_so(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "logs" / "r", [event(step, loss=float(step)) for step in range(3)])
    content = path.read_bytes()
    ends = []
    at = 0
    while at < len(content):
        at += 16 + struct.unpack("<Q", content[at : at + 8])[0]
        ends.append(at)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        records = list(read_tensorboard(tmp_path / "logs"))
        whole = sum(end <= size for end in ends)
        points = [float(value) for found in records if hasattr(found, "values") for value in found.values]
        assert points == [float(step) for step in range(whole - 1)]
        problems = [found for found in records if hasattr(found, "reason")]
        begin = max([end for end in ends if end <= size], default=0)
        assert [found.place for found in problems] == ([] if size in (0, *ends) else [f"{path}, byte {begin}"])


@pytest.mark.parametrize("part", ["length", "data"])
def test_a_damaged_record_is_said_with_its_place(store: Store, tmp_path: Path, part: str) -> None:
    path = write(tmp_path / "logs" / "r", [event(step, loss=float(step)) for step in range(3)])
    content = bytearray(path.read_bytes())
    second = 16 + struct.unpack("<Q", content[:8])[0]
    content[second if part == "length" else second + 14] ^= 1
    path.write_bytes(content)
    summary = bring(store, tmp_path / "logs")
    assert [skipped.place for skipped in summary.skipped] == [f"{path}, byte {second}"]
    if part == "data":
        assert curve(store, "logs-0", "loss") == {1: 1.0, 2: 2.0}
    else:
        # Nothing tells where the next record begins.
        assert store.metrics("logs-0") == []
        assert "damaged from here to the end" in summary.skipped[0].reason


def test_steps_that_do_not_fit_are_said(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "logs" / "r", [event(-1, loss=0.0), event(2**62, loss=1.0), event(5, loss=2.0)])
    summary = bring(store, tmp_path / "logs")
    assert curve(store, "logs-0", "loss") == {5: 2.0}
    assert sorted(skipped.reason for skipped in summary.skipped) == [
        "1 points at negative steps, down to -1",
        "1 points whose steps do not fit a project with 6 decimals",
    ]


def test_no_event_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no TensorBoard event files"):
        list(read_tensorboard(tmp_path))


def test_an_unreadable_event_is_passed_over(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "logs" / "r", [event(1, loss=1.0)])
    offset = path.stat().st_size
    with path.open("ab") as stream:
        stream.write(record(b"\xff\xff\xff") + record(event(2, loss=2.0).SerializeToString()))
    summary = bring(store, tmp_path / "logs")
    assert curve(store, "logs-0", "loss") == {1: 1.0, 2: 2.0}
    assert summary.skipped[0].place == f"{path}, byte {offset}"
