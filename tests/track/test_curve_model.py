"""Random histories of runs, forks, rewinds and compactions, compared with a model made of plain dicts."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thalweg.track import compaction, curves, series
from thalweg.track.store import Store

METRICS = ("a", "b")
Curve = dict[int, float]


@dataclass(eq=False)
class ModelRun:
    """What a run has written and still shows, and what it inherits."""

    parent: ModelRun | None = None
    fork: int = 0
    own: dict[str, Curve] = field(default_factory=lambda: {metric: {} for metric in METRICS})
    children: list[ModelRun] = field(default_factory=list)
    was_cut: bool = False
    frozen: dict[str, Curve] | None = None
    """The parent's own points as they were before the parent was rewound to before this fork."""

    def cut(self, position: int) -> None:
        self.was_cut = True
        for child in self.children:
            if position < child.fork and child.frozen is None:
                child.frozen = {metric: dict(curve) for metric, curve in self.own.items()}
        for curve in self.own.values():
            for place in [place for place in curve if place > position]:
                del curve[place]

    def delete(self) -> None:
        """Its children keep what they had from it."""
        ancestors = self.ancestors()
        to_root = not ancestors or any(ancestor.was_cut for ancestor in ancestors)
        for child in self.children:
            kept = {metric: child.inherited(metric) for metric in METRICS}
            if not to_root:
                from_it = self.own if child.frozen is None else child.frozen
                kept = {m: {p: v for p, v in from_it[m].items() if p <= child.fork} for m in METRICS}
            child.own = {metric: kept[metric] | child.own[metric] for metric in METRICS}
            for grandchild in child.children:
                if grandchild.frozen is not None:
                    grandchild.frozen = {metric: kept[metric] | grandchild.frozen[metric] for metric in METRICS}
            child.parent = None if to_root else self.parent
            child.fork = 0 if to_root else min(child.fork, self.fork)
            child.frozen = None if to_root else self.frozen
            if child.parent is not None:
                child.parent.children.append(child)
        if self.parent is not None:
            self.parent.children.remove(self)

    def ancestors(self) -> list[ModelRun]:
        return [] if self.parent is None else [self.parent, *self.parent.ancestors()]

    def inherited(self, metric: str) -> Curve:
        if self.parent is None:
            return {}
        of_parent = self.parent.own if self.frozen is None else self.frozen
        return {
            place: value
            for place, value in (self.parent.inherited(metric) | of_parent[metric]).items()
            if place <= self.fork
        }

    def curve(self, metric: str) -> Curve:
        return self.inherited(metric) | self.own[metric]


# Few positions, so that histories write them again and again.
positions = st.integers(0, 12)
values = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
which = st.integers(0, 2)
metric_values = st.dictionaries(st.sampled_from(METRICS), values, min_size=1)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("log"), which, positions, metric_values),
        st.tuples(st.just("climb"), which, positions, metric_values),
        st.tuples(st.just("fork"), which, positions),
        st.tuples(st.just("cut"), which, positions),
        st.tuples(st.just("delete"), which),
        st.tuples(st.just("flush"), which),
        st.tuples(st.just("compact"), which),
    ),
    min_size=8,
    max_size=30,
)


@pytest.fixture(scope="module")
def small_chunks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store whose chunks hold 8 points, in blocks of 2, so that short histories fill many."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (series, compaction):
            patch.setattr(module, "CHUNK_POINTS", 8)
        for module in (series, curves):
            patch.setattr(module, "BLOCK_POINTS", 2)
        patch.setattr(curves, "_BLOCKS_PER_BUCKET", 1)
        with Store.open(tmp_path_factory.mktemp("model") / "thalweg.db") as store:
            yield store
            assert store.check_integrity() == []


def play(store: Store, study: str, history: list[Any], writers: ExitStack) -> dict[str, ModelRun]:
    """Carry a history out in the store and in the model; returns the model's runs by id."""

    def create(**fork: Any) -> str:
        run = store.create_run(study, hyperparameters={}, horizon=1, until=1, seed=0, origin="hand", **fork)
        opened[run.id] = writers.enter_context(store.writer(run.id))
        return run.id

    opened: dict[str, Any] = {}
    runs = {create(): ModelRun()}
    for name, index, *arguments in history:
        run_id = list(runs)[index % len(runs)]
        run = runs[run_id]
        match name, arguments:
            case "log", (position, metrics):
                opened[run_id].log(position, metrics)
                for metric, value in metrics.items():
                    run.own[metric][position] = value
            case "climb", (position, metrics):
                for place in range(position, position + 9):
                    opened[run_id].log(place, metrics)
                    for metric, value in metrics.items():
                        run.own[metric][place] = value
            case "fork", (position,):
                # A fork is made where there is a checkpoint, and a checkpoint commits.
                opened[run_id].flush()
                child = ModelRun(parent=run, fork=position)
                run.children.append(child)
                runs[create(parent=run_id, fork_position=position)] = child
            case "cut", (position,):
                # A run cannot be rewound to before its own beginning.
                store.cut(run_id, max(position, run.fork))
                run.cut(max(position, run.fork))
            case "delete", []:
                if len(runs) > 1:
                    # What is copied is what is committed.
                    for writer in opened.values():
                        writer.flush()
                    opened.pop(run_id).close()
                    store.delete_run(run_id, materialise=True)
                    del runs[run_id]
                    run.delete()
            case "flush", []:
                opened[run_id].flush()
            case "compact", []:
                opened[run_id].flush()
                store.compact(run_id)
    for writer in opened.values():
        writer.flush()
    return runs


def bits(curve: Curve) -> dict[int, bytes]:
    return {place: struct.pack("<d", value) for place, value in sorted(curve.items())}


def check_reduced(store: Store, run_id: str, metric: str, curve: Curve, num_buckets: int) -> None:
    reduced = store.reduced(run_id, metric, num_buckets=num_buckets)
    assert len(reduced) <= num_buckets
    assert int(reduced.num_points.sum()) == len(curve)
    assert (reduced.first_position[1:] > reduced.last_position[:-1]).all()
    for i in range(len(reduced)):
        inside = [v for p, v in curve.items() if reduced.first_position[i] <= p <= reduced.last_position[i]]
        finite = [value for value in inside if math.isfinite(value)]
        assert (len(inside), len(inside) - len(finite)) == (reduced.num_points[i], reduced.num_nonfinite[i])
        if finite:
            assert (reduced.min[i], reduced.max[i]) == (min(finite), max(finite))
        else:
            assert math.isnan(reduced.min[i])
            assert math.isnan(reduced.max[i])


_studies = iter(range(10**9))


@given(history=operations, num_buckets=st.integers(1, 8))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_reads_as_the_model_says(small_chunks: Store, history: list[Any], num_buckets: int) -> None:
    store, study = small_chunks, f"study {next(_studies)}"
    store.create_study(study, {})
    with ExitStack() as writers:
        runs = play(store, study, history, writers)
        compare(store, runs, num_buckets)
    for run_id in runs:
        store.compact(run_id)
    compare(store, runs, num_buckets)


def compare(store: Store, runs: dict[str, ModelRun], num_buckets: int) -> None:
    for run_id, run in runs.items():
        shown = [metric for metric in METRICS if run.curve(metric)]
        assert store.metrics(run_id) == shown
        assert store.metrics(run_id, inherited=False) == [metric for metric in METRICS if run.own[metric]]
        for metric in METRICS:
            whole, own = store.series(run_id, metric), store.series(run_id, metric, inherited=False)
            expected = run.curve(metric)
            assert bits(dict(zip(whole.positions.tolist(), whole.values.tolist(), strict=True))) == bits(expected)
            assert whole.positions.tolist() == sorted(expected)
            assert bits(dict(zip(own.positions.tolist(), own.values.tolist(), strict=True))) == bits(run.own[metric])
            is_own = [position in run.own[metric] for position in whole.positions.tolist()]
            assert [whole.runs[owner] == run_id for owner in whole.owners] == is_own
            check_reduced(store, run_id, metric, expected, num_buckets)
