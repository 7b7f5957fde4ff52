"""Ten settings of schedules that Hugging Face, torch or optax have too: ours, and the peer's value at each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax
import torch
import transformers.optimization as hf
from torch.optim import lr_scheduler as torch_lr

from thalweg.schedules import (
    Schedule,
    Stage,
    constant,
    cosine,
    cyclic_cosine,
    inverse_sqrt,
    join,
    linear,
    multi_stage,
    polynomial,
    wsd,
)

# Before anything is computed: optax would otherwise count in 32 bits.
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")

STEPS = 10_000
WARMUP = 500


@dataclass(frozen=True)
class Setting:
    """A schedule of ours, and the same of a peer."""

    name: str
    ours: Schedule
    theirs: Callable[[], list[float]]


def by_running(make: Callable[[torch.optim.Optimizer], Any], num_steps: int = STEPS) -> Callable[[], list[float]]:
    """The learning rates that a torch scheduler sets, step by step."""

    def run() -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = make(optimizer)
        rates = []
        for _ in range(num_steps):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
        return rates

    return run


def by_calling(schedule: Callable[[Any], Any]) -> Callable[[], list[float]]:
    """The values of one of optax's schedules."""
    return lambda: [float(value) for value in jax.vmap(schedule)(jax.numpy.arange(STEPS))]


SETTINGS = [
    Setting(
        "transformers linear",
        linear(warmup=WARMUP, horizon=9000),
        by_running(lambda o: hf.get_linear_schedule_with_warmup(o, WARMUP, 9000)),
    ),
    Setting(
        "transformers cosine_with_min_lr",
        cosine(warmup=WARMUP, horizon=STEPS, floor=0.1),
        by_running(lambda o: hf.get_cosine_with_min_lr_schedule_with_warmup(o, WARMUP, STEPS, min_lr_rate=0.1)),
    ),
    Setting(
        "transformers cosine_with_restarts",
        join(schedules=[constant(warmup=400), cyclic_cosine(period=2048, num_cycles=4)], boundaries=[400]),
        by_running(lambda o: hf.get_cosine_with_hard_restarts_schedule_with_warmup(o, 400, 8592, num_cycles=4)),
    ),
    Setting(
        "transformers inverse_sqrt",
        inverse_sqrt(warmup=WARMUP),
        by_running(lambda o: hf.get_inverse_sqrt_schedule(o, WARMUP)),
    ),
    Setting(
        "transformers warmup_stable_decay, 1-sqrt",
        wsd(warmup=WARMUP, stable=7500, decay=1000, decay_form="1-sqrt"),
        by_running(lambda o: hf.get_wsd_schedule(o, WARMUP, 1000, num_stable_steps=7500, decay_type="1-sqrt")),
    ),
    Setting(
        "torch CosineAnnealingWarmRestarts",
        cyclic_cosine(period=100, cycle_growth=2, floor=0.05),
        by_running(lambda o: torch_lr.CosineAnnealingWarmRestarts(o, T_0=100, T_mult=2, eta_min=0.05)),
    ),
    Setting(
        "torch OneCycleLR",
        multi_stage(
            stages=[
                Stage(length=3000, begin=0.04, end=1, form="cosine"),
                Stage(length=7000, begin=1, end=4e-6, form="cosine"),
            ]
        ),
        # It refuses to go beyond its last step.
        by_running(lambda o: torch_lr.OneCycleLR(o, max_lr=1.0, total_steps=10_001, pct_start=3001 / 10_001)),
    ),
    Setting(
        "optax warmup_cosine_decay",
        cosine(warmup=WARMUP, horizon=9000, floor=0.03),
        by_calling(optax.warmup_cosine_decay_schedule(0.0, 1.0, WARMUP, 9000, end_value=0.03)),
    ),
    Setting(
        "optax polynomial",
        polynomial(power=3, horizon=9000, floor=0.05),
        by_calling(optax.polynomial_schedule(1.0, 0.05, 3, 9000)),
    ),
    Setting(
        "optax exponential_decay after a plateau",
        wsd(stable=5000, decay=5000, decay_form="exponential", half_life=700, floor=0.01),
        by_calling(optax.exponential_decay(1.0, 700, 0.5, transition_begin=5000, end_value=0.01)),
    ),
]
