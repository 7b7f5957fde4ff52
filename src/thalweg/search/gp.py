"""A Gaussian process with expected improvement: the sharpest model where runs are few and the space is small."""

from __future__ import annotations

import importlib.util

from thalweg.errors import ConfigError
from thalweg.search.optuna_bridge import Model, gp_sampler
from thalweg.search.strategy import Problem, Sampler

MAX_OBSERVATIONS = 400
"""The time of a fit grows with their third power; a study with more has more than the process needs."""
MOST_SPREAD = 5.0
"""A learning rate that is too high gives losses of any size."""


def gp(problem: Problem) -> Sampler:
    """A Gaussian process by Optuna (Matern 5/2 kernel, log expected improvement).

    Results still to come from pending runs are averaged over. Diverged runs count as bad as the worst finite result:
    a Gaussian process cannot hold infinities, and one result far worse than all others would hide the differences
    between these: losses count as at most the median plus five times its distance to the best. Dimensions that exist
    under a condition only are drawn by TPE. Ranges with a prior are modelled in its coordinate: the process varies
    faster where the prior expects the best value, and the acquisition function has more room there; its edges remain
    what the process knows least of. An option with a prior is taken outright less and less often
    (`optuna_bridge.py`). Of more than 400 observations it learns from the best 200 and from 200 of the others.

    Raises:
        ConfigError: if torch, which Optuna's process is written in, is not installed.
    Source: Jones et al. 1998 (expected improvement); Ament et al. 2023, arXiv:2310.20708 (its logarithm);
        Ramachandran et al. 2020, "Incorporating expert prior in Bayesian optimisation via space warping" (priors).
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("strategy = 'gp' needs torch: pip install 'thalweg[train]', or use 'tpe'")
    return Model(problem, gp_sampler, max_observations=MAX_OBSERVATIONS, most_spread=MOST_SPREAD)
