"""Extending a finished run: nothing of its stable phase is trained again, and what follows is exact."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thalweg
from thalweg.budget import Budget
from thalweg.errors import ConfigError
from thalweg.extension import carry_out, extension
from thalweg.space import Space
from thalweg.study import Study, run_study
from thalweg.track.store import Store
from thalweg.train.corpus import Corpus
from thalweg.train.llama import ModelShape
from thalweg.train.pretrain import Pretrain
from thalweg.tree import Fork, Metric, Run

STEP = 4 * 8
WSD = {"lr": 3e-3, "batch_size": 4, "schedule": "wsd", "warmup": 0.1, "decay": 0.2, "tokens": 10 * STEP}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Pretrain:
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    words = ["the", "cat", "dog", "sat", "ran", "on", "mat", "and", "hat"]
    (folder / "lines.txt").write_text("\n".join(f"{i} {' '.join(rng.choice(words, size=12))}" for i in range(80)))
    return Pretrain(
        model=ModelShape(layers=1, width=16, heads=2, vocabulary=270, context=8),
        data=Corpus(train=str(folder / "lines.txt"), separator="\n", cache=str(folder / "tokens")),
        precision="fp32",
        evaluations=0,
    )


def study(trainer: Any, **fixed: Any) -> Study:
    given = {**WSD, **fixed}
    space = Space.parse({**given, "lr": {"choice": [given["lr"]]}})
    return Study(
        name="s",
        space=space,
        metric=Metric.parse("loss"),
        trainer=trainer,
        budget=Budget.parse("1 run"),
        strategy={"name": "random"},
        workers=1,
    )


def finished(made: Study, location: Path) -> Run:
    (run,) = run_study(made, location, quiet=True).tree
    assert run.status == "finished"
    return run


def curve(location: Path, run: str, metric: str) -> dict[int, float]:
    with Store.open(location, read_only=True) as store:
        found = store.series(run, metric)
    return dict(zip(found.positions.tolist(), found.values.tolist(), strict=True))


def test_an_extension_equals_a_run_that_was_longer_from_the_start(trainer: Pretrain, tmp_path: Path) -> None:
    """Up to the decay of the short run both hold the rate; from there on the child goes where the long run went."""
    short, whole = tmp_path / "short.db", tmp_path / "whole.db"
    made = study(trainer)
    run = finished(made, short)
    spent = run_study(made, short, quiet=True).ledger.by_kind()["train"].tokens
    assert spent == 10 * STEP
    with Store.open(short) as store:
        fork = extension(trainer, store, run, 30 * STEP)
    # The decay of the short run begins at 8 steps; its warm-up of 32 tokens stays.
    assert fork == Fork(run.id, 8 * STEP, {"tokens": 30 * STEP, "warmup": 32.0}, 30 * STEP, "extend")
    (child,) = carry_out(fork, made, short, quiet=True)
    assert (child.status, child.parent, child.fork_position, child.position) == ("finished", run.id, 256, 960)
    extended = run_study(made, short, quiet=True)
    assert extended.ledger.by_kind()["train"].tokens == spent + 22 * STEP
    finished(study(trainer, tokens=30 * STEP, warmup=32.0), whole)
    for metric in ("train/loss", "train/lr", "train/gradient_norm"):
        assert curve(short, child.id, metric) == curve(whole, "s-0", metric)
    assert curve(short, child.id, "train/lr")[30 * STEP] == pytest.approx(3e-3 / 6)  # the last step of six that decay


def test_a_cyclic_run_goes_on_from_its_decayed_end(trainer: Pretrain, tmp_path: Path) -> None:
    location = tmp_path / "store.db"
    made = study(trainer, schedule="cyclic_wsd")
    run = finished(made, location)
    result = run_study(made, location, quiet=True).extend(run.id, to=20 * STEP, progress=False)
    child = list(result.tree)[-1]
    assert (child.fork_position, child.hyperparameters["cycle_start"]) == (10 * STEP, 10 * STEP)
    rates = curve(location, child.id, "train/lr")
    assert rates[10 * STEP] < 3e-3
    assert rates[11 * STEP] == rates[18 * STEP] == 3e-3
    assert rates[20 * STEP] < 3e-3


def test_every_cyclic_run_keeps_the_end_that_it_goes_on_from(trainer: Pretrain, tmp_path: Path) -> None:
    """Not only the best, whose last checkpoint stays in any case."""
    location = tmp_path / "store.db"
    space = Space.parse({**WSD, "schedule": "cyclic_wsd", "tokens": 9 * STEP + 5, "lr": {"choice": [1e-5, 1e-2]}})
    made = dataclasses.replace(study(trainer), space=space, budget=Budget.parse("2 runs"), strategy={"name": "grid"})
    result = run_study(made, location, quiet=True)
    assert result.best is not None
    (worse,) = [run for run in result.tree if run.id != result.best.id]
    child = list(result.extend(worse.id, to=20 * STEP, progress=False).tree)[-1]
    assert (child.parent, child.fork_position) == (worse.id, 10 * STEP)


def test_an_extension_can_be_extended(trainer: Pretrain, tmp_path: Path) -> None:
    location = tmp_path / "store.db"
    made = study(trainer)
    result = run_study(made, location, quiet=True).extend(finished(made, location).id, to=20 * STEP, progress=False)
    again = result.extend(list(result.tree)[-1].id, to=40 * STEP, progress=False)
    assert [run.fork_position for run in again.tree] == [0, 8 * STEP, 16 * STEP]
    rates = curve(location, "s-2", "train/lr")
    assert {rates[p * STEP] for p in range(3, 33)} == {3e-3}


@pytest.mark.parametrize(
    ("fixed", "to", "message"),
    [
        ({}, 10 * STEP, r"320 is not beyond the horizon of run s-0, 320"),
        ({"schedule": "cosine"}, 40 * STEP, "is not held before it falls, so there is no place to extend it from"),
    ],
)
def test_what_cannot_be_extended_is_refused(
    trainer: Pretrain, tmp_path: Path, fixed: dict[str, Any], to: int, message: str
) -> None:
    location = tmp_path / "store.db"
    run = finished(study(trainer, **fixed), location)
    with Store.open(location) as store, pytest.raises(ConfigError, match=message):
        extension(trainer, store, run, to)


def test_a_function_cannot_be_extended(tmp_path: Path) -> None:
    result = thalweg.tune(
        lambda run: 1.0, space={"x": {"linear": [0, 1]}}, metric="loss", budget="1 run", strategy="random",
        name="f", store=tmp_path / "store.db", progress=False, workers=1,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="thalweg does not know their schedule"):
        result.extend("f-0", to=5)


def test_a_study_with_runs_under_way_is_brought_to_its_end_first(trainer: Pretrain, tmp_path: Path) -> None:
    location = tmp_path / "store.db"
    made = study(trainer)
    run = finished(made, location)
    with Store.open(location) as store:
        store.update_run(run.id, status="interrupted")
    with pytest.raises(ConfigError, match=r"has runs under way: s-0.*thalweg resume s"):
        carry_out(Fork(run.id, 256, {}, 999), made, location, quiet=True)


def test_a_fork_with_nothing_left_to_train_is_refused(trainer: Pretrain, tmp_path: Path) -> None:
    location = tmp_path / "store.db"
    made = study(trainer)
    run = finished(made, location)
    fork = Fork(run.id, 8 * STEP, {"tokens": 8 * STEP}, 2**62)
    with pytest.raises(ConfigError, match=r"fork of s-0 at 256 with horizon 256, .* nothing left to train"):
        carry_out(fork, made, location, quiet=True)
    assert len(run_study(made, location, quiet=True).tree) == 1


def test_halving_over_trunks_on_a_real_model(trainer: Pretrain, tmp_path: Path) -> None:
    """Each rung's score is its branch's, and a branch's loss is what a whole run of its budget has."""
    location = tmp_path / "store.db"
    made = dataclasses.replace(
        study(trainer, warmup=float(STEP), tokens=20 * STEP),
        strategy={"name": "halving", "sampler": "grid", "eta": 2, "num_rungs": 2, "trunk": True},
        space=Space.parse({**WSD, "lr": {"choice": [1e-3, 1e-2]}, "warmup": float(STEP), "tokens": 20 * STEP}),
        budget=Budget.parse("2 runs"),
    )
    result = run_study(made, location, quiet=True)
    branches = [run for run in result.tree if run.parent is not None]
    assert [(run.fork_position, run.position) for run in branches] == [(8 * STEP, 10 * STEP)] * 2
    assert sorted(run.position for run in result.tree.roots()) == [8 * STEP, 20 * STEP]
    for branch in branches:
        whole = tmp_path / f"{branch.id}.db"
        finished(study(trainer, **branch.hyperparameters), whole)
        assert curve(location, branch.id, "train/loss") == curve(whole, "s-0", "train/loss")
