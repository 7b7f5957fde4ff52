"""One stage after the other, each from one multiplier to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thalweg.errors import ConfigError
from thalweg.schedules.decay_forms import DECAY_FORMS, check_decay_form
from thalweg.schedules.schedule import check_positive, check_shares


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of `multi_stage`."""

    length: float
    """In the unit of the positions, above 0."""
    begin: float
    """Multiplier at its beginning, in [0, 1]."""
    end: float
    """Multiplier at its end, in [0, 1]."""
    form: str = "linear"
    """How it falls, a name of `DECAY_FORMS`. A rise is the fall from `end` to `begin` run backwards."""

    def __post_init__(self) -> None:
        check_positive("multi_stage", length=self.length)
        check_shares("multi_stage", begin=self.begin, end=self.end)
        check_decay_form("multi_stage", self.form, min(self.begin, self.end))

    def at(self, elapsed: float) -> float:
        """The multiplier at a position from the stage's beginning."""
        if self.begin == self.end:
            return float(self.begin)
        form = DECAY_FORMS[self.form]
        if self.begin > self.end:
            return self.begin * form(elapsed / self.length, self.end / self.begin)
        return self.end * form(1.0 - elapsed / self.length, self.begin / self.end)


@dataclass(frozen=True, kw_only=True)
class MultiStage:
    """What `multi_stage` returns; it compares and prints by its numbers."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("multi_stage: stages is empty: give at least one")

    def __call__(self, position: float) -> float:
        begin = 0.0
        for stage in self.stages:
            if position < begin + stage.length:
                return stage.at(position - begin)
            begin += stage.length
        return float(self.stages[-1].end)


def multi_stage(*, stages: Sequence[Stage]) -> MultiStage:
    """Go through stages; after the last one, hold its end.

    A boundary belongs to the stage that begins there. Stages need not meet: a step is two stages with a jump between.

    Args:
        stages: each with its length and the multipliers at its beginning and end.
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1].
    Raises:
        ConfigError: if there is no stage, a length is not above 0, a multiplier is outside [0, 1], or a form is unknown
            or needs ends above 0.
    Source: DeepSeek-AI 2024, arXiv:2401.02954 (steps); Grattafiori et al. 2024 (Llama 3), arXiv:2407.21783 (stages).

    >>> lr = multi_stage(stages=[
    ...     Stage(length=10, begin=0, end=1),
    ...     Stage(length=70, begin=1, end=1),
    ...     Stage(length=20, begin=0.316, end=0.316),
    ... ])
    >>> [lr(p) for p in (0, 5, 10, 79, 80, 1000)]
    [0.0, 0.5, 1.0, 1.0, 0.316, 0.316]
    """
    return MultiStage(stages=tuple(stages))
