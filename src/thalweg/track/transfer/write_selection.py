"""What an export takes from a store, and what it says afterwards. The formats are in the files beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from thalweg.errors import ConfigError
from thalweg.track.calls import SYSTEM
from thalweg.track.lineage import MAX_POSITION
from thalweg.track.positions import MAX_DECIMALS, to_decimal
from thalweg.track.query_points import EVERYTHING, ChosenRun, Curve, MetricPatterns, choose_runs, read_curves
from thalweg.track.series import Ints
from thalweg.track.store import Store

Progress = Callable[[int], None]
"""Told how many runs are done."""


@dataclass(frozen=True)
class Selection:
    """The runs and metrics that an export takes."""

    store: Store
    project: str
    runs: list[ChosenRun]
    metrics: MetricPatterns
    inherited: bool


@dataclass
class Exported:
    """What went."""

    runs: int = 0
    points: int = 0
    metrics: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    """Where it is now."""
    left_out: list[str] = field(default_factory=list)
    """What did not go, or not as it was: a sentence each."""


def select(
    store: Store,
    project: str,
    *,
    runs: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    inherited: bool = True,
) -> Selection:
    """Choose what to export.

    Args:
        runs: ids; None is all.
        metrics: names or patterns, `system/...` only where one begins like that; None is all, these included.
        inherited: whether a fork takes with it what it inherits.
    Raises:
        ConfigError: an unknown run.
        StoreError: an unknown project.
    """
    chosen = choose_runs(store, project, runs)
    return Selection(store, project, chosen, MetricPatterns(metrics, EVERYTHING), inherited)


def curves_of(selection: Selection, exported: Exported, progress: Progress) -> Iterator[Curve]:
    """All curves of a selection, run by run, counted in `exported`.

    Raises:
        ConfigError: after the last one, for a metric that no run has.
    """
    for done, run in enumerate(selection.runs):
        progress(done)
        for curve in read_curves(selection.store, run, selection.metrics, inherited=selection.inherited):
            exported.points += len(curve)
            exported.metrics.add(curve.metric)
            yield curve
        exported.runs += 1
    selection.metrics.check_used()
    progress(len(selection.runs))


def check_steps(selection: Selection, form: str, multiply: int) -> None:
    """Refuse steps that are no whole numbers of 64 bits, before anything is written.

    Args:
        form: what has only such steps, for the message.
        multiply: what each step is multiplied with first.
    Raises:
        ConfigError: with the first such step, and what would work; and for a metric that no run has.
    """
    if not 1 <= multiply <= 10**MAX_DECIMALS:
        raise ConfigError(f"--multiply-steps {multiply} must be a whole number from 1 to {10**MAX_DECIMALS:,}")
    for run in selection.runs:
        for curve in read_curves(selection.store, run, selection.metrics, inherited=selection.inherited):
            whole_steps_of(curve, form, multiply)
    selection.metrics.check_used()


def whole_steps_of(curve: Curve, form: str, multiply: int) -> Ints:
    """A curve's steps as whole numbers, each multiplied; those of `system/...`, milliseconds, as they are.

    Raises:
        ConfigError: one is no whole number then, or has more than 64 bits.
    """
    factor = 1 if curve.metric.startswith(SYSTEM) else multiply
    scale = 10**curve.decimals
    whole, rest = np.divmod(curve.positions, scale)
    if int(whole.max()) + 1 > MAX_POSITION // factor:
        raise ConfigError(f"run {curve.run}: the steps of {curve.metric!r}, times {factor}, are too large for {form}")
    parts, broken = np.divmod(rest * factor, scale)
    if broken.any():
        first = int(curve.positions[np.flatnonzero(broken)[0]])
        raise ConfigError(
            f"run {curve.run} has {curve.metric!r} at step {to_decimal(first, curve.decimals).normalize():f}, but steps"
            f" in {form} are whole numbers. Multiply them (--multiply-steps {scale}), or export to parquet or csv"
        )
    steps: Ints = whole * factor + parts
    return steps


def left_behind(selection: Selection, *more: str, notes_too: bool = True) -> list[str]:
    """What did not go, as sentences: those of the format, then what no format takes.

    Args:
        notes_too: whether notes are among it.
    """
    notes = sum(run.row.num_notes for run in selection.runs) if notes_too else 0
    some = [f"notes stay in the store: {notes:,}"] if notes else []
    return [*more, *some, "saved files and checkpoints stay where they are"]
