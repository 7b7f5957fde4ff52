"""Replaying the schedule of a lineage: what it was, and that training it again is the same training."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg.budget import Budget, Left
from thalweg.errors import ConfigError
from thalweg.replay import Replaying, Stretch, changes, export, replay, schedule
from thalweg.report.lineage_schedule import schedule_charts
from thalweg.space import Space
from thalweg.study import Result, Study, run_study
from thalweg.track.store import Store
from thalweg.train.corpus import Corpus
from thalweg.train.llama import ModelShape
from thalweg.train.pretrain import Pretrain
from thalweg.tree import Continue, Fork, Metric, Run, Start, Tree

STEP = 4 * 8


def run(number: int, lr: float, position: int, parent: int | None = None, at: int = 0, **more: Any) -> Run:
    fields: dict[str, Any] = {
        "id": f"s-{number}",
        "number": number,
        "hyperparameters": {"lr": lr, "batch": 8},
        "horizon": 30,
        "until": position,
        "position": position,
        "status": "finished" if position == 30 else "paused",
        "parent": None if parent is None else f"s-{parent}",
        "fork_position": at,
        "origin": "pbt",
    }
    return Run(**fields | more)


LINEAGE = Tree.of([run(0, 1e-3, 30), run(1, 5e-3, 10), run(2, 1.2e-3, 20, 0, 10), run(3, 9.6e-4, 30, 2, 20)])
"""A root is exploited at 10 and multiplied by 1.2; that fork is exploited at 20 and multiplied by 0.8."""
STRETCHES = [
    Stretch(0, 10, {"lr": 1e-3, "batch": 8}),
    Stretch(10, 20, {"lr": 1.2e-3, "batch": 8}),
    Stretch(20, 30, {"lr": 9.6e-4, "batch": 8}),
]


def test_a_schedule_is_what_each_ancestor_was_trained_under_up_to_the_fork() -> None:
    assert schedule(LINEAGE, "s-3") == STRETCHES
    assert changes(STRETCHES) == ["lr"]
    assert schedule(LINEAGE, "s-1") == [Stretch(0, 10, {"lr": 5e-3, "batch": 8})]


def test_forks_without_a_change_or_without_training_are_no_stretch() -> None:
    tree = Tree.of([run(0, 1e-3, 10), run(1, 2e-3, 10, 0, 10), run(2, 1e-3, 20, 1, 10), run(3, 4e-3, 30, 2, 20)])
    assert schedule(tree, "s-3") == [
        Stretch(0, 20, {"lr": 1e-3, "batch": 8}),
        Stretch(20, 30, {"lr": 4e-3, "batch": 8}),
    ]
    with pytest.raises(ConfigError, match="s-0 has not been trained"):
        schedule(Tree.of([run(0, 1e-3, 0)]), "s-0")


def test_the_chain_is_a_root_and_forks_of_itself_and_goes_on_from_what_there_is() -> None:
    again = Replaying(STRETCHES, after=3, seed=7)
    tree = Tree.of(LINEAGE)

    def decide() -> Any:
        (action,) = again.decide(tree, free_slots=1, left=Left({}))
        return action

    assert decide() == Start({"lr": 1e-3, "batch": 8}, 10, "hand", 7)
    tree.absorb(run(4, 1e-3, 10, origin="hand", seed=7))
    assert decide() == Fork("s-4", 10, {"lr": 1.2e-3}, 20, "hand")
    second = run(5, 1.2e-3, 20, 4, 10, origin="hand", seed=7)
    tree.absorb(dataclasses.replace(second, position=15, status="interrupted"))
    assert again.decide(tree, free_slots=1, left=Left({})) == []  # the loop goes on with it
    tree.absorb(dataclasses.replace(second, position=15))
    assert decide() == Continue("s-5", 20, "hand")
    tree.absorb(second)
    assert decide() == Fork("s-5", 20, {"lr": 9.6e-4}, 30, "hand")
    tree.absorb(run(6, 9.6e-4, 30, 5, 20, origin="hand", seed=7))
    assert again.decide(tree, free_slots=1, left=Left({})) == []
    assert [each.id for each in again.chain(tree)] == ["s-4", "s-5", "s-6"]


def test_exports_can_be_read_back(tmp_path: Path) -> None:
    stretches = [Stretch(0, 10, {"lr": 1e-5, "kind": 'a"b', "on": True}), Stretch(10, 30, {"lr": 2.0, "kind": "ü"})]
    for path, read in ((tmp_path / "s.json", json.loads), (tmp_path / "s.toml", tomllib.loads)):
        export(path, LINEAGE["s-3"], "tokens", stretches)
        found = read(path.read_text(encoding="utf-8"))
        assert [Stretch(**stretch) for stretch in found.pop("stretches")] == stretches
        assert found == {"run": "s-3", "unit": "tokens", "horizon": 30, "seed": 0}
    with pytest.raises(ConfigError, match=r"\.toml or \.json"):
        export(tmp_path / "s.yaml", LINEAGE["s-3"], "tokens", stretches)
    with pytest.raises(ConfigError, match="there is no folder"):
        export(tmp_path / "none" / "s.toml", LINEAGE["s-3"], "tokens", stretches)


def test_a_chart_has_a_step_for_each_stretch() -> None:
    steps = [(stretch.start, stretch.end, stretch.hyperparameters) for stretch in STRETCHES]
    (chart,) = schedule_charts(steps, ["lr"], run="s-3", unit="steps")
    (line,) = chart.lines
    assert list(line.x) == [0, 10, 10, 20, 20, 30]
    assert list(line.y) == [1e-3, 1e-3, 1.2e-3, 1.2e-3, 9.6e-4, 9.6e-4]
    assert schedule_charts([(0, 1, {"kind": "a"}), (1, 2, {"kind": "b"})], ["kind"], run="s-3", unit="steps") == []


# On a real trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A population of three tiny language models."""
    folder = tmp_path_factory.mktemp("population")
    rng = np.random.default_rng(0)
    words = ["the", "cat", "dog", "sat", "ran", "on", "mat", "and", "hat"]
    (folder / "lines.txt").write_text("\n".join(f"{i} {' '.join(rng.choice(words, size=12))}" for i in range(80)))
    trainer = Pretrain(
        model=ModelShape(layers=1, width=16, heads=2, vocabulary=270, context=8),
        data=Corpus(train=str(folder / "lines.txt"), separator="\n", cache=str(folder / "tokens")),
        precision="fp32",
        evaluations=0,
    )
    space = {"lr": {"log": [1e-4, 1e-1]}, "batch_size": {"choice": [2, 4, 8]}, "schedule": "constant"}
    made = Study(
        name="s",
        space=Space.parse({**space, "tokens": 12 * STEP}),
        metric=Metric.parse("loss"),
        trainer=trainer,
        budget=Budget.parse("3 runs"),
        strategy={"name": "pbt", "population": 3, "interval": 0.25},
        workers=2,
    )
    return run_study(made, folder / "store.db", quiet=True)


def losses(store: Path | str, run_id: str) -> tuple[list[int], list[float]]:
    with Store.open(store, read_only=True) as opened:
        series = opened.series(run_id, "train/loss")
    return series.positions.tolist(), series.values.tolist()


@pytest.mark.slow
def test_a_population_spends_what_its_members_take_and_forks_from_where_winners_wait(trained: Result) -> None:
    tree = trained.tree
    assert not tree.active()
    assert len(tree.roots()) == 3
    assert sum(each.status == "finished" for each in tree) == 3
    forks = [each for each in tree if each.parent is not None]
    assert forks
    for fork in forks:
        assert fork.fork_position in [report.position for report in tree[str(fork.parent)].reports]
    assert "repeated" not in {kind for spent in trained.ledger.spent.values() for kind in spent}


@pytest.mark.slow
def test_a_replay_is_the_same_training_bit_for_bit(trained: Result) -> None:
    forked = max((each for each in trained.tree if each.parent and each.status == "finished"), key=lambda r: r.number)
    chain = replay(forked.id, trained.study, trained.store, quiet=True)
    assert len(chain) == len(schedule(trained.tree, forked.id)) > 1
    assert not {each.id for each in chain} & set(trained.tree.runs)
    assert losses(trained.store, chain[-1].id) == losses(trained.store, forked.id)
    assert chain[-1].reports[-1] == forked.reports[-1]
    # Asked for again, there is nothing to train.
    again = replay(forked.id, trained.study, trained.store, quiet=True)
    assert [each.id for each in again] == [each.id for each in chain]
    other = replay(forked.id, trained.study, trained.store, seed=5, quiet=True)
    assert other[-1].seed == 5
    assert losses(trained.store, other[-1].id) != losses(trained.store, forked.id)


@pytest.mark.slow
def test_a_replay_waits_for_no_run_of_others(trained: Result) -> None:
    run_id = trained.tree.roots()[0].id
    with Store.open(trained.store) as store:
        pending = store.create_run("s", hyperparameters={"lr": 1e-3}, horizon=32, until=32, seed=0, origin="hand")
    with pytest.raises(ConfigError, match=f"runs under way: {pending.id}"):
        replay(run_id, trained.study, trained.store, quiet=True)
    with Store.open(trained.store) as store:
        store.update_run(pending.id, status="stopped")
