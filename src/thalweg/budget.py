"""What may be spent, what was spent, and what is left."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from thalweg.errors import ConfigError, nearest

SpendKind = Literal["train", "evaluate", "checkpoint", "setup", "repeated"]
"""What a run's resources went into. `repeated` is training done again after a crash, from the last checkpoint on."""

SPEND_KINDS: tuple[SpendKind, ...] = ("train", "evaluate", "checkpoint", "setup", "repeated")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An amount of resources, spent or predicted."""

    samples: int = 0
    """Training samples that went through the model (evaluation samples under `evaluate`)."""
    tokens: int = 0
    """Tokens that went through the model, padding included: padding costs the same."""
    flops: float = 0.0
    """Floating-point operations of the model's matrix products, forward and backward."""
    seconds: float = 0.0
    """Wall seconds."""
    device_seconds: float = 0.0
    """Wall seconds times the devices held: a GPU, or a CPU worker's core."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            samples=self.samples + other.samples,
            tokens=self.tokens + other.tokens,
            flops=self.flops + other.flops,
            seconds=self.seconds + other.seconds,
            device_seconds=self.device_seconds + other.device_seconds,
        )


def summed(costs: Iterable[Cost]) -> Cost:
    """The sum of many, without an object for each step: a loop asks for it at every decision."""
    samples = tokens = 0
    flops = seconds = device_seconds = 0.0
    for cost in costs:
        samples += cost.samples
        tokens += cost.tokens
        flops += cost.flops
        seconds += cost.seconds
        device_seconds += cost.device_seconds
    return Cost(samples=samples, tokens=tokens, flops=flops, seconds=seconds, device_seconds=device_seconds)


@dataclass(frozen=True)
class Ledger:
    """What a study has spent: per run and per kind, lost and evaluation work included."""

    spent: Mapping[str, Mapping[SpendKind, Cost]] = field(default_factory=dict)
    """Run id -> kind -> cost. A run that has spent nothing yet may be absent."""
    num_runs: int = 0
    """Runs created, whatever became of them."""
    wall_seconds: float = 0.0
    """Time for which the study's loop was running, over all its sessions."""
    num_forks: int = 0
    """Of the runs, those that began from another run's checkpoint."""

    def of(self, run_id: str) -> Cost:
        """All that one run has spent."""
        return summed(self.spent.get(run_id, {}).values())

    def by_kind(self) -> dict[SpendKind, Cost]:
        """Totals over runs, one per kind, kinds with nothing spent included."""
        return {kind: summed(run[kind] for run in self.spent.values() if kind in run) for kind in SPEND_KINDS}

    def total(self) -> Cost:
        """All that was spent. `seconds` is summed over runs; the study's own clock is `wall_seconds`."""
        return summed(cost for run in self.spent.values() for cost in run.values())


_UNITS = {
    "run": ("runs", 1.0),
    "sample": ("samples", 1.0),
    "token": ("tokens", 1.0),
    "flop": ("flops", 1.0),
    "second": ("seconds", 1.0),
    "sec": ("seconds", 1.0),
    "s": ("seconds", 1.0),
    "minute": ("seconds", 60.0),
    "min": ("seconds", 60.0),
    "hour": ("seconds", 3600.0),
    "h": ("seconds", 3600.0),
    "device-second": ("device_seconds", 1.0),
    "device-minute": ("device_seconds", 60.0),
    "device-hour": ("device_seconds", 3600.0),
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a study may spend. `None` means no limit; what is used up first ends the study."""

    runs: int | None = None
    """Runs that may begin from scratch. Forks go on with what has begun, and are limited by what they cost."""
    samples: int | None = None
    tokens: int | None = None
    flops: float | None = None
    seconds: float | None = None
    """Wall seconds of the study, over all its sessions."""
    device_seconds: float | None = None
    """Wall seconds times devices, summed over the runs."""

    def __post_init__(self) -> None:
        for name, limit in self.limits().items():
            if not limit > 0 or math.isinf(limit):
                raise ConfigError(f"budget: {name} = {limit:g} must be a number above zero")

    @classmethod
    def parse(cls, spec: str | Mapping[str, float] | Budget) -> Budget:
        """Read a budget as a person writes it.

        Args:
            spec: "20 min", "12 runs, 1e15 flops", or a mapping such as `{"minutes": 20, "runs": 12}`.
        Raises:
            ConfigError: an unknown unit, no amount, or one that is not above zero.

        >>> Budget.parse("20 min, 12 runs")
        Budget(runs=12, samples=None, tokens=None, flops=None, seconds=1200.0, device_seconds=None)
        >>> Budget.parse({"device_hours": 2}).device_seconds
        7200.0
        """
        if isinstance(spec, Budget):
            return spec
        limits: dict[str, float] = {}
        for unit, amount in _amounts(spec):
            name, factor = _unit(unit)
            if name in limits:
                raise ConfigError(f"budget: {name} is given twice, in {spec!r}")
            limits[name] = _amount(unit, amount) * factor
        if not limits:
            raise ConfigError(f"budget: {spec!r} sets no limit; for example '20 min' or '12 runs, 1e15 flops'")
        whole = {name: _whole(name, limits.pop(name)) for name in ("runs", "samples", "tokens") if name in limits}
        return cls(**whole, **limits)  # type: ignore[arg-type]

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name.

        >>> Budget(runs=3).limits()
        {'runs': 3}
        """
        fields = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: limit for name, limit in fields if limit is not None}

    def left(self, ledger: Ledger) -> Left:
        """What remains of each limit after what the ledger holds, never below zero."""
        total = ledger.total()
        used = {
            "runs": ledger.num_runs - ledger.num_forks,
            "samples": total.samples,
            "tokens": total.tokens,
            "flops": total.flops,
            "seconds": ledger.wall_seconds,
            "device_seconds": total.device_seconds,
        }
        return Left({name: max(limit - used[name], 0.0) for name, limit in self.limits().items()})

    def describe(self) -> str:
        """For people.

        >>> Budget.parse("90 min, 12 runs").describe()
        '12 runs, 90 minutes'
        """
        return ", ".join(_describe(name, limit) for name, limit in self.limits().items())


@dataclass(frozen=True)
class Left:
    """What remains of a budget, per limit that it sets."""

    amounts: Mapping[str, float]
    whole_runs: float | None = None
    """How many average runs, each trained to its horizon, the compute that is left has room for; None where no
    limit but the number of runs is set."""

    @property
    def used_up(self) -> str | None:
        """The name of a limit with nothing left, or None."""
        return next((name for name, amount in self.amounts.items() if amount <= 0), None)

    def lacks(self, cost: Cost, *, num_runs: int = 0) -> str | None:
        """The name of the first limit that this cost would exceed, or None where it fits.

        `seconds` is compared too: one run's wall seconds can never be more than the study's.
        """
        wanted = dataclasses.asdict(cost) | {"runs": num_runs}
        return next((name for name, amount in self.amounts.items() if wanted[name] > amount), None)


def _amounts(spec: str | Mapping[str, float]) -> list[tuple[str, float]]:
    if not isinstance(spec, str):
        return list(spec.items())
    amounts = []
    for part in filter(None, (part.strip() for part in spec.split(","))):
        match = re.fullmatch(r"([-+.\de]+)\s*([a-zA-Z_-]+)", part)
        try:
            amounts.append((match[2], float(match[1]))) if match else None
        except ValueError:
            match = None
        if match is None:
            raise ConfigError(f"budget: cannot read {part!r}; for example '20 min' or '12 runs, 1e15 flops'")
    return amounts


def _amount(unit: str, amount: object) -> float:
    if not isinstance(amount, int | float) or isinstance(amount, bool):
        raise ConfigError(f"budget: {unit} = {amount!r} must be a number, such as {{ {unit} = 20 }}")
    return float(amount)


def _whole(name: str, amount: float) -> int:
    if not (math.isfinite(amount) and amount == int(amount)):
        raise ConfigError(f"budget: {name} = {amount:g} must be a whole number")
    return int(amount)


def _unit(unit: str) -> tuple[str, float]:
    name = unit.lower().replace("_", "-")
    known = _UNITS.get(name) or _UNITS.get(name.removesuffix("s"))
    if known is None:
        units = [f"{name}s" for name in _UNITS if name not in ("s", "h", "sec", "min")]
        raise ConfigError(f"budget: unknown unit {unit!r}. {nearest(unit, units)}")
    return known


def _describe(name: str, limit: float) -> str:
    if name == "seconds":
        return f"{limit / 60:g} minutes" if limit >= 60 else f"{limit:g} seconds"
    if name == "device_seconds":
        return f"{limit / 3600:g} device-hours"
    if name == "runs":
        return f"{limit:g} run{'s' if limit != 1 else ''}"
    return f"{limit:,.0f} {name}" if limit < 1e12 else f"{limit:.3g} {name if name != 'flops' else 'FLOPs'}"
