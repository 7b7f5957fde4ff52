from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import thalweg
from thalweg.track.callbacks.lightning_logger import ThalwegLogger
from thalweg.track.store import Store

QUIET = {"system_seconds": 0, "code": False}

# Advice about cores, intervals and folders, which a test of four steps does not need.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:GPU available but not used.*"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]


class Line(pl.LightningModule):
    def __init__(self, lr: float = 0.1, fail_at: int | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: dict[int, float] = {}

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if self.global_step == self.hparams["fail_at"]:
            raise ZeroDivisionError("no more")
        loss = (self.layer(batch[0]) ** 2).mean()
        self.log("train/loss", loss)
        self.seen[self.global_step] = loss.item()
        return loss

    def test_step(self, batch: Any, index: int) -> None:
        self.log("test/loss", 0.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


ROWS = DataLoader(TensorDataset(torch.arange(1.0, 9.0).reshape(8, 1) / 8), batch_size=2)


def trainer(logger: Any, max_steps: int = 4, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        logger=logger,
        max_steps=max_steps,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def test_a_module_is_tracked(store: Store, curve: Callable[..., Any]) -> None:
    logger, module = ThalwegLogger("demo", prefix="a", **QUIET), Line()
    trainer(logger).fit(module, ROWS)
    (row,) = store.run_rows("demo")
    assert (logger.name, logger.version) == ("demo", row.id)
    assert row.status == "finished"
    assert dict(row.hyperparameters) == {"lr": 0.1, "fail_at": None}
    assert curve(row.id, "a/train/loss") == module.seen
    assert sorted(module.seen) == [0, 1, 2, 3]
    (file,) = store.files(row.id)
    assert (file.name, file.position, file.copied) == ("checkpoint", 4 * 10**6, False)
    assert file.path.parent == Path("lightning_logs").absolute().parent / "demo" / row.id / "checkpoints"


def test_a_test_after_fit_adds_to_the_same_run(store: Store, curve: Callable[..., Any]) -> None:
    logger, module = ThalwegLogger("demo", **QUIET), Line()
    teacher = trainer(logger)
    teacher.fit(module, ROWS)
    teacher.test(module, ROWS, verbose=False)
    (row,) = store.run_rows("demo")
    assert row.status == "finished"
    assert curve(row.id, "test/loss") == {4: 0.5}


def test_an_exception_ends_the_run_as_failed(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        trainer(ThalwegLogger("demo", **QUIET)).fit(Line(fail_at=2), ROWS)
    (row,) = store.run_rows("demo")
    assert row.status == "failed"
    assert row.error is not None
    assert "ZeroDivisionError: no more" in row.error
    assert len(store.series(row.id, "train/loss").values) == 2


def test_a_run_is_resumed_and_forked(store: Store, curve: Callable[..., Any]) -> None:
    def keep() -> list[pl.Callback]:
        return [pl.callbacks.ModelCheckpoint(every_n_train_steps=2, save_top_k=-1)]

    first = ThalwegLogger("demo", **QUIET)
    assert first.checkpoint() is None
    trainer(first, 4, callbacks=keep()).fit(Line(), ROWS)

    again, module = ThalwegLogger("demo", run=first.version, **QUIET), Line()
    trainer(again, 8, callbacks=keep()).fit(module, ROWS, ckpt_path=again.checkpoint())
    assert sorted(module.seen) == [4, 5, 6, 7]
    assert sorted(curve("demo-0", "train/loss")) == list(range(8))

    # At the end of an epoch: Lightning does not find its place within one.
    fork = ThalwegLogger("demo", fork_of="demo-0", at=4, **QUIET)
    path = fork.checkpoint()
    assert path is not None
    assert "step=4" in path
    trainer(fork, 8, callbacks=keep()).fit(Line(), ROWS, ckpt_path=path)
    # Unchanged, a fork is its parent's continuation.
    assert curve("demo-1", "train/loss") == curve("demo-0", "train/loss")
    assert sorted(curve("demo-1", "train/loss", inherited=False)) == [4, 5, 6, 7]
    assert store.run_details("demo-1").lineage == ("demo-0", "demo-1")


def test_checkpoints_that_lightning_has_deleted_are_passed_over(store: Store) -> None:
    logger = ThalwegLogger("demo", **QUIET)
    keep = pl.callbacks.ModelCheckpoint(every_n_train_steps=1, save_top_k=-1)
    trainer(logger, 4, callbacks=[keep]).fit(Line(), ROWS)
    newest = logger.checkpoint()
    assert newest is not None
    assert "step=4" in newest
    Path(newest).unlink()
    assert "step=3" in str(logger.checkpoint())


def test_a_given_run_is_not_ended(store: Store) -> None:
    with thalweg.init("demo", **QUIET) as run:
        trainer(ThalwegLogger(run=run)).fit(Line(), ROWS)
        run.log({"after": 1}, step=9)
    assert store.metrics("demo-0") == ["after", "epoch", "train/loss"]


def test_elsewhere_than_on_rank_zero_nothing_is_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = ThalwegLogger("demo", **QUIET)
    logger.log_metrics({"x": 1.0}, 0)
    logger.log_hyperparams({"lr": 1})
    logger.experiment.log({"x": 1.0}, step=0)
    logger.finalize("success")
    assert logger.version == ""
    assert store.studies() == []


def test_a_logger_that_is_sent_to_another_process_writes_the_same_run(store: Store) -> None:
    logger = ThalwegLogger("demo", name="first", tags=["x"], **QUIET)
    logger.log_metrics({"x": 1.0}, 0)
    sent = pickle.loads(pickle.dumps(logger))
    assert sent.version == logger.version
    sent.log_metrics({"x": 2.0}, 1)
    sent.finalize("success")
    logger.finalize("success")
    (row,) = store.run_rows("demo")
    assert (row.name, row.status) == ("first", "finished")
    assert store.series(row.id, "x").values.tolist() == [1.0, 2.0]


MISSING = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
{first}
try:
    from thalweg.track.callbacks.lightning_logger import ThalwegLogger
    print(ThalwegLogger.__mro__[1].__module__)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "first", "expected"),
    [
        (["lightning", "pytorch_lightning"], "", "ConfigError ThalwegLogger needs Lightning: pip install lightning"),
        (["lightning"], "", "pytorch_lightning.loggers.logger"),
        ([], "import pytorch_lightning", "pytorch_lightning.loggers.logger"),
        ([], "", "lightning.pytorch.loggers.logger"),
    ],
)
def test_both_packages_serve_and_none_is_said(hidden: list[str], first: str, expected: str) -> None:
    code = MISSING.format(hidden=hidden, first=first)
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == expected
