"""How many optimizer steps a Hugging Face Trainer makes, known from one that was built for other hyperparameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from thalweg.errors import ConfigError
from thalweg.space import Hyperparameters, Space, Value

FIELDS: Mapping[str, str] = {
    "max_steps": "max_steps",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation",
}
"""Hyperparameters that decide the number of steps, where the Trainer took them as they are."""

NO_MATTER = frozenset(
    name
    for names in (
        ("lr", "learning_rate", "weight_decay", "weight_decay_kind", "optim", "max_grad_norm", "clip", "clip_norm"),
        ("beta1", "beta2", "epsilon", "adam_beta1", "adam_beta2", "adam_epsilon", "seed"),
        ("warmup", "warmup_steps", "warmup_ratio", "warmup_fraction", "lr_scheduler_type", "schedule", "decay"),
        ("decay_form", "floor", "num_cycles", "cycle_growth", "cycle_peak", "cycle_start"),
        ("lora_r", "lora_alpha", "lora_dropout", "r", "rank", "alpha", "dropout"),
        ("label_smoothing_factor", "neftune_noise_alpha", "beta", "temperature"),
    )
    for name in names
)
"""Hyperparameters whose usual meaning has nothing to do with the number of steps."""

MAX_BUILDS = 16
"""Trainers that are built to learn their number of steps before it is asked for by `horizon=`."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """What decides how many steps a Trainer makes."""

    max_steps: int
    """-1 where the epochs decide."""
    epochs: float
    batch_size: int
    accumulation: int
    num_batches: int | None
    """Of an epoch; None where the data has no length."""
    num_rows: int | None = None
    """Of an epoch, where an epoch is a pass over them in batches, the last one perhaps smaller; else None."""
    drop_last: bool = False
    flops_per_row: float = 0.0
    """Of training on a row, as Hugging Face counts them."""
    facts: Mapping[str, str] = field(default_factory=dict, compare=False)
    """What the plan tells a person."""

    @property
    def steps(self) -> int:
        """Optimizer steps, as `transformers.Trainer.set_initial_training_values` counts them.

        >>> Length(max_steps=-1, epochs=1.5, batch_size=8, accumulation=2, num_batches=7).steps
        6
        """
        if self.max_steps > 0:
            return self.max_steps
        assert self.num_batches is not None, "a Trainer refuses data without a length unless there is max_steps"
        return math.ceil(self.epochs * max(-(-self.num_batches // self.accumulation), 1))

    def with_changes(self, changes: Mapping[str, Value]) -> Length | None:
        """The length with other fields; None where it cannot be known from this one.

        >>> length = Length(max_steps=-1, epochs=1, batch_size=8, accumulation=1, num_batches=13, num_rows=100)
        >>> length.with_changes({"batch_size": 16}).num_batches
        7
        """
        changed = dataclasses.replace(self, **changes)  # type: ignore[arg-type]
        if changed.batch_size == self.batch_size:
            return changed
        if self.num_rows is None or changed.batch_size < 1:
            return changed if changed.max_steps > 0 else None
        whole, rest = divmod(self.num_rows, changed.batch_size)
        return dataclasses.replace(changed, num_batches=whole + (rest > 0 and not self.drop_last))


@dataclass
class StepCounter:
    """Knows how many steps a run makes, and builds a Trainer for it only where it cannot be told from another one.

    What it takes for granted is checked where a run is trained: there the Trainer itself says how many they are.
    """

    _matters: set[str] = field(default_factory=set)
    """Names that decide the number of steps in a way that is not understood: a Trainer is built for each value."""
    _no_matter: set[str] = field(default_factory=lambda: set(NO_MATTER))
    _built: list[tuple[Hyperparameters, Length]] = field(default_factory=list)

    def learn(self, space: Space, start: Hyperparameters, build: Callable[[Hyperparameters], Length]) -> None:
        """Build a Trainer, and another one for each hyperparameter that is not understood, at another value of it."""
        first = build(start)
        self._built.append((dict(start), first))
        for name, value in start.items():
            if name in self._no_matter or self._understood(name, value, first):
                continue
            dimension = space.dimensions.get(name)
            other = next((v for v in dimension.grid(2) if v != value), None) if dimension is not None else None
            if other is None or name in FIELDS:
                self._matters.add(name)
                continue
            length = build({**start, name: other})
            self._built.append(({**start, name: other}, length))
            (self._no_matter if length == first else self._matters).add(name)

    def length(self, hyperparameters: Hyperparameters, build: Callable[[Hyperparameters], Length]) -> Length:
        """The length of a run's training.

        Raises:
            ConfigError: too many Trainers had to be built to tell.
        """
        for known, length in self._built:
            if (found := self._from(known, length, hyperparameters)) is not None:
                return found
        if len(self._built) >= MAX_BUILDS:
            names = sorted(set(hyperparameters) - self._no_matter)
            raise ConfigError(
                f"{MAX_BUILDS} Trainers were built, and the number of steps is still not known for"
                f" {shown(hyperparameters)}: it depends on {', '.join(names)} in its own way. Give"
                " HFTrainer(make_trainer, horizon=...), the number of optimizer steps or a function of the"
                " hyperparameters that gives it"
            )
        built = build(hyperparameters)
        self._built.append((dict(hyperparameters), built))
        return built

    @property
    def first(self) -> Length:
        """The Trainer that was built first."""
        return self._built[0][1]

    def nearest(self, hyperparameters: Hyperparameters) -> Length:
        """As much as can be told without building: for what a run costs, not for how long it is."""
        known, length = self._built[0]
        changes = {
            FIELDS[name]: value
            for name, value in hyperparameters.items()
            if name in FIELDS and self._understood(name, known.get(name), length)
        }
        return length.with_changes(changes) or length

    def _from(self, known: Hyperparameters, length: Length, wanted: Hyperparameters) -> Length | None:
        changes: dict[str, Value] = {}
        for name in {*known, *wanted} - self._no_matter:
            if name in known and name in wanted and known[name] == wanted[name]:
                continue
            if name not in known or name not in wanted or not self._understood(name, known[name], length):
                return None
            changes[FIELDS[name]] = wanted[name]
        return length.with_changes(changes)

    def _understood(self, name: str, value: Value | None, length: Length) -> bool:
        """Whether the Trainer took a hyperparameter's value for the field of the same meaning."""
        if name not in FIELDS or name in self._matters or value is None:
            return False
        taken: Value = getattr(length, FIELDS[name])
        if name in ("batch_size", "train_batch_size", "per_device_train_batch_size") and length.num_rows is None:
            return taken == value and length.max_steps > 0
        return taken == value


def shown(hyperparameters: Hyperparameters) -> str:
    """Hyperparameters as an error message names them."""
    return ", ".join(f"{name} = {value!r}" for name, value in hyperparameters.items()) or "no hyperparameters"
