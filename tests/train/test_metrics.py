"""Metrics against scikit-learn, intervals against published values and by simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from thalweg.train.metrics import METRICS, Outcomes, estimates, f1, summarize, wilson


def classified(predictions: Any, labels: Any, num_classes: int, losses: Any = None) -> Outcomes:
    return Outcomes(
        losses=np.full(len(labels), 0.5) if losses is None else np.array(losses),
        num_targets=np.ones(len(labels), dtype=np.int64),
        predictions=np.array(predictions),
        labels=np.array(labels),
        num_classes=num_classes,
    )


@given(st.integers(2, 5).flatmap(lambda n: st.tuples(st.just(n), st.lists(
    st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=30))))  # fmt: skip
def test_f1_is_scikit_learns(case: tuple[int, list[tuple[int, int]]]) -> None:
    num_classes, rows = case
    predictions, labels = (np.array(column) for column in zip(*rows, strict=True))
    average = "binary" if num_classes == 2 else "macro"
    expected = sklearn.metrics.f1_score(
        labels, predictions, average=average, labels=None if num_classes == 2 else range(num_classes), zero_division=0
    )
    assert f1(predictions, labels, num_classes) == pytest.approx(expected)


def test_metrics_by_hand() -> None:
    # Class 1: 2 hits, 1 false alarm, 2 misses: precision 2/3, recall 1/2, F1 = 4/7.
    outcomes = classified([1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0], 2, losses=[1, 2, 3, 4, 5, 9])
    assert summarize(outcomes) == pytest.approx({"accuracy": 0.5, "f1": 4 / 7, "loss": 4.0})
    # 3 tokens with a loss of 6 in all, 1 token with 2: the mean over tokens is 2, not the mean of 2 and 2 rows' means.
    causal = Outcomes(losses=np.array([3.0, 5.0]), num_targets=np.array([3, 1]))
    assert summarize(causal) == pytest.approx({"loss": 2.0, "perplexity": math.exp(2.0)})


@pytest.mark.parametrize("task", ["classification", "causal"])
def test_the_names_are_those_that_are_promised(task: Any) -> None:
    outcomes = classified([1, 0], [1, 0], 2)
    if task == "causal":
        outcomes = Outcomes(losses=outcomes.losses, num_targets=outcomes.num_targets)
    assert set(summarize(outcomes)) == set(estimates(outcomes)) == set(METRICS[task])


# Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
@pytest.mark.parametrize(
    ("num_correct", "num_rows", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_the_literature(num_correct: int, num_rows: int, low: float, high: float) -> None:
    assert wilson(num_correct, num_rows) == pytest.approx((low, high), abs=5e-5)


def test_intervals_hold_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(0)
    inside = {"accuracy": 0, "f1": 0, "loss": 0}
    num_trials, num_rows = 200, 300
    for _ in range(num_trials):
        labels = rng.integers(0, 2, num_rows)
        right = rng.random(num_rows) < 0.8
        losses = rng.exponential(2.0, num_rows)
        result = estimates(classified(np.where(right, labels, 1 - labels), labels, 2, losses))
        # Right 8 times of 10 whatever the class: precision, recall and F1 are 0.8 too.
        for name, truth in {"accuracy": 0.8, "f1": 0.8, "loss": 2.0}.items():
            inside[name] += result[name].low <= truth <= result[name].high
            assert result[name].num_samples == num_rows
    # 190 expected; 178 is four standard deviations below.
    assert all(178 <= count <= 199 for count in inside.values()), inside


def test_the_loss_of_a_causal_model_varies_by_text_not_by_token() -> None:
    """Tokens of a text that are all alike tell no more than one: the interval is as wide as for one token a text."""
    losses = np.array([1.0, 2.0, 4.0, 5.0])
    one = estimates(Outcomes(losses=losses, num_targets=np.ones(4, dtype=np.int64)))
    many = estimates(Outcomes(losses=losses * 50, num_targets=np.full(4, 50)))
    assert many["loss"] == one["loss"]
    # By hand: mean 3, deviations -2 -1 1 2, variance 10/3, standard error sqrt(10/12).
    assert one["loss"].high == pytest.approx(3 + 1.959964 * math.sqrt(10 / 12))
    assert one["perplexity"].low == pytest.approx(math.exp(3 - 1.959964 * math.sqrt(10 / 12)))


def test_estimates_repeat_and_one_row_is_no_certainty() -> None:
    outcomes = classified([1, 0, 1, 1], [1, 0, 0, 1], 2)
    assert estimates(outcomes) == estimates(outcomes)
    assert estimates(classified([1], [1], 2))["loss"].high == math.inf


def test_a_huge_loss_is_an_infinite_perplexity() -> None:
    huge = Outcomes(losses=np.array([1e4]), num_targets=np.array([1]))
    assert summarize(huge)["perplexity"] == math.inf
