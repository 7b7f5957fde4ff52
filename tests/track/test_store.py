"""The contract of every method, each in turn."""

from __future__ import annotations

import math
import os
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg.budget import Cost
from thalweg.errors import ConfigError, StoreError
from thalweg.track.store import Store
from thalweg.trainer import Estimate
from thalweg.tree import Continue, Fork, Report, Start, Stop

AWKWARD = [math.nan, math.inf, -math.inf, -0.0, 0.0, 1e308, -1e308, 5e-324, 2.2250738585072014e-308, 0.1]


def bits(values: Any) -> list[bytes]:
    return [struct.pack("<d", value) for value in values]


def test_a_study_is_kept_as_it_was_given(store: Store) -> None:
    config = {"budget": {"seconds": 480.0, "runs": 12}, "baseline": None, "names": ["ä", "b"], "limit": math.inf}
    before = time.time()
    created = store.create_study("other study", config)
    assert created == store.study("other study")
    assert created.config == config
    assert isinstance(created.config["budget"]["seconds"], float)
    assert isinstance(created.config["budget"]["runs"], int)
    assert before <= created.created <= time.time()
    assert created.wall_seconds == 0
    assert [study.name for study in store.studies()] == ["imdb", "other study"]


def test_a_study_of_the_same_name_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="study 'imdb' already"):
        store.create_study("imdb", {})
    assert store.study("imdb").config == {"metric": "max accuracy"}


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a\nb", "-x"])
def test_a_study_name_that_cannot_be_a_file_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match="study name"):
        store.create_study(name, {})


def test_a_config_that_is_not_json_is_refused_and_nothing_is_created(store: Store) -> None:
    with pytest.raises(ConfigError, match="config"):
        store.create_study("x", {"where": Path("a")})
    assert [study.name for study in store.studies()] == ["imdb"]


def test_unknown_names_are_answered_with_near_ones(store: Store, new_run: Any) -> None:
    run = new_run()
    with pytest.raises(StoreError, match=r"unknown study 'imbd'\. Did you mean 'imdb'"):
        store.study("imbd")
    with pytest.raises(StoreError, match=r"unknown run 'imdb-9'\. Did you mean 'imdb-0'"):
        store.read_run("imdb-9")
    calls = [
        lambda: store.read_tree("x"),
        lambda: store.read_ledger("x"),
        lambda: store.open_session("x"),
        lambda: store.live_session("x"),
        lambda: store.add_request("x", Stop(run.id)),
        lambda: store.pending_requests("x"),
        lambda: store.update_study("x", {}),
        lambda: store.read_tests("x"),
        lambda: store.update_run("x", status="failed"),
        lambda: store.delete_run("x"),
        lambda: store.run_study("x"),
        lambda: store.run_times("x"),
        lambda: store.writer("x"),
        lambda: store.series("x", "loss"),
        lambda: store.metrics("x"),
        lambda: store.reduced("x", "loss"),
        lambda: store.cut("x", 0),
        lambda: store.compact("x"),
        lambda: store.checkpoints("x"),
        lambda: store.record_test("x", 0, {}),
        lambda: new_run(parent="x"),
    ]
    for call in calls:
        with pytest.raises(StoreError, match=r"unknown (study|run) 'x'"):
            call()


def test_an_empty_store_says_that_it_is_empty(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        with pytest.raises(StoreError, match="The store holds none"):
            store.study("x")
        with pytest.raises(StoreError, match="The store holds none"):
            store.read_run("x")


def test_update_study_replaces_its_config_only(store: Store) -> None:
    before = store.study("imdb")
    assert store.update_study("imdb", {"budget": {"runs": 20}}).config == {"budget": {"runs": 20}}
    after = store.study("imdb")
    assert (after.created, after.wall_seconds) == (before.created, before.wall_seconds)


def test_runs_are_numbered_and_named_within_their_study(store: Store, new_run: Any) -> None:
    store.create_study("b", {})
    assert [new_run().id for _ in range(2)] == ["imdb-0", "imdb-1"]
    other = store.create_run("b", hyperparameters={}, horizon=1, until=1, seed=0, origin="hand")
    assert (other.id, other.number) == ("b-0", 0)
    assert store.run_study("b-0") == "b"
    assert list(store.read_tree("imdb").runs) == ["imdb-0", "imdb-1"]
    assert store.read_ledger("imdb").num_runs == 2


def test_numbers_are_given_once_to_many_threads(store: Store, new_run: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: new_run().number, range(40)))
    assert sorted(numbers) == list(range(40))


def test_hyperparameters_keep_type_and_bits(store: Store, new_run: Any) -> None:
    given = {f"x{i}": value for i, value in enumerate(AWKWARD)} | {"n": 1, "f": 1.0, "s": "1", "t": True, "np": 3}
    run = new_run(hyperparameters=given | {"np": np.int64(3)})
    kept = store.read_run(run.id).hyperparameters
    assert [type(value) for value in kept.values()] == [type(value) for value in given.values()]
    assert bits(kept[f"x{i}"] for i in range(len(AWKWARD))) == bits(AWKWARD)
    assert (kept["n"], kept["f"], kept["s"], kept["t"], kept["np"]) == (1, 1.0, "1", True, 3)


def test_a_fork_stands_at_its_fork_point(store: Store, new_run: Any) -> None:
    root = new_run()
    child = new_run(parent=root.id, at=30)
    assert (child.parent, child.fork_position, child.position, child.status) == (root.id, 30, 30, "pending")
    assert store.read_tree("imdb").lineage(child.id) == [root, child]


def test_a_fork_stays_in_its_study(store: Store, new_run: Any) -> None:
    root = new_run()
    store.create_study("b", {})
    with pytest.raises(StoreError, match="belongs to another study"):
        store.create_run("b", hyperparameters={}, horizon=1, until=1, seed=0, origin="hand", parent=root.id)
    assert store.read_ledger("b").num_runs == 0


@pytest.mark.parametrize(
    ("field", "value"), [("horizon", -1), ("until", 1.5), ("seed", 2**63), ("fork_position", True), ("until", "5")]
)
def test_numbers_that_cannot_be_kept_are_refused(new_run: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        new_run(**{field: value})


def test_a_root_has_no_fork_position(new_run: Any) -> None:
    with pytest.raises(ConfigError, match="needs a parent"):
        new_run(at=5)


def test_update_run_changes_what_is_given(store: Store, new_run: Any) -> None:
    run = new_run()
    assert store.update_run(run.id) == run
    assert store.update_run(run.id, until=80).until == 80
    failed = store.update_run(run.id, status="failed", position=12, error="Trace\x00back \ud800")
    assert (failed.status, failed.position, failed.error, failed.until) == ("failed", 12, "Trace\x00back \ud800", 80)
    assert store.read_run(run.id) == failed
    with pytest.raises(ConfigError, match=r"unknown status 'finnished'\. Did you mean 'finished'"):
        store.update_run(run.id, status="finnished")  # type: ignore[arg-type]


def test_run_times_follow_the_run(store: Store, new_run: Any) -> None:
    run = new_run()
    times = store.run_times(run.id)
    assert (times.started, times.ended, times.heartbeat, times.live) == (None, None, None, False)
    with store.writer(run.id) as writer:
        writer.log(1, {"loss": 1.0})
        times = store.run_times(run.id)
        assert times.live
        assert times.started is not None
        assert times.ended is None
        writer.finish("finished", 100)
    ended = store.run_times(run.id).ended
    assert ended is not None
    assert ended >= times.started >= times.created
    store.update_run(run.id, status="paused")
    assert store.run_times(run.id).ended is None


def test_delete_run_removes_its_records_and_keeps_what_it_spent(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        writer.report(5, {"accuracy": 0.5})
        writer.checkpoint(5, "folder", "digest", 10)
        writer.spend("train", Cost(samples=5))
    store.cut(run.id, 3)
    store.record_test(run.id, 5, {"accuracy": Estimate(0.5, 0.4, 0.6, 10)})
    store.delete_run(run.id)
    with pytest.raises(StoreError, match="unknown run"):
        store.read_run(run.id)
    ledger = store.read_ledger("imdb")
    assert (ledger.num_runs, ledger.of(run.id)) == (1, Cost(samples=5))
    assert new_run().id == "imdb-1"


def test_a_parent_cannot_be_deleted(store: Store, new_run: Any) -> None:
    root = new_run()
    child = new_run(parent=root.id, at=3)
    with pytest.raises(StoreError, match=child.id):
        store.delete_run(root.id)
    store.delete_run(child.id)
    store.delete_run(root.id)
    assert len(store.read_tree("imdb")) == 0


def test_a_run_in_training_cannot_be_deleted(store: Store, new_run: Any) -> None:
    run = new_run()
    store.update_run(run.id, status="running")
    assert store.run_times(run.id).live
    with pytest.raises(StoreError, match="is being trained; stop it first"):
        store.delete_run(run.id)


def test_the_ledger_adds_up(store: Store, new_run: Any) -> None:
    first, second = new_run(), new_run()
    for _ in range(2):
        with store.writer(first.id) as writer:
            writer.spend("train", Cost(samples=8, tokens=2**40, flops=1e21, seconds=0.5, device_seconds=1.0))
            writer.spend("train", Cost(samples=8))
            writer.spend("evaluate", Cost(seconds=2.0))
    with store.writer(second.id) as writer:
        writer.spend("repeated", Cost(samples=1))
    with store.open_session("imdb") as session:
        session.add_wall_seconds(1.5)
        session.add_wall_seconds(2.0)
    ledger = store.read_ledger("imdb")
    assert ledger.spent == {
        first.id: {
            "train": Cost(samples=32, tokens=2**41, flops=2e21, seconds=1.0, device_seconds=2.0),
            "evaluate": Cost(seconds=4.0),
        },
        second.id: {"repeated": Cost(samples=1)},
    }
    assert (ledger.num_runs, ledger.wall_seconds, ledger.num_forks) == (2, 3.5, 0)
    assert store.study("imdb").wall_seconds == 3.5


@pytest.mark.parametrize("cost", [Cost(seconds=math.nan), Cost(flops=math.inf), Cost(samples=-1)])
def test_impossible_spending_is_refused(store: Store, new_run: Any, cost: Cost) -> None:
    with store.writer(new_run().id) as writer:
        with pytest.raises(ConfigError, match="must be a finite number"):
            writer.spend("train", cost)
        with pytest.raises(ConfigError, match="Did you mean 'train'"):
            writer.spend("trian", Cost())  # type: ignore[arg-type]


def test_one_session_at_a_time(store: Store) -> None:
    assert store.live_session("imdb") is None
    with store.open_session("imdb"):
        live = store.live_session("imdb")
        assert live is not None
        assert live.pid == os.getpid()
        with pytest.raises(StoreError, match=f"process {os.getpid()} on {live.host}"):
            store.open_session("imdb")
    assert store.live_session("imdb") is None
    with store.open_session("imdb"):
        assert store.live_session("imdb") is not None


def test_requests_come_back_as_the_actions_that_they_are(store: Store) -> None:
    actions = [
        Start({"lr": 1.0, "n": 1, "x": -0.0}, 50),
        Continue("imdb-0", 80, origin="halving"),
        Fork("imdb-0", 40, {"lr": math.inf}, 100),
        Stop("imdb-0"),
    ]
    ids = [store.add_request("imdb", action) for action in actions]
    pending = store.pending_requests("imdb")
    assert [request.id for request in pending] == ids
    assert [request.ask for request in pending] == actions
    start = pending[0].ask
    assert isinstance(start, Start)
    assert [type(value) for value in start.hyperparameters.values()] == [float, int, float]
    store.answer_request(ids[1], "run imdb-0 goes on to 80")
    assert [request.id for request in store.pending_requests("imdb")] == [ids[0], ids[2], ids[3]]
    for wrong in (ids[1], 99):
        with pytest.raises(StoreError, match=f"no request {wrong}"):
            store.answer_request(wrong, "again")


def test_reports_are_kept_exactly_by_position_and_as_points(store: Store, new_run: Any) -> None:
    run = new_run()
    metrics = {f"m{i}": value for i, value in enumerate(AWKWARD)}
    with store.writer(run.id) as writer:
        writer.report(20, {"accuracy": 0.25})
        writer.report(10, metrics)
        writer.report(20, {"accuracy": 0.5})
        # Nothing was closed or flushed: a report is committed when it returns.
        kept = store.read_run(run.id)
    assert [report.position for report in kept.reports] == [10, 20]
    assert kept.reports[1] == Report(20, {"accuracy": 0.5})
    assert bits(kept.reports[0].metrics.values()) == bits(AWKWARD)
    assert kept.position == 20
    assert store.series(run.id, "validation/accuracy").values.tolist() == [0.5]
    assert bits(store.series(run.id, f"validation/m{i}").values[0] for i in range(len(AWKWARD))) == bits(AWKWARD)


def test_checkpoints_are_listed_by_position_and_replaced_in_place(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        writer.checkpoint(20, "b", "digest-b", 2**40)
        writer.checkpoint(10, "a", "digest-a", 1)
        writer.checkpoint(20, "c", "digest-c", 3)
        found = store.checkpoints(run.id)
    assert [(r.position, r.folder, r.digest, r.num_bytes) for r in found] == [
        (10, "a", "digest-a", 1),
        (20, "c", "digest-c", 3),
    ]
    assert store.drop_checkpoint(run.id, 10)
    assert [record.position for record in store.checkpoints(run.id)] == [20]
    with pytest.raises(StoreError, match=r"no checkpoint at position 10\. It has: 20"):
        store.drop_checkpoint(run.id, 10)


def test_a_checkpoint_that_a_fork_begins_at_stays(store: Store, new_run: Any) -> None:
    run = new_run()
    with store.writer(run.id) as writer:
        writer.checkpoint(10, "a", "digest", 1)
    child = new_run(parent=run.id, at=10)
    assert store.checkpoints(child.id) == []
    assert not store.drop_checkpoint(run.id, 10)
    assert [record.position for record in store.checkpoints(run.id)] == [10]
    store.delete_run(child.id)
    assert store.drop_checkpoint(run.id, 10)


def test_the_last_position_is_the_highest_one_logged_hidden_or_not(store: Store, new_run: Any) -> None:
    run = new_run()
    assert store.last_position(run.id) == 0
    with store.writer(run.id) as writer:
        writer.log(30, {"loss": 1.0})
        writer.log(20, {"lr": 1.0})
    assert store.last_position(run.id) == 30
    store.cut(run.id, 10)
    assert store.last_position(run.id) == 30
    assert store.last_position(new_run(parent=run.id, at=10).id) == 10


def test_held_back_results_are_kept_apart_from_the_tree(store: Store, new_run: Any) -> None:
    first, second = new_run(), new_run()
    store.record_test(second.id, 40, {"accuracy": Estimate(0.8, 0.7, 0.9, 500)})
    store.record_test(second.id, 50, {"loss": Estimate(math.nan, -math.inf, math.inf, 500)})
    store.record_test(first.id, 50, {"accuracy": Estimate(0.9, 0.8, 1.0, 100)})
    tests = store.read_tests("imdb")
    assert tests[first.id] == (50, {"accuracy": Estimate(0.9, 0.8, 1.0, 100)})
    position, kept = tests[second.id]
    assert (position, list(kept)) == (50, ["loss"])
    assert math.isnan(kept["loss"].value)
    assert (kept["loss"].low, kept["loss"].high) == (-math.inf, math.inf)
    assert store.read_run(first.id).reports == ()


def test_a_closed_store_can_be_opened_again_by_its_location(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "a.db")) as store:
        store.create_study("s", {})
        run = store.create_run("s", hyperparameters={}, horizon=1, until=1, seed=0, origin="hand")
        # Left open on purpose: closing the store commits what its writers hold.
        store.writer(run.id).log(3, {"loss": 0.5})
    with Store.open(store.location, read_only=True) as again:
        assert again.series(run.id, "loss").values.tolist() == [0.5]
        with pytest.raises(StoreError, match="reading only"):
            again.create_study("t", {})
    with Store.open(f"sqlite:///{tmp_path / 'a.db'}") as third:
        assert third.check_integrity() == []
