"""Schedules of published training runs, each number with its source: presets/*.toml."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files

from thalweg.errors import ConfigError, nearest
from thalweg.schedules.lengths import BatchRamp
from thalweg.schedules.schedule import Schedule, check_count, check_positive
from thalweg.schedules.toml_text import build, parse_toml
from thalweg.tree import Unit


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published run's learning rate."""

    name: str
    unit: Unit
    """Of the schedule's positions and of `length`."""
    peak: float
    """The peak learning rate."""
    length: float
    """Where the run ended."""
    source: str
    """Where the numbers were published."""
    schedule: Schedule
    batch: BatchRamp | None = None
    """In samples, where it is known."""
    tokens_per_sample: int | None = None
    """The context in tokens, where it is known."""

    def __post_init__(self) -> None:
        what = f"preset {self.name!r}"
        check_positive(what, peak=self.peak, length=self.length)
        if self.tokens_per_sample is not None:
            check_count(what, tokens_per_sample=self.tokens_per_sample)


def read_preset(text: str) -> Preset:
    """The preset that a TOML text describes.

    Raises:
        ConfigError: naming the key that is unknown, missing, of a wrong type or outside its range.
    """
    return build(Preset, parse_toml(text))


@functools.cache
def preset_names() -> tuple[str, ...]:
    """The names of all presets, in alphabetical order."""
    folder = files("thalweg.schedules") / "presets"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


@functools.cache
def preset(name: str) -> Preset:
    """A published run's schedule, by its name.

    Raises:
        ConfigError: there is none of this name.

    >>> bloom = preset("bloom-176b")
    >>> bloom.unit, bloom.peak * bloom.schedule(bloom.length)
    ('samples', 6e-06)
    """
    if name not in preset_names():
        raise ConfigError(f"unknown preset {name!r}. {nearest(name, preset_names())}")
    path = files("thalweg.schedules") / "presets" / f"{name}.toml"
    try:
        return read_preset(path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"preset {name!r}: {error}") from None


def presets() -> list[Preset]:
    """All published schedules that are known here, by name."""
    return [preset(name) for name in preset_names()]
