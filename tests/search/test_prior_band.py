"""PriorBand's shares by hand, and where its draws come from."""

from __future__ import annotations

import dataclasses
import math
from statistics import fmean

import pytest

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.search import Observation, Problem, strategy
from thalweg.search.prior_band import PriorBand
from thalweg.space import Hyperparameters, Space
from thalweg.tree import Metric, Start, Tree


def problem_of(spec: dict[str, object], seed: int = 0) -> Problem:
    return Problem(space=Space.parse(spec), metric=Metric("loss", "min"), horizon=lambda _: 81, seed=seed)


LINE: dict[str, object] = {"x": {"linear": [0.0, 1.0], "prior": 0.5}}


def at(*pairs: tuple[float, float]) -> list[Observation]:
    return [Observation({"x": x}, loss) for x, loss in pairs]


@pytest.mark.parametrize(
    ("rung", "eta", "uniform"), [(0, 3, 1 / 2), (1, 3, 1 / 4), (2, 3, 1 / 10), (4, 3, 1 / 82), (1, 2, 1 / 3)]
)
def test_the_uniform_share_falls_with_the_rung(rung: int, eta: int, uniform: float) -> None:
    sampler = PriorBand(problem_of(LINE), eta=eta).at_rung(rung)
    assert sampler.shares([]) == pytest.approx((uniform, 1 - uniform, 0.0))


def normal(z: float) -> float:
    return math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def below(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def test_the_rest_is_split_by_how_well_each_explains_the_best() -> None:
    """Six results, of which the best two count, at 0.75 and at 1.0. In deviations of 0.25 the prior, at 0.5, is 1 and 2
    away; the best point 0 and 1. Both normals are cut to the range: the prior's at 2 deviations to both sides, the
    best's at 3 below and 1 above."""
    seen = at((0.1, 5.0), (1.0, 2.0), (0.75, 1.0), (0.2, 6.0), (0.3, 4.0), (0.4, math.inf))
    prior = (2 * normal(1) + normal(2)) / (below(2) - below(-2))
    best = (2 * normal(0) + normal(1)) / (below(1) - below(-3))
    shares = PriorBand(problem_of(LINE)).shares(seen)
    assert shares == pytest.approx((0.5, 0.5 * prior / (prior + best), 0.5 * best / (prior + best)))


def test_believes_the_prior_alone_until_there_are_results_to_judge_by() -> None:
    sampler = PriorBand(problem_of(LINE))
    assert sampler.shares(at((0.1, 1.0), (0.2, 2.0), (0.3, 3.0))) == (0.5, 0.5, 0.0)
    assert sampler.shares(at(*[(i / 10, math.inf) for i in range(9)])) == (0.5, 0.5, 0.0)
    assert sampler.shares(at((0.1, 1.0), (0.2, 2.0), (0.3, 3.0), (0.4, math.inf)))[2] > 0
    five = PriorBand(problem_of(LINE), eta=5)
    assert (
        five.shares(at(*[(i / 10, i) for i in range(4)]))[2] == 0 < five.shares(at(*[(i / 10, i) for i in range(5)]))[2]
    )


def test_a_wrong_prior_loses_its_share_and_a_good_one_keeps_half_of_the_informed_draws() -> None:
    spec: dict[str, object] = {
        name: {"linear": [0.0, 1.0], "prior": 0.9, "confidence": "high"} for name in ("a", "b", "c")
    }
    sampler = PriorBand(problem_of(spec)).at_rung(2)
    near = [Observation(dict.fromkeys("abc", 0.9 - i / 100), float(i)) for i in range(12)]
    far = [Observation(dict.fromkeys("abc", 0.3 - i / 100), float(i)) for i in range(12)]
    assert sampler.shares(far)[1] < 0.01 < 0.4 < sampler.shares(near)[1]


def test_keeps_half_of_the_best_points_values_and_moves_the_others_nearby() -> None:
    """With a prior that explains nothing, at a high rung nearly all draws are around the best point: 81/82."""
    spec: dict[str, object] = {
        "x": {"linear": [0.0, 1.0], "prior": 0.95, "confidence": "high"},
        "y": {"linear": [0.0, 1.0], "prior": 0.95, "confidence": "high"},
        "k": {"choice": ["a", "b", "c"]},
    }
    problem = problem_of(spec)
    best: Hyperparameters = {"x": 0.2, "y": 0.2, "k": "b"}
    seen = [Observation(best, 0.0), *(Observation({"x": 0.5, "y": 0.5, "k": "a"}, 1.0 + i) for i in range(4))]
    sampler = PriorBand(problem).at_rung(4)
    assert sampler.shares(seen)[2] > 0.98
    points = [sampler.propose(seen, [], 5 + i) or {} for i in range(600)]
    # A draw that keeps all three is known already and is drawn again: 3 of the 7 other cases keep a given one.
    for name in best:
        kept = fmean(point[name] == best[name] for point in points)
        assert abs(kept - 3 / 7) < 4 * math.sqrt(0.25 / 600) + 0.02
    moved = [abs(float(point["x"]) - 0.2) for point in points if point["x"] != 0.2]
    # Half of a normal of deviation 0.25 lies within 0.169; cut to the range, more of it.
    assert 0.4 < fmean(distance < 0.169 for distance in moved) < 0.65
    others = [point["k"] for point in points if point["k"] != "b"]
    assert 0.4 < fmean(other == "a" for other in others) < 0.6


def test_the_first_point_is_that_of_the_priors() -> None:
    assert PriorBand(problem_of(LINE)).propose([], [], 0) == {"x": 0.5}
    assert PriorBand(problem_of(LINE)).propose([], [{"x": 0.5}], 0) != {"x": 0.5}


def test_draws_from_a_space_without_priors() -> None:
    problem = problem_of({"x": {"linear": [0.0, 1.0]}, "k": {"choice": ["a", "b"]}})
    seen = [Observation({"x": i / 10, "k": "a"}, float(i)) for i in range(9)]
    shares = PriorBand(problem).shares(seen)
    assert shares[0] == 0.5
    assert 0 < shares[1] < shares[2]
    for index in range(9, 20):
        problem.space.check(PriorBand(problem).propose(seen, [], index) or {})


def test_one_option_sets_eta_for_the_strategy_and_its_sampler() -> None:
    halving = strategy("halving", {"sampler": "prior_band", "eta": 4}, problem_of(LINE))
    assert halving._sampler._eta == 4  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"strategy\.eta = 1 must be at least 2"):
        strategy("prior_band", {"eta": 1}, problem_of(LINE))


@pytest.mark.parametrize("constrained", [False, True])
def test_hyperband_tells_it_the_rung_at_which_a_root_begins(constrained: bool) -> None:
    """With eta = 3 and three rungs, brackets begin 9, 5 and 3 roots at rungs 0, 1 and 2, where 1/2, 1/4 and 1/10 of the
    draws are uniform. A fifth of a uniform draw lies within 0.1 of the prior, and 0.58 (0.8 deviations to both sides)
    of what follows a prior of high confidence: so 0.39, 0.49 and 0.54 of the roots do."""
    problem = problem_of({"x": {"linear": [0.0, 1.0], "prior": 0.5, "confidence": "high"}})
    if constrained:
        problem = dataclasses.replace(problem, is_feasible=lambda _: True)
    hyperband = strategy("hyperband", {"sampler": "prior_band", "eta": 3, "num_rungs": 3, "max_roots": 3_400}, problem)
    starts = hyperband.decide(Tree(), free_slots=3_400, left=Left({}))
    near: dict[int, list[bool]] = {}
    for action in starts[1:]:  # the first is the prior's own point
        assert isinstance(action, Start)
        near.setdefault(action.until, []).append(abs(float(action.hyperparameters["x"]) - 0.5) < 0.1)
    for until, uniform in ((9, 1 / 2), (27, 1 / 4), (81, 1 / 10)):
        expected = uniform * 0.2 + (1 - uniform) * (below(0.8) - below(-0.8))
        assert fmean(near[until]) == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(near[until])))
    assert fmean(near[9]) < fmean(near[81]) - 0.05
