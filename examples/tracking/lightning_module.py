"""A LightningModule, tracked, stopped, resumed and forked.

    python examples/tracking/lightning_module.py

A small network learns to read digits. The first run stops at step 60 and goes on to step 120; a fork of it begins where
it stopped, with a tenth of the learning rate. Takes about 20 seconds.
"""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from thalweg.track.callbacks.lightning_logger import ThalwegLogger

PROJECT = "lightning-module"


class Digits(pl.LightningModule):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        loss = torch.nn.functional.cross_entropy(self.layers(images), labels)
        self.log_dict({"train/loss": loss, "train/lr": self.optimizers().param_groups[0]["lr"]})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)

    def on_train_start(self) -> None:
        # After Lightning has restored the optimizer, whose state holds the learning rate that it was saved with.
        for group in self.optimizers().param_groups:
            group["lr"] = self.hparams.lr

    def on_train_batch_end(self, *_: object) -> None:
        if self.logger.experiment.should_stop:  # somebody asked for it: on the dashboard, or with `thalweg stop`
            self.trainer.should_stop = True


def train(logger: ThalwegLogger, lr: float, until: int) -> None:
    pl.seed_everything(0)
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    trainer = pl.Trainer(
        logger=logger,
        max_steps=until,
        log_every_n_steps=5,
        callbacks=[pl.callbacks.ModelCheckpoint(every_n_train_steps=60, save_top_k=-1)],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    digits = TensorDataset(images[:1280].float() / 16, labels[:1280])
    rows = DataLoader(digits, batch_size=64, shuffle=True)
    # None at first; then the run's newest checkpoint, or its parent's at the fork.
    trainer.fit(Digits(lr), rows, ckpt_path=logger.checkpoint())


if __name__ == "__main__":
    first = ThalwegLogger(PROJECT, name="first")
    train(first, lr=0.01, until=60)
    run = first.version

    # Later, or after a crash: the same run goes on.
    train(ThalwegLogger(PROJECT, run=run), lr=0.01, until=120)

    # What would have come of a lower learning rate from step 60 on?
    gentler = ThalwegLogger(PROJECT, name="gentler", fork_of=run, at=60)
    train(gentler, lr=0.001, until=120)

    print(f"made {run}, and {gentler.version}, a fork of it at step 60")
    print("look at both: thalweg serve")
