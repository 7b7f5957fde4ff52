from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from thalweg.track import compaction, lineage, runs, schema
from thalweg.track.series import journal_layout
from thalweg.track.store import Store


def log(store: Store, run_id: str, points: dict[int, float], metric: str = "loss") -> None:
    with store.writer(run_id) as writer:
        for position, value in points.items():
            writer.log(position, {metric: value})


def curve(store: Store, run_id: str, **options: Any) -> dict[int, float]:
    series = store.series(run_id, "loss", **options)
    return dict(zip(series.positions.tolist(), series.values.tolist(), strict=True))


def test_a_child_inherits_up_to_and_including_the_fork(store: Store, new_run: Any) -> None:
    root = new_run()
    log(store, root.id, {10: 1.0, 20: 2.0, 30: 3.0})
    child = new_run(parent=root.id, at=20)
    assert curve(store, child.id) == {10: 1.0, 20: 2.0}
    log(store, child.id, {25: 2.5, 20: -2.0})
    series = store.series(child.id, "loss")
    assert curve(store, child.id) == {10: 1.0, 20: -2.0, 25: 2.5}
    assert [series.runs[owner] for owner in series.owners] == [root.id, child.id, child.id]
    assert (series.runs, series.fork_positions) == ((root.id, child.id), (0, 20))
    assert curve(store, child.id, inherited=False) == {20: -2.0, 25: 2.5}
    assert curve(store, root.id) == {10: 1.0, 20: 2.0, 30: 3.0}


def test_a_grandchild_that_forks_earlier_inherits_no_more_than_that(store: Store, new_run: Any) -> None:
    root = new_run()
    log(store, root.id, {10: 1.0, 20: 2.0, 30: 3.0})
    child = new_run(parent=root.id, at=30)
    grandchild = new_run(parent=child.id, at=10)
    assert curve(store, grandchild.id) == {10: 1.0}


def test_a_child_s_chunk_wins_over_its_parent_s_journal(store: Store, new_run: Any) -> None:
    root = new_run()
    log(store, root.id, {10: 1.0})
    child = new_run(parent=root.id, at=10)
    log(store, child.id, {10: -1.0})
    store.compact(child.id)
    assert curve(store, child.id) == {10: -1.0}
    store.compact(root.id)
    assert curve(store, child.id) == {10: -1.0}


def test_the_last_write_wins_before_and_after_each_compaction(store: Store, new_run: Any) -> None:
    run = new_run()
    for value in range(4):
        log(store, run.id, {10: float(value), 20 + value: 0.0})
        log(store, run.id, {10: value + 0.5})
        assert curve(store, run.id)[10] == value + 0.5
        store.compact(run.id)
        assert curve(store, run.id)[10] == value + 0.5
    assert list(curve(store, run.id)) == [10, 20, 21, 22, 23]


def test_metrics_of_ancestors_are_listed_only_where_visible(store: Store, new_run: Any) -> None:
    root = new_run()
    log(store, root.id, {10: 1.0}, "early")
    log(store, root.id, {50: 1.0}, "late")
    child = new_run(parent=root.id, at=20)
    log(store, child.id, {21: 1.0}, "own")
    assert store.metrics(child.id) == ["early", "own"]
    assert store.metrics(child.id, inherited=False) == ["own"]
    assert store.metrics(root.id) == ["early", "late"]


def test_a_cut_hides_what_was_written_before_it_and_deletes_nothing(store: Store, new_run: Any) -> None:
    run = new_run()
    log(store, run.id, {10: 1.0, 20: 2.0, 30: 3.0})
    store.cut(run.id, 10)
    assert curve(store, run.id) == {10: 1.0}
    log(store, run.id, {20: 20.0})
    assert curve(store, run.id) == {10: 1.0, 20: 20.0}
    with store._database.read() as connection:
        kept = connection.execute(schema.chunk.select()).all()
    assert sum(row.num_points for row in kept) == 3


def test_a_cut_covers_what_a_writer_has_not_committed_yet(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        writer.log(20, {"loss": 2.0})
        store.cut(run.id, 10)
        writer.log(15, {"loss": 1.5})
    assert curve(store, run.id) == {15: 1.5}


def test_a_cut_hides_reports_too(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        writer.report(10, {"accuracy": 0.1})
        writer.report(20, {"accuracy": 0.2})
        store.cut(run.id, 15)
        assert [report.position for report in store.read_run(run.id).reports] == [10]
        writer.report(20, {"accuracy": 0.3})
    assert [report.metrics["accuracy"] for report in store.read_tree("imdb")[run.id].reports] == [0.1, 0.3]


def test_a_rewind_of_the_parent_is_not_the_past_of_an_older_child(store: Store, new_run: Any) -> None:
    root = new_run()
    log(store, root.id, {10: 1.0, 20: 2.0, 30: 3.0})
    older = new_run(parent=root.id, at=20)
    store.cut(root.id, 10)
    log(store, root.id, {15: 15.0, 20: 20.0})
    younger = new_run(parent=root.id, at=20)
    assert curve(store, older.id) == {10: 1.0, 20: 2.0}
    assert curve(store, younger.id) == {10: 1.0, 15: 15.0, 20: 20.0}
    assert curve(store, root.id) == {10: 1.0, 15: 15.0, 20: 20.0}


@pytest.mark.parametrize("compacted", [False, True])
def test_a_lineage_of_a_thousand_forks(store: Store, new_run: Any, compacted: bool) -> None:
    run_id = None
    # Into the database directly: a writer for each run would start a thread for each.
    for generation in range(1001):
        run_id = new_run(parent=run_id, at=10 * generation).id
        with store._database.write() as connection:
            row = runs.find_run(connection, run_id)
            positions = list(range(10 * generation + 1, 10 * generation + 13))
            calls = [journal_layout(1).pack(position, 0, generation) for position in positions]
            entry = ('["loss"]', 12, b"".join(calls))
            compaction.add_journal(connection, row.key, [entry])
            if compacted:
                compaction.compact(connection, row.key)
    series = store.series(str(run_id), "loss")
    assert len(series.runs) == 1001
    assert series.positions.tolist() == list(range(1, 10 * 1000 + 13))
    # The last run keeps its 12 points, each before it the 10 that its child inherits.
    assert series.values[:-12].tolist() == [float(i // 10) for i in range(10_000)]
    assert series.owners[-1] == 1000
    assert len(store.reduced(str(run_id), "loss", num_buckets=50)) == 50


def test_the_schema_and_the_queries_can_be_said_in_postgresql() -> None:
    dialect = postgresql.dialect()
    for table in schema.metadata.sorted_tables:
        ddl = str(CreateTable(table).compile(dialect=dialect))
        assert "REAL" not in ddl
        assert ("BYTEA" in ddl) == (table.name in ("journal", "chunk"))
    recursive = str(lineage._links.compile(dialect=dialect))
    assert "WITH RECURSIVE" in recursive
    assert "min(" not in recursive.lower()
