"""A training loop of your own, tracked, stopped, resumed and forked.

    python examples/tracking/torch_loop.py

A small network learns to read digits. Its first run stops halfway and goes on where it stopped; a fork of it begins at
step 100 with a lower learning rate. Takes a few seconds.
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits

import thalweg

PROJECT = "torch-loop"


def train(run: thalweg.TrackedRun, until: int) -> None:
    torch.manual_seed(0)
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    images = images.float() / 16
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters())
    first = 1

    # The newest checkpoint: the run's own, or for a fork its parent's at or before the fork.
    if saved := run.saved("checkpoint"):
        state = torch.load(saved.path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"] + 1
    # After the state is loaded, which holds the learning rate that it was saved with.
    for group in optimizer.param_groups:
        group["lr"] = run.hyperparameters["lr"]

    for step in range(first, until + 1):
        batch = torch.randint(0, 1500, (64,), generator=torch.Generator().manual_seed(step))
        loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log({"loss": loss.item(), "lr": optimizer.param_groups[0]["lr"]}, step=step)
        if step % 50 == 0:
            accuracy = (model(images[1500:]).argmax(-1) == labels[1500:]).float().mean()
            run.log({"validation/accuracy": accuracy.item()}, step=step)
            path = Path("checkpoints") / run.id / f"{step}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path)
            run.save(path, name="checkpoint", step=step, copy=False)
        if run.should_stop:  # somebody asked for it: on the dashboard, or with `thalweg stop`
            break


if __name__ == "__main__":
    with thalweg.init(PROJECT, hyperparameters={"lr": 0.01}, name="first") as run:
        train(run, until=150)

    # Later, or after a crash: the same run goes on.
    with thalweg.init(PROJECT, run=run.id) as run:
        train(run, until=300)

    # What would have come of a lower learning rate from step 100 on?
    with thalweg.init(PROJECT, hyperparameters={"lr": 0.001}, name="gentler", fork_of=run, at=100) as fork:
        train(fork, until=300)

    print(f"made {run.id}, and {fork.id}, a fork of it at step 100")
    print("look at both: thalweg serve")
