"""`thalweg simulate`: on made-up surfaces, on a table and on one's own runs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from thalweg.cli.app import app
from thalweg.comparison import Comparison, Outcome
from thalweg.errors import ConfigError, ThalwegError
from thalweg.scaling.response import Measured, measured, synthetic
from thalweg.simulation import simulate
from thalweg.space import Space
from thalweg.tree import Metric

STUDY = """
[study]
name = "t"
metric = "loss"

[budget]
runs = 5

[strategy]
name = "halving"
sampler = "random"
eta = 2

[space]
lr = { log = [1e-5, 1e-1] }
optimizer = { choice = ["adam", "sgd"] }

[trainer]
kind = "function"
file = "train.py"
function = "train"
horizon = 40
"""
LOSS = Metric("loss", "min")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("def train(run):\n    return 1.0\n")
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, ["simulate", *map(str, arguments)], catch_exceptions=False)


def refused(*arguments: object) -> str:
    with pytest.raises(ThalwegError) as caught:
        run(*arguments)
    return str(caught.value)


def write_table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


def test_made_up_surfaces(study: Path) -> None:
    picture = study.parent / "simulated.png"
    options = ("--strategies", "halving,random", "--seeds", 4, "--budgets", "3, 6 runs", "--workers", 2)
    result = run(study, *options, "--chart", picture)
    assert result.exit_code == 0
    for words in ("halving", "random", "3 runs", "6 runs", "mean rank", "2 workers", "Picture"):
        assert words in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(study, *options, "--chart", picture).stdout == result.stdout


def test_json_holds_what_the_table_is_made_of(study: Path) -> None:
    found = json.loads(run(study, "--strategies", "halving,random", "--seeds", 3, "--budgets", "4", "--json").stdout)
    assert [(r["strategy"], r["budget_whole_runs"]) for r in found["results"]] == [("halving", 4.0), ("random", 4.0)]
    for entry in found["results"]:
        assert entry["median_regret"] == sorted(entry["regrets"])[1]
        assert all(regret >= 0 for regret in entry["regrets"])
    assert sum(found["mean_ranks"].values()) == pytest.approx(3.0)


TABLE = """lr,optimizer,position,seed,loss,gpu
0.001,adam,10,0,3.0,a
0.001,adam,40,0,1.0,a
0.001,adam,10,1,3.2,a
0.001,adam,40,1,1.2,a
0.1,adam,10,0,5.0,a
0.1,adam,40,0,nan,a
0.00001,sgd,10,0,4.0,a
0.00001,sgd,40,0,2.0,a
"""


def test_a_table(study: Path) -> None:
    """With enough random runs the best row is found: regret 0."""
    table = write_table(study.parent, TABLE)
    options = ("--strategies", "random", "--seeds", 2, "--budgets", "20", "--table", table, "--json")
    found = json.loads(run(study, *options).stdout)
    assert found["results"][0]["regrets"] == [0.0, 0.0]
    assert "3 configurations" in found["simulated_on"]
    assert found["notes"] == ["columns that are not in the space are ignored: gpu"]


def test_a_table_is_looked_up_on_the_spaces_own_scales() -> None:
    """On the log scale 2e-3 is nearer to 1e-3 than to 1e-2; another optimizer is further than any learning rate."""
    space = Space.parse({"lr": {"log": [1e-3, 1e-1]}, "optimizer": {"choice": ["adam", "sgd"]}})
    configurations = [
        Measured(hyperparameters={"lr": 1e-3, "optimizer": "adam"}, curves=[((0.5, 1.0), (3.0, 1.0))]),
        Measured(hyperparameters={"lr": 1e-2, "optimizer": "adam"}, curves=[((0.5, 1.0), (5.0, 2.0))]),
        Measured(hyperparameters={"lr": 2e-3, "optimizer": "sgd"}, curves=[((1.0,), (9.0,)), ((1.0,), (11.0,))]),
    ]
    response = measured(space, LOSS, configurations, about="")
    near = {"lr": 2e-3, "optimizer": "adam"}
    assert [response.value(near, fraction, 0) for fraction in (0.25, 0.5, 0.75, 1.0)] == [3.0, 3.0, 2.0, 1.0]
    assert response.truth({"lr": 1e-1, "optimizer": "adam"}) == 2.0
    assert response.truth({"lr": 2e-3, "optimizer": "sgd"}) == 10.0
    assert [response.value({"lr": 2e-3, "optimizer": "sgd"}, 1.0, seed) for seed in (0, 1, 2)] == [9.0, 11.0, 9.0]


def test_the_best_of_a_table_is_known_though_nobody_finds_it(study: Path) -> None:
    """A hundred rows between which a budget of two runs cannot choose: the best is 0, the median row 50."""
    rows = "".join(f"{1e-5 * 10 ** (i * 4 / 99)!r},{(i * 37) % 100}\n" for i in range(100))
    table = write_table(study.parent, "lr,loss\n" + rows)
    options = ("--strategies", "random", "--seeds", 1, "--budgets", 2, "--table", table, "--json")
    regret = json.loads(run(study, *options).stdout)["results"][0]["regrets"][0]
    assert 0 < regret < 2
    space = Space.parse({"lr": {"log": [1e-5, 1e-1]}})
    configurations = [Measured(hyperparameters={"lr": lr}, curves=[((1.0,), (lr,))]) for lr in (0.01, 0.001)]
    assert measured(space, LOSS, configurations, about="").best == 0.001
    assert measured(space, Metric("loss", "max"), configurations, about="").best == 0.01


def test_a_diverged_neighbour() -> None:
    space = Space.parse({"lr": {"linear": [0.0, 1.0]}})
    configurations = [
        Measured(hyperparameters={"lr": lr}, curves=[((0.5, 1.0), (2.0, end))])
        for lr, end in ((0.0, 1.0), (0.5, 3.0), (1.0, math.nan))
    ]
    response = measured(space, LOSS, configurations, num_neighbours=2, about="")
    assert math.isnan(response.truth({"lr": 0.9}))
    assert response.value({"lr": 0.9}, 0.5, 0) == 2.0
    assert math.isnan(response.value({"lr": 0.9}, 1.0, 0))
    # Half way between two: each counts the same. Nearer to one: it counts more.
    assert response.truth({"lr": 0.25}) == pytest.approx(2.0)
    assert 1.0 < response.truth({"lr": 0.1}) < 1.5


def test_ends_alone_get_curves_that_end_there() -> None:
    space = Space.parse({"lr": {"linear": [0.0, 1.0]}})
    configurations = [
        Measured(hyperparameters={"lr": lr}, curves=[((1.0,), (value,))]) for lr, value in ((0.1, 0.6), (0.9, 0.8))
    ]
    response = measured(space, Metric("accuracy", "max"), configurations, about="")
    values = [response.value({"lr": 0.1}, fraction, 0) for fraction in (0.02, 0.1, 0.4, 1.0)]
    assert values == sorted(values)
    assert values[-1] == 0.6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("lr,loss\n", "no rows"),
        ("lr,accuracy\n1,2\n", "no column 'loss'"),
        ("size,loss\n1,2\n", "none of its columns (size, loss) is a hyperparameter of the space (lr, optimizer)"),
        ("lr,loss\n0.1,1\nx,2\n", "line 3: lr = 'x' must be a number"),
        ("lr,loss\n-1,1\n", "line 2: lr = -1 must be above zero"),
        ("lr,loss\n0.1,low\n", "line 2: loss = 'low' must be a number"),
        ("optimizer,loss\nlion,1\n", "line 2: optimizer = 'lion' is none of the space's adam, sgd"),
        ("lr,position,loss\n0.1,0,1\n", "line 2: position = '0' must be a position above zero"),
        ("lr,loss\n0.1,1\n0.1,2\n", "line 3: there is a row before with the same hyperparameters"),
        ("lr,loss\n0.1,nan\n", "nothing that was measured is a finite number"),
    ],
)
def test_a_table_that_cannot_be_read(study: Path, text: str, message: str) -> None:
    assert message in refused(study, "--table", write_table(study.parent, text), "--seeds", 1, "--budgets", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--strategies", "halfing"), "unknown strategy 'halfing'"),
        (("--strategies", ","), "--strategies is empty"),
        (("--seeds", 0), "--seeds 0 must be at least 1"),
        (("--budgets", "5 minutes"), "'5 minutes' is not a number of whole runs"),
        (("--budgets", "0.5"), "must be at least one whole run"),
        (("--workers", 0), "workers = 0 must be at least 1"),
        (("--chart", "x.pdf"), "a chart is written as .png, .svg or .html"),
        (("--chart", "no/such/x.png"), "there is no folder"),
        (("--table", "none.csv"), "there is no such file"),
        (("--from", "t", "--table", "none.csv"), "give one of them"),
        (("--from", "t", "--store", "none.db"), "does not exist"),
    ],
)
def test_bad_options(study: Path, options: tuple[object, ...], message: str) -> None:
    assert message in refused(study, *options)


def test_from_ones_own_runs(study: Path) -> None:
    """Learnt from a simulated study that is in a store as any other."""
    store = study.parent / "store.db"
    space = Space.parse({"lr": {"log": [1e-5, 1e-1]}, "optimizer": {"choice": ["adam", "sgd"]}})

    def bowl(hyperparameters: Any, fraction: float) -> float:
        return abs(math.log10(hyperparameters["lr"]) + 3) + 1 - fraction

    def study_of(num_runs: int, name: str) -> None:
        simulate(bowl, space=space, metric="loss", budget=f"{num_runs} runs", strategy="random", store=store, name=name)

    study_of(10, "mine")
    study_of(3, "small")
    options = ("--strategies", "halving,random", "--seeds", 2, "--budgets", 4, "--store", store)
    found = json.loads(run(study, *options, "--from", "mine", "--json").stdout)
    assert found["simulated_on"] == "the 3 nearest of 10 runs of mine"
    assert all(math.isfinite(regret) for entry in found["results"] for regret in entry["regrets"])
    assert "has 3 finished or diverged runs" in refused(study, *options, "--from", "small")
    assert "unknown study 'nine'" in refused(study, *options, "--from", "nine")


def test_a_strategy_that_cannot_work_here_is_left_out(study: Path) -> None:
    """Halving over trunks needs a schedule that holds its rate, which a function does not have."""
    study.write_text(STUDY.replace("eta = 2", "eta = 2\ntrunk = true"))
    found = json.loads(run(study, "--strategies", "halving,random", "--seeds", 1, "--budgets", 2, "--json").stdout)
    assert [entry["strategy"] for entry in found["results"]] == ["random"]
    assert "there is no trunk" in found["refused"]["halving"]
    assert "no strategy works here" in refused(study, "--strategies", "halving", "--seeds", 1, "--budgets", 2)


SPACE = Space.parse(
    {
        "lr": {"log": [1e-5, 1e-1], "prior": 1e-3, "confidence": "high"},
        "dropout": {"linear": [0.0, 0.5]},
        "adapter": {"choice": ["none", "lora"]},
        "rank": {"integer": [2, 64], "log": True, "when": {"adapter": "lora"}},
    }
)


@pytest.mark.parametrize("goal", ["min", "max"])
def test_made_up_surfaces_are_what_they_say(goal: Any) -> None:
    metric = Metric("m", goal)
    rng = np.random.default_rng(0)
    points = [SPACE.sample(rng) for _ in range(200)]
    optima = []
    for seed in range(10):
        response, again = synthetic(SPACE, metric, seed), synthetic(SPACE, metric, seed)
        truths = [response.truth(point) for point in points]
        assert truths == pytest.approx([again.truth(point) for point in points], nan_ok=True)
        best = min(
            (point for point, truth in zip(points, truths, strict=True) if not math.isnan(truth)),
            key=lambda point: metric.loss(response.truth(point)),
        )
        curve = [metric.loss(response.value(best, fraction, 0)) for fraction in (0.02, 0.1, 0.4, 1.0)]
        assert curve == sorted(curve, reverse=True)
        assert curve[-1] == pytest.approx(metric.loss(response.truth(best)), abs=0.15)
        assert response.value(best, 1.0, 0) != response.value(best, 1.0, 1)
        optima.append(math.log10(float(best["lr"])))
    # A confident prior: within three of its standard deviations, 3 * 0.125 of four decades, and the shift by others.
    assert all(abs(optimum + 3) < 2.0 for optimum in optima)
    assert len(set(optima)) > 3


def test_too_high_a_learning_rate_diverges_for_some_surfaces() -> None:
    space = Space.parse({"lr": {"log": [1e-6, 1.0]}})
    ends = [synthetic(space, LOSS, seed).truth({"lr": 1.0}) for seed in range(30)]
    assert any(math.isnan(end) for end in ends)
    assert not any(math.isnan(synthetic(space, LOSS, seed).truth({"lr": 1e-6})) for seed in range(30))


def outcome(strategy: str, seed: int, regret: float) -> Outcome:
    return Outcome(strategy, 5.0, seed, regret, ((5.0, regret),), 5.0)


def test_ranks_wins_and_advice_by_hand() -> None:
    """a beats b in 9 of 10; c has no finished run."""
    outcomes = []
    for seed in range(10):
        outcomes += [
            outcome("a", seed, 0.1 if seed else 0.3), outcome("b", seed, 0.2), outcome("c", seed, math.inf)
        ]  # fmt: skip
    comparison = Comparison(("a", "b", "c"), (5.0,), tuple(range(10)), tuple(outcomes), {})
    assert comparison.wins("a", "b") == (9, 1)
    assert [comparison.mean_rank(name) for name in "abc"] == [1.1, 1.9, 3.0]
    assert comparison.quartiles("c", 5.0) == (math.inf,) * 3
    assert comparison.quartiles("a", 5.0) == pytest.approx((0.1, 0.1, 0.1))
    assert comparison.advice() == "Take a: it ends better than b, the next, in 9 studies, worse in 1."
    even = Comparison(("a", "b"), (5.0,), (0, 1), tuple(outcomes[:5]), {})
    assert even.advice().endswith("with 2 seeds that may be chance.")


def test_nothing_to_look_up() -> None:
    with pytest.raises(ConfigError, match="nothing measured"):
        measured(SPACE, LOSS, [], about="")
    with pytest.raises(ConfigError, match="no hyperparameter of the space"):
        measured(SPACE, LOSS, [Measured(hyperparameters={"size": 3}, curves=[((1.0,), (2.0,))])], about="")
