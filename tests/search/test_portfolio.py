"""Portfolios from earlier studies: cases worked by hand, how points move between spaces, and properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.search.portfolio import agreement, portfolio, predicted_regrets
from thalweg.search.strategy import Earlier, Observation
from thalweg.space import Hyperparameters, Space, Value

LINE = Space.parse({"x": {"linear": [0.0, 1.0]}})


def study(name: str, losses: dict[float, float]) -> Earlier:
    return Earlier(name, tuple(({"x": x}, loss) for x, loss in losses.items()))


def one(name: str, *points: tuple[dict[str, Value], float]) -> Earlier:
    return Earlier(name, tuple(points))


def test_the_regret_of_a_point_is_a_mean_weighted_by_distance() -> None:
    earlier = study("a", {0.0: 4.0, 0.25: 1.0, 0.5: 0.0, 0.75: 2.0, 1.0: 3.0})
    # Regrets by the median, 2: 1, 0.5, 0, 1, 1, whose mean is 0.7. Weights of results from 0.5: 4 for the point itself,
    # (0.1 / 0.25)^2 = 0.16 for its neighbours, 0.04 for the ends, 1 for the mean.
    expected = (4 * 0.0 + 0.16 * (0.5 + 1.0) + 0.04 * (1.0 + 1.0) + 0.7) / (4 + 2 * 0.16 + 2 * 0.04 + 1)
    assert predicted_regrets(LINE, [earlier], [{"x": 0.5}]) == [pytest.approx(expected)]


def test_one_study_gives_its_best_points_in_order() -> None:
    earlier = study("a", {0.0: 5.0, 0.25: 1.0, 0.5: 3.0, 0.75: 0.0, 1.0: 4.0})
    chosen = portfolio(LINE, [earlier], 2)
    assert [point["x"] for point in chosen] == [0.75, 0.25]


def test_the_first_is_good_for_all_studies_and_the_next_are_good_for_one_each() -> None:
    """0.1 and 0.9 are the best of one study and as bad as can be in the other, 0.5 is nearly the best of both."""
    a = study("a", {0.1: 0.0, 0.3: 10.0, 0.5: 1.0, 0.7: 10.0, 0.9: 10.0})
    b = study("b", {0.1: 10.0, 0.3: 10.0, 0.5: 1.0, 0.7: 10.0, 0.9: 0.0})
    assert [point["x"] for point in portfolio(LINE, [a, b], 3)] == [0.5, 0.1, 0.9]
    assert portfolio(LINE, [a], 1) == [{"x": 0.1}]


def test_there_are_as_many_as_there_are_points_and_each_once() -> None:
    earlier = study("a", {0.0: 5.0, 0.5: 1.0, 1.0: math.inf})
    chosen = portfolio(LINE, [earlier, earlier], 10)
    assert sorted(float(point["x"]) for point in chosen) == [0.0, 0.5]  # where it diverged is no candidate


def test_points_are_taken_into_another_space() -> None:
    space = Space.parse(
        {
            "lr": {"log": [1e-5, 1e-3]},
            "batch_size": {"choice": [8, 16, 64]},
            "epochs": {"integer": [1, 3]},
            "schedule": {"choice": ["cosine", "linear"]},
            "warmup": {"linear": [0.0, 0.2], "prior": 0.05},
            "dropout": 0.1,
        }
    )
    earlier = one(
        "a",
        ({"lr": 1e-2, "batch_size": 24, "epochs": 7, "schedule": "linear", "dropout": 0.4, "beta1": 0.9}, 0.1),
        ({"lr": 1e-4, "batch_size": 16, "epochs": 2, "schedule": "wsd"}, 0.2),
    )
    # 24 is 1.5 times 16, and 64 is 2.7 times 24; the study's second point has a schedule that is not searched here.
    assert portfolio(space, [earlier], 5) == [
        {"lr": 1e-3, "batch_size": 16, "epochs": 3, "schedule": "linear", "warmup": 0.05, "dropout": 0.1}
    ]


def test_a_dimension_without_a_prior_takes_its_middle_where_a_study_lacks_it() -> None:
    space = Space.parse({"x": {"linear": [0.0, 1.0]}, "lr": {"log": [1e-6, 1e-2]}, "kind": {"choice": ["b", "a"]}})
    (point,) = portfolio(space, [study("a", {0.3: 1.0})], 1)
    assert point == {"x": 0.3, "lr": pytest.approx(1e-4), "kind": "b"}


def test_conditions_hold_in_what_is_taken_over() -> None:
    space = Space.parse(
        {"adapter": {"choice": ["none", "lora"]}, "r": {"integer": [2, 64], "log": True, "when": {"adapter": "lora"}}}
    )
    earlier = one("a", ({"adapter": "none", "r": 8}, 0.0), ({"adapter": "lora", "r": 16}, 1.0))
    assert portfolio(space, [earlier], 2) == [{"adapter": "none"}, {"adapter": "lora", "r": 16}]


def test_true_and_one_are_different_options() -> None:
    space = Space.parse({"flag": {"choice": [True, 1, "no"]}})
    earlier = one("a", ({"flag": 1}, 0.0), ({"flag": True}, 5.0), ({"flag": "no"}, 6.0))
    assert [type(point["flag"]) for point in portfolio(space, [earlier], 2)] == [int, bool]


def test_studies_that_say_nothing_give_nothing() -> None:
    diverged = study("a", {0.1: math.inf, 0.2: math.inf})
    elsewhere = one("b", ({"other": 3.0}, 1.0))
    assert portfolio(LINE, [], 3) == []
    assert portfolio(LINE, [diverged], 3) == []
    assert portfolio(LINE, [elsewhere], 3) == []
    assert portfolio(LINE, [study("c", {0.1: 1.0})], 0) == []
    assert len(set(predicted_regrets(LINE, [diverged], [{"x": 0.1}, {"x": 0.9}]))) == 1


def test_agreement_is_one_for_the_same_order_and_minus_one_for_the_opposite() -> None:
    earlier = study("a", {0.0: 0.0, 0.25: 1.0, 0.5: 2.0, 0.75: 3.0, 1.0: 4.0})
    seen = [Observation({"x": x}, loss) for x, loss in ((0.0, 10.0), (0.25, 20.0), (0.5, math.inf))]
    assert agreement(LINE, [earlier], seen) == pytest.approx(1.0)
    opposite = [Observation(point, -loss) for point, loss in seen]
    assert agreement(LINE, [earlier], opposite) == pytest.approx(-1.0)


def test_agreement_is_not_known_from_too_little() -> None:
    earlier = study("a", {0.0: 0.0, 0.5: 1.0, 1.0: 4.0})
    two = [Observation({"x": 0.0}, 1.0), Observation({"x": 1.0}, 2.0)]
    assert agreement(LINE, [earlier], two) is None
    assert agreement(LINE, [earlier], [*two, Observation({"y": 3.0}, 3.0)]) is None  # a run that lacks the dimension
    assert agreement(LINE, [earlier], [Observation({"x": x}, 1.0) for x in (0.0, 0.5, 1.0)]) is None
    assert agreement(LINE, [], [Observation({"x": x}, x) for x in (0.0, 0.5, 1.0)]) is None


SPACE = Space.parse(
    {
        "lr": {"log": [1e-5, 1e-2]},
        "n": {"integer": [1, 5]},
        "kind": {"choice": ["a", "b"]},
        "r": {"choice": [4, 8], "when": {"kind": "b"}},
        "fixed": 3,
    }
)
POINTS: st.SearchStrategy[Hyperparameters] = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.floats(1e-7, 1.0) | st.just("high"),
        "n": st.integers(-3, 9),
        "kind": st.sampled_from(["a", "b", "c", 1]),
        "r": st.integers(1, 40),
        "fixed": st.just(5),
        "other": st.booleans(),
    },
)
LOSSES = st.integers(-50, 50).map(float) | st.just(math.inf)
STUDIES = st.lists(
    st.builds(Earlier, st.just("e"), st.lists(st.tuples(POINTS, LOSSES), max_size=8).map(tuple)), max_size=4
)


@given(STUDIES, st.integers(0, 12))
def test_a_portfolio_holds_distinct_points_of_the_space(earlier: list[Earlier], count: int) -> None:
    chosen = portfolio(SPACE, earlier, count)
    assert len(chosen) <= count
    assert len({tuple(sorted(point.items())) for point in chosen}) == len(chosen)
    for point in chosen:
        SPACE.check(point)
        assert point["fixed"] == 3
    assert portfolio(SPACE, earlier, count + 1)[: len(chosen)] == chosen


@given(STUDIES)
def test_the_scale_of_a_studys_losses_does_not_matter(earlier: list[Earlier]) -> None:
    scaled = [Earlier(e.name, tuple((point, 4 * loss) for point, loss in e.results)) for e in earlier]
    assert portfolio(SPACE, scaled, 5) == portfolio(SPACE, earlier, 5)


@given(STUDIES, st.lists(st.tuples(POINTS, LOSSES), max_size=8))
def test_agreement_is_a_correlation_or_unknown(
    earlier: list[Earlier], seen: list[tuple[Hyperparameters, float]]
) -> None:
    found = agreement(SPACE, earlier, [Observation(*entry) for entry in seen])
    assert found is None or -1.000001 <= found <= 1.000001
