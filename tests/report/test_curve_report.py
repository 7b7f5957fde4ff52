"""Curves read from a store, over a lineage, as findings and charts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from thalweg.errors import StoreError
from thalweg.report import curve_report
from thalweg.report.chart import write_charts
from thalweg.report.curve_report import curve_charts, curve_findings, read_report, report_dict, terminal_chart
from thalweg.track.store import Store
from thalweg.train.hyperparameters import FineTuneHyperparameters, PretrainHyperparameters

NUM = 400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A study whose run s-0 has a spike at 2,000 samples, and a fork s-1 at 2,400 that learns on."""
    with Store.open(tmp_path / "store.db") as opened:
        opened.create_study("s", {"unit": "samples", "trainer": {"kind": "finetune"}})
        rng = np.random.default_rng(0)
        loss = 2 + 2 * (1 + np.arange(NUM) / 20) ** -0.5 + 0.02 * rng.standard_normal(NUM)
        loss[249] += 1.5
        make(opened, loss[:300], {"lr": 1e-3})
        make(opened, loss[300:], {"lr": 1e-4}, parent="s-0", fork_position=2400)
        yield opened


def make(store: Store, loss: np.ndarray, hyperparameters: dict, *, parent: str | None = None, **fork: int) -> str:
    start = fork.get("fork_position", 0)
    run = store.create_run(
        "s", hyperparameters=hyperparameters, horizon=3200, until=3200, seed=0, origin="hand", parent=parent, **fork
    )
    with store.writer(run.id) as writer:
        for i, value in enumerate(loss.tolist()):
            metrics = {"train/loss": value, "train/gradient_norm": 3.0, "train/lr": hyperparameters["lr"]}
            writer.log(start + 8 * (i + 1), metrics)
        writer.log(start + 8 * len(loss), {"validation/loss": loss[-1] + 0.1, "validation/accuracy": 0.5})
    return run.id


def test_a_forks_curves_are_its_lineages(store: Store) -> None:
    report = read_report(store, "s-1")
    assert report.lineage == ("s-0", "s-1")
    assert list(report.curves.forks) == [2400.0]
    assert report.curves.training is not None
    assert report.curves.training.positions.tolist() == [8 * (i + 1) for i in range(NUM)]
    assert report.curves.unit == "samples"
    # The parent's spike is in the child's past, and the rate that the fork changed is in the curve.
    assert [f.position for f in report.findings if f.kind == "spike"] == [2000.0]
    assert report.curves.rate is not None
    assert [report.curves.rate.at(2400), report.curves.rate.at(2408)] == [1e-3, 1e-4]
    assert curve_findings(store, "s-1") == list(report.findings)


def test_the_clip_threshold_is_the_runs_or_the_trainers_own(store: Store) -> None:
    def kinds(hyperparameters: dict) -> set[str]:
        run = make(store, 2 + np.geomspace(2, 1, 300), {"lr": 1e-3, **hyperparameters})
        return {finding.kind for finding in curve_findings(store, run)}

    assert "always-clipped" in kinds({})
    assert "always-clipped" in kinds({"clip": 2.0})
    assert "always-clipped" in kinds({"max_grad_norm": 2.0})
    assert "always-clipped" not in kinds({"clip": 4.0})
    assert "always-clipped" not in kinds({"clip": 0.0})
    assert "always-clipped" not in kinds({"clip_by": "value"})


def test_the_default_threshold_is_what_the_trainers_have() -> None:
    defaults = {"finetune": FineTuneHyperparameters().clip, "pretrain": PretrainHyperparameters().clip}
    assert defaults == curve_report.DEFAULT_CLIP


def test_names_of_other_loops_are_understood(store: Store) -> None:
    run = store.create_run("s", hyperparameters={}, horizon=9, until=9, seed=0, origin="hand")
    with store.writer(run.id) as writer:
        for position in range(1, 10):
            writer.log(position, {"loss": 1.0, "grad_norm": 1.0, "learning_rate": 0.1, "eval_loss": 1.0, "other": 0.0})
    found = report_dict(read_report(store, run.id))
    assert found["points"] == {"training": 9, "validation": 9, "gradient_norm": 9}
    assert found["findings"] == []


def test_the_picture_of_one_run(store: Store, tmp_path: Path) -> None:
    charts = curve_charts([read_report(store, "s-1")])
    assert [chart.y_label for chart in charts] == ["loss", "learning rate", "norm"]
    loss, rate, _ = charts
    assert [line.name for line in loss.lines] == ["", "training, smoothed", "validation"]
    raw, smoothed, validation = loss.lines
    assert max(y for x, y in zip(raw.x, raw.y, strict=True) if x > 1000) > 3.8
    assert max(y for x, y in zip(smoothed.x, smoothed.y, strict=True) if x > 1000) < 3.2
    assert validation.dash
    texts = {mark.text: mark.position for mark in loss.marks}
    # The fork cut the rate to a tenth: a decay begins where it begins, and one mark says both.
    assert texts["fork s-1, decay"] == 2400
    assert texts["spike"] == 2000
    assert [mark.text for mark in rate.marks] == ["fork s-1"]
    assert loss.title == "s-0 > s-1: loss"
    for name in ("x.png", "x.svg", "x.html"):
        write_charts(charts, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_the_picture_of_several_runs_names_them(store: Store) -> None:
    reports = [read_report(store, run) for run in ("s-0", "s-1")]
    loss = curve_charts(reports)[0]
    names = [line.name for line in loss.lines if line.name]
    assert names == [
        "s-0 training, smoothed",
        "s-0 validation",
        "s-1 training, smoothed",
        "s-1 validation",
    ]
    # Both have the same spike in their past: one mark.
    assert ("s-0: spike, s-1: spike", 2000) in {(mark.text, mark.position) for mark in loss.marks}
    assert {line.colour for line in loss.lines if line.name.startswith("s-0")}.isdisjoint(
        {line.colour for line in loss.lines if line.name.startswith("s-1")}
    )
    chart = terminal_chart(reports)
    assert chart is not None
    assert len(chart.lines) == 4


def test_a_run_without_curves(store: Store) -> None:
    run = store.create_run("s", hyperparameters={}, horizon=9, until=9, seed=0, origin="hand")
    report = read_report(store, run.id)
    assert (list(report.findings), curve_charts([report]), terminal_chart([report])) == ([], [], None)
    assert report.lineage == (run.id,)
    with pytest.raises(StoreError, match="s-99"):
        curve_findings(store, "s-99")


def test_a_million_points_are_drawn_as_a_few(store: Store) -> None:
    run = store.create_run("s", hyperparameters={}, horizon=10**6, until=10**6, seed=0, origin="hand")
    with store.writer(run.id) as writer:
        for position in range(1, 20_001):
            writer.log(position, {"loss": 5.0 if position == 12_345 else 1.0 + 1.0 / position})
    report = read_report(store, run.id)
    assert [f.position for f in report.findings if f.kind == "spike"] == [12_345]
    lines = curve_charts([report])[0].lines
    assert max(lines[0].y) == 5.0
    assert all(len(line.x) <= 3 * curve_report.NUM_POINTS for line in lines)
