"""The tree-structured Parzen estimator: a density of good points against a density of the rest."""

from __future__ import annotations

from thalweg.search.optuna_bridge import Model, tpe_sampler
from thalweg.search.strategy import Problem, Sampler


def tpe(problem: Problem) -> Sampler:
    """TPE by Optuna, multivariate; a conditional space is split into groups that exist together.

    Pending runs count among the rest ("constant liar"), so that workers do not all try the same place. Diverged runs
    count as the worst. Ranges with a prior are modelled in its coordinate: the density of good points then begins as
    the prior's, and each result pulls it to where it was good. An option with a prior is taken outright less and less
    often (`optuna_bridge.py`).

    Source: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization"; Watanabe 2023, arXiv:2304.11127.
    """
    return Model(problem, tpe_sampler)
