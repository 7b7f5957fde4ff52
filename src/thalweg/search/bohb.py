"""BOHB: Hyperband, with roots proposed by TPE from the highest rung that has enough results."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg.errors import ConfigError
from thalweg.search.brackets import Brackets, sampled
from thalweg.search.hyperband import brackets
from thalweg.search.rungs import check_max_roots, make_ladder, shares
from thalweg.search.startup import startup_point
from thalweg.search.strategy import Observation, Problem
from thalweg.search.tpe import tpe
from thalweg.space import Hyperparameters


class Bohb(Brackets):
    """`hyperband` with a sampler of its own: TPE on one rung's results, and a share of random draws.

    The rung is the highest with at least `min_results` results; before there is one, roots are drawn: the first is the
    priors' point where there are priors. Of the later ones a share, `random_fraction`, is drawn, too, so that no model
    that is wrong at a low rung can keep the search from the optimum. TPE is Optuna's, multivariate (`tpe.py`); the
    paper's is a kernel density of its own.

    Args:
        problem: what is searched.
        name: the actions' origin.
        eta, num_rungs, first_fraction, rungs, max_roots, trunk, shortened: as of `hyperband`.
        random_fraction: probability that a root is drawn rather than modelled, in [0, 1].
        min_results: results that a rung must have to be modelled; None for the paper's, the number of dimensions plus
            1. At least 2.
    Raises:
        ConfigError: an option is out of its range, two say the same, or the trainer cannot do what they ask for.
    Source: Falkner et al. 2018, arXiv:1807.01774.
    """

    def __init__(
        self,
        problem: Problem,
        name: str,
        *,
        eta: int = 3,
        num_rungs: int | None = None,
        first_fraction: float | None = None,
        rungs: list[float] | None = None,
        max_roots: int | None = None,
        trunk: bool = False,
        shortened: bool = False,
        random_fraction: float = 1 / 3,
        min_results: int | None = None,
    ) -> None:
        if not 0 <= random_fraction <= 1:
            raise ConfigError(f"strategy.random_fraction = {random_fraction:g} must be from 0 to 1, such as 0.33")
        if min_results is not None and min_results < 2:
            raise ConfigError(f"strategy.min_results = {min_results} must be at least 2: a model compares results")
        least = max(2, len(problem.space.dimensions) + 1) if min_results is None else min_results
        ends = shares(eta=eta, num_rungs=num_rungs, first_fraction=first_fraction, rungs=rungs)
        check_max_roots(max_roots)
        ladder = make_ladder(problem, ends, name, trunk=trunk, shortened=shortened)
        propose = sampled(_ModelOrDraw(problem, random_fraction, least), ladder, least)
        super().__init__(ladder, propose, brackets(eta, len(ends)), most=max_roots)


class _ModelOrDraw:
    """TPE where there are enough results and no draw is due, else a draw."""

    num_points: int | None = None

    def __init__(self, problem: Problem, random_fraction: float, min_results: int) -> None:
        self._problem = problem
        self._random_fraction = random_fraction
        self._min_results = min_results
        self._model = tpe(problem)

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        # The model draws from the generator itself, and from its first child.
        _, own = self._problem.rng(index).spawn(2)
        if len(observations) < self._min_results or own.random() < self._random_fraction:
            return startup_point(self._problem, index)
        proposal = self._model.propose(observations, pending, index)
        assert proposal is not None  # TPE always has one more.
        return proposal if self._problem.is_feasible(proposal) else self._problem.sample(own)
