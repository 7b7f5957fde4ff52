"""W&B offline: `log` hands over to a service process, `finish` waits until the run's file is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import wandb
from workload import Logging

PACKAGES = ["wandb"]

WITHOUT = {
    "fill": "not filled, as it cannot be read back; its bytes a point are in the claims on logging",
    "read": "an offline folder is read only after it was synchronised to a server",
    "reduce": "an offline folder is read only after it was synchronised to a server",
    "runs": "offline folders have no list: runs are listed by a server",
}


def prepare(folder: Path) -> None:
    """Quiet, offline."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_MODE"] = "offline"


def open_run(folder: Path, name: str, *, bulk: bool) -> Logging:
    """A run that is open for logging; one way serves both purposes."""
    prepare(folder)
    settings = wandb.Settings(
        x_disable_stats=True,
        x_disable_meta=True,
        disable_git=True,
        disable_code=True,
        console="off",
    )
    run = wandb.init(project="benchmark", name=name, dir=str(folder), mode="offline", settings=settings)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        run.log(dict(metrics), step=step)

    return Logging(log, run.finish)
