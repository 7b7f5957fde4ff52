"""When a search is over: a target is reached, or no improvement is expected that is worth another run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import gammaln

from thalweg.errors import ConfigError, nearest
from thalweg.tree import Metric, Run, Tree

_NUM_RESULTS = 10
"""Results before an expected improvement is believed: below, two lucky runs close together would end a search."""


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """Rules of which the first that is met ends a study. `None`: no such rule."""

    min_improvement: float | None = None
    """Stop where the next run is expected to improve the best result by less than this, in the metric's units."""
    max_runs_without_improvement: int | None = None
    """Stop where so many runs that began after the best one have brought no better result."""
    target: float | None = None
    """Stop where a finished run has reached this value of the metric."""

    def __post_init__(self) -> None:
        if self.min_improvement is not None and not 0 < self.min_improvement < math.inf:
            raise ConfigError(
                f"stopping.min_improvement = {self.min_improvement:g} must be above zero, such as 0.002: the"
                " improvement of the metric for which another run is worth its cost"
            )
        if self.max_runs_without_improvement is not None and self.max_runs_without_improvement < 1:
            raise ConfigError(
                f"stopping.max_runs_without_improvement = {self.max_runs_without_improvement} must be at least 1, such"
                " as 10"
            )
        if self.target is not None and not math.isfinite(self.target):
            raise ConfigError(f"stopping.target = {self.target:g} must be a finite value of the metric")

    @classmethod
    def parse(cls, spec: Mapping[str, Any] | Stopping) -> Self | Stopping:
        """Read the rules of a study file, or of Python.

        Raises:
            ConfigError: an unknown rule, or a value that it cannot have.
        """
        if isinstance(spec, Stopping):
            return spec
        kinds = {"min_improvement": float, "max_runs_without_improvement": int, "target": float}
        for name, value in spec.items():
            if name not in kinds:
                raise ConfigError(f"stopping: unknown rule {name!r}. {nearest(name, kinds)}")
            accepted = int if kinds[name] is int else (int, float)
            if value is not None and (isinstance(value, bool) or not isinstance(value, accepted)):
                wanted = "a whole number" if kinds[name] is int else "a number"
                raise ConfigError(f"stopping.{name} = {value!r} must be {wanted}")
        if all(value is None for value in spec.values()):
            raise ConfigError(f"stopping: it sets no rule; it takes {', '.join(kinds)}")
        return cls(**spec)

    def rules(self) -> dict[str, float]:
        """Those that are set, by name."""
        every = vars(self)
        return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A rule that is met."""

    rule: str
    """Its name."""
    reason: str
    """What the tree shows, as a sentence."""


def verdict(tree: Tree, metric: Metric, stopping: Stopping) -> Verdict | None:
    """The first rule that a tree meets, in the order target, runs without improvement, expected improvement.

    A baseline and what people started by hand count as results, not as runs of the search.

    Args:
        tree: all runs of the study, in any order.
        metric: what is improved.
    """
    best = tree.best(metric)
    if best is None:
        return None
    value = best.reports[-1].metrics[metric.name]
    if stopping.target is not None and metric.loss(value) <= metric.loss(stopping.target):
        reason = f"{best.id} has reached {value:.4g}; the target was {stopping.target:.4g}."
        return Verdict(rule="target", reason=reason)
    idle = _num_after(tree, best)
    if (most := stopping.max_runs_without_improvement) is not None and idle >= most:
        reason = f"None of the {idle} runs that began after {best.id} has a better result; the rule allows {most}."
        return Verdict(rule="max_runs_without_improvement", reason=reason)
    if stopping.min_improvement is None:
        return None
    losses = final_losses(tree, metric)
    gain = expected_improvement(losses)
    if gain is None or gain >= stopping.min_improvement:
        return None
    reason = (
        f"By the {len(losses)} results so far, the next run is expected to improve {metric.name} by {gain:.2g};"
        f" the rule asks for {stopping.min_improvement:.2g}."
    )
    return Verdict(rule="min_improvement", reason=reason)


def final_losses(tree: Tree, metric: Metric) -> list[float]:
    """The last result of every root that is at rest, as something to minimise, in order of creation.

    A run that was paused or stopped early counts with what it had reached.
    """
    losses = []
    for run in sorted(tree.roots(), key=lambda run: run.number):
        if run.status == "diverged":
            losses.append(math.inf)
        elif _is_at_rest(run) and run.reports and metric.name in run.reports[-1].metrics:
            losses.append(metric.loss(run.reports[-1].metrics[metric.name]))
    return losses


def expected_improvement(losses: Sequence[float]) -> float | None:
    """By how much the next result is expected to be better than the best so far; None with fewer than 10 results.

    Where results are exchangeable, as those of random draws are, the expected best of any m of them can be told
    without bias from the n that there are: the i-th best of n is the best of m with a probability that is a ratio of
    binomial coefficients. What each further result brought, D(m), falls about as a power of m; a line through
    log D over log m, for m from n/2 to n, is carried on to n + 1.

    A search that learns draws better results as it goes on. So the same is done with the later half of the results
    alone, if they are at least 10, and the larger of the two expectations counts: the search goes on where either says
    so. A result that is not finite counts as the worst that is.

    >>> expected_improvement([0.5] * 9) is None, expected_improvement([0.5] * 10)
    (True, 0.0)
    """
    if len(losses) < _NUM_RESULTS or not any(map(math.isfinite, losses)):
        return None
    parts = [np.asarray(losses, dtype=float)]
    later = parts[0][len(losses) // 2 :]
    if len(later) >= _NUM_RESULTS and np.isfinite(later).any():
        parts.append(later)
    return max(map(_next_gain, parts))


def _next_gain(losses: np.ndarray) -> float:
    worst = losses[np.isfinite(losses)].max()
    best_first = np.sort(np.where(np.isfinite(losses), losses, worst))
    num = len(best_first)
    sizes = np.arange(num // 2, num + 1)
    expected = np.array([_expected_best(best_first, int(size)) for size in sizes])
    gains = expected[:-1] - expected[1:]
    if (gains <= 1e-12 * max(abs(worst), abs(best_first[0]))).any():
        return max(0.0, float(gains[-1]))  # ties at the top: nothing to fit
    slope, level = np.polyfit(np.log(sizes[1:]), np.log(gains), 1)
    # Gains can only fall: the expected best of m is convex in m.
    return float(min(np.exp(level + slope * math.log(num + 1)), gains[-1]))


def _expected_best(best_first: np.ndarray, size: int) -> float:
    """The mean of the best over all choices of so many results."""
    num = len(best_first)
    places = np.arange(num - size + 1)
    log_weights = _log_choose(num - 1 - places, size - 1) - _log_choose(np.array([num]), size)
    return float(np.exp(log_weights) @ best_first[: num - size + 1])


def _log_choose(n: np.ndarray, k: int) -> np.ndarray:
    chosen: np.ndarray = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return chosen


def _num_after(tree: Tree, best: Run) -> int:
    """Roots of the search that began after the best run's lineage did, and are at rest."""
    since = tree.lineage(best.id)[0].number
    own = (run for run in tree.roots() if run.origin not in ("hand", "baseline") and run.number > since)
    return sum(_is_at_rest(run) for run in own)


def _is_at_rest(run: Run) -> bool:
    return run.ended or run.status == "paused"
