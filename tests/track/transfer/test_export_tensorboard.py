"""Event files, read by TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as crc_of_tensorboard

from thalweg.errors import ConfigError
from thalweg.track.positions import to_position
from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.track.transfer import write_tensorboard as module
from thalweg.track.transfer.write_selection import Exported, select
from thalweg.track.transfer.write_tensorboard import masked_crc32c, write_tensorboard

NOON = 1_700_000_000_000


def add(store: Store, run: str, metric: str, points: dict[Any, float]) -> None:
    positions = np.array([to_position(step, 6) for step in points], np.int64)
    times = NOON + np.arange(len(points), dtype=np.int64)
    store.import_points(run, metric, positions, times, np.array(list(points.values()), float))


@pytest.fixture
def project(store: Store) -> Store:
    store.create_project("p")
    store.track_run("p", NewRun(uid="a", created=NOON / 1000))
    store.track_run("p", NewRun(uid="b", parent="a", fork_position=1_000_000, created=NOON / 1000))
    add(store, "p-0", "loss", {0: 1.5, 1: math.nan, 2: 3.5})
    add(store, "p-1", "loss", {127: -0.0, 128: math.inf, 16384: 0.5})
    add(store, "p-1", "µ/'x' 😀", {9_000_000_000_000: 1.0})
    return store


def export(store: Store, out: Path, multiply: int = 1, **options: Any) -> Exported:
    return write_tensorboard(select(store, "p", **options), out, lambda done: None, multiply=multiply)


def scalars(folder: Path) -> dict[str, list[tuple[float, int, float]]]:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.wall_time, event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def test_what_tensorboard_reads(project: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_EVENTS", 2)
    exported = export(project, tmp_path / "out")
    assert (exported.runs, exported.points, exported.metrics) == (2, 9, {"loss", "µ/'x' 😀"})
    assert repr(scalars(tmp_path / "out" / "p-0")) == repr(
        {"loss": [(NOON / 1000, 0, 1.5), (NOON / 1000 + 0.001, 1, math.nan), (NOON / 1000 + 0.002, 2, 3.5)]}
    )
    # A fork's curve begins with what it inherits.
    found = scalars(tmp_path / "out" / "p-1")
    assert repr([point[1:] for point in found["loss"]]) == repr(
        [(0, 1.5), (1, math.nan), (127, -0.0), (128, math.inf), (16384, 0.5)]
    )
    assert found["µ/'x' 😀"] == [(NOON / 1000, 9_000_000_000_000, 1.0)]


def test_float32_is_said(project: Store, tmp_path: Path) -> None:
    assert not any("float32" in sentence for sentence in export(project, tmp_path / "out").left_out)
    add(project, "p-0", "tenth", {0: 0.1, 1: 0.25, 2: 1e308})
    sentences = export(project, tmp_path / "out").left_out
    # Two of p-0, and the first of them once more in p-1.
    assert "values are rounded to TensorBoard's float32: 3. Parquet and CSV keep them exactly" in sentences
    (_, _, tenth), _, (_, _, huge) = scalars(tmp_path / "out" / "p-0")["tenth"]
    assert (tenth, huge) == (float(np.float32(0.1)), math.inf)


def test_fractional_steps(project: Store, tmp_path: Path) -> None:
    add(project, "p-1", "half", {2.5: 1.0, 3: 2.0})
    message = (
        r"run p-1 has 'half' at step 2\.5, but steps in TensorBoard are whole numbers\."
        r" Multiply them \(--multiply-steps 1000000\), or export to parquet or csv"
    )
    with pytest.raises(ConfigError, match=message):
        export(project, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    add(project, "p-1", "system/cpu", {"0.000250": 1.0})
    exported = export(project, tmp_path / "out", multiply=2, metrics=["half", "system/*"])
    assert "steps are multiplied by 2" in exported.left_out
    found = scalars(tmp_path / "out" / "p-1")
    assert [step for _, step, _ in found["half"]] == [5, 6]
    # Milliseconds are whole already.
    assert [step for _, step, _ in found["system/cpu"]] == [250]
    with pytest.raises(ConfigError, match=r"run p-1: the steps of .* times 2000000, are too large for TensorBoard"):
        export(project, tmp_path / "out", multiply=2_000_000)
    for wrong in (0, -1, 10**10):
        with pytest.raises(ConfigError, match=rf"--multiply-steps {wrong} must be a whole number from 1"):
            export(project, tmp_path / "out", multiply=wrong)


def test_twice_is_once(project: Store, tmp_path: Path) -> None:
    export(project, tmp_path / "out")
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("events*")}
    assert [path.parent.name for path in sorted(files)] == ["p-0", "p-1"]
    export(project, tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("events*")} == files
    export(project, tmp_path / "out", runs=["p-0"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"p-0", "thalweg-export.json"}


def test_a_run_without_points_is_a_readable_file(store: Store, tmp_path: Path) -> None:
    store.create_project("p")
    store.track_run("p", NewRun(uid="a", created=5.0))
    export(store, tmp_path / "out")
    (path,) = (tmp_path / "out" / "p-0").iterdir()
    (first,) = LegacyEventFileLoader(str(path)).Load()
    assert (first.wall_time, first.file_version) == (5.0, "brain.Event:2")


@given(st.binary(min_size=1, max_size=300))
def test_checksums_are_tensorboards(text: bytes) -> None:
    columns = np.frombuffer(text, np.uint8)[:, None]
    (found,) = masked_crc32c(columns).tolist()
    assert found == int(crc_of_tensorboard(text))
