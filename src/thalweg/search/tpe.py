"""The tree-structured Parzen estimator: a density of good points against a density of the rest."""

from __future__ import annotations

from thalweg.search.optuna_bridge import Model, tpe_sampler
from thalweg.search.strategy import Problem, Sampler


def tpe(problem: Problem) -> Sampler:
    """TPE by Optuna, multivariate; a conditional space is split into groups that exist together.

    Pending runs count among the rest ("constant liar"), so that workers do not all try the same place. Diverged runs
    count as the worst. Priors shape the start-up points only (`startup.py`).

    Source: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization"; Watanabe 2023, arXiv:2304.11127.
    """
    return Model(problem, tpe_sampler)
