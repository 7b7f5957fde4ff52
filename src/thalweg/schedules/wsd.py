"""Warm-up, stable, decay: the peak is held until the run is to end."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg.errors import ConfigError
from thalweg.schedules.decay_forms import DECAY_FORMS, check_decay_form
from thalweg.schedules.schedule import check_floor, check_lengths, check_positive


@dataclass(frozen=True, kw_only=True)
class Wsd:
    """What `wsd` returns; it compares and prints by its numbers."""

    warmup: float = 0.0
    stable: float
    decay: float
    floor: float = 0.0
    decay_form: str = "linear"
    half_life: float | None = None

    def __post_init__(self) -> None:
        check_lengths("wsd", warmup=self.warmup, stable=self.stable, decay=self.decay)
        if self.decay == 0:
            raise ConfigError(f"wsd: decay = {self.decay} must be above 0; what never decays is 'constant'")
        check_floor("wsd", self.floor)
        if self.half_life is not None:
            check_positive("wsd", half_life=self.half_life)
        check_decay_form("wsd", self.decay_form, self.floor, half_life=self.half_life)

    @property
    def decay_start(self) -> float:
        """The position where the decay begins; the multiplier there is still 1."""
        return self.warmup + self.stable

    def __call__(self, position: float) -> float:
        if position < self.warmup:
            return position / self.warmup
        elapsed = min(position - self.decay_start, self.decay)
        if elapsed <= 0:
            return 1.0
        if self.half_life is not None:
            return max(self.floor, float(0.5 ** (elapsed / self.half_life)))
        if elapsed == self.decay:
            return self.floor
        return DECAY_FORMS[self.decay_form](elapsed / self.decay, self.floor)


def wsd(
    *,
    warmup: float = 0.0,
    stable: float,
    decay: float,
    floor: float = 0.0,
    decay_form: str = "linear",
    half_life: float | None = None,
) -> Wsd:
    """Rise linearly to the peak, hold it, then fall to the floor, and stay there.

    Hugging Face's `get_wsd_schedule` differs in two defaults: it falls on a cosine, and where there is a floor its
    warm-up begins at the floor. Here position 0 gives 0 whenever there is a warm-up.

    Args:
        warmup, stable, decay: phase lengths, in one unit (steps, samples or tokens); only the decay must be above 0.
        floor: multiplier from the end of the decay onwards, in [0, 1).
        decay_form: how it falls, a name of `DECAY_FORMS`. "exponential" needs a half-life or a floor above 0, "inverse"
            a floor above 0.
        half_life: of an exponential decay, in the same unit: 0.5 ** (elapsed / half_life), never below the floor. What
            it has come to at the end of the decay is held. Without it an exponential decay ends at the floor.
    Returns:
        schedule(position) -> multiplier of the peak learning rate, in [0, 1].
    Raises:
        ConfigError: if a length is negative or the decay 0, the floor is outside [0, 1), or the form is unknown or
            lacks what it needs.
    Source: Hu et al. 2024 (MiniCPM), arXiv:2404.06395.

    >>> lr = wsd(warmup=10, stable=80, decay=10)
    >>> [lr(p) for p in (0, 5, 50, 95, 100, 120)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    >>> lr = wsd(stable=100, decay=30, decay_form="exponential", half_life=10)
    >>> [lr(p) for p in (100, 110, 120, 130, 1000)]
    [1.0, 0.5, 0.25, 0.125, 0.125]
    """
    return Wsd(warmup=warmup, stable=stable, decay=decay, floor=floor, decay_form=decay_form, half_life=half_life)
