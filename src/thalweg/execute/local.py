"""Persistent one-thread worker processes on this machine.

Workers are forked from a server process that has imported the heavy modules once: a worker costs milliseconds instead
of the seconds that importing torch and transformers takes. Each loads the model and the data once and keeps them for
all its runs. One thread each, as many workers as cores: two torch processes that share cores by threads slow each
other down many times over.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import sys
import time
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import cloudpickle

from thalweg.execute.executor import Done, Event, Lost, Progress, Ready, Task, Work

_PROGRESS_SECONDS = 0.5
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

# What goes through a pipe: ("task", Task) and ("stop", run id) to a worker, None to end it; events from it.


@dataclass
class _Worker:
    index: int
    process: ForkServerProcess
    pipe: Connection
    task: Task | None = None
    ready: bool = False
    error: list[str] = field(default_factory=list)


class LocalExecutor:
    """Workers on this machine.

    Args:
        work: what the workers do; it may hold functions defined in a script or a notebook.
        num_workers: how many; by default one per GPU, or per core where there is no GPU.
        preload: modules to import once, before workers are forked.
    """

    def __init__(self, work: Work, *, num_workers: int | None = None, preload: Sequence[str] = ()) -> None:
        self.devices = visible_gpus()
        # Only on its way to our own process through a pipe: nothing pickled is stored or read from anywhere.
        self._work = cloudpickle.dumps(work)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        with _environment(dict.fromkeys(_THREAD_VARIABLES, "1")), _no_main_module():
            multiprocessing.forkserver.ensure_running()
        self._workers = [self._launch(index) for index in range(num_workers or len(self.devices) or usable_cores())]
        self._lost: list[Event] = []

    @property
    def num_workers(self) -> int:
        return len(self._workers)

    @property
    def free_slots(self) -> int:
        return sum(worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        # A worker that is still loading takes the task too: it is in its pipe when it is ready.
        worker = min((w for w in self._workers if w.task is None), key=lambda w: (not w.ready, w.index))
        worker.task = task
        self._send(worker, ("task", task))

    def stop(self, run: str) -> None:
        for worker in self._workers:
            if worker.task is not None and worker.task.run == run:
                self._send(worker, ("stop", run))

    def wait(self, timeout_seconds: float) -> Sequence[Event]:
        events, self._lost = self._lost, []
        by_pipe: dict[object, _Worker] = {worker.pipe: worker for worker in self._workers}
        ready = multiprocessing.connection.wait([w.pipe for w in self._workers], 0 if events else timeout_seconds)
        for pipe in ready:
            events.extend(self._receive(by_pipe[pipe]))
        return events

    def close(self, grace_seconds: float) -> None:
        deadline = time.monotonic() + grace_seconds
        for worker in self._workers:
            if worker.task is not None:
                self._send(worker, ("stop", worker.task.run))
            self._send(worker, None)
        for worker in self._workers:
            worker.process.join(max(deadline - time.monotonic(), 0.05))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers = []

    def _launch(self, index: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        device = self.devices[index % len(self.devices)] if self.devices else None
        process = self._context.Process(target=_serve, args=(theirs, self._work, index, device), daemon=True)
        with _no_main_module():
            process.start()
        theirs.close()
        return _Worker(index, process, ours)

    def _send(self, worker: _Worker, message: object) -> None:
        try:
            worker.pipe.send(message)
        except OSError:
            self._lost.extend(self._replace(worker))

    def _receive(self, worker: _Worker) -> list[Event]:
        try:
            event = worker.pipe.recv()
        except (EOFError, OSError):
            return self._replace(worker)
        if isinstance(event, str):
            worker.error.append(event)
            return []
        if isinstance(event, Ready):
            worker.ready = True
        if isinstance(event, Done):
            worker.task = None
        return [event]

    def _replace(self, worker: _Worker) -> list[Event]:
        """Report a dead worker and start another in its place, unless it never got ready: that would not end."""
        worker.process.join(5)
        code = worker.process.exitcode
        reason = worker.error[-1] if worker.error else f"the worker process ended with {_describe_exit(code)}"
        worker.pipe.close()
        index = self._workers.index(worker)
        if worker.ready:
            self._workers[index] = self._launch(worker.index)
        else:
            del self._workers[index]
        return [Lost(worker.task, reason)]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA names them; empty on a machine without."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device not in ("", "-1")]
    return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


class _PipeControl:
    """`Control` at a worker's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.run: str | None = None
        self.stopped = False
        self.ending = False
        self._last_progress = 0.0

    def begin(self, task: Task) -> None:
        self.run = task.run
        self.stopped = self.ending

    def end(self) -> None:
        self.stopped = self.ending = True

    def should_stop(self) -> bool:
        while not self.stopped and self.pipe.poll():
            self.take()
        return self.stopped

    def take(self) -> Task | None:
        """Read one message; a task is returned, all else is taken note of."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):  # the study's process is gone: end as if asked to
            message = None
        if message is None:
            self.end()
            return None
        kind, what = message
        if kind == "task":
            assert isinstance(what, Task)
            return what
        self.stopped = self.stopped or what == self.run
        return None

    def progress(self, position: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if self.run is not None and now - self._last_progress >= _PROGRESS_SECONDS:
            self._last_progress = now
            self.send(Progress(self.run, position, dict(metrics)))

    def send(self, event: Event | str) -> None:
        # Without a study's process there is nobody to tell, but the run can still save its work.
        try:
            self.pipe.send(event)
        except OSError:
            self.end()


def _serve(pipe: Connection, pickled_work: bytes, index: int, device: str | None) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study's process, which asks us to stop
    control = _PipeControl(pipe)
    signal.signal(signal.SIGTERM, lambda *_: control.end())
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    try:
        work: Work = cloudpickle.loads(pickled_work)
        control.send(Ready(index, work.setup()))
        while not control.ending:
            # Not for ever, so that a SIGTERM that comes in between is noticed.
            if pipe.poll(0.5) and (task := control.take()) is not None:
                control.begin(task)
                work.carry_out(task, control)
                control.send(Done(task))
    except Exception:
        control.send(traceback.format_exc())
        raise SystemExit(1) from None


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the user's script while a process is started.

    multiprocessing would import it again in the new process, and a script that calls `thalweg.tune` at its top level
    would start itself over. cloudpickle sends what is defined in it by value instead.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before: dict[str, Any] = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"signal {name}" + (" (perhaps out of memory)" if name == "SIGKILL" else "")
    return f"exit code {code}"
