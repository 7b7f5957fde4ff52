"""The store in memory beside the one in a database: whatever a loop does, both answer the same."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thalweg.budget import Cost
from thalweg.errors import ConfigError, StoreError
from thalweg.track.memory_store import MemoryStore
from thalweg.track.store import Store
from thalweg.trainer import Estimate
from thalweg.tree import Stop

RUN: dict[str, Any] = {"hyperparameters": {"lr": 0.1, "n": 3}, "horizon": 100, "until": 50, "seed": 1, "origin": "tpe"}


@pytest.fixture(params=["memory", "database"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield MemoryStore()
        return
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


def answer(call: Callable[[], Any]) -> Any:
    """What a call gives, without times; or the kind of its error."""
    try:
        found = call()
    except (ConfigError, StoreError) as error:
        return type(error)
    if isinstance(found, list):
        return [_timeless(entry) for entry in found]
    return _timeless(found)


def _timeless(found: Any) -> Any:
    return dataclasses.replace(found, created=0.0) if hasattr(found, "created") else found


def operate(store: Any, choice: random.Random, log: list[Any]) -> None:
    """One thing that a loop or a worker might do, sensible or not, decided by `choice` alone."""
    runs = sorted((run.id for run in store.read_tree("s")), key=lambda name: int(name[2:]))
    run = choice.choice([*runs, "s-99"])
    position = choice.choice([0, 10, 20, 50, 100])
    what = choice.choice(["root", "fork", "update", "report", "checkpoint", "spend", "finish", "drop", "cut", "test"])
    match what:
        case "root":
            log.append(answer(lambda: store.create_run("s", **RUN, fork_position=choice.choice([0, 0, 0, 10]))))
        case "fork":
            log.append(answer(lambda: store.create_run("s", **RUN, parent=run, fork_position=position)))
        case "update":
            status = choice.choice([None, "running", "interrupted", "stopped"])
            until = choice.choice([None, position])
            log.append(answer(lambda: store.update_run(run, status=status, until=until)))
        case "drop":
            log.append(answer(lambda: store.drop_checkpoint(run, position)))
        case "cut":
            log.append(answer(lambda: store.cut(run, position)))
        case "test":
            estimate = Estimate(0.5, 0.4, 0.6, position)
            log.append(answer(lambda: store.record_test(run, position, {"accuracy": estimate})))
        case _:
            log.append(answer(lambda: _write(store, run, what, position, choice.choice([0.25, 2.5]))))


def _write(store: Any, run: str, what: str, position: int, amount: float) -> None:
    writer = store.writer(run)
    try:
        match what:
            case "report":
                writer.log(position, {"train/loss": amount})
                writer.report(position, {"accuracy": amount})
            case "checkpoint":
                writer.checkpoint(position, f"folder/{position}", "abc", 7)
            case "spend":
                writer.spend("train", Cost(samples=position, seconds=amount))
                writer.spend("evaluate", Cost(seconds=amount))
            case "finish":
                writer.finish("failed", position, "Traceback ...")
    finally:
        writer.close()


@settings(max_examples=12, deadline=None)
@example(seed=33766)
@given(seed=st.integers(0, 2**32))
def test_both_answer_the_same(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    memory = MemoryStore()
    with Store.open(tmp_path_factory.mktemp("store") / "store.db") as database:
        logs: list[list[Any]] = []
        for store in (memory, database):
            choice, log = random.Random(seed), list[Any]()
            store.create_study("s", {})
            with_session = store.open_session("s")
            for _ in range(25):
                operate(store, choice, log)
                log.append(answer(lambda store=store: store.read_tree("s")))
            with_session.add_wall_seconds(2.5)
            with_session.close()
            log.append(answer(lambda store=store: store.read_ledger("s")))
            log.append(answer(lambda store=store: store.read_tests("s")))
            for run in store.read_tree("s"):
                log.append(answer(lambda store=store, run=run: store.checkpoints(run.id)))
                log.append(answer(lambda store=store, run=run: store.last_position(run.id)))
                log.append(answer(lambda store=store, run=run: store.read_run(run.id)))
            logs.append(log)
    for ours, theirs in zip(*logs, strict=True):
        assert ours == theirs


def test_studies_and_requests(store: Any) -> None:
    store.create_study("s", {"metric": "max accuracy"})
    with pytest.raises(StoreError, match="already"):
        store.create_study("s", {})
    assert [(record.name, record.config["metric"]) for record in store.studies()] == [("s", "max accuracy")]
    assert store.study("s").wall_seconds == 0.0
    assert not store.is_paused("s")
    store.set_paused("s", True)
    assert store.is_paused("s")
    for call in (store.study, store.is_paused, store.read_tree, store.read_ledger, store.pending_requests):
        with pytest.raises(StoreError, match="unknown study 't'"):
            call("t")
    first = store.add_request("s", Stop("s-0"), "ann")
    second = store.add_request("s", Stop("s-1"))
    assert [(r.id, r.ask, r.author) for r in store.pending_requests("s")] == [
        (first, Stop("s-0"), "ann"),
        (second, Stop("s-1"), None),
    ]
    store.answer_request(first, "done")
    assert [r.id for r in store.pending_requests("s")] == [second]
    with pytest.raises(StoreError, match="no request"):
        store.answer_request(first, "done")


def test_one_session_at_a_time(store: Any) -> None:
    store.create_study("s", {})
    session = store.open_session("s")
    with pytest.raises(StoreError, match="'s'"):
        store.open_session("s")
    session.close()
    session.close()
    store.open_session("s").close()


def test_an_ended_run_has_a_time_until_it_is_taken_up_again(store: Any) -> None:
    store.create_study("s", {})
    run = store.create_run("s", **RUN).id
    assert (store.run_times(run).started, store.run_times(run).ended) == (None, None)
    store.writer(run).finish("finished", 100)
    times = store.run_times(run)
    assert times.created <= times.started <= times.ended
    store.update_run(run, status="interrupted")
    assert store.run_times(run).ended is None


def test_a_ledger_that_was_read_stays_as_it_was(store: Any) -> None:
    store.create_study("s", {})
    run = store.create_run("s", **RUN).id
    before = store.read_ledger("s")
    writer = store.writer(run)
    writer.spend("train", Cost(samples=3))
    writer.close()
    assert before.total().samples == 0
    assert store.read_ledger("s").total().samples == 3
