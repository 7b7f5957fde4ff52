"""The local executor: persistent workers, stops, losses."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from thalweg.execute.executor import Control, Done, Event, Lost, Progress, Ready, Task
from thalweg.execute.local import LocalExecutor, visible_gpus


class Echo:
    """Work that writes what it was asked into a folder; a run's name says what it does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self) -> dict[str, object]:
        return {"pid": os.getpid()}

    def carry_out(self, task: Task, control: Control) -> None:
        control.progress(1, {"loss": 0.5})
        if task.run == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if task.run == "raises":
            raise ValueError("no such thing")
        while task.run == "waits" and not control.should_stop():
            time.sleep(0.01)
        (self.folder / task.run).write_text(str(os.getpid()))


@contextmanager
def executor(work: object, num_workers: int = 1) -> Iterator[LocalExecutor]:
    opened = LocalExecutor(work, num_workers=num_workers)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close(5)


def collect(opened: LocalExecutor, kind: type, count: int = 1, seconds: float = 20) -> list[Event]:
    found: list[Event] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += [event for event in opened.wait(0.2) if isinstance(event, kind)]
    return found


def test_one_worker_carries_out_many_tasks_in_one_process(tmp_path: Path) -> None:
    with executor(Echo(tmp_path)) as opened:
        for name in ("a", "b", "c"):
            assert opened.free_slots == 1
            opened.submit(Task(name))
            assert opened.free_slots == 0
            assert collect(opened, Done) == [Done(Task(name))]
    pids = {(tmp_path / name).read_text() for name in ("a", "b", "c")}
    assert len(pids) == 1
    assert pids != {str(os.getpid())}


def test_setup_facts_and_progress_reach_the_loop(tmp_path: Path) -> None:
    with executor(Echo(tmp_path)) as opened:
        opened.submit(Task("a"))
        events: list[Event] = []
        while not any(isinstance(event, Done) for event in events):
            events += opened.wait(1)
    assert isinstance(events[0], Ready)
    assert events[0].facts["pid"] != os.getpid()
    assert events[1] == Progress("a", 1, {"loss": 0.5})


def test_a_running_task_ends_when_asked(tmp_path: Path) -> None:
    with executor(Echo(tmp_path), num_workers=2) as opened:
        opened.submit(Task("waits"))
        collect(opened, Progress)
        opened.stop("another")
        assert collect(opened, Done, seconds=0.5) == []
        opened.stop("waits")
        assert collect(opened, Done) == [Done(Task("waits"))]


def test_a_killed_worker_is_reported_and_replaced(tmp_path: Path) -> None:
    with executor(Echo(tmp_path)) as opened:
        collect(opened, Ready)
        opened.submit(Task("dies"))
        (lost,) = collect(opened, Lost)
        assert isinstance(lost, Lost)
        assert lost.task == Task("dies")
        assert "SIGKILL" in lost.reason
        opened.submit(Task("a"))
        assert collect(opened, Done) == [Done(Task("a"))]


def test_an_error_in_the_work_itself_is_reported_with_its_traceback(tmp_path: Path) -> None:
    with executor(Echo(tmp_path)) as opened:
        collect(opened, Ready)
        opened.submit(Task("raises"))
        (lost,) = collect(opened, Lost)
        assert isinstance(lost, Lost)
        assert "ValueError: no such thing" in lost.reason


def test_a_worker_that_cannot_start_is_not_started_again() -> None:
    class Broken:
        def setup(self) -> dict[str, object]:
            raise FileNotFoundError("no model here")

        def carry_out(self, task: Task, control: Control) -> None:
            raise AssertionError

    with executor(Broken()) as opened:
        (lost,) = collect(opened, Lost)
        assert isinstance(lost, Lost)
        assert lost.task is None
        assert "no model here" in lost.reason
        assert opened.free_slots == 0


def test_closing_ends_tasks_that_do_not_listen(tmp_path: Path) -> None:
    class Deaf(Echo):
        def carry_out(self, task: Task, control: Control) -> None:
            control.progress(0, {})
            time.sleep(60)

    opened = LocalExecutor(Deaf(tmp_path), num_workers=1)
    opened.submit(Task("a"))
    collect(opened, Progress)
    started = time.monotonic()
    opened.close(0.5)
    assert time.monotonic() - started < 5


def test_workers_have_one_thread(tmp_path: Path) -> None:
    class Count:
        def setup(self) -> dict[str, object]:
            import torch

            return {"threads": torch.get_num_threads(), "variable": os.environ["OMP_NUM_THREADS"]}

        def carry_out(self, task: Task, control: Control) -> None: ...

    with executor(Count()) as opened:
        (ready,) = collect(opened, Ready)
        assert isinstance(ready, Ready)
        assert ready.facts == {"threads": 1, "variable": "1"}


@pytest.mark.parametrize(("variable", "devices"), [("", []), ("0,1", ["0", "1"]), ("-1", []), ("3", ["3"])])
def test_gpus_are_those_that_the_environment_allows(
    monkeypatch: pytest.MonkeyPatch, variable: str, devices: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == devices
