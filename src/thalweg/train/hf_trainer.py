"""Any Hugging Face Trainer as a trainer.

def make_trainer(hyperparameters):
    model = AutoModelForSequenceClassification.from_pretrained("bert-base-uncased")
    args = TrainingArguments(learning_rate=hyperparameters["lr"], num_train_epochs=2)
    return Trainer(model, args, train_dataset=train, eval_dataset=validation)

thalweg.tune(HFTrainer(make_trainer), space={"lr": thalweg.log(1e-6, 1e-3)}, metric="loss", budget="20 min")
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from thalweg.budget import Cost
from thalweg.errors import ConfigError
from thalweg.space import Hyperparameters, Space
from thalweg.train.hf_steps import Length, StepCounter
from thalweg.train.hyperparameters import ALIASES, Optimization, check_schedules
from thalweg.trainer import ActiveRun, Estimate
from thalweg.tree import Unit

# torch and transformers take seconds to import: only the methods that need them import the modules that do.

_SCHEDULE_NAMES = (
    *("schedule", "warmup", "decay", "decay_form", "floor"),
    *("num_cycles", "cycle_growth", "cycle_peak", "cycle_start"),
)
_PRELOADED = ("torch", "transformers.trainer", "accelerate", "datasets", "peft", "sklearn", "pandas", "trl")


class _Schedule(Optimization):
    horizon_name = "max_steps"


class HFTrainer:
    """Makes a function that builds a `transformers.Trainer` a trainer. Its positions are optimizer steps.

    The function gets all hyperparameters, and builds model, arguments and Trainer anew at each call; trainers of TRL
    are Trainers. Runs are compared by what the Trainer's `evaluate()` gives, under the names without `eval_`. Where
    `schedule` is a hyperparameter, it is a name of `thalweg.schedules`, and the learning rate follows it instead of
    the Trainer's own scheduler; `warmup`, `decay`, `decay_form`, `floor` and the like go with it.

    Args:
        make_trainer: hyperparameters -> Trainer.
        horizon: a run's number of optimizer steps, or a function of its hyperparameters that gives it. By default the
            Trainer says, which is built for that before anything is trained.
    """

    unit: Unit = "steps"

    def __init__(
        self,
        make_trainer: Callable[[Hyperparameters], Any],
        *,
        horizon: int | Callable[[Hyperparameters], int] | None = None,
    ) -> None:
        if not callable(make_trainer):
            raise ConfigError(
                f"make_trainer is a {type(make_trainer).__name__}: give a function from hyperparameters to a Trainer,"
                " not a Trainer"
            )
        if horizon is not None and not callable(horizon):
            _check_horizon("horizon", horizon)
        self.make_trainer = make_trainer
        self._horizon = horizon
        self._steps = StepCounter()
        self._seen: Any = None
        self._left = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_seen": None}

    @property
    def preload(self) -> Sequence[str]:
        """What takes long to import, of what the function has imported."""
        return [module for module in _PRELOADED if module in sys.modules]

    def check(self, space: Space, metric: str) -> None:
        """Build a Trainer, to see whether the function works and how long it trains; the metric is known later.

        Raises:
            ConfigError: the function fails, or builds what cannot be trained as a run; a schedule does not fit.
        """
        for module in ("torch", "transformers", "accelerate"):
            if importlib.util.find_spec(module) is None:
                raise ConfigError(f"a Hugging Face Trainer needs {module}: pip install 'thalweg[train]'")
        import numpy as np

        self._steps = StepCounter()
        start = space.sample(np.random.default_rng(0))
        if self._horizon is None:
            self._steps.learn(space, start, self._measure)
        else:
            self._steps.length(start, self._measure)
        if len(self._seen):  # something holds the model of a Trainer that is gone: perhaps to give it to the next
            self._measure(start)
        if "schedule" in space.names:
            check_schedules(space, _schedule_of, self.horizon)

    def describe(self) -> Mapping[str, Any]:
        """The function's name and a fingerprint of its source, so that an edited function is noticed."""
        try:
            source = inspect.getsource(self.make_trainer)
        except (OSError, TypeError):
            source = ""
        horizon = None if callable(self._horizon) else self._horizon
        fingerprint = hashlib.sha256(source.encode()).hexdigest()[:16]
        return {"kind": "hf_trainer", "function": self._name, "source": fingerprint, "horizon": horizon}

    def facts(self) -> Mapping[str, str]:
        """The Trainer, the model with its size, and the data, for the plan."""
        facts = self._steps.first.facts
        return {**facts, "trainer": f"{facts['trainer']}, from the function {self._name}"}

    def horizon(self, hyperparameters: Hyperparameters) -> int:
        """The number of optimizer steps."""
        if self._horizon is None:
            return self._steps.length(hyperparameters, self._measure).steps
        horizon = self._horizon(hyperparameters) if callable(self._horizon) else self._horizon
        return _check_horizon(f"horizon({dict(hyperparameters)})", horizon)

    def cost(self, hyperparameters: Hyperparameters, start: int, until: int) -> Cost:
        """Samples that training takes, and FLOPs as Hugging Face counts them; evaluation is left out."""
        length = self._steps.nearest(hyperparameters)
        samples = (until - start) * length.batch_size * length.accumulation
        return Cost(samples=samples, flops=samples * length.flops_per_row)

    def stable_end(self, hyperparameters: Hyperparameters) -> int | None:
        """See `Trainer.stable_end`; None where `schedule` is no hyperparameter."""
        if "schedule" not in hyperparameters:
            return None
        settings = _schedule_of(hyperparameters)
        if settings.is_cyclic:
            return self.horizon(hyperparameters)
        start = settings.decay_start(self.horizon(hyperparameters))
        return None if start is None else int(start)

    def extended(self, hyperparameters: Hyperparameters, horizon: int) -> Hyperparameters:
        """`max_steps`, and a warm-up that is a share of the old horizon as so many steps."""
        if "max_steps" not in hyperparameters or "schedule" not in hyperparameters:
            raise ConfigError(
                "a Hugging Face Trainer's run can be extended where max_steps and schedule are hyperparameters of the"
                f" study; these are {', '.join(hyperparameters) or 'none'}"
            )
        now = self.horizon(hyperparameters)
        return _schedule_of(hyperparameters).extended(hyperparameters, now, horizon)

    def fixed_at_start(self, names: Iterable[str]) -> Mapping[str, str]:
        """None that thalweg knows of: what the function builds from hyperparameters is its own affair."""
        return {}

    def memory_bytes(self, hyperparameters: Hyperparameters) -> int | None:
        """Not known: what the function builds is its own affair."""
        return None

    def setup(self) -> None:
        """Import what runs need; there is nothing to share, as the function builds it all."""
        import torch

        from thalweg.train.hf_build import settle

        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        settle()

    def probe(self) -> float | None:
        return None

    def train(self, runs: Sequence[ActiveRun]) -> None:
        """Carry one run on to its `until`: train, save, evaluate, report.

        Raises:
            Diverged: a logged or an evaluated loss is not finite.
            RunInterrupted: the run was asked to stop, and its checkpoint is written.
        """
        from thalweg.train.hf_build import collect

        for run in runs:
            if self._left:  # by a run that an exception has ended, which held it until it was handled
                collect()
            self._left = True
            self._train(run)
            collect()
            self._left = False

    def test(self, run: ActiveRun) -> Mapping[str, Estimate]:
        """A Trainer has no held-back data that thalweg knows of."""
        return {}

    def _train(self, run: ActiveRun) -> None:
        from weakref import WeakSet

        from thalweg.train.hf_build import built
        from thalweg.train.hf_loop import HFLoop

        self._seen = WeakSet() if self._seen is None else self._seen
        named = "schedule" in run.hyperparameters
        schedule = _schedule_of(run.hyperparameters).schedule_for if named else None
        with built(self.make_trainer, run.hyperparameters, seed=run.seed, seen=self._seen) as trainer:
            stable_end = self.stable_end(run.hyperparameters)
            HFLoop(run, trainer, schedule=schedule, stable_end=stable_end).train()

    def _measure(self, hyperparameters: Hyperparameters) -> Length:
        from weakref import WeakSet

        from thalweg.train.hf_build import built, collect, explained, length_of

        self._seen = WeakSet() if self._seen is None else self._seen

        def build() -> Length:
            with built(self.make_trainer, hyperparameters, seed=0, seen=self._seen) as trainer:
                return length_of(trainer)

        try:
            return build()
        except ConfigError:
            raise
        except Exception as error:
            raise explained(hyperparameters, error) from error
        finally:
            collect()

    @property
    def _name(self) -> str:
        return getattr(self.make_trainer, "__qualname__", type(self.make_trainer).__name__)


def _schedule_of(hyperparameters: Hyperparameters) -> _Schedule:
    """The schedule that hyperparameters describe by name."""
    names = {name: name for name in _SCHEDULE_NAMES} | {
        alias: name for alias, name in ALIASES.items() if name in _SCHEDULE_NAMES and name != "schedule"
    }
    found = {name: value for name, value in hyperparameters.items() if name in names}
    if "warmup_steps" in hyperparameters:
        # Read as Hugging Face reads it: below 1 a share, from 1 on steps.
        found["warmup"] = hyperparameters["warmup_steps"]
    return _Schedule.parse(found)


def _check_horizon(name: str, horizon: object) -> int:
    if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
        raise ConfigError(
            f"{name} = {horizon!r} must be a whole number of steps above zero, or a function of the hyperparameters"
            " that gives one"
        )
    return horizon
