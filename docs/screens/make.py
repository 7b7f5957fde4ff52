"""Makes the pictures of the dashboard: `python docs/screens/make.py` trains small runs, serves them, and looks.

Needs chromium and playwright. About a minute.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_digits

import thalweg

PAGES = {
    "run": ("/r/digits-2", ".main-svg"),
    "runs": ("/p/search", ".runs tbody tr[aria-selected]"),
    "search": ("/p/search?tab=search&plot=parallel", ".main-svg"),
}
"""Name of the picture -> the page, and what is in it when it is there (CSS)."""

HEIGHTS = {"run": 1290, "runs": 700, "search": 850}


def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    generator = torch.Generator().manual_seed(step)
    chosen = torch.randint(0, 1500, (64,), generator=generator)
    # Noise, without which nothing would be left to learn after a moment.
    noise = 0.5 * torch.randn(64, 64, generator=generator)
    return images[chosen].float() / 16 + noise, labels[chosen]


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def accuracy(model: torch.nn.Module) -> float:
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    right = model(images[1500:].float() / 16).argmax(-1) == labels[1500:]
    return right.float().mean().item()


def train(run: thalweg.TrackedRun, until: int, states: dict[int, dict]) -> dict[int, dict]:
    """Train to a step from the newest state at or before the run's own beginning; returns a state per 100 steps."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    first = int(run.fork_step)
    if first:
        model.load_state_dict(states[first]["model"])
        optimizer.load_state_dict(states[first]["optimizer"])
    for group in optimizer.param_groups:
        group["lr"] = run.hyperparameters["lr"]
    kept = {}
    for step in range(first + 1, until + 1):
        images, labels = batches(step)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        optimizer.step()
        rate = optimizer.param_groups[0]["lr"]
        run.log({"train": {"loss": loss.item(), "lr": rate, "grad_norm": norm.item()}}, step=step)
        if step % 100 == 0:
            run.log({"validation/accuracy": accuracy(model)}, step=step)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            kept[step] = {name: _copied(value) for name, value in state.items()}
    return {**states, **kept}


def _copied(state: object) -> object:
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state


def search(run: thalweg.FunctionRun) -> None:
    model = network(run.seed)
    chosen = run.hyperparameters
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen["lr"], weight_decay=chosen["weight_decay"])
    run.restore(model=model, optimizer=optimizer)
    for position in run.positions():
        images, labels = batches(position)
        loss = torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=chosen["smoothing"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(position, loss=loss.item())
    run.report(accuracy=accuracy(model))


def make_runs(store: Path) -> None:
    options = {"store": store, "system_seconds": 0.5, "code": False}
    with thalweg.init("digits", name="first", hyperparameters={"lr": 0.02}, tags=["baseline"], **options) as first:
        states = train(first, 1500, {})
    options |= {"fork_of": first, "at": 800, "hyperparameters": {"lr": 0.004}}
    with thalweg.init("digits", name="gentler", **options) as second:
        states = train(second, 2000, states)
    options |= {"fork_of": second, "at": 1400, "hyperparameters": {"lr": 5e-4}}
    with thalweg.init("digits", name="gentler still", **options) as third:
        train(third, 2400, states)
        third.note("The learning rate was what made it noisy.")
    space = {"lr": thalweg.log(1e-4, 1e-1), "weight_decay": thalweg.linear(0, 0.3), "smoothing": thalweg.linear(0, 0.2)}
    thalweg.tune(
        search,
        space=space,
        metric="accuracy",
        strategy={"name": "halving", "sampler": "tpe"},
        budget="30 runs",
        horizon=270,
        name="search",
        store=store,
        progress=False,
        workers=1,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder to write into")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = Path(folder) / "store.db"
        make_runs(store)
        command = [sys.executable, "-m", "thalweg", "serve", "--store", str(store), "--port", "0", "--json"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"].rstrip("/")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        for name, (path, there) in PAGES.items():
            page.set_viewport_size({"width": 1280, "height": HEIGHTS[name]})
            page.goto(url + path)
            page.locator(there).first.wait_for()
            page.wait_for_timeout(1500)
            page.screenshot(path=options.out / f"{name}.png")
            print(f"{name}.png")
        browser.close()
        server.terminate()


if __name__ == "__main__":
    main()
