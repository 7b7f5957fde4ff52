"""Sessions of a study in processes of their own, which are killed with their workers at random moments.

A session is `run_study` in a process that is forked from this one, so that torch need not be imported each time; its
workers come from a server process of their own, as always. All are in one process group.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case
from compare import Comparison, Snapshot, compare, snapshot

from thalweg.errors import StoreError
from thalweg.study import run_study
from thalweg.track.store import Store
from thalweg.tree import Fork

STUDY, RUN = "exact", "exact-0"
EARLY_SHARE = 0.2
"""Of the kills that may come before training begins."""
LATE_SHARE = 0.6
"""The other kills come within this share of the uninterrupted training's time, so that one study takes several."""
MIDDLE = 0.4
"""Where the run that is forked gets its checkpoint, as a share of the time that its points took."""
MAX_ATTEMPTS = 4
MAX_SECONDS = 300.0
"""A session that takes longer is stuck."""


@dataclass
class Bench:
    """One case, from an uninterrupted study to the last killed one."""

    case: Case
    folder: Path
    rng: np.random.Generator
    moments: Counter[str] = field(default_factory=Counter)
    """What the run was doing when it was killed -> how often."""
    num_studies: int = 0
    total: Comparison = field(default_factory=Comparison)
    setup_seconds: float = 0.0
    training_seconds: float = 0.0

    @property
    def num_kills(self) -> int:
        return sum(self.moments.values())

    def prepare(self) -> None:
        """Make the files, and import what every session needs."""
        (self.folder / "files").mkdir(parents=True)
        # In another process: a tokenizer's threads do not survive a fork.
        _in_child(self.folder / "log", lambda: self.case.prepare(self.folder / "files"))
        for module in self.case.imports:
            importlib.import_module(module)

    def whole(self) -> Snapshot:
        """The uninterrupted study."""
        place = self._place("whole")
        launched = time.monotonic()
        session = self._launch(place)
        began = session.wait_for_training()
        if session.wait(MAX_SECONDS) is None:
            session.kill()
            raise TimeoutError(f"the uninterrupted study took more than {MAX_SECONDS} s")
        self._check(session, place)
        self.setup_seconds, self.training_seconds = began - launched, time.monotonic() - began
        return snapshot(place / "store.db", RUN)

    def forked(self, whole: Snapshot) -> tuple[Comparison, int, int]:
        """Fork an uninterrupted run in its middle; what differs, where it was forked, and the points trained."""
        place, at, again = self._with_checkpoint_on_the_way(whole)
        with Store.open(place / "store.db") as store:
            store.add_request(STUDY, Fork(RUN, at, {}, 2**62))
        self._complete(place)
        with Store.open(place / "store.db", read_only=True) as store:
            (child,) = store.read_tree(STUDY).children(RUN)
            own = store.metrics(child.id, inherited=False)
            num_own = sum(len(store.series(child.id, metric, inherited=False).positions) for metric in own)
        result = compare(whole, snapshot(place / "store.db", child.id), fork_position=at)
        result.num_lost += again.num_lost
        result.differences += [f"uninterrupted a second time: {difference}" for difference in again.differences]
        return result, at, num_own

    def _with_checkpoint_on_the_way(self, whole: Snapshot) -> tuple[Path, int, Comparison]:
        """A second uninterrupted study that has one, where it is, and what differs from the first study."""
        # A run keeps its newest two checkpoints, so there should be one on the way. The first study wrote more of them,
        # and may have been slower: where there is none, half the time will do.
        seconds = MIDDLE * self._seconds_of_points("whole")
        for attempt in range(MAX_ATTEMPTS):
            place = self._place(f"forked-{attempt}")
            self._complete(place, seconds / 2**attempt)
            with Store.open(place / "store.db", read_only=True) as store:
                at = store.checkpoints(RUN)[0].position
            if 0 < at < whole.facts["position"]:
                return place, at, compare(whole, snapshot(place / "store.db", RUN))
            shutil.rmtree(place)
        raise RuntimeError(f"no checkpoint on the way in {MAX_ATTEMPTS} studies")

    def _seconds_of_points(self, name: str) -> float:
        """From the first point to the last one of a study's run."""
        with Store.open(self._place(name) / "store.db", read_only=True) as store:
            times = [store.series(RUN, metric).times for metric in store.metrics(RUN)]
        return float(max(t.max() for t in times) - min(t.min() for t in times))

    def kill(self, whole: Snapshot, num_kills: int) -> None:
        """Kill, and start again, until there were so many kills and the last study has come to its end."""
        while self.num_kills < num_kills:
            place = self._place(f"killed-{self.num_studies}")
            while self.num_kills < num_kills and self._kill_once(place):
                pass
            self._complete(place)
            self.total += compare(whole, snapshot(place / "store.db", RUN))
            self.num_studies += 1
            shutil.rmtree(place)

    def _kill_once(self, place: Path) -> bool:
        """One session, killed; False if it came to its end before that."""
        unfinished = _unfinished_files(place)  # an earlier kill's
        session = self._launch(place)
        if self.rng.random() < EARLY_SHARE:
            moment = session.launched + self.rng.uniform(0.0, self.setup_seconds)
        else:
            moment = session.wait_for_training() + self.rng.uniform(0.0, LATE_SHARE * self.training_seconds)
        if session.wait(moment - time.monotonic()) is not None:
            self._check(session, place)
            return False
        session.kill()
        self.moments["in a checkpoint" if _unfinished_files(place) - unfinished else session.doing()] += 1
        return True

    def _complete(self, place: Path, checkpoint_seconds: float | None = None) -> None:
        session = self._launch(place, checkpoint_seconds)
        if session.wait(MAX_SECONDS) is None:
            session.kill()
            raise TimeoutError(f"the study did not end within {MAX_SECONDS} s")
        self._check(session, place)

    def _place(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir(exist_ok=True)
        return place

    def _launch(self, place: Path, checkpoint_seconds: float | None = None) -> Session:
        every = self.case.checkpoint_seconds if checkpoint_seconds is None else checkpoint_seconds

        def run() -> None:
            run_study(self.case.study(self.folder / "files", every), place / "store.db", quiet=True)

        return Session(place, run)

    @staticmethod
    def _check(session: Session, place: Path) -> None:
        if session.code != 0:
            raise RuntimeError(f"a session failed:\n{(place / 'log').read_text()[-4000:]}")


class Session:
    """One session of a study in a process group of its own."""

    def __init__(self, place: Path, run: Callable[[], Any]) -> None:
        self.place = place
        self.code: int | None = None
        self.launched = time.monotonic()
        self._launched_at = time.time()
        self._pid = _fork(place / "log", run)

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None if it is still running after so many seconds."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                # A session that ended has let its workers go; whoever is left must not outlive it.
                with suppress(ProcessLookupError):
                    os.killpg(self._pid, signal.SIGKILL)
            elif time.monotonic() >= deadline:
                break
            else:
                time.sleep(min(0.005, max(deadline - time.monotonic(), 0.0)))
        return self.code

    def wait_for_training(self) -> float:
        """The moment when this session's worker has been given the run, or the session has ended."""
        deadline = time.monotonic() + MAX_SECONDS
        while self.wait(0.05) is None and self.doing() == "before training":
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"training did not begin within {MAX_SECONDS} s")
        return time.monotonic()

    def doing(self) -> str:
        """What the run is doing, or was when the session was killed, as its store tells."""
        if not (self.place / "store.db").exists():
            return "before training"
        with suppress(StoreError), Store.open(self.place / "store.db", read_only=True) as store:
            run = store.read_run(RUN)
            heartbeat = store.run_times(RUN).heartbeat or 0.0
            if run.status == "finished":
                return "after training"
            if run.status == "running" and heartbeat > self._launched_at:
                return "in training"
        return "before training"

    def kill(self) -> None:
        """SIGKILL to the loop, its workers and their server, all at once."""
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self.code = -signal.SIGKILL


def _fork(log: Path, run: Callable[[], Any]) -> int:
    pid = os.fork()
    if pid:
        # Both sides, so that the group is there whoever comes first.
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        with log.open("a") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _in_child(log: Path, run: Callable[[], Any]) -> None:
    _, status = os.waitpid(_fork(log, run), 0)
    if status:
        raise RuntimeError(f"a process failed:\n{log.read_text()[-4000:]}")


def _unfinished_files(place: Path) -> set[Path]:
    """What a checkpoint that is being written consists of."""
    return set((place / "checkpoints").rglob("*.tmp"))
