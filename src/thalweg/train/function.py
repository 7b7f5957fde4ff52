"""Any function of the user's own as a trainer.

    def train(run):
        model, optimizer = build(run.hyperparameters)
        state = run.restore(model=model, optimizer=optimizer)
        for position in run.positions():
            loss = one_step(model, optimizer, position)
            run.log(position, loss=loss)
        run.report(accuracy=evaluate(model))

A function that needs none of this may just return its result.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from thalweg.budget import Cost, SpendKind
from thalweg.errors import ConfigError, RunInterrupted
from thalweg.space import Hyperparameters, Space
from thalweg.train import checkpoint
from thalweg.trainer import ActiveRun, Diverged, Estimate
from thalweg.tree import UNITS, Unit


class Stateful(Protocol):
    """A model, an optimiser, a scheduler, a scaler, a data loader ...: whatever can give and take its state."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


class FunctionRun:
    """What the user's function gets: its run."""

    def __init__(self, active: ActiveRun, unit: Unit) -> None:
        self._active = active
        self._unit = unit
        self._objects: dict[str, Stateful] = {}
        self._initial: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        self._position = active.start
        self._clock = time.perf_counter()

    @property
    def id(self) -> str:
        """The run's name in the store, such as `mystudy-7`."""
        return self._active.id

    @property
    def hyperparameters(self) -> Hyperparameters:
        """What the study chose for this run."""
        return self._active.hyperparameters

    @property
    def seed(self) -> int:
        """The run's seed. Python's, numpy's and torch's generators are seeded with it before the function is called."""
        return self._active.seed

    @property
    def start(self) -> int:
        """The position that `restore` brings back; 0 from scratch."""
        return self._active.start

    @property
    def until(self) -> int:
        """The position to train to in this call."""
        return self._active.until

    @property
    def horizon(self) -> int:
        """The position at which the run is complete: what a learning-rate schedule should run to."""
        return self._active.horizon

    def restore(self, **objects: Stateful) -> dict[str, Any]:
        """Name what makes up the run's state, and bring it back where the run has been before.

        From here on checkpoints of these objects are written as needed: about every minute, at the end, and when the
        run is stopped. What a fork changed wins: an optimiser's options that were built with another value than in
        the checkpoint keep the new one (scaled as far as a schedule had brought the old one).

        Args:
            objects: anything with `state_dict` and `load_state_dict`.
        Returns:
            A dict that is kept with the checkpoints: put there what else has to come back (numbers, strings, lists,
            dicts, arrays, tensors). Empty from scratch.
        """
        for name, thing in objects.items():
            if not hasattr(thing, "state_dict") or not hasattr(thing, "load_state_dict"):
                raise ConfigError(
                    f"run.restore: {name} is a {type(thing).__name__}, without state_dict and load_state_dict;"
                    " put plain values into the dict that restore returns"
                )
        self._objects = objects
        self._initial = {name: _options(thing) for name, thing in objects.items()}
        state = self._active.restore()
        if state is not None:
            self._load(state)
        self._spend("setup")
        return self._kept

    def positions(self) -> Iterator[int]:
        """The positions to train, one per step: `start + 1` to `until`.

        Position p is reached by the p-th step. Between steps checkpoints are written as needed, and the run ends here
        (by `RunInterrupted`, which is no `Exception`) when it was asked to stop.
        """
        if self._active.start and not self._objects:
            raise ConfigError("this run goes on from a checkpoint: call run.restore(...) before run.positions()")
        self._spend("setup")
        for position in range(self._active.start + 1, self._active.until + 1):
            yield position
            self._position = position
            self._spend("train", 1)
            last = position == self._active.until
            stop = not last and self._active.should_stop()
            if last or stop or self._active.checkpoint_due():
                self._save()
            if stop:
                raise RunInterrupted

    def log(self, position: int, /, **metrics: float) -> None:
        """Record points of curves. A loss that is not a finite number ends the run as diverged."""
        values = {name: _number(name, value) for name, value in metrics.items()}
        self._active.log(position, **values)
        for name, value in values.items():
            if name.rpartition("/")[2] == "loss" and not math.isfinite(value):
                raise Diverged(f"{name} at position {position} is {value}")

    def report(self, **metrics: float) -> None:
        """Record an evaluation at the position reached: what runs are compared by."""
        values = {name: _number(name, value) for name, value in metrics.items()}
        self._spend("evaluate")
        self._active.report(self._position, **values)

    def finish(self, result: object, metric: str) -> None:
        """Take in what the function returned."""
        if result is None:
            return
        if self._position == self._active.start < self._active.until:
            self._position = self._active.until  # it did not walk through positions(): it is all done at once
        values = result if isinstance(result, Mapping) else {metric: result}
        self.report(**{str(name): _number(str(name), value) for name, value in values.items()})

    def _save(self) -> None:
        # Without state there is nothing to go on from: a continued run then begins again, and the ledger says so.
        if not self._objects:
            return
        objects = {name: thing.state_dict() for name, thing in self._objects.items()}
        state = {"objects": objects, "initial": self._initial, "kept": self._kept, "rng": checkpoint.capture_rng()}
        self._active.save(self._position, state)

    def _load(self, state: Mapping[str, Any]) -> None:
        missing = set(state["objects"]) ^ set(self._objects)
        if missing:
            raise ConfigError(
                f"run.restore: the checkpoint holds {', '.join(sorted(state['objects']))},"
                f" but restore was given {', '.join(sorted(self._objects)) or 'nothing'}"
            )
        for name, thing in self._objects.items():
            thing.load_state_dict(state["objects"][name])
            _apply_changes(thing, saved=state["initial"][name], built=self._initial[name])
        self._kept.update(state["kept"])
        checkpoint.restore_rng(state["rng"])

    def _spend(self, kind: SpendKind, amount: int = 0) -> None:
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        self._active.spend(kind, _in_unit(self._unit, amount, seconds))


class FunctionTrainer:
    """Makes a function a trainer.

    Args:
        function: takes a `FunctionRun`. It reports its result with `run.report(metric=...)`, or returns it: a number,
            or a mapping of metrics.
        horizon: the position at which a run is complete, or a function of its hyperparameters that gives it.
            The default of 1 fits a function that is all done at once.
        unit: what a position counts.
    """

    def __init__(
        self,
        function: Callable[[FunctionRun], object],
        *,
        horizon: int | Callable[[Hyperparameters], int] = 1,
        unit: Unit = "steps",
    ) -> None:
        if unit not in UNITS:
            raise ConfigError(f"unit = {unit!r}. Known: {', '.join(UNITS)}")
        if not callable(horizon) and (not isinstance(horizon, int) or horizon < 1):
            raise ConfigError(f"horizon = {horizon!r} must be a whole number above zero, or a function that gives one")
        self.function = function
        self.unit: Unit = unit
        self._horizon = horizon
        self._metric = ""

    @property
    def preload(self) -> Sequence[str]:
        """What the script has imported, of what takes long."""
        return [module for module in ("torch", "transformers", "sklearn", "pandas") if module in sys.modules]

    def check(self, space: Space, metric: str) -> None:
        self._metric = metric

    def describe(self) -> Mapping[str, Any]:
        """The function's name and a fingerprint of its source, so that an edited function is noticed."""
        try:
            source = inspect.getsource(self.function)
        except (OSError, TypeError):
            source = ""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        horizon = None if callable(self._horizon) else self._horizon
        fingerprint = hashlib.sha256(source.encode()).hexdigest()[:16]
        return {"kind": "function", "function": name, "source": fingerprint, "horizon": horizon, "unit": self.unit}

    def facts(self) -> Mapping[str, str]:
        return {"trainer": f"the function {self.describe()['function']}"}

    def horizon(self, hyperparameters: Hyperparameters) -> int:
        horizon = self._horizon(hyperparameters) if callable(self._horizon) else self._horizon
        if not isinstance(horizon, int) or horizon < 1:
            raise ConfigError(
                f"horizon({dict(hyperparameters)}) gave {horizon!r}: it must be a whole number above zero"
            )
        return horizon

    def cost(self, hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
        """What is known of a function beforehand: its positions, where they count samples or tokens."""
        return _in_unit(self.unit, until - start, 0.0)

    def stable_end(self, hyperparameters: Hyperparameters) -> int | None:
        return None

    def extended(self, hyperparameters: Hyperparameters, horizon: int) -> Hyperparameters:
        raise ConfigError(
            "a function's runs cannot be extended: thalweg does not know their schedule; fork them by hand"
        )

    def fixed_at_start(self, names: Iterable[str]) -> Mapping[str, str]:
        """None that thalweg knows of: what the function builds from hyperparameters is its own affair."""
        return {}

    def memory_bytes(self, hyperparameters: Hyperparameters) -> int | None:
        """Not known: what the function builds is its own affair."""
        return None

    def setup(self) -> None:
        """Nothing to share: the function builds what it needs."""

    def probe(self) -> float | None:
        return None

    def train(self, runs: Sequence[ActiveRun]) -> None:
        for active in runs:
            checkpoint.seed_everything(active.seed)
            run = FunctionRun(active, self.unit)
            run.finish(self.function(run), self._metric)

    def test(self, run: ActiveRun) -> Mapping[str, Estimate]:
        """A function has no held-back data that thalweg knows of."""
        return {}


def _in_unit(unit: Unit, amount: int, seconds: float) -> Cost:
    return Cost(
        samples=amount if unit == "samples" else 0,
        tokens=amount if unit == "tokens" else 0,
        seconds=seconds,
        device_seconds=seconds,
    )


def _number(name: str, value: object) -> float:
    try:
        return float(value.item() if hasattr(value, "item") else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigError(f"{name} = {value!r} must be a number, not a {type(value).__name__}") from None


def _options(thing: Stateful) -> Any:
    """What an optimiser or a scheduler was built with, as far as hyperparameters can be in it."""
    state = thing.state_dict()
    if "param_groups" in state:
        return [
            {key: value for key, value in group.items() if key != "params"}
            for group in copy.deepcopy(state["param_groups"])
        ]
    return {"base_lrs": list(state["base_lrs"])} if "base_lrs" in state else None


def _apply_changes(thing: Any, *, saved: Any, built: Any) -> None:
    """Put into force what a fork changed: loading the state has just brought the parent's options back."""
    if isinstance(built, list) and isinstance(saved, list):
        for group, before, now in zip(thing.param_groups, saved, built, strict=True):
            for key in now:
                group[key] = _changed(group.get(key), before.get(key), now[key])
    elif isinstance(built, dict) and isinstance(saved, dict):
        pairs = zip(thing.base_lrs, saved["base_lrs"], built["base_lrs"], strict=True)
        thing.base_lrs = [_changed(current, before, now) for current, before, now in pairs]


def _changed(current: Any, before: Any, now: Any) -> Any:
    """An option's value after a fork: the current one where it was not changed, else the new one, in the proportion
    in which the current one stands to what it began with (that is a schedule's doing)."""
    if before == now:
        return current
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (current, before, now))
    return now * (current / before) if numbers and before else now
