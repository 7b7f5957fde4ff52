"""The loop's own decisions: what strategies are told of the budget, which checkpoints stay, and which run is tested."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import thalweg
from thalweg.budget import Budget, Cost, Left
from thalweg.errors import ConfigError
from thalweg.execute.simulated import SimulatedTrainer
from thalweg.loop import NothingBegun
from thalweg.plan.forecast import check_budget
from thalweg.search.strategy import Strategy
from thalweg.simulation import Simulation, simulate
from thalweg.space import Hyperparameters, Space
from thalweg.track.store import Store
from thalweg.tree import Action, Start, Stop, Tree

SPACE = {"lr": thalweg.log(1e-5, 1e-1)}
LR = {"a": 1e-4, "b": 1e-3}


@dataclass
class Scripted:
    """A strategy that plays one list of actions after the other, and keeps what it was told of the budget."""

    script: list[Callable[[Tree], list[Action]]]
    lefts: list[Left] = field(default_factory=list)
    share: float = 1.0
    num_roots: int | None = None

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        self.lefts.append(left)
        return self.script.pop(0)(tree) if self.script else []


def play(strategy: Strategy, trainer: Any, store: Path | None = None, **options: Any) -> Simulation:
    settings = {"budget": "9 runs", **options}
    with patch("thalweg.study.build_strategy", lambda *_, **__: strategy):
        return simulate(trainer, space=SPACE, metric="loss", strategy="random", store=store, **settings)


def flat(_hyperparameters: Hyperparameters, _fraction: float) -> float:
    return 1.0


def start(lr: float, until: int = 100, seed: int | None = None) -> Callable[[Tree], list[Action]]:
    return lambda _tree: [Start({"lr": lr}, until, "scripted", seed)]


def test_whole_runs_are_of_compute_alone() -> None:
    """Runs of 100 s each: 250 s have room for 2.5, whatever the number of runs; nothing but runs says nothing."""
    for budget, expected in (("250 seconds, 1 runs", 2.5), ("250 seconds, 9 runs", 2.5), ("1 runs", None)):
        strategy = Scripted([])
        play(strategy, flat, budget=budget)
        assert [left.whole_runs for left in strategy.lefts] == [expected]


@pytest.mark.parametrize(("origin", "kept"), [("scripted", []), ("hand", [50])])
def test_what_the_strategy_gives_up_keeps_no_checkpoint(tmp_path: Path, origin: str, kept: list[int]) -> None:
    """A person may want to restart a run that they stopped; a strategy's loser is never taken up again."""
    strategy = Scripted([start(1e-3, until=50), lambda tree: [Stop("simulated-0", origin)]])
    result = play(strategy, flat, tmp_path / "store.db", keep_checkpoints="needed")
    assert [run.status for run in result.tree] == ["stopped"]
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        assert [record.position for record in store.checkpoints("simulated-0")] == kept


def test_a_loser_keeps_the_checkpoints_where_forks_begin(tmp_path: Path) -> None:
    population = {"name": "pbt", "population": 4, "interval": 0.25}
    result = simulate(
        lambda h, fraction: abs(math.log10(float(h["lr"])) + 3) + 1 - fraction,
        space=SPACE,
        metric="loss",
        budget="100 runs",
        strategy=population,
        store=tmp_path / "store.db",
        keep_checkpoints="needed",
    )
    stopped = [run for run in result.tree if run.status == "stopped"]
    assert stopped
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        for run in stopped:
            forks = {child.fork_position for child in result.tree if child.parent == run.id}
            assert {record.position for record in store.checkpoints(run.id)} <= forks


def test_the_run_of_the_best_mean_is_kept_and_tested(tmp_path: Path) -> None:
    """Of two configurations the first has the best single result and the worse mean: (0.1, 0.9) against (0.2, 0.3)."""
    losses = {(LR["a"], 0): 0.1, (LR["a"], 1): 0.9, (LR["b"], 0): 0.2, (LR["b"], 1): 0.3}

    class Tested(SimulatedTrainer):
        def test(self, run: Any) -> Mapping[str, Any]:
            tested.append(run.id)
            return {}

    tested: list[str] = []
    trainer = Tested.of_curve(lambda h, _position, seed: losses[float(h["lr"]), seed])
    strategy = Scripted([start(LR[name], seed=seed) for seed in (None, 1) for name in ("a", "b")])
    result = play(strategy, trainer, tmp_path / "store.db", keep_checkpoints="needed", hold_back=True)
    assert [run.reports[-1].metrics["loss"] for run in result.tree] == [0.1, 0.2, 0.9, 0.3]
    assert tested == ["simulated-1"]
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        assert [bool(store.checkpoints(run.id)) for run in result.tree] == [True, True, False, False]


def test_a_budget_without_room_for_the_first_run_is_said_to_have_none() -> None:
    """The cheapest run takes 50 s, which the budget of 60 has, and the one that is drawn 200 s."""
    trainer = SimulatedTrainer.of_points(flat, seconds_per_position=lambda h: 0.5 if h["size"] == 1 else 2.0)
    space = {"size": thalweg.choice([1, 2], prior=2, confidence="high")}
    with pytest.raises(NothingBegun, match=r"would take 200 seconds, and 60 of the budget are left"):
        simulate(trainer, space=space, metric="loss", budget="60 seconds", strategy="grid")


def test_a_budget_that_went_into_loading_is_said_to_have_gone() -> None:
    late = SimulatedTrainer.of_points(flat)
    with (
        patch("thalweg.loop.Loop._recover", lambda loop: loop.clock.__setattr__("seconds", 500.0)),
        pytest.raises(NothingBegun, match=r"the budget's seconds were used up before a first run could begin"),
    ):
        simulate(late, space=SPACE, metric="loss", budget="300 seconds", strategy="random")


def test_what_loading_took_is_not_left_for_a_run() -> None:
    """Runs of 50 s and more fit into 90 s, and not into the 40 that are left after 50 s of loading."""
    space = Space.parse({"size": thalweg.choice([50, 100])})

    def whole(hyperparameters: Hyperparameters) -> Cost:
        return Cost(seconds=float(hyperparameters["size"]))

    check_budget(Budget(seconds=90), space, whole, loading_seconds=40)
    with pytest.raises(
        ConfigError, match=r"seconds = 90 is too small .* loading took 50, and the least is 50 \(size = 50"
    ):
        check_budget(Budget(seconds=90), space, whole, loading_seconds=50)


def test_the_best_few_keep_their_checkpoints(tmp_path: Path) -> None:
    """Six losses in this order: the worst two of them, 0.9 and 0.8, go."""
    losses = [0.5, 0.9, 0.3, 0.8, 0.1, 0.4]
    rates = [10.0**-k for k in range(1, 6)] + [0.05]
    trainer = SimulatedTrainer.of_points(lambda h, _fraction: losses[rates.index(float(h["lr"]))])
    result = play(Scripted([start(rate) for rate in rates]), trainer, tmp_path / "s.db", keep_checkpoints="needed")
    with Store.open(tmp_path / "s.db", read_only=True) as store:
        assert [bool(store.checkpoints(run.id)) for run in result.tree] == [True, False, True, False, True, True]
