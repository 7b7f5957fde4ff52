"""A study read back from a real store, and its report written from it."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thalweg.budget import Budget, Cost
from thalweg.errors import StoreError
from thalweg.report.curves import read_curves
from thalweg.report.findings import verdict
from thalweg.report.page import write_report
from thalweg.report.view import read_view
from thalweg.track.store import Store
from thalweg.tree import Metric

CONFIG = {
    "metric": "max accuracy",
    "unit": "samples",
    "space": {"lr": {"log": [1e-6, 1e-3]}, "dropout": 0.1},
    "strategy": {"name": "halving", "sampler": "tpe", "eta": 3},
    "budget": {"runs": 12, "seconds": 480.0},
    "seed": 7,
    "baseline": {"lr": 5e-5, "dropout": 0.1},
}


def fill(store: Store, make: SimpleNamespace) -> None:
    """A baseline, a better run that spikes, and a fork of it that is left running."""
    store.create_study("imdb", CONFIG)
    common: dict[str, Any] = {"horizon": 100, "until": 100, "seed": 7}
    for origin, lr, accuracy in (("baseline", 5e-5, 0.80), ("halving", 1e-4, 0.86)):
        run = store.create_run("imdb", hyperparameters={"lr": lr, "dropout": 0.1}, origin=origin, **common)
        with store.writer(run.id) as writer:
            for position in range(1, 101):
                loss = 50.0 if position == 40 and origin == "halving" else 1 / position
                writer.log(position, {"train/loss": loss, "train/gradient_norm": math.nan if position == 41 else 1.0})
            writer.spend("train", Cost(samples=100, tokens=1000, flops=1e9, seconds=2.0, device_seconds=2.0))
            writer.report(100, {"accuracy": accuracy, "loss": 1 - accuracy})
            writer.finish("finished", 100)
        store.record_test(run.id, 100, {"accuracy": make.estimate(accuracy, 1000)})
    store.create_run(
        "imdb", hyperparameters={"lr": 2e-4, "dropout": 0.1}, origin="hand", parent="imdb-1", fork_position=50, **common
    )


def test_a_view_holds_what_the_store_holds(tmp_path: Path, make: SimpleNamespace) -> None:
    with Store.open(tmp_path / "store.db") as store:
        fill(store, make)
        view = read_view(store, "imdb")
    assert (view.name, view.metric, view.unit, view.seed) == ("imdb", Metric("accuracy", "max"), "samples", 7)
    assert view.budget == Budget(runs=12, seconds=480.0)
    assert view.strategy["sampler"] == "tpe"
    assert view.space.fixed == {"dropout": 0.1}
    assert view.best is not None
    assert view.baseline is not None
    assert (view.best.id, view.baseline.id) == ("imdb-1", "imdb-0")
    assert view.total_cost.tokens == 2000
    assert "+6.0 points, which is more than noise" in verdict(view)


def test_a_study_without_limits_can_be_read(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.create_study("free", CONFIG | {"budget": {}})
        assert read_view(store, "free").budget == Budget()


def test_curves_keep_spikes_and_follow_the_lineage(tmp_path: Path, make: SimpleNamespace) -> None:
    with Store.open(tmp_path / "store.db") as store:
        fill(store, make)
        curves = read_curves(store, read_view(store, "imdb"))
    assert list(curves) == ["validation/accuracy", "train/loss", "train/gradient_norm"]
    assert curves["train/loss"]["imdb-1"].max.max() == 50.0
    assert curves["train/gradient_norm"]["imdb-1"].num_nonfinite.sum() == 1
    # The fork has logged nothing itself: its curve is its parent's, up to the fork point.
    assert curves["train/loss"]["imdb-2"].last_position.max() == 50
    assert "imdb-2" not in curves["validation/accuracy"]


def test_a_run_whose_process_is_gone_is_shown_as_crashed(tmp_path: Path, make: SimpleNamespace) -> None:
    code = (
        "import os, sys; from thalweg.track.store import Store;"
        "Store.open(sys.argv[1]).update_run('imdb-2', status='running'); os._exit(1)"
    )
    with Store.open(tmp_path / "store.db") as store:
        fill(store, make)
        assert read_view(store, "imdb").crashed == frozenset()
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "store.db")], check=False)
        view = read_view(store, "imdb")
    assert view.crashed == {"imdb-2"}
    assert view.status(view.tree["imdb-2"]) == "crashed"


def test_a_report_is_written_whole_and_replaces_the_last(tmp_path: Path, make: SimpleNamespace) -> None:
    target = tmp_path / "reports" / "report.html"
    with Store.open(tmp_path / "store.db") as store:
        fill(store, make)
        assert write_report(store, "imdb", target) == target
        target.write_text("old")
        write_report(store, "imdb", str(target))
    assert target.read_text(encoding="utf-8").endswith("</html>\n")
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_an_unknown_study_is_refused_by_name(tmp_path: Path, make: SimpleNamespace) -> None:
    with Store.open(tmp_path / "store.db") as store:
        fill(store, make)
        with pytest.raises(StoreError, match="imdb"):
            write_report(store, "imbd", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
