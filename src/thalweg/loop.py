"""The loop: ask the strategy, carry its actions out, take in what became of them.

The tree in the store is all its state. Killed at any moment, a new loop reads the tree and goes on.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from thalweg import asked
from thalweg.budget import Cost, Ledger, Left
from thalweg.errors import ConfigError, ThalwegError
from thalweg.execute.executor import Done, Event, Executor, Lost, Progress, Ready, Task
from thalweg.plan.forecast import Speed, average_cost, average_horizon, price, prices, reduced, room_for, shortage
from thalweg.scaling.repetitions import NUM_FINALISTS, best_run, finalists
from thalweg.search.strategy import Strategy
from thalweg.track.study_store import StudySession, StudyStore
from thalweg.tree import Action, Continue, Fork, Run, Start, Stop, Tree
from thalweg.worker import drop_checkpoint, fork_point

if TYPE_CHECKING:
    from thalweg.study import Study

WAIT_SECONDS = 0.25
"""How long the loop waits for news at a time."""
TICK_SECONDS = 2.0
STOP_SECONDS = 4.0
"""How long workers get to write their checkpoints when the study is interrupted."""
MAX_LOSSES = 3
"""A run that has taken so many worker processes down with it is given up as failed."""
MAX_SAME_FAILURES = 3
"""So many runs in a row that fail with the same error end the study."""


class Watch(Protocol):
    """Whoever looks on."""

    def update(
        self, tree: Tree, ledger: Ledger, positions: Mapping[str, tuple[int, Mapping[str, float]]], message: str | None
    ) -> None: ...


class StudyFailed(ThalwegError):
    """Runs keep failing with the same error, or no worker can be started."""


class NothingBegun(StudyFailed):
    """The budget had no room for a first run, which showed only once workers had loaded or the run was proposed."""


@dataclass
class Loop:
    """One session of a study."""

    study: Study
    strategy: Strategy
    store: StudyStore
    session: StudySession
    executor: Executor
    watch: Watch
    tree: Tree = field(default_factory=Tree)
    speed: Speed = field(default_factory=Speed)
    interrupted: bool = False
    clock: Callable[[], float] = time.monotonic
    """Seconds, from anywhere on; a simulation's are virtual."""
    tick_seconds: float = TICK_SECONDS
    """How often it looks for requests and at the clock."""

    def __post_init__(self) -> None:
        self.tree = self.store.read_tree(self.study.name)
        self.ledger = self.store.read_ledger(self.study.name)
        self._running: set[str] = set()
        self._giving_up: dict[str, str] = {}
        """Runs that were asked to stop, and by whom."""
        self._positions: dict[str, tuple[int, Mapping[str, float]]] = {}
        self._losses: Counter[str] = Counter()
        self._failures: list[str] = []
        self._let_go: set[str] = set()
        self._probed: float | None = None
        self._average: tuple[Cost, float] | None = None
        self._no_room: str | None = None
        self._ticked = self.clock()

    def run(self) -> None:
        """Search until the strategy has nothing more to do, the budget is used up, or somebody interrupts.

        Raises:
            StudyFailed: runs keep failing with the same error, or no worker can be started.
            NothingBegun: what was left of the budget once workers had loaded had no room for a first run.
            KeyboardInterrupt: after every run has written its checkpoint.
        """
        with _signals(self._interrupt):
            self._recover()
            self._take_requests()
            while self._step():
                pass
            self._tick()
            if self._no_room and not len(self.tree) and not self.interrupted:
                raise NothingBegun(self._no_room)
            if not self.interrupted and self.study.hold_back:
                self._test()
            if self.interrupted:
                self.stop_all()
                raise KeyboardInterrupt

    def wait_until_ready(self) -> None:
        """Let the first worker load, so that the speed is known before the plan is shown."""
        while self._probed is None and not self.interrupted:
            if any(isinstance(event, Ready) for event in self._wait()):
                break
        self._tick()  # the time that it took is gone from the budget, which the plan has to know
        self.speed = Speed.measured(self.ledger, self.tree, self._probed)

    def _step(self) -> bool:
        """One turn; whether there should be another."""
        if self.interrupted:
            return False
        if self.clock() - self._ticked >= self.tick_seconds:
            self._tick()
            self._take_requests()
        self._wait_while_paused()
        left = self.study.budget.left(self.ledger)
        used_up = Left({name: amount for name, amount in left.amounts.items() if name != "runs"}).used_up
        if used_up:
            self._no_room = f"the budget's {used_up} were used up before a first run could begin: give it more"
            self.stop_all(f"the budget's {used_up} are used up")
            return False
        waiting = [run for run in self.tree if run.waits_for_worker]
        free = self.executor.free_slots - len(waiting)
        actions = self._decide(free, left) if free > 0 else []
        for action in actions:
            self.apply(action)
        self._dispatch()
        if not self._running and not actions:
            return False
        # Giving a waiting run up takes no worker: what it was counted for is asked for again at once.
        if not any(isinstance(action, Stop) and self.tree[action.run].ended for action in actions):
            self._wait()
        return True

    def _decide(self, free: int, left: Left) -> Sequence[Action]:
        """The baseline first; then what the strategy wants, as far as the budget has room for it."""
        baseline = self.study.baseline
        if baseline is not None and not any(run.origin == "baseline" for run in self.tree):
            return [Start(baseline, self.study.trainer.horizon(baseline), "baseline")]
        for run in self.tree.active():
            left = reduced(left, price(self.study.trainer, self.speed, run.hyperparameters, run.position, run.until))
        left = Left(left.amounts, self._whole_runs(left))
        actions = self.strategy.decide(self.tree, free_slots=free, left=left)
        fitting = self._fitting(actions, left)
        if actions and not fitting:
            if not len(self.tree):
                _, needed = prices(actions[0], self.tree, self.study.trainer, self.speed)
                self._no_room = shortage(left, needed)
            # Say so by the one limit that strategies look at, so that this one can bring what has begun to an end.
            left = Left({**left.amounts, "runs": 0}, left.whole_runs)
            fitting = self._fitting(self.strategy.decide(self.tree, free_slots=free, left=left), left)
        return fitting

    def _whole_runs(self, left: Left) -> float | None:
        """How many average runs the compute has room for; the average over the space never changes, the speed does."""
        if self._average is None:
            study = self.study
            cost = average_cost(study.space, study.price, study.seed)
            self._average = cost, average_horizon(study.space, study.trainer.horizon, study.seed)
        cost, horizon = self._average
        compute = {name: amount for name, amount in left.amounts.items() if name != "runs"}
        return room_for(compute, self.speed.timed(cost, round(horizon)), self.executor.num_workers)

    def _fitting(self, actions: Sequence[Action], left: Left) -> list[Action]:
        """The actions that what is left has room for, one after the other."""
        fitting, full = [], False
        for action in actions:
            now, needed = prices(action, self.tree, self.study.trainer, self.speed)
            is_root = isinstance(action, Start)
            # After a root that does not fit there is none: strategies count roots, and would begin the later one twice.
            if (is_root and full) or left.lacks(needed, num_runs=int(is_root)) is not None:
                full |= is_root
                continue
            fitting.append(action)
            left = reduced(left, now)
        return fitting

    def apply(self, action: Action) -> None:
        """Enter an action into the tree. A run that has to be trained then waits for a worker."""
        match action:
            case Start(hyperparameters, until, origin, seed):
                run = self.store.create_run(
                    self.study.name,
                    hyperparameters=hyperparameters,
                    horizon=self.study.trainer.horizon(hyperparameters),
                    until=until,
                    seed=self.study.seed if seed is None else seed,
                    origin=origin,
                )
                # Counted at once: the next decision must not start one too many.
                self.ledger = dataclasses.replace(self.ledger, num_runs=self.ledger.num_runs + 1)
            case Continue(run_id, until):
                run = self.store.update_run(run_id, status="pending", until=until)
            case Fork():
                run = self._fork(action)
            case Stop(run_id, origin):
                run = self._stop(run_id, origin)
        self.tree.absorb(run)

    def _fork(self, action: Fork) -> Run:
        parent = self.tree[action.parent]
        hyperparameters = {**parent.hyperparameters, **action.changes}
        fork_point(self.store, parent.id, action.at)
        horizon = self.study.trainer.horizon(hyperparameters)
        if min(action.until, horizon) <= action.at:
            raise ConfigError(
                f"a fork of {parent.id} at {action.at:,} with horizon {horizon:,}, to be trained to"
                f" {min(action.until, horizon):,}, has nothing left to train: fork it earlier, or make it longer"
            )
        return self.store.create_run(
            self.study.name,
            hyperparameters=hyperparameters,
            horizon=horizon,
            until=min(action.until, horizon),
            seed=parent.seed,
            origin=action.origin,
            parent=parent.id,
            fork_position=action.at,
        )

    def _stop(self, run_id: str, origin: str) -> Run:
        run = self.tree[run_id]
        if run_id in self._running:
            self._giving_up[run_id] = origin
            self.executor.stop(run_id)
            return run
        return run if run.ended else self._given_up(run_id, origin)

    def _given_up(self, run_id: str, origin: str) -> Run:
        """A stopped run. One that the strategy gave up needs no checkpoint but where a fork begins; one that a person
        stopped may be restarted or forked by hand."""
        run = self.store.update_run(run_id, status="stopped")
        if origin != "hand" and self.study.keep_checkpoints != "all":
            for record in self.store.checkpoints(run_id):
                drop_checkpoint(self.store, run_id, record)
        return run

    def _take_requests(self) -> None:
        """What people asked for from another process joins here, through the same actions."""
        for message in asked.take_requests(self):
            self._show(message)

    def _wait_while_paused(self) -> None:
        """Until somebody unpauses the study or ends the loop. The time does not count."""
        paused = False
        while not self.interrupted and self.store.is_paused(self.study.name):
            if not paused:
                self.stop_all(f"paused; 'thalweg unpause {self.study.name}' goes on")
            paused = True
            time.sleep(WAIT_SECONDS)
            self._take_requests()
            self._ticked = self.clock()

    def is_training(self, run_id: str) -> bool:
        """Whether a worker has a run now."""
        return run_id in self._running

    def _dispatch(self) -> None:
        waiting = [run for run in self.tree if run.waits_for_worker and run.id not in self._running]
        for run in waiting[: max(self.executor.free_slots, 0)]:
            self._running.add(run.id)
            self.tree.absorb(self.store.update_run(run.id, status="running"))
            self.executor.submit(Task(run.id))

    def _wait(self) -> Sequence[Event]:
        events = self.executor.wait(WAIT_SECONDS)
        for event in events:
            match event:
                case Ready(facts=facts):
                    self._probed = facts.get("flops_per_second")
                case Progress(run_id, position, metrics):
                    latest = self._positions.get(run_id, (0, {}))[1]
                    self._positions[run_id] = (position, {**latest, **metrics})
                case Done(task):
                    self._done(task)
                case Lost(task, reason):
                    self._lost(task, reason)
        self._show()
        return events

    def _done(self, task: Task) -> None:
        self._running.discard(task.run)
        self._positions.pop(task.run, None)
        run = self.store.read_run(task.run)
        origin = self._giving_up.pop(run.id, None)
        if origin is not None and run.status == "interrupted":
            run = self._given_up(run.id, origin)
        self._let_go.discard(run.id)
        self.tree.absorb(run)
        self.ledger = self.store.read_ledger(self.study.name)
        self.speed = Speed.measured(self.ledger, self.tree, self._probed)
        if task.kind == "train":
            self._let_checkpoints_go()
            self._count_failure(run)

    def _lost(self, task: Task | None, reason: str) -> None:
        if self.executor.num_workers == 0:
            raise StudyFailed(f"no worker could be started:\n{reason}")
        if task is None:
            return
        self._running.discard(task.run)
        if task.kind == "test":  # the run itself is finished; the next session tests it
            self._show(f"lost a worker while it tested {task.run}: {reason.splitlines()[-1]}")
            return
        self._losses[task.run] += 1
        if self._losses[task.run] >= MAX_LOSSES:
            run = self.store.update_run(task.run, status="failed", error=reason)
        else:
            run = self.store.update_run(task.run, status="interrupted")
        self.tree.absorb(run)
        self._show(f"lost a worker with {task.run}: {reason.splitlines()[-1]}")
        self._count_failure(run)

    def _count_failure(self, run: Run) -> None:
        if run.status != "failed":
            self._failures.clear()
            return
        self._failures.append((run.error or "").strip().splitlines()[-1])
        if len(self._failures) >= MAX_SAME_FAILURES and len(set(self._failures[-MAX_SAME_FAILURES:])) == 1:
            self.stop_all()
            raise StudyFailed(
                f"{MAX_SAME_FAILURES} runs in a row failed with the same error, so the study stops:\n{run.error}"
            )

    def _let_checkpoints_go(self) -> None:
        """Of finished runs the best few, any of which repetitions may show to be the best, and the baseline need their
        checkpoints; the others only where a fork begins and where they can be extended."""
        if self.study.keep_checkpoints == "all":
            return
        metric = self.study.metric
        needed = {run.id for run in (best_run(self.tree, metric), *finalists(self.tree, metric, NUM_FINALISTS)) if run}
        for run in self.tree:
            if run.status != "finished" or run.id in needed or run.origin == "baseline" or run.id in self._let_go:
                continue
            self._let_go.add(run.id)
            stable_end = self.study.trainer.stable_end(run.hyperparameters)
            for record in self.store.checkpoints(run.id):
                if record.position != stable_end:
                    drop_checkpoint(self.store, run.id, record)

    def _test(self) -> None:
        """Evaluate the winner and the baseline on held-back data, which nothing before has seen."""
        best = best_run(self.tree, self.study.metric)
        baseline = next((run for run in self.tree if run.origin == "baseline" and run.status == "finished"), None)
        tested = self.store.read_tests(self.study.name)
        todo = [run for run in {run.id: run for run in (best, baseline) if run}.values() if run.id not in tested]
        while (todo or self._running) and not self.interrupted:
            while todo and self.executor.free_slots > 0:
                run = todo.pop()
                self._running.add(run.id)
                self.executor.submit(Task(run.id, "test"))
            self._wait()
            self._tick()

    def _recover(self) -> None:
        """Take over from an earlier session: runs that were in a worker's hands go on from their checkpoints."""
        for run in [run for run in self.tree if run.status == "running"]:
            while self.store.run_times(run.id).live and not self.interrupted:
                self._show(f"waiting for a worker of the session before to let go of {run.id}")
                time.sleep(WAIT_SECONDS)
            now = self.store.read_run(run.id)
            self.tree.absorb(self.store.update_run(run.id, status="interrupted") if now.status == "running" else now)
        self._let_checkpoints_go()

    def stop_all(self, message: str | None = None) -> None:
        """Let every running run write its checkpoint; those that do not in time go on from the one before."""
        for run_id in self._running:
            self.executor.stop(run_id)
        if message:
            self._show(message)
        deadline = self.clock() + STOP_SECONDS
        while self._running and self.clock() < deadline:
            self._wait()
        for run_id in self._running:
            if self.tree[run_id].status == "running":  # and not finished and being tested
                self.tree.absorb(self.store.update_run(run_id, status="interrupted"))
        self._running.clear()
        self._tick()

    def _tick(self) -> None:
        now = self.clock()
        self.session.add_wall_seconds(now - self._ticked)
        self._ticked = now
        self.ledger = self.store.read_ledger(self.study.name)

    def _show(self, message: str | None = None) -> None:
        self.watch.update(self.tree, self.ledger, self._positions, message)

    def _interrupt(self) -> None:
        self.interrupted = True


@contextmanager
def _signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a flag, so that nothing is torn; a second Ctrl-C ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(_number: int, _frame: object) -> None:
        interrupt()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
