"""What the report says of repetitions."""

from __future__ import annotations

import math

from thalweg.report.confirmation import statement
from thalweg.scaling.repetitions import Confirmed
from thalweg.tree import Metric

LOSS = Metric("loss", "min")


def group(name: str, *values: float) -> Confirmed:
    mean = sum(values) / len(values)
    runs = tuple(f"{name}-{i}" for i in range(len(values)))
    return Confirmed(
        hyperparameters={}, runs=runs, seeds=tuple(range(len(values))), values=values, mean=mean, low=mean, high=mean
    )


def test_a_difference_within_noise_is_called_that() -> None:
    text = statement([group("a", 1.0, 1.2), group("b", 1.1, 1.3)], LOSS)
    assert "a-0 and its repetitions (2 seeds) have the best mean, 1.1 " in text
    assert "differs from b-0's (2 seeds) by -0.1, which is within noise" in text
    assert "includes zero" in text


def test_a_clear_difference_is_called_more_than_noise() -> None:
    text = statement([group("a", 1.0, 1.001, 0.999), group("b", 2.0, 2.001, 1.999)], LOSS)
    # Both variances are 1e-6, so the standard error is sqrt(2e-6 / 3) and t with 4 degrees of freedom 2.7764.
    reach = 2.7764 * math.sqrt(2e-6 / 3)
    assert f"the 95% interval of the difference is {-1 - reach:.3g} to -0.998" in text
    assert "more than noise" in text


def test_one_configuration_or_a_diverged_run() -> None:
    assert "No other configuration was repeated" in statement([group("a", 1.0, 1.2)], LOSS)
    assert "of b-0's (2 seeds) a run diverged" in statement([group("a", 1.0, 1.2), group("b", 0.1, math.inf)], LOSS)
    assert "Every repeated configuration diverged" in statement([group("b", 0.1, math.inf)], LOSS)
