"""The space: what it holds, what it refuses, and that every way of choosing stays inside it."""

from __future__ import annotations

import math
import re
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.space import Choice, Float, Integer, Space, choice, integer, linear, log

scalars = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=5), st.sampled_from(["low", "a"])
)
json_values = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
entries = st.dictionaries(
    st.sampled_from(["log", "linear", "integer", "choice", "prior", "confidence", "when", "typo"]),
    json_values,
    max_size=4,
)
ends = st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)).filter(lambda pair: pair[0] < pair[1])


@st.composite
def dimensions(draw: st.DrawFn) -> dict[str, object]:
    """A valid entry of each kind, with or without a prior."""
    kind = draw(st.sampled_from(["log", "linear", "integer", "log integer", "choice"]))
    if kind == "choice":
        options = draw(
            st.lists(scalars.filter(lambda v: v == v), min_size=1, max_size=5, unique_by=lambda v: (type(v), v))
        )
        entry: dict[str, object] = {"choice": options}
        prior: object = draw(st.sampled_from(options))
    else:
        low, high = draw(ends)
        scale = 1 if "integer" in kind else draw(st.sampled_from([1e-9, 0.1, 1.0]))
        entry = {kind.split()[-1]: [low * scale, high * scale]} | ({"log": True} if kind == "log integer" else {})
        prior = draw(st.sampled_from([low * scale, high * scale]))
    if draw(st.booleans()):
        entry |= {"prior": prior, "confidence": draw(st.sampled_from(["low", "medium", "high"]))}
    return entry


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), entries | json_values, max_size=3))
def test_parse_refuses_with_a_config_error_or_gives_a_space(spec: dict[str, object]) -> None:
    try:
        space = Space.parse(spec)
    except ConfigError:
        return
    space.check(space.sample(np.random.default_rng(0)))


@given(st.dictionaries(st.sampled_from("abcd"), dimensions(), min_size=1), st.integers(0, 2**32))
def test_every_way_of_choosing_stays_inside(spec: dict[str, dict[str, object]], seed: int) -> None:
    space = Space.parse(spec)
    space.check(space.sample(np.random.default_rng(seed)))
    assert space.sample(np.random.default_rng(seed)) == space.sample(np.random.default_rng(seed))
    for dimension in space.dimensions.values():
        assert all(dimension.contains(value) for resolution in (1, 2, 3) for value in dimension.grid(resolution))
        assert all(dimension.contains(dimension.at(unit)) for unit in (0.0, 0.3, 1.0))


@given(st.dictionaries(st.sampled_from("abcd"), dimensions(), min_size=1))
def test_to_dict_and_parse_are_inverse(spec: dict[str, dict[str, object]]) -> None:
    written = Space.parse(spec | {"fixed": 0.1}).to_dict()
    assert Space.parse(written).to_dict() == written
    assert list(written) == [*spec, "fixed"]


def test_python_and_tables_say_the_same() -> None:
    tables = {
        "lr": {"log": [1e-6, 1e-3], "prior": 2e-5, "confidence": "high"},
        "dropout": {"linear": [0.0, 0.5]},
        "adapter": {"choice": ["none", "lora"]},
        "rank": {"integer": [2, 64], "log": True, "when": {"adapter": "lora"}},
        "epochs": {"integer": [1, 3]},
        "warmup": 0.1,
    }
    python = {
        "lr": log(1e-6, 1e-3, prior=2e-5, confidence="high"),
        "dropout": linear(0.0, 0.5),
        "adapter": choice(["none", "lora"]),
        "rank": integer(2, 64, log=True, when={"adapter": "lora"}),
        "epochs": integer(1, 3),
        "warmup": 0.1,
    }
    assert Space.parse(tables) == Space.parse(python)
    assert Space.parse(python).to_dict() == tables


def test_values_at_shares_of_a_range() -> None:
    assert Float(0.0, 10.0).at(0.25) == 2.5
    assert math.isclose(Float(1e-4, 1.0, log=True).at(0.25), 1e-3)
    assert [Integer(1, 4).at(u) for u in (0.0, 0.24, 0.26, 0.74, 0.76, 1.0)] == [1, 1, 2, 3, 4, 4]
    # Logarithmic from 1 to 4: between 0.5 and 4.5, ratio 9, so 1.5 lies at log 3 / log 9 = 0.5.
    assert [Integer(1, 4, log=True).at(u) for u in (0.0, 0.49, 0.51, 1.0)] == [1, 1, 2, 4]
    assert [Choice(("a", "b", "c")).at(u) for u in (0.0, 0.34, 0.99, 1.0)] == ["a", "b", "c", "c"]


def test_grids() -> None:
    assert Float(0.0, 1.0).grid(3) == [0.0, 0.5, 1.0]
    assert [round(math.log10(v), 9) for v in Float(1e-4, 1e-2, log=True).grid(3)] == [-4, -3, -2]  # type: ignore[arg-type]
    assert Float(0.0, 1.0).grid(1) == [0.5]
    assert Integer(1, 3).grid(3) == [1, 2, 3]
    assert Integer(1, 3).grid(10) == [1, 2, 3]
    assert Integer(0, 100).grid(3) == [0, 50, 100]
    space = Space.parse({"a": {"choice": ["x", "y"]}, "n": {"integer": [1, 2], "when": {"a": "y"}}})
    assert space.grid(3) == [{"a": "x"}, {"a": "y", "n": 1}, {"a": "y", "n": 2}]


def test_integers_are_equally_likely_at_the_ends_and_between() -> None:
    rng = np.random.default_rng(0)
    draws = [Integer(1, 4).sample(rng) for _ in range(2000)]
    for value in (1, 2, 3, 4):
        assert abs(fmean(draw == value for draw in draws) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2000)


def test_priors_shape_the_draws() -> None:
    """The variance of 90% normal draws (0.125 squared; the cut is at four deviations) and 10% uniform ones (1/12), and
    a choice's probability: 0.75 + 0.25 / 4 for medium confidence."""
    rng = np.random.default_rng(0)
    high = Float(0.0, 1.0, prior=0.5, confidence="high")
    draws = [high.sample(rng) for _ in range(2000)]
    assert abs(float(np.std(draws)) - math.sqrt(0.9 * 0.125**2 + 0.1 / 12)) < 0.01
    assert abs(fmean(draws) - 0.5) < 0.02
    options = Choice(("a", "b", "c", "d"), prior="c")
    share = fmean(options.sample(rng) == "c" for _ in range(2000))
    assert abs(share - 0.8125) < 4 * math.sqrt(0.8125 * 0.1875 / 2000)


def test_whole_points_follow_the_priors_of_all_their_ranges() -> None:
    """Eight ranges with priors at 0.1 of high confidence, a deviation of an eighth of the range. A point with a value
    above 0.75, which is 5.2 deviations away, has a uniform one: each is in a share u = 1 - 0.9 ** (1 / 8) of the draws
    and there in a quarter of those, so that 1 - (1 - u / 4) ** 8 = 2.6% of the points have one."""
    space = Space({name: linear(0.0, 1.0, prior=0.1, confidence="high") for name in "abcdefgh"})
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(4_000)]
    share = fmean(max(map(float, point.values())) > 0.75 for point in points)
    expected = 1 - (1 - (1 - 0.9 ** (1 / 8)) / 4) ** 8
    assert abs(share - expected) < 4 * math.sqrt(expected / 4_000)


def test_a_ranges_weight_is_shared_and_a_choices_is_its_own() -> None:
    """Two ranges with priors, of weights 0.5 and 0.9; the others count for nothing."""
    space = Space(
        {
            "low": linear(0.0, 1.0, prior=0.5, confidence="low"),
            "high": integer(1, 9, prior=5, confidence="high"),
            "kind": choice(["a", "b"], prior="a"),
            "plain": linear(0.0, 1.0),
        }
    )
    weights = [space.prior_weight(name) for name in space.dimensions]
    assert weights == [pytest.approx(math.sqrt(0.5)), pytest.approx(math.sqrt(0.9)), 0.75, None]


@given(st.data())
def test_draws_are_distributed_as_the_prior_coordinate_says(data: st.DataObject) -> None:
    """The shares of the draws that lie below each tenth of the prior's probability."""
    dimension = Float(
        0.0, 1.0, prior=data.draw(st.floats(0.0, 1.0)), confidence=data.draw(st.sampled_from(["low", "medium", "high"]))
    )
    weight = data.draw(st.sampled_from([None, 0.0, 0.5, 1.0]))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    shares = np.sort([dimension.to_prior(dimension.sample(rng, weight=weight), weight=weight) for _ in range(400)])
    # Kolmogorov and Smirnov's largest distance: 2.5 / sqrt(n) is exceeded once in a hundred thousand times.
    assert np.abs(shares - (np.arange(400) + 0.5) / 400).max() < 2.5 / math.sqrt(400)


@given(st.data())
def test_a_prior_coordinate_and_its_value_are_inverse(data: st.DataObject) -> None:
    """A value's own coordinate gives the value, and no fewer of the draws lie below larger values."""
    ((name, entry),) = data.draw(st.dictionaries(st.just("x"), dimensions(), min_size=1)).items()
    dimension = Space.parse({name: entry}).dimensions[name]
    weight = data.draw(st.sampled_from([None, 0.0, 0.5]))
    values = data.draw(st.lists(st.sampled_from(dimension.grid(50)), min_size=2, max_size=2))
    shares = [dimension.to_prior(value, weight=weight) for value in values]
    for value, share in zip(values, shares, strict=True):
        assert 0.0 <= share <= 1.0
        back = dimension.from_prior(share, weight=weight)
        if isinstance(dimension, Float):
            assert isinstance(value, float | int)
            assert dimension.unit(back) == pytest.approx(dimension.unit(value), abs=1e-6)
        else:
            assert (type(back), back) == (type(value), value)
    if not isinstance(dimension, Choice):
        assert (values[0] < values[1]) <= (shares[0] <= shares[1])  # type: ignore[operator]


def test_a_prior_coordinate_by_hand() -> None:
    """With a standard deviation of 0.25, the middle half of the range holds one deviation to both sides: 68.27% of a
    normal, 71.52% once it is cut at two deviations (95.45%). Three quarters of that and a quarter of 50% are 66.14%."""
    middle = Float(0.0, 8.0, prior=4.0)
    assert middle.to_prior(4.0) == pytest.approx(0.5)
    assert middle.to_prior(6.0) - middle.to_prior(2.0) == pytest.approx(0.66142, abs=1e-5)
    assert middle.to_prior(6.0, weight=1.0) - middle.to_prior(2.0, weight=1.0) == pytest.approx(0.71523, abs=1e-5)
    assert middle.to_prior(6.0, weight=0.0) == 0.75
    # The normal's density is 1 / (0.25 sqrt(2 pi)) = 1.59577 at its centre.
    assert middle.prior_density(4.0) == pytest.approx(0.25 + 0.75 * 1.59577 / 0.95450, abs=1e-4)
    plain, believed = Choice(("a", "b", "c", "d")), Choice(("a", "b", "c", "d"), prior="b", confidence="low")
    assert [plain.to_prior(option) for option in "abcd"] == [0.125, 0.375, 0.625, 0.875]
    # Half of the draws, and an eighth of all for each option.
    assert [believed.from_prior(share) for share in (0.12, 0.13, 0.74, 0.76, 1.0)] == ["a", "b", "b", "c", "d"]
    assert believed.prior_density("b") == pytest.approx(2.5)


@pytest.mark.parametrize(
    "dimension",
    [
        Integer(2**63 - 2, 2**63 - 1, prior=2**63 - 1),
        Float(-1.7e308, 1.7e308, prior=-1.7e308),
        log(1.0, math.nextafter(1.0, 2.0), prior=1.0),
        log(5e-324, 1.7e308, prior=1.0),
    ],
    ids=repr,
)
def test_priors_where_floats_end(dimension: Float | Integer) -> None:
    rng = np.random.default_rng(0)
    assert all(dimension.contains(dimension.sample(rng)) for _ in range(50))
    assert dimension.contains(dimension.from_prior(dimension.to_prior(dimension.low)))


def test_a_grid_holds_the_prior() -> None:
    assert linear(0.0, 1.0, prior=0.3).grid(3) == [0.0, 0.3, 1.0]
    assert linear(0.0, 1.0, prior=0.9).grid(3) == [0.0, 0.5, 0.9]
    assert linear(0.0, 1.0, prior=0.9).grid(1) == [0.9]
    assert integer(1, 100, prior=7).grid(2) == [7, 100]
    assert integer(1, 3, prior=2).grid(5) == [1, 2, 3]


def test_holds_points_whatever_else_they_have() -> None:
    space = Space.parse({"a": choice([1, True]), "b": linear(0.0, 1.0, when={"a": True}), "c": 3})
    assert space.holds({"a": 1})
    assert space.holds({"a": True, "b": 0.5, "c": 4, "d": 5})
    assert not space.holds({"a": True})
    assert not space.holds({"a": True, "b": 1.5})
    assert not space.holds({"a": 1.0})


def test_conditions_may_chain_and_stand_in_any_order() -> None:
    space = Space.parse(
        {
            "c": {"integer": [1, 2], "when": {"b": 1}},
            "b": {"choice": [1, 2], "when": {"a": True}},
            "a": {"choice": [True, False]},
        }
    )
    assert space.ordered == ["a", "b", "c"]
    assert space.is_active("c", {"a": True, "b": 1})
    assert not space.is_active("c", {"a": True, "b": 2})
    assert not space.is_active("b", {"a": 1})
    assert [list(point) for point in space.grid(2)] == [["c", "b", "a"]] * 2 + [["b", "a"], ["a"]]


def test_true_one_and_one_point_zero_are_different_options() -> None:
    options = choice([True, 1, 1.0])
    assert [[_same_as(option, value) for value in (True, 1, 1.0)] for option in options.options] == np.eye(3).tolist()
    assert not choice([1]).contains(True)
    assert not integer(0, 3).contains(True)
    assert not linear(0, 3).contains(True)


def _same_as(option: object, value: object) -> float:
    return float(choice([option]).contains(value))  # type: ignore[list-item]


def test_check_names_what_is_wrong() -> None:
    space = Space.parse({"lr": {"log": [1e-5, 1e-3]}, "n": {"integer": [1, 3]}, "wd": 0.1})
    space.check({"lr": 1e-4, "n": 2})
    space.check({"n": 2}, partial=True)
    for point, message in (
        ({"lr": 1e-4, "n": 2, "bath": 1}, "unknown hyperparameter 'bath'. Known: lr, n, wd"),
        ({"lr": 1e-4, "n": 2, "lrr": 1}, "unknown hyperparameter 'lrr'. Did you mean 'lr'?"),
        ({"lr": 1.0, "n": 2}, "lr = 1.0 is outside the space: 1e-05 to 0.001, log scale"),
        ({"lr": math.nan, "n": 2}, "lr = nan is outside"),
        ({"lr": 1e-4, "n": 2.0}, "n = 2.0 is outside the space: 1 to 3"),
        ({"lr": 1e-4}, "no value for n"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            space.check(point)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"log": [1e-3, 1e-6]}, "space.x = [0.001, 1e-06] is inverted"),
        ({"linear": [1, 1]}, "space.x = [1, 1] is empty"),
        ({"log": [0, 1]}, "space.x = [0, 1] is logarithmic, so low must be above zero"),
        ({"integer": [0, 9], "log": True}, "is logarithmic"),
        ({"integer": [1, 2.5]}, "2.5 must be a whole number"),
        ({"linear": [0, math.inf]}, "inf must be a finite number"),
        ({"linear": [0, "1"]}, "'1' must be a finite number"),
        ({"linear": [False, True]}, "False must be a finite number"),
        ({"linear": [0, 1, 2]}, "space.x.linear = [0, 1, 2] must be two numbers"),
        ({"choice": []}, "space.x.choice = [] is empty"),
        ({"choice": 8}, "space.x.choice = 8 must be a list"),
        ({"choice": [1, [2]]}, "[2] must be a number, a string or a boolean"),
        ({"choice": [1, 2, 1]}, "1 is given twice"),
        ({"log": [1, 2], "linear": [1, 2]}, "needs exactly one of log, linear, integer, choice"),
        ({}, "needs exactly one of"),
        ({"linear": [0, 1], "piror": 1}, "space.x: unknown key 'piror'. Did you mean 'prior'?"),
        ({"linear": [0, 1], "prior": 2}, "space.x.prior = 2 is outside 0 to 1"),
        ({"linear": [0, 1], "confidence": "hgih"}, "space.x.confidence = 'hgih'. Known: low, medium, high"),
        ({"linear": [0, 1], "confidence": ["low"]}, "space.x.confidence = ['low']. Known: low, medium, high"),
        ({"linear": [0, 1], "when": "c"}, "space.x.when = 'c' must be a table"),
        ({"linear": [0, 1], "when": {"d": 1}}, "space.x.when: 'd' is not a searched choice. Known: c"),
        ({"linear": [0, 1], "when": {"c": 3}}, "space.x.when: c = 3 is not one of 1, 2"),
        ([1, 2], "space.x = [1, 2] is neither a value nor a range"),
        (None, "space.x = None is neither a value nor a range"),
    ],
)
def test_refuses(entry: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Space.parse({"x": entry, "c": {"choice": [1, 2]}})


def test_refuses_circles_and_nothing_to_search() -> None:
    circle = {"a": {"choice": [1, 2], "when": {"b": 1}}, "b": {"choice": [1, 2], "when": {"a": 1}}}
    with pytest.raises(ConfigError, match="the conditions of a, b refer to each other in a circle"):
        Space.parse(circle)
    with pytest.raises(ConfigError, match="nothing to search"):
        Space.parse({"lr": 0.1})
