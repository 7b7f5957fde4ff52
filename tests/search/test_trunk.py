"""Halving over trunks: rungs are scored on branches, and only branches and what lies between is trained."""

from __future__ import annotations

import math

import pytest
from virtual_workers import Outcome, simulate

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import Problem, Strategy, strategy
from thalweg.search.strategy import Branch
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Continue, Fork, Metric, Report, Run, Start, Tree

SPACE = Space.parse({"lr": {"log": [1e-4, 1e-1]}, "tokens": 900})


def horizon(hyperparameters: Hyperparameters) -> int:
    tokens = hyperparameters["tokens"]
    assert isinstance(tokens, int)
    return tokens


def branch(_hyperparameters: Hyperparameters, budget: int) -> Branch:
    """The last tenth decays, in steps of 10."""
    return Branch(int(budget * 0.9) // 10 * 10, {"tokens": budget})


PROBLEM = Problem(space=SPACE, metric=Metric("loss", "min"), horizon=horizon, seed=0, branch=branch)


def make(problem: Problem = PROBLEM, **options: object) -> Strategy:
    return strategy("halving", {"sampler": "random", "eta": 3, "trunk": True, **options}, problem)


def run(number: int, **fields: object) -> Run:
    given = {"hyperparameters": {"lr": 0.01, "tokens": 900}, "horizon": 900, "until": 90, "origin": "halving", **fields}
    return Run(id=f"s-{number}", number=number, **given)  # type: ignore[arg-type]


def child(number: int, parent: int, at: int, budget: int, loss: float, **fields: object) -> Run:
    given = {
        "hyperparameters": {"lr": 0.01, "tokens": budget},
        "horizon": budget,
        "until": budget,
        "position": budget,
        "status": "finished",
        "reports": (Report(budget, {"loss": loss}),),
        **fields,
    }
    return run(number, parent=f"s-{parent}", fork_position=at, **given)


def trunk(number: int, position: int = 90) -> Run:
    return run(number, position=position, status="paused", reports=(Report(position, {"loss": 9.0}),))


def test_a_root_is_trained_to_where_the_first_branch_begins() -> None:
    (action,) = make().decide(Tree(), free_slots=1, left=Left({}))
    assert isinstance(action, Start)
    assert action.until == 90  # nine tenths of the first rung's 100
    assert action.hyperparameters["tokens"] == 900


def test_a_trunk_at_a_fork_point_gets_its_branch_before_anything_else() -> None:
    actions = make().decide(Tree.of([trunk(0), trunk(1)]), free_slots=3, left=Left({}))
    assert actions[:2] == [Fork(f"s-{i}", 90, {"tokens": 100}, 100, "halving") for i in (0, 1)]
    assert isinstance(actions[2], Start)


def test_the_branchs_loss_ranks_and_the_trunk_goes_on_undecayed() -> None:
    trunks = [trunk(i) for i in range(3)]
    branches = [child(3 + i, i, 90, 100, loss) for i, loss in enumerate((3.0, 1.0, 2.0))]
    (action,) = make().decide(Tree.of([*trunks, *branches]), free_slots=1, left=Left({"runs": 0.0}))
    assert action == Continue("s-1", 270, "halving")  # nine tenths of 300


def test_a_run_whose_branch_is_still_decaying_is_not_promoted() -> None:
    trunks = [trunk(i) for i in range(3)]
    branches = [child(3 + i, i, 90, 100, loss) for i, loss in enumerate((3.0, 1.0))]
    pending = child(5, 2, 90, 100, 0.0, status="running", position=95, reports=())
    actions = make().decide(Tree.of([*trunks, *branches, pending]), free_slots=1, left=Left({"runs": 0.0}))
    assert actions == []  # one in three of two is none yet


@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_a_run_whose_branch_failed_goes_no_further(status: str) -> None:
    tree = Tree.of([trunk(0), child(1, 0, 90, 100, 1.0, status=status, reports=())])
    assert make().decide(tree, free_slots=1, left=Left({"runs": 0.0})) == []


def test_a_diverged_branch_is_the_worst() -> None:
    trunks = [trunk(i) for i in range(3)]
    branches = [child(3, 0, 90, 100, 0.0, status="diverged", reports=())]
    branches += [child(4 + i, 1 + i, 90, 100, loss) for i, loss in enumerate((7.0, 8.0))]
    (action,) = make().decide(Tree.of([*trunks, *branches]), free_slots=1, left=Left({"runs": 0.0}))
    assert action == Continue("s-1", 270, "halving")


def test_a_fork_by_hand_with_other_hyperparameters_is_not_the_branch() -> None:
    by_hand = child(1, 0, 90, 100, 0.1, hyperparameters={"lr": 0.5, "tokens": 100})
    (action,) = make().decide(Tree.of([trunk(0), by_hand]), free_slots=1, left=Left({"runs": 0.0}))
    assert action == Fork("s-0", 90, {"tokens": 100}, 100, "halving")


def objective(hyperparameters: Hyperparameters, fraction: float) -> float:
    lr = hyperparameters["lr"]
    assert isinstance(lr, float)
    return (math.log10(lr) + 2.5) ** 2 + 1 - fraction


def whole_study(num_runs: int = 9, **options: object) -> Outcome:
    make_it = lambda: make(**options)  # noqa: E731
    return simulate(make_it(), PROBLEM, objective, runs=num_runs, step=10, workers=2, remake=make_it)


def test_a_whole_study_by_hand() -> None:
    """Nine roots to 90 with a branch of 10 each; the best three to 270 with a branch of 30; the best to 900."""
    outcome = whole_study()
    roots, branches = outcome.tree.roots(), [r for r in outcome.tree if r.parent is not None]
    assert (len(roots), len(branches)) == (9, 12)
    # Runs go on as soon as they are among the best third of those seen so far, so a few more may have gone on.
    assert outcome.work >= 9 * 100 + 3 * (180 + 30) + 630
    (finished,) = [r for r in roots if r.status == "finished"]
    assert objective(finished.hyperparameters, 0) == min(objective(r.hyperparameters, 0) for r in roots)
    for branch_run in branches:
        assert branch_run.horizon in (100, 300)
        assert branch_run.fork_position == branch_run.horizon * 0.9


def test_share_counts_the_branches_decays() -> None:
    # 100 for all, 300 - 90 for a third, 900 - 270 for a ninth, of 900.
    assert math.isclose(make().share, (100 + 210 / 3 + 630 / 9) / 900)


def test_what_has_no_trunk_is_refused() -> None:
    without = Problem(space=SPACE, metric=Metric("loss", "min"), horizon=horizon, seed=0)
    with pytest.raises(ConfigError, match=r"no trunk to branch from with .*schedule = 'wsd' has one"):
        make(without)
    early = Problem(
        space=SPACE, metric=Metric("loss", "min"), horizon=horizon, seed=0, branch=lambda _, budget: Branch(0, {})
    )
    with pytest.raises(ConfigError, match="begins before its first step is over"):
        make(early)
