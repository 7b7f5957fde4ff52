"""Workers in virtual time, and a trainer that answers from a table or a function.

Nothing here waits: a task is carried out when it is submitted, and its outcome becomes known when the virtual clock has
reached the end of it. So a study takes the time that its strategy takes to decide, and happens as it would have with
so many workers at that speed.
"""

from __future__ import annotations

import copy
import hashlib
import heapq
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

from thalweg.budget import Cost
from thalweg.errors import ConfigError, RunInterrupted
from thalweg.execute.executor import Done, Event, Task
from thalweg.space import Hyperparameters, Space
from thalweg.trainer import ActiveRun, Estimate
from thalweg.tree import UNITS, Unit

Path = tuple[tuple[int, Hyperparameters], ...]
"""A lineage as a trainer sees it: from which position on which hyperparameters held. One entry for a root; one more
for each fork that changed some."""

Metrics = float | Mapping[str, float]
"""An evaluation: the study's metric alone, or several by name. What is not a finite number ends the run as diverged."""

PerPosition = float | Callable[[Hyperparameters], float]
"""An amount for each position trained, or a function of the hyperparameters that gives it."""


class VirtualClock:
    """Seconds that pass only when they are told to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Planned:
    """A task as it will go."""

    seconds: float
    """Virtual time that it takes."""
    record: Callable[[], None]
    """Enters what became of it into the store."""


class VirtualWork(Protocol):
    """What a virtual worker does."""

    def plan(self, task: Task, stop_after_seconds: float | None) -> Planned:
        """Carry a task out and tell, without recording anything yet.

        Args:
            stop_after_seconds: virtual time after which the task was asked to end; None where it was not.
        """
        ...


class SimulatedExecutor:
    """Workers in virtual time.

    Args:
        work: what they do.
        num_workers: how many.
        clock: moved on by `wait`, to the end of the next task.
        deadline_seconds: a time on the clock at which `wait` returns with nothing done, so that the loop can look at a
            budget of time; None for none.
    """

    def __init__(
        self, work: VirtualWork, *, num_workers: int, clock: VirtualClock, deadline_seconds: float | None = None
    ) -> None:
        if num_workers < 1:
            raise ConfigError(f"workers = {num_workers} must be at least 1")
        self._work = work
        self._num_workers = num_workers
        self._clock = clock
        self._deadline = math.inf if deadline_seconds is None else deadline_seconds
        # When each task ends and when it began; tasks that end at one time are done in the order of their beginnings.
        self._busy: list[tuple[float, int, float, Task, Planned]] = []
        self._num_submitted = 0

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def free_slots(self) -> int:
        return self._num_workers - len(self._busy)

    def submit(self, task: Task) -> None:
        assert self.free_slots > 0
        planned = self._work.plan(task, None)
        self._push(self._clock.seconds, planned, task)

    def stop(self, run: str) -> None:
        for entry in [entry for entry in self._busy if entry[3].run == run and entry[0] > self._clock.seconds]:
            self._busy.remove(entry)
            heapq.heapify(self._busy)
            _, _, began, task, _ = entry
            stopped = self._work.plan(task, self._clock.seconds - began)
            # It ends at once: what it did since its last step boundary is lost, as in a worker.
            self._push(began, Planned(self._clock.seconds - began, stopped.record), task)

    def wait(self, timeout_seconds: float) -> Sequence[Event]:
        """Move the clock on to the end of the next tasks, however far that is, or to the deadline."""
        if not self._busy:
            return []
        ends = self._busy[0][0]
        if self._clock.seconds < self._deadline < ends:
            # A little past it, so that no rounding leaves a rest of the budget.
            self._clock.seconds = self._deadline + 1e-9 * max(1.0, self._deadline)
            return []
        self._clock.seconds = max(self._clock.seconds, ends)
        events: list[Event] = []
        while self._busy and self._busy[0][0] <= self._clock.seconds:
            _, _, _, task, planned = heapq.heappop(self._busy)
            planned.record()
            events.append(Done(task))
        return events

    def close(self, grace_seconds: float) -> None:
        """Let go of what is under way; its outcome is not recorded."""
        self._busy.clear()

    def _push(self, began: float, planned: Planned, task: Task) -> None:
        self._num_submitted += 1
        heapq.heappush(self._busy, (began + planned.seconds, self._num_submitted, began, task, planned))


@dataclass
class SimulatedTrainer:
    """Answers from a function instead of training. It is a trainer as any other, in real workers too.

        SimulatedTrainer.of_points(lambda hyperparameters, fraction: ...)           # share of the horizon -> loss
        SimulatedTrainer.of_curve(lambda hyperparameters, position, seed: ...)      # with noise that the seed decides
        SimulatedTrainer(lambda path, position, seed: ...)                          # what a fork changed counts
        SimulatedTrainer(step=lambda state, hyperparameters, position, seed: ...)   # a toy with a state of its own

    All of these are pure functions of their arguments. One that raises fails its run; one that gives no finite number
    makes it diverge. A run trains to the first step boundary at or after what it is asked for, and no further than its
    horizon; it is evaluated there and, with `report_every`, on the way.
    """

    curve: Callable[[Path, int, int], Metrics] | None = None
    """(path, position, seed) -> the evaluation there."""
    _: KW_ONLY
    step: Callable[[Any, Hyperparameters, int, int], tuple[Any, Metrics]] | None = None
    """Instead of `curve`: (state, hyperparameters, position, seed) -> (state after the step that ends at this position,
    the evaluation there). The state is None before the first step; else what checkpoints may hold: numbers, strings,
    lists, mappings with string keys, arrays. It may be changed in place."""
    horizon_positions: int | Callable[[Hyperparameters], int] = 100
    """Where a run is complete, or a function of its hyperparameters that gives it."""
    horizon_name: str | None = None
    """A hyperparameter that, where a run has it, is its horizon: then runs can be shortened and extended."""
    unit: Unit = "steps"
    """What positions count."""
    step_length: int = 1
    """Positions of one training step: runs stop at multiples of it, and at their horizon."""
    report_every: int | None = None
    """Positions between evaluations, a multiple of `step_length`; None for one where a run stops, and no other."""
    seconds_per_position: PerPosition = 1.0
    """Virtual seconds that a position takes."""
    flops_per_position: PerPosition | None = None
    """For a budget in FLOPs."""
    evaluation_seconds: float = 0.0
    """Virtual seconds that an evaluation takes."""
    memory: Callable[[Hyperparameters], int] | None = None
    """The bytes that a run holds, for a study with a limit on them."""
    stable_share: float | None = None
    """Share of the horizon at which the learning rate begins to decay, as WSD has it; None for no such place."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Hyperparameters that a fork cannot change, each with the reason."""

    def __post_init__(self) -> None:
        if (self.curve is None) == (self.step is None):
            raise ConfigError("SimulatedTrainer: give either a curve or a step")
        if self.unit not in UNITS:
            raise ConfigError(f"unit = {self.unit!r}. Known: {', '.join(UNITS)}")
        horizon = self.horizon_positions
        if not callable(horizon) and (not isinstance(horizon, int) or horizon < 1):
            raise ConfigError(f"horizon = {horizon!r} must be a whole number above zero, or a function that gives one")
        if self.step_length < 1:
            raise ConfigError(f"step_length = {self.step_length} must be at least 1")
        if self.report_every is not None and (self.report_every < 1 or self.report_every % self.step_length):
            raise ConfigError(
                f"report_every = {self.report_every} must be a multiple of step_length = {self.step_length}"
            )
        if self.stable_share is not None and not 0 < self.stable_share < 1:
            raise ConfigError(f"stable_share = {self.stable_share:g} must be between 0 and 1, such as 0.8")
        if self.evaluation_seconds < 0:
            raise ConfigError(f"evaluation_seconds = {self.evaluation_seconds:g} must not be negative")
        self._metric = ""
        # What `describe` says of it, where it is a wrapper around another function.
        self._function: Callable[..., Any] | None = self.curve or self.step

    @classmethod
    def of_points(cls, function: Callable[[Hyperparameters, float], Metrics], **options: Any) -> SimulatedTrainer:
        """From (hyperparameters, share of the horizon reached) -> evaluation. A fork's past leaves no trace."""
        trainer: SimulatedTrainer

        def curve(path: Path, position: int, _seed: int) -> Metrics:
            hyperparameters = path[-1][1]
            return function(hyperparameters, position / trainer.horizon(hyperparameters))

        trainer = cls(curve, **options)
        trainer._function = function
        return trainer

    @classmethod
    def of_curve(cls, function: Callable[[Hyperparameters, int, int], Metrics], **options: Any) -> SimulatedTrainer:
        """From (hyperparameters, position, seed) -> evaluation. A fork's past leaves no trace."""
        trainer = cls(lambda path, position, seed: function(path[-1][1], position, seed), **options)
        trainer._function = function
        return trainer

    @property
    def preload(self) -> Sequence[str]:
        return []

    def check(self, space: Space, metric: str) -> None:
        """Any space will do; the metric is what a bare number is called."""
        self._metric = metric

    def describe(self) -> Mapping[str, Any]:
        """Its numbers, and the function's name with a fingerprint of its source."""
        function = self._function
        try:
            source = inspect.getsource(function)  # type: ignore[arg-type]
        except (OSError, TypeError):
            source = ""
        numbers = ("unit", "step_length", "report_every", "evaluation_seconds", "stable_share", "horizon_name", "fixed")
        varying = ("horizon_positions", "seconds_per_position", "flops_per_position")
        return {
            "kind": "simulated",
            "function": getattr(function, "__qualname__", type(function).__name__),
            "source": hashlib.sha256(source.encode()).hexdigest()[:16],
            **{name: getattr(self, name) for name in numbers},
            **{name: None if callable(value := getattr(self, name)) else value for name in varying},
        }

    def facts(self) -> Mapping[str, str]:
        return {"trainer": f"a simulation by {self.describe()['function']}"}

    def horizon(self, hyperparameters: Hyperparameters) -> int:
        if self.horizon_name is not None and self.horizon_name in hyperparameters:
            horizon: Any = hyperparameters[self.horizon_name]
        else:
            horizon = self.horizon_positions
            horizon = horizon(hyperparameters) if callable(horizon) else horizon
        if not isinstance(horizon, int) or horizon < 1:
            raise ConfigError(
                f"the horizon of {dict(hyperparameters)} is {horizon!r}: it must be a whole number above 0"
            )
        return int(horizon)

    def cost(self, hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
        arrival = self._boundary(hyperparameters, until)
        seconds = self._num_reports(start, arrival) * self.evaluation_seconds
        return self._training_cost(hyperparameters, max(arrival - start, 0), seconds)

    def stable_end(self, hyperparameters: Hyperparameters) -> int | None:
        if self.stable_share is None:
            return None
        # A hair more, so that 0.8 * 50 is not 39.999.
        return (
            math.floor(self.horizon(hyperparameters) * self.stable_share / self.step_length + 1e-9) * self.step_length
        )

    def extended(self, hyperparameters: Hyperparameters, horizon: int) -> Hyperparameters:
        if self.horizon_name is None:
            raise ConfigError("these simulated runs have one length: give the trainer a horizon_name to change it by")
        return {self.horizon_name: horizon}

    def memory_bytes(self, hyperparameters: Hyperparameters) -> int | None:
        return None if self.memory is None else self.memory(hyperparameters)

    def fixed_at_start(self, names: Iterable[str]) -> Mapping[str, str]:
        return {name: self.fixed[name] for name in names if name in self.fixed}

    def setup(self) -> None:
        """Nothing to share."""

    def probe(self) -> float | None:
        return None

    def train(self, runs: Sequence[ActiveRun]) -> None:
        for active in runs:
            self._train(active)

    def test(self, run: ActiveRun) -> Mapping[str, Estimate]:
        return {}

    def _train(self, active: ActiveRun) -> None:
        hyperparameters, position = dict(active.hyperparameters), active.start
        walk = _Walk(self, active, _path(active))
        for stop in self._stops(hyperparameters, active.start, active.until):
            cost = self._training_cost(hyperparameters, stop - position)
            reached = self._reached_in_time(active, position, stop, cost.seconds)
            walk.advance(position, reached)
            active.spend("train", self._training_cost(hyperparameters, reached - position))
            position = reached
            if reached < stop:
                walk.save(position)
                raise RunInterrupted
            if self._is_reported(position, self._boundary(hyperparameters, active.until)):
                seconds = self.evaluation_seconds
                active.spend("evaluate", Cost(seconds=seconds, device_seconds=seconds))
                active.report(position, **self._as_metrics(walk.evaluation(position)))
            if position == self.stable_end(hyperparameters):
                walk.save(position)
        walk.save(position)

    def _reached_in_time(self, active: ActiveRun, position: int, stop: int, seconds: float) -> int:
        """How far a run gets: to `stop`, unless it is asked to end before."""
        left: float | None = getattr(active, "seconds_left", None)  # what a virtual worker knows
        if left is None:
            return position if active.should_stop() else stop
        if seconds <= left:
            return stop
        num_steps = int(left / seconds * (stop - position) / self.step_length + 1e-9)
        return min(position + num_steps * self.step_length, stop)

    def _stops(self, hyperparameters: Hyperparameters, start: int, until: int) -> Iterator[int]:
        """Where something happens on the way, rising: evaluations, the end of the stable phase, the arrival."""
        arrival = self._boundary(hyperparameters, until)
        every = self.report_every
        stops = set() if every is None else set(range((start // every + 1) * every, arrival, every))
        if (stable_end := self.stable_end(hyperparameters)) is not None and start < stable_end < arrival:
            stops.add(stable_end)
        return iter(sorted({*stops, arrival} if arrival > start else stops))

    def _is_reported(self, position: int, arrival: int) -> bool:
        return position == arrival or (self.report_every is not None and position % self.report_every == 0)

    def _num_reports(self, start: int, arrival: int) -> int:
        if arrival <= start:
            return 0
        on_the_way = 0 if self.report_every is None else (arrival - 1) // self.report_every - start // self.report_every
        return on_the_way + 1

    def _boundary(self, hyperparameters: Hyperparameters, until: int) -> int:
        return min(math.ceil(until / self.step_length) * self.step_length, self.horizon(hyperparameters))

    def _training_cost(self, hyperparameters: Hyperparameters, num_positions: int, more_seconds: float = 0.0) -> Cost:
        seconds = num_positions * _amount(self.seconds_per_position, hyperparameters) + more_seconds
        flops = self.flops_per_position
        return Cost(
            samples=num_positions if self.unit == "samples" else 0,
            tokens=num_positions if self.unit == "tokens" else 0,
            flops=0.0 if flops is None else num_positions * _amount(flops, hyperparameters),
            seconds=seconds,
            device_seconds=seconds,
        )

    def _as_metrics(self, evaluation: Metrics) -> Mapping[str, float]:
        if isinstance(evaluation, Mapping):
            return {name: float(value) for name, value in evaluation.items()}
        return {self._metric: float(evaluation)}


@dataclass
class _Walk:
    """One run on its way: its path, and its state where the trainer has a step."""

    trainer: SimulatedTrainer
    active: ActiveRun
    path: Path

    def __post_init__(self) -> None:
        state = self.active.restore()
        self._state = None if state is None else copy.deepcopy(state.get("state"))
        self._evaluation: Metrics | None = None

    def advance(self, position: int, until: int) -> None:
        """Take the steps between two positions."""
        if self.trainer.step is None:
            return
        while position < until:
            position = min(position + self.trainer.step_length, until)
            hyperparameters = self.active.hyperparameters
            self._state, self._evaluation = self.trainer.step(self._state, hyperparameters, position, self.active.seed)

    def evaluation(self, position: int) -> Metrics:
        """The evaluation at the position reached."""
        if self.trainer.curve is not None:
            return self.trainer.curve(self.path, position, self.active.seed)
        assert self._evaluation is not None
        return self._evaluation

    def save(self, position: int) -> None:
        path = [[begin, dict(hyperparameters)] for begin, hyperparameters in self.path]
        self.active.save(position, {"path": path, "state": copy.deepcopy(self._state)})


def _path(active: ActiveRun) -> Path:
    """What the run went through before, from its checkpoint, with what holds from here on."""
    state = active.restore()
    before = [] if state is None else [(int(begin), dict(held)) for begin, held in state["path"]]
    now = dict(active.hyperparameters)
    if before and before[-1][1] == now:
        return tuple(before)
    return (*(entry for entry in before if entry[0] < active.start), (active.start, now))


def _amount(per_position: PerPosition, hyperparameters: Hyperparameters) -> float:
    amount = per_position(hyperparameters) if callable(per_position) else per_position
    if not 0 <= amount < math.inf:
        raise ConfigError(f"{amount!r} per position, for {dict(hyperparameters)}, must be a finite number, 0 or above")
    return amount
