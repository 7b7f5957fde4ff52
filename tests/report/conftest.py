"""Studies made by hand, for the report's tests."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from thalweg.budget import Budget, Cost, Ledger
from thalweg.report.view import StudyView
from thalweg.space import Space
from thalweg.track.series import Reduced
from thalweg.trainer import Estimate
from thalweg.tree import Metric, Report, Run, Tree

SPACE = Space.parse(
    {
        "lr": {"log": [1e-6, 1e-3]},
        "batch_size": {"choice": [8, 16, 32]},
        "epochs": {"integer": [1, 3]},
        "warmup_fraction": 0.1,
    }
)


def make_run(number: int, **changes: Any) -> Run:
    rng = np.random.default_rng(number)
    hyperparameters = {
        "lr": float(10 ** rng.uniform(-6, -3)),
        "batch_size": int(rng.choice([8, 16, 32])),
        "epochs": int(rng.integers(1, 4)),
        "warmup_fraction": 0.1,
    }
    horizon = hyperparameters["epochs"] * 2000
    fields: dict[str, Any] = {
        "id": f"imdb-{number}",
        "number": number,
        "hyperparameters": hyperparameters,
        "horizon": horizon,
        "until": horizon,
        "position": horizon,
        "status": "finished",
        "origin": "halving",
    }
    fields |= changes
    if "reports" not in fields:
        quality = 0.86 - 0.03 * (math.log10(fields["hyperparameters"]["lr"]) + 4.3) ** 2 + rng.normal(0, 0.004)
        at = fields["position"]
        shares = [
            s for s in (1 / 9, 1 / 3, 1.0) if fields.get("fork_position", -1) < round(s * fields["horizon"]) <= at
        ]
        fields["reports"] = tuple(
            Report(round(s * fields["horizon"]), {"accuracy": quality - 0.06 * (1 - s), "loss": 0.4 - 0.1 * s})
            for s in shares
        )
    return Run(**fields)


def make_baseline(number: int = 0, **changes: Any) -> Run:
    changes = {"reports": (Report(6000, {"accuracy": 0.836, "loss": 0.38}),)} | changes
    values = {"lr": 5e-5, "batch_size": 8, "epochs": 3, "warmup_fraction": 0.1}
    return make_run(
        number, hyperparameters=values, horizon=6000, until=6000, position=6000, origin="baseline", **changes
    )


def spend(run: Run) -> dict[str, Cost]:
    tokens = 180 * (run.position - run.fork_position)
    seconds = tokens / 20_000
    return {
        "train": Cost(
            samples=run.position - run.fork_position,
            tokens=tokens,
            flops=tokens * 6 * 1e7,
            seconds=seconds,
            device_seconds=seconds,
        ),
        "evaluate": Cost(samples=1000, tokens=180_000, flops=180_000 * 2e7, seconds=4.0, device_seconds=4.0),
        "checkpoint": Cost(seconds=0.6, device_seconds=0.6),
        "setup": Cost(seconds=2.5, device_seconds=2.5),
    }


def make_view(runs: list[Run], **changes: Any) -> StudyView:
    config = {"metric": "max accuracy", "unit": "samples", "baseline": None, "trainer": {"kind": "finetune"}}
    fields: dict[str, Any] = {
        "name": "imdb",
        "metric": Metric("accuracy", "max"),
        "unit": "samples",
        "space": SPACE,
        "strategy": {"name": "halving", "sampler": "tpe", "eta": 3},
        "budget": Budget(runs=12, seconds=480.0),
        "seed": 0,
        "tree": Tree.of(runs),
        "ledger": Ledger({run.id: spend(run) for run in runs}, len(runs), 432.0),
        "config": config,
    }
    return StudyView(**(fields | changes))


def make_curve(run: Run, start: float, end: float, *, num: int = 200, spike: float | None = None) -> Reduced:
    rng = np.random.default_rng(run.number)
    positions = np.linspace(0, max(run.position, 1), num).astype(np.int64)
    values = end + (start - end) * np.exp(-4 * positions / 6000) + rng.normal(0, 0.02 * abs(start), num)
    values = np.abs(values)
    low, high = values.copy(), values.copy()
    if spike is not None:
        high[num // 2] = spike
    zeros = np.zeros(num, dtype=np.int64)
    return Reduced(positions, positions + 1, low, high, zeros, zeros + 2)


def make_curves(view: StudyView, num: int = 200) -> dict[str, dict[str, Reduced]]:
    return {
        "validation/accuracy": {run.id: make_curve(run, 0.5, 0.84, num=min(num, 8)) for run in view.tree},
        "train/loss": {run.id: make_curve(run, 0.7, 0.2, num=num, spike=3.0) for run in view.tree},
        "train/gradient_norm": {run.id: make_curve(run, 6.0, 1.5, num=num, spike=400.0) for run in view.tree},
    }


def estimate(value: float, num_samples: int) -> Estimate:
    """An accuracy with its Wilson interval, by the textbook formula."""
    z, n = 1.959963984540054, num_samples
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Estimate(value, centre - half, centre + half, n)


def rich_view(num_runs: int = 12) -> StudyView:
    """A study with everything: baseline, rungs, forks, a failure, a divergence, test results."""
    runs = [make_baseline()]
    for number in range(1, num_runs):
        lr = {"hyperparameters": {**make_run(number).hyperparameters}}
        horizon = int(lr["hyperparameters"]["epochs"]) * 2000
        rung = (1 / 9, 1 / 3, 1.0)[2 if number % 5 == 0 else 1 if number % 3 == 0 else 0]
        status: dict[str, Any] = {"status": "finished" if rung == 1.0 else "paused", "position": round(rung * horizon)}
        if number % 11 == 4:
            status = {
                "status": "failed",
                "position": horizon // 12,
                "reports": (),
                "error": "Traceback (most recent call last):\n  File x, line 3\nValueError: out of range\n",
            }
        if number % 13 == 7:
            status = {
                "status": "diverged",
                "position": horizon // 5,
                "reports": (Report(horizon // 5, {"accuracy": math.nan, "loss": math.inf}),),
                "error": "the loss is nan at position 400",
            }
        if number % 10 == 6 and number > 5:
            parent = runs[5]
            status = {"status": "finished", "parent": parent.id, "fork_position": parent.horizon // 3}
            status |= {"position": parent.horizon, "horizon": parent.horizon, "origin": "hand"}
            lr = {"hyperparameters": {**parent.hyperparameters, "lr": 7.5e-05}}
        runs.append(make_run(number, **(lr | status)))
    view = make_view(runs)
    best = view.best
    assert best is not None
    tests = {
        best.id: (best.position, {"accuracy": estimate(0.861, 2000)}),
        runs[0].id: (6000, {"accuracy": estimate(0.836, 2000)}),
    }
    return make_view(runs, tests=tests)


@pytest.fixture
def make() -> SimpleNamespace:
    """The builders above: test files cannot import them from here."""
    return SimpleNamespace(
        run=make_run, baseline=make_baseline, view=make_view, rich_view=rich_view, curves=make_curves, estimate=estimate
    )
