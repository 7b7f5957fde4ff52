"""Thalweg finds good hyperparameters for training, fine-tuning and decoding language models within a budget.

import thalweg

result = thalweg.tune(train, space={"lr": thalweg.log(1e-5, 1e-2)}, metric="accuracy", budget="20 min")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg.budget import Budget
    from thalweg.errors import CheckpointError, ConfigError, RunInterrupted, StoreError, ThalwegError
    from thalweg.loop import StudyFailed
    from thalweg.space import Space, choice, integer, linear, log
    from thalweg.study import Result, Study, tune
    from thalweg.track.client import TrackedRun, continue_best, init
    from thalweg.track.query import curves, runs
    from thalweg.track.store import Store
    from thalweg.train.corpus import Corpus
    from thalweg.train.data import Data
    from thalweg.train.finetune import FineTune
    from thalweg.train.function import FunctionRun, FunctionTrainer
    from thalweg.train.hf_trainer import HFTrainer
    from thalweg.train.llama import ModelShape
    from thalweg.train.pretrain import Pretrain

# Loaded when first used, so that `import thalweg` costs no torch, no pandas, no database.
_HOMES = {
    "Budget": "thalweg.budget",
    "CheckpointError": "thalweg.errors",
    "ConfigError": "thalweg.errors",
    "Corpus": "thalweg.train.corpus",
    "Data": "thalweg.train.data",
    "FineTune": "thalweg.train.finetune",
    "FunctionRun": "thalweg.train.function",
    "FunctionTrainer": "thalweg.train.function",
    "HFTrainer": "thalweg.train.hf_trainer",
    "ModelShape": "thalweg.train.llama",
    "Pretrain": "thalweg.train.pretrain",
    "Result": "thalweg.study",
    "RunInterrupted": "thalweg.errors",
    "Space": "thalweg.space",
    "Store": "thalweg.track.store",
    "StoreError": "thalweg.errors",
    "Study": "thalweg.study",
    "StudyFailed": "thalweg.loop",
    "ThalwegError": "thalweg.errors",
    "TrackedRun": "thalweg.track.client",
    "choice": "thalweg.space",
    "continue_best": "thalweg.track.client",
    "curves": "thalweg.track.query",
    "init": "thalweg.track.client",
    "integer": "thalweg.space",
    "linear": "thalweg.space",
    "log": "thalweg.space",
    "runs": "thalweg.track.query",
    "tune": "thalweg.study",
}

__all__ = [  # noqa: RUF022 - in the order in which a reader meets them
    "tune", "FineTune", "Data", "Pretrain", "ModelShape", "Corpus", "HFTrainer", "FunctionTrainer", "FunctionRun",
    "Study", "Result",
    "init", "TrackedRun", "continue_best", "runs", "curves",
    "Space", "log", "linear", "integer", "choice", "Budget", "Store",
    "ThalwegError", "ConfigError", "StoreError", "CheckpointError", "StudyFailed", "RunInterrupted",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'thalweg' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
