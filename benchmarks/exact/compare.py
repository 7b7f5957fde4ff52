"""Everything that a run left in its store and its last checkpoint, and what of it differs from another run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.track.store import Store
from thalweg.train import checkpoint


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A run as it is stored."""

    facts: Mapping[str, Any]
    """Status, position, horizon, hyperparameters, seed."""
    reports: Mapping[int, Mapping[str, str]]
    curves: Mapping[str, Mapping[int, bytes]]
    """Metric -> position -> the bytes of its float64 value."""
    state: Mapping[str, tuple[str, str]]
    """Place in the last checkpoint -> what is there, and the sha256 of its bytes."""
    tests: Any
    problems: tuple[str, ...]
    """What the store's own check found."""


@dataclass
class Comparison:
    """What came of comparing two snapshots."""

    num_points: int = 0
    """Points of the expected curves."""
    num_lost: int = 0
    """Those that the other run does not have."""
    num_values_in_checkpoint: int = 0
    """Tensors, arrays and plain values of the last checkpoint."""
    differences: list[str] = field(default_factory=list)

    def __iadd__(self, other: Comparison) -> Comparison:
        self.num_points += other.num_points
        self.num_lost += other.num_lost
        self.num_values_in_checkpoint += other.num_values_in_checkpoint
        self.differences += other.differences
        return self


def snapshot(location: Path, run_id: str) -> Snapshot:
    """Read a run. Its curves are its lineage's: those of a fork begin with its parent's."""
    with Store.open(location, read_only=True) as store:
        run = store.read_run(run_id)
        curves = {}
        for metric in store.metrics(run_id):
            series = store.series(run_id, metric)
            values = np.asarray(series.values, dtype=np.float64)
            curves[metric] = {int(p): v.tobytes() for p, v in zip(series.positions, values, strict=True)}
            assert len(curves[metric]) == len(series.positions), "a position came twice"
        record = store.checkpoints(run_id)[-1]
        tests = store.read_tests(store.run_study(run_id)).get(run_id)
        problems = tuple(store.check_integrity())
    state = checkpoint.read(Path(record.folder), record.digest)
    leaves = {"position": ("int", str(record.position)), **dict(_leaves(state, "state"))}
    names = ("status", "position", "horizon", "until", "seed", "hyperparameters", "error")
    return Snapshot(
        facts={name: getattr(run, name) for name in names},
        reports={r.position: {name: float(value).hex() for name, value in r.metrics.items()} for r in run.reports},
        curves=curves,
        state=leaves,
        tests=repr(tests),
        problems=problems,
    )


def compare(expected: Snapshot, found: Snapshot, *, fork_position: int = -1) -> Comparison:
    """Count what differs.

    Args:
        fork_position: where `found` was forked from `expected`: it has no reports of its own up to there, and no test.
    """
    result = Comparison(num_values_in_checkpoint=len(expected.state))
    for metric, curve in expected.curves.items():
        other = found.curves.get(metric, {})
        result.num_points += len(curve)
        result.num_lost += len(curve.keys() - other.keys())
        result.differences += [f"{metric} at {p}" for p in curve.keys() & other.keys() if curve[p] != other[p]]
    for metric, curve in found.curves.items():
        extra = curve.keys() - expected.curves.get(metric, {}).keys()
        result.differences += [f"{metric} at {p}: not in the expected curve" for p in sorted(extra)]
    reports = {position: metrics for position, metrics in expected.reports.items() if position > fork_position}
    result.differences += _unequal("report", reports, found.reports)
    result.differences += _unequal("run", expected.facts, found.facts)
    result.differences += _unequal("checkpoint", expected.state, found.state)
    if fork_position < 0:
        result.differences += _unequal("test", {"result": expected.tests}, {"result": found.tests})
    result.differences += found.problems
    return result


def _unequal(what: str, expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> list[str]:
    missing = object()
    keys = {**expected, **found}
    return [f"{what}: {key}" for key in keys if expected.get(key, missing) != found.get(key, missing)]


def _leaves(value: Any, place: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each tensor, array and plain value of a state, with its place."""
    if isinstance(value, Mapping):
        yield place, ("mapping", str(len(value)))
        for key, item in value.items():
            yield from _leaves(item, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        yield place, (type(value).__name__, str(len(value)))
        for i, item in enumerate(value):
            yield from _leaves(item, f"{place}[{i}]")
    elif isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        yield place, (f"array {array.dtype} {array.shape}", hashlib.sha256(array.tobytes()).hexdigest())
    elif hasattr(value, "untyped_storage"):
        import torch

        data = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield place, (f"tensor {value.dtype} {tuple(value.shape)}", hashlib.sha256(data).hexdigest())
    else:
        yield place, (type(value).__name__, value.hex() if isinstance(value, float) else repr(value))
