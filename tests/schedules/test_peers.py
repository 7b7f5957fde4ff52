"""Equal to Hugging Face's, torch's and optax's schedules at all positions, beyond the horizon too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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
    scale,
    wsd,
)

EXACT = 1e-12


def rates(make: Callable[[torch.optim.Optimizer], Any], num_steps: int) -> list[float]:
    """The multipliers of a torch scheduler, by letting it run."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(num_steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return found


def assert_equal(ours: Schedule, theirs: list[float]) -> None:
    assert [ours(position) for position in range(len(theirs))] == pytest.approx(theirs, abs=EXACT, rel=0)


HUGGING_FACE: dict[str, tuple[Schedule, Callable[[torch.optim.Optimizer], Any]]] = {
    "constant_with_warmup": (constant(warmup=7), lambda o: hf.get_constant_schedule_with_warmup(o, 7)),
    "linear": (linear(warmup=9, horizon=100), lambda o: hf.get_linear_schedule_with_warmup(o, 9, 100)),
    "linear, no warm-up": (linear(horizon=100), lambda o: hf.get_linear_schedule_with_warmup(o, 0, 100)),
    "cosine": (cosine(warmup=9, horizon=101), lambda o: hf.get_cosine_schedule_with_warmup(o, 9, 101)),
    "cosine_with_min_lr": (
        cosine(warmup=9, horizon=101, floor=0.1),
        lambda o: hf.get_cosine_with_min_lr_schedule_with_warmup(o, 9, 101, min_lr_rate=0.1),
    ),
    "cosine_with_restarts": (
        join(schedules=[constant(warmup=8), cyclic_cosine(period=32, num_cycles=3)], boundaries=[8]),
        lambda o: hf.get_cosine_with_hard_restarts_schedule_with_warmup(o, 8, 104, num_cycles=3),
    ),
    "polynomial": (
        polynomial(power=2.5, warmup=9, horizon=100, floor=0.02),
        lambda o: hf.get_polynomial_decay_schedule_with_warmup(o, 9, 100, lr_end=0.02, power=2.5),
    ),
    "inverse_sqrt": (inverse_sqrt(warmup=12), lambda o: hf.get_inverse_sqrt_schedule(o, 12)),
    "inverse_sqrt with a time scale": (
        inverse_sqrt(warmup=12, timescale=40),
        lambda o: hf.get_inverse_sqrt_schedule(o, 12, timescale=40),
    ),
    "inverse_sqrt without warm-up": (
        inverse_sqrt(timescale=10_000),
        lambda o: hf.get_inverse_sqrt_schedule(o, 0),
    ),
    **{
        f"warmup_stable_decay, {form}": (
            wsd(warmup=10, stable=60, decay=30, decay_form=form),
            lambda o, form=form: hf.get_wsd_schedule(o, 10, 30, num_stable_steps=60, decay_type=form),
        )
        for form in ("linear", "cosine", "1-sqrt")
    },
    "warmup_stable_decay with a floor": (
        wsd(stable=60, decay=30, decay_form="1-sqrt", floor=0.1),
        lambda o: hf.get_wsd_schedule(o, 0, 30, num_stable_steps=60, decay_type="1-sqrt", min_lr_ratio=0.1),
    ),
}


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face(name: str) -> None:
    ours, theirs = HUGGING_FACE[name]
    # One position less where Hugging Face's cosine turns and rises again beyond the horizon: ours stays at the floor.
    num_steps = 102 if name.startswith("cosine") and "restarts" not in name else 130
    assert_equal(ours, rates(theirs, num_steps))


def test_hugging_faces_wsd_warms_up_from_its_floor_and_ours_from_0() -> None:
    """The documented difference."""
    theirs = rates(
        lambda o: hf.get_wsd_schedule(o, 10, 30, num_stable_steps=60, decay_type="linear", min_lr_ratio=0.1), 120
    )
    ours = wsd(warmup=10, stable=60, decay=30, floor=0.1)
    assert theirs[0] == pytest.approx(0.1)
    assert ours(0) == 0.0
    assert [ours(p) for p in range(10, 120)] == pytest.approx(theirs[10:], abs=EXACT)


TORCH: dict[str, tuple[Schedule, Callable[[torch.optim.Optimizer], Any]]] = {
    "LinearLR": (
        linear(horizon=50, floor=0.25),
        lambda o: torch_lr.LinearLR(o, start_factor=1.0, end_factor=0.25, total_iters=50),
    ),
    "CosineAnnealingLR": (
        cosine(horizon=60, floor=0.1),
        lambda o: torch_lr.CosineAnnealingLR(o, T_max=60, eta_min=0.1),
    ),
    "CosineAnnealingWarmRestarts": (
        cyclic_cosine(period=10, cycle_growth=2, floor=0.05),
        lambda o: torch_lr.CosineAnnealingWarmRestarts(o, T_0=10, T_mult=2, eta_min=0.05),
    ),
    "CosineAnnealingWarmRestarts, equal cycles": (
        cyclic_cosine(period=7),
        lambda o: torch_lr.CosineAnnealingWarmRestarts(o, T_0=7),
    ),
    "PolynomialLR": (polynomial(power=2, horizon=80), lambda o: torch_lr.PolynomialLR(o, total_iters=80, power=2)),
    "MultiStepLR": (
        multi_stage(
            stages=[
                Stage(length=30, begin=1, end=1),
                Stage(length=40, begin=0.5, end=0.5),
                Stage(length=9, begin=0.25, end=0.25),
            ]
        ),
        lambda o: torch_lr.MultiStepLR(o, milestones=[30, 70], gamma=0.5),
    ),
    "OneCycleLR": (
        multi_stage(
            stages=[
                Stage(length=24, begin=0.04, end=1, form="cosine"),
                Stage(length=76, begin=1, end=4e-6, form="cosine"),
            ]
        ),
        lambda o: torch_lr.OneCycleLR(o, max_lr=1.0, total_steps=101, pct_start=25 / 101),
    ),
    "OneCycleLR, linear": (
        multi_stage(stages=[Stage(length=24, begin=0.1, end=1), Stage(length=76, begin=1, end=1e-3)]),
        lambda o: torch_lr.OneCycleLR(
            o,
            max_lr=1.0,
            total_steps=101,
            pct_start=25 / 101,
            anneal_strategy="linear",
            div_factor=10,
            final_div_factor=100,
        ),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str) -> None:
    ours, theirs = TORCH[name]
    # torch's own CosineAnnealingLR rises again, and its OneCycleLR refuses to go on.
    num_steps = {"CosineAnnealingLR": 61, "OneCycleLR": 100, "OneCycleLR, linear": 100}.get(name, 160)
    assert_equal(ours, rates(theirs, num_steps))


OPTAX: dict[str, Schedule] = {
    "linear": linear(horizon=80, floor=0.2),
    "polynomial": polynomial(power=3, horizon=70, floor=0.05),
    "cosine": cosine(horizon=90, floor=0.1),
    "warmup_cosine": cosine(warmup=11, horizon=97, floor=0.03),
    "lr_range": multi_stage(stages=[Stage(length=60, begin=1e-4, end=1, form="exponential")]),
    "half_life": wsd(stable=25, decay=100, decay_form="exponential", half_life=7, floor=0.01),
    "join": join(
        schedules=[constant(warmup=10), scale(constant(), factor=1.0), linear(horizon=20)], boundaries=[10, 60]
    ),
    "sgdr": multi_stage(
        stages=[
            stage
            for peak, steps in ((1.0, 20), (0.8, 40), (0.64, 80))
            for stage in (
                Stage(length=4, begin=0.1, end=peak),
                Stage(length=steps - 4, begin=peak, end=0.1, form="cosine"),
            )
        ]
    ),
}


@pytest.fixture(scope="module")
def optax_values() -> dict[str, list[float]]:
    script = Path(__file__).with_name("optax_peer.py")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    values: dict[str, list[float]] = json.loads(done.stdout)
    return values


@pytest.mark.parametrize("name", OPTAX)
def test_optax(name: str, optax_values: dict[str, list[float]]) -> None:
    assert_equal(OPTAX[name], optax_values[name])


def test_optax_in_one_schedule_each(optax_values: dict[str, list[float]]) -> None:
    """The compositions above, by the schedules that are made for it."""
    from thalweg.schedules import lr_range

    assert_equal(lr_range(horizon=60, floor=1e-4), optax_values["lr_range"])
    assert_equal(wsd(warmup=10, stable=50, decay=20), optax_values["join"])
    sgdr = cyclic_cosine(period=20, cycle_growth=2, cycle_peak=0.8, num_cycles=3, warmup=4, warmup_in="each", floor=0.1)
    # optax's first warm-up begins at 0.1, ours at 0.
    assert [sgdr(p) for p in range(4, 160)] == pytest.approx(optax_values["sgdr"][4:], abs=EXACT, rel=0)
