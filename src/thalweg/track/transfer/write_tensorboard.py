"""A project as TensorBoard event files: a folder per run, in which each metric is a scalar.

TensorBoard's scalars are float32: its format has float64 too, but its server shows nothing of those. What is rounded is
counted and said. The format is a few fields of two protocol buffers, whose records differ in nothing but time, step and
value: so thousands are made at once, without TensorBoard.

Source: tensorflow/core/util/event.proto, framework/summary.proto and lib/io/record_writer.h (Apache-2.0), for the
numbers of the fields and the form of a record.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg.track.query_points import ChosenRun, Curve, read_curves
from thalweg.track.series import Floats, Ints
from thalweg.track.transfer.write_folder import ExportFolder
from thalweg.track.transfer.write_selection import (
    Exported,
    Progress,
    Selection,
    check_steps,
    left_behind,
    whole_steps_of,
)

Bytes = NDArray[np.uint8]

BLOCK_EVENTS = 1 << 14
"""Events that are made at once."""

_FORM = "TensorBoard"

_POLYNOMIAL = 0x82F63B78
_CRC_MASK = 0xA282EAD8


def write_tensorboard(selection: Selection, out: str | Path, progress: Progress, *, multiply: int = 1) -> Exported:
    """Write a folder per run into a folder, or replace those of an earlier export.

    Args:
        multiply: what every step is multiplied with, for projects whose steps are no whole numbers.
    Raises:
        ConfigError: a step is no whole number, the folder holds something else, or no run has a metric that was asked
            for.
    """
    check_steps(selection, _FORM, multiply)
    exported, num_rounded = Exported(), 0
    names = [f"{run.row.id}/{_file_name(run)}" for run in selection.runs]
    with ExportFolder(out, project=selection.project, form="tensorboard", files=names) as folder:
        for done, (run, name) in enumerate(zip(selection.runs, names, strict=True)):
            progress(done)
            with folder.replace(name) as file:
                file.write(first_record(run.row.created))
                for curve in read_curves(selection.store, run, selection.metrics, inherited=selection.inherited):
                    for block in encoded(curve, multiply):
                        file.write(block)
                    num_rounded += _num_rounded(curve.values)
                    exported.points += len(curve)
                    exported.metrics.add(curve.metric)
            exported.runs += 1
        progress(len(selection.runs))
    exported.files = [str(folder.folder)]
    exported.left_out = left_behind(selection, *_sentences(num_rounded, multiply))
    return exported


def _sentences(num_rounded: int, multiply: int) -> list[str]:
    found = [f"steps are multiplied by {multiply:,}"] if multiply > 1 else []
    if num_rounded:
        found.append(f"values are rounded to TensorBoard's float32: {num_rounded:,}. Parquet and CSV keep them exactly")
    return [*found, "hyperparameters, tags and names stay in the store: TensorBoard gets the curves"]


def _as_float32(values: Floats) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return values.astype("<f4")


def _num_rounded(values: Floats) -> int:
    return int(((_as_float32(values) != values) & ~np.isnan(values)).sum())


def _file_name(run: ChosenRun) -> str:
    return f"events.out.tfevents.{int(run.row.created):010d}.thalweg"


def first_record(created: float) -> bytes:
    """The event that says which form the file has."""
    form = b"brain.Event:2"
    body = b"\x09" + np.array([created], "<f8").tobytes() + b"\x1a" + _sized(form)
    return records(np.frombuffer(body, np.uint8)[:, None])


def encoded(curve: Curve, multiply: int) -> Iterator[bytes]:
    """A curve's points as event records, in blocks."""
    steps = whole_steps_of(curve, _FORM, multiply)
    tag = curve.metric.encode()
    for start in range(0, len(curve), BLOCK_EVENTS):
        part = slice(start, start + BLOCK_EVENTS)
        yield _events(tag, curve.times_ms[part] / 1000.0, steps[part], _as_float32(curve.values[part]))


def _events(tag: bytes, times: Floats, steps: Ints, values: NDArray[np.float32]) -> bytes:
    """A record per point: Event{wall_time=1, step=2, summary=5: {value=1: {tag=1, simple_value=2}}}."""
    before = b"\x0a" + _sized(tag) + b"\x15"
    value = b"\x0a" + _varint(len(before) + 4) + before
    head = b"\x2a" + _varint(len(value) + 4) + value
    lengths = _varint_lengths(steps)
    # Steps rise, so that those that take as many bytes are neighbours.
    edges = np.flatnonzero(np.diff(lengths, prepend=-1, append=-1))
    made = []
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        num = last - first
        columns = [
            _constant(b"\x09", num),
            _bytes_of(times[first:last].astype("<f8")),
            _constant(b"\x10", num),
            _varints(steps[first:last], int(lengths[first])),
            _constant(head, num),
            _bytes_of(values[first:last]),
        ]
        made.append(records(np.concatenate(columns)))
    return b"".join(made)


def records(bodies: Bytes) -> bytes:
    """Records of one length: its size, the size's checksum, the body, the body's checksum.

    Args:
        bodies: uint8[size, n], a column per record.
    """
    size, num = bodies.shape
    length = np.frombuffer(size.to_bytes(8, "little"), np.uint8)[:, None]
    header = np.concatenate([length, _bytes_of(masked_crc32c(length))])
    rows = np.concatenate([np.repeat(header, num, axis=1), bodies, _bytes_of(masked_crc32c(bodies))])
    return rows.T.tobytes()


def masked_crc32c(columns: Bytes) -> NDArray[np.uint32]:
    """uint8[size, n] -> the checksum of each column, rotated and shifted as a record has it."""
    crc = np.full(columns.shape[1], 0xFFFFFFFF, np.uint32)
    for row in columns:
        crc = _CRC_TABLE[(crc ^ row) & 0xFF] ^ (crc >> np.uint32(8))
    crc = ~crc
    masked: NDArray[np.uint32] = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_CRC_MASK)
    return masked.astype("<u4")


def _crc_table() -> NDArray[np.uint32]:
    entries = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
        entries.append(byte)
    return np.array(entries, np.uint32)


_CRC_TABLE = _crc_table()


def _bytes_of(numbers: NDArray[np.generic]) -> Bytes:
    """[n] numbers -> uint8[bytes of each, n]."""
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), -1).T


def _constant(text: bytes, num: int) -> Bytes:
    return np.repeat(np.frombuffer(text, np.uint8)[:, None], num, axis=1)


def _varint_lengths(numbers: Ints) -> Ints:
    """How many bytes of seven bits each takes."""
    bounds = np.array([1 << (7 * i) for i in range(1, 9)], np.int64)
    return np.searchsorted(bounds, numbers, side="right") + 1


def _varints(numbers: Ints, length: int) -> Bytes:
    """Numbers that take `length` bytes each: uint8[length, n]."""
    rows = [((numbers >> (7 * i)) & 0x7F | (0x80 if i < length - 1 else 0)).astype(np.uint8) for i in range(length)]
    return np.stack(rows)


def _varint(number: int) -> bytes:
    return _varints(np.array([number], np.int64), int(_varint_lengths(np.array([number], np.int64))[0])).tobytes()


def _sized(text: bytes) -> bytes:
    return _varint(len(text)) + text
