"""How the learning rate falls from the peak to the floor within a decay: a function of the share of it that is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from thalweg.errors import ConfigError, nearest

DecayForm = Callable[[float, float], float]
"""form(done, floor) -> multiplier: 1 where done is 0, the floor where done is 1."""


def linear(done: float, floor: float) -> float:
    """A straight line: 1 - x.

    >>> [linear(x, 0.0) for x in (0.0, 0.25, 1.0)]
    [1.0, 0.75, 0.0]
    """
    return floor + (1.0 - floor) * (1.0 - done)


def one_minus_sqrt(done: float, floor: float) -> float:
    """1 - sqrt(x): steep at first. Source: Hägele et al. 2024, arXiv:2405.18392; Megatron's "minus_sqrt".

    >>> one_minus_sqrt(0.25, 0.0)
    0.5
    """
    return floor + (1.0 - floor) * (1.0 - math.sqrt(done))


def cosine(done: float, floor: float) -> float:
    """Half a cosine wave: (1 + cos(pi x)) / 2. The default of Hugging Face's `get_wsd_schedule`.

    >>> cosine(0.5, 0.0)
    0.5
    """
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done))


def exponential(done: float, floor: float) -> float:
    """floor ** x: equal ratios in equal times. The floor must be above 0, or a half-life must be given.

    Source: epfml/schedules-and-scaling, "exp", whose `final_lr_factor` is the floor. With a half-life: `wsd`.

    >>> round(exponential(0.5, 0.01), 6)
    0.1
    """
    return float(floor**done)


def megatron_exponential(done: float, floor: float) -> float:
    """2 * 0.5 ** x - 1, which is 0 where x is 1. Source: Megatron-LM, `lr_wsd_decay_style` "exponential".

    >>> megatron_exponential(1.0, 0.25)
    0.25
    """
    return floor + (1.0 - floor) * float(2.0 * 0.5**done - 1.0)


def inverse(done: float, floor: float) -> float:
    """One over the learning rate grows linearly. The floor must be above 0.

    Source: Wen et al. 2024 (WSD-S), arXiv:2410.05192; levanter's "inv".

    >>> round(inverse(0.5, 0.25), 6)
    0.4
    """
    return 1.0 / ((1.0 / floor - 1.0) * done + 1.0)


def square(done: float, floor: float) -> float:
    """1 - x ** 2: steep at last. Source: epfml/schedules-and-scaling.

    >>> square(0.5, 0.0)
    0.75
    """
    return floor + (1.0 - floor) * (1.0 - done * done)


def mirror_cosine(done: float, floor: float) -> float:
    """The cosine mirrored in the straight line: 2 (1 - x) - (1 + cos(pi x)) / 2. Source: epfml/schedules-and-scaling.

    >>> mirror_cosine(0.5, 0.0)
    0.5
    """
    return floor + (1.0 - floor) * (2.0 * (1.0 - done) - 0.5 * (1.0 + math.cos(math.pi * done)))


DECAY_FORMS: Mapping[str, DecayForm] = {
    "linear": linear,
    "1-sqrt": one_minus_sqrt,
    "cosine": cosine,
    "exponential": exponential,
    "megatron-exponential": megatron_exponential,
    "inverse": inverse,
    "square": square,
    "mirror-cosine": mirror_cosine,
}
"""By the name that a schedule's `decay_form` uses."""

NEED_FLOOR = frozenset({"exponential", "inverse"})
"""They never reach 0."""


def check_decay_form(schedule: str, form: str, floor: float, *, half_life: float | None = None) -> None:
    """Refuse an unknown form, and one that cannot reach the floor.

    Raises:
        ConfigError: naming the schedule and the form.
    """
    if form not in DECAY_FORMS:
        raise ConfigError(f"{schedule}: unknown decay_form {form!r}. {nearest(str(form), DECAY_FORMS)}")
    if half_life is not None and form != "exponential":
        raise ConfigError(f"{schedule}: half_life = {half_life} belongs to decay_form 'exponential', not to {form!r}")
    if form in NEED_FLOOR and floor == 0 and half_life is None:
        other = " or a half_life" if form == "exponential" and schedule == "wsd" else ""
        raise ConfigError(
            f"{schedule}: decay_form {form!r} never reaches 0: with floor = {floor}, give a floor above 0{other}"
        )
