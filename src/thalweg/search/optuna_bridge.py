"""Optuna's samplers as pure functions of observations. Nothing else imports optuna for searching.

Optuna keeps a study's trials in a storage. Here the storage is a view: the trials are the observations themselves, an
ask writes its own trial into the view, and the next ask begins with a view without it. A sampler is made anew for each
ask, with a seed of its own. So nothing that happened in this process matters, only what was observed.

**Priors.** A range with a prior is given to Optuna by its prior coordinate, a real number in [0, 1]
(`thalweg.dimensions`), so that the model sees the part where the prior expects the best value enlarged, and draws
from it as often. A choice has no coordinate: its prior's option is taken instead of the model's with the probability of
its weight. In both the weight begins as that of the prior's confidence and falls as 4 / n with the number of results n
(`startup.prior_weight`), so that the coordinate becomes that of the range itself.
"""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from thalweg.dimensions import same
from thalweg.search.startup import believed_option, in_startup, new_point, prior_weight, startup_point
from thalweg.search.strategy import Observation, Problem
from thalweg.space import Choice, Dimension, Float, Hyperparameters, Integer, Space, Value

MakeSampler = Callable[[int, Space], BaseSampler]
"""Seed and space to a fresh sampler that asks its model from the first trial on."""

_STUDY_NAME = "thalweg"
_NEVER = datetime(2000, 1, 1)  # Optuna wants a date; no sampler looks at it.


def tpe_sampler(seed: int, space: Space) -> BaseSampler:
    """Optuna's TPE. `group` splits a conditional space into parts that exist together."""
    if any(dimension.when for dimension in space.dimensions.values()):
        return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, group=True, constant_liar=True)
    return _KnownSpaceTPE(space, seed=seed, n_startup_trials=1, multivariate=True, constant_liar=True)


def gp_sampler(seed: int, space: Space) -> BaseSampler:
    """Optuna's Gaussian process, with TPE for the dimensions that exist under a condition only."""
    rest = TPESampler(seed=seed, n_startup_trials=1, multivariate=True, constant_liar=True)
    return _KnownSpaceGP(
        space, seed=seed, n_startup_trials=1, independent_sampler=rest, warn_independent_sampling=False
    )


class Model:
    """A sampler that learns: random points at first, then what Optuna's model proposes.

    Observations and pending runs that lie outside the space (a baseline, a run started by hand) are left out: the
    model has no place for them. A point that was observed or is pending is not proposed again while a few random draws
    find one that is new: runs are deterministic, so a repetition would teach nothing.

    Args:
        problem: what is searched.
        make_sampler: makes Optuna's sampler.
        max_observations: most that the model is fitted to: the better half of them the best there are, the others
            drawn from the rest by the seed. None: all.
        most_spread: the largest loss that the model is told, as the number of times that the best is better than the
            median, above the median. None: any.
    """

    num_points: int | None = None

    def __init__(
        self,
        problem: Problem,
        make_sampler: MakeSampler,
        *,
        max_observations: int | None = None,
        most_spread: float | None = None,
    ) -> None:
        self._problem = problem
        self._make_sampler = make_sampler
        self._max_observations = max_observations
        self._most_spread = most_spread
        self._distributions = {name: _distribution(d) for name, d in problem.space.dimensions.items()}
        # A cache: a trial is made once per observation, in their order, and thrown away where that changed.
        self._seen: list[Observation] = []
        self._trials: list[FrozenTrial] = []
        self._num_results = 0
        # The first ask makes Optuna import half of itself. Now, rather than when a worker waits for its next run.
        points = [problem.space.sample(problem.rng(index)) for index in range(2)]
        self._ask([self._trial(n, point, float(n)) for n, point in enumerate(points)], 0, number=2)

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        trials = self._observed(observations)
        usable = observations if len(trials) == len(observations) else [observations[t.number] for t in trials]
        if in_startup(usable, index):
            proposal = startup_point(self._problem, index)
        else:
            waiting = enumerate(pending, len(observations))
            trials = self._limited(self._chosen(trials)) + [
                self._trial(n, point, None) for n, point in waiting if self._problem.space.holds(point)
            ]
            proposal = self._ask(trials, index, number=len(observations) + len(pending))
        known = [*(seen.hyperparameters for seen in observations), *pending]
        return new_point(self._problem, proposal, known, index)

    def _ask(self, trials: list[FrozenTrial], index: int, *, number: int) -> Hyperparameters:
        space, rng = self._problem.space, self._problem.rng(index)
        seed, beliefs = int(rng.integers(2**32)), rng.spawn(2)[1]
        with _quiet():
            view = _View(trials, next_number=number)
            study = optuna.Study(_STUDY_NAME, view, sampler=self._make_sampler(seed, space))
            trial = study.ask()
            chosen: dict[str, Value] = {}
            for name in space.ordered:
                if space.is_active(name, chosen):
                    believed = believed_option(space, name, self._num_results, beliefs)
                    suggested = self._suggest(trial, name)
                    chosen[name] = suggested if believed is None else believed
        return space.complete(chosen)

    def _observed(self, observations: Sequence[Observation]) -> list[FrozenTrial]:
        if self._weights(len(observations)) != self._weights(self._num_results):
            self._seen, self._trials = [], []
        self._num_results = len(observations)
        # As a rule only new ones have come: comparing the others in one go is quick.
        num_same = len(self._seen)
        if list(observations[:num_same]) != self._seen:
            pairs = zip(self._seen, observations, strict=False)
            num_same = next((i for i, (old, new) in enumerate(pairs) if old != new), min(num_same, len(observations)))
        while self._trials and self._trials[-1].number >= num_same:
            del self._trials[-1]
        for number, seen in enumerate(observations[num_same:], num_same):
            if self._problem.space.holds(seen.hyperparameters):
                self._trials.append(self._trial(number, seen.hyperparameters, seen.loss))
        self._seen = list(observations)
        return self._trials

    def _weights(self, num_results: int) -> list[float | None]:
        space = self._problem.space
        return [prior_weight(space, name, num_results) for name in space.dimensions]

    def _chosen(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        most = self._max_observations
        if most is None or len(trials) <= most:
            return trials
        losses = np.array([math.inf if trial.value is None else trial.value for trial in trials])
        best_first = np.argsort(losses, kind="stable")
        rest = self._problem.rng(0).permutation(best_first[most // 2 :])
        kept = np.sort(np.concatenate([best_first[: most // 2], rest[: most - most // 2]]))
        return [trials[i] for i in kept]

    def _suggest(self, trial: optuna.Trial, name: str) -> Value:
        dimension = self._problem.space.dimensions[name]
        match dimension:
            case Float() | Integer() if dimension.prior is not None:
                weight = prior_weight(self._problem.space, name, self._num_results)
                return dimension.from_prior(trial.suggest_float(name, 0.0, 1.0), weight=weight)
            case Choice():
                return dimension.options[trial.suggest_categorical(name, range(len(dimension.options)))]
            case Integer():
                return int(trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log))
            case Float():
                return float(trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log))

    def _limited(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        finite = [trial.value for trial in trials if trial.value is not None and math.isfinite(trial.value)]
        if self._most_spread is None or not finite:
            return trials
        median = float(np.median(finite))
        most = median + self._most_spread * (median - min(finite))
        if most == median or max(finite) <= most:  # without a better half there is no measure of what is far
            return trials
        limited = [copy.copy(trial) for trial in trials]
        for trial in limited:
            if trial.value is not None and math.isfinite(trial.value):
                trial.value = min(trial.value, most)
        return limited

    def _to_optuna(self, name: str, value: Value) -> float:
        dimension = self._problem.space.dimensions[name]
        if isinstance(dimension, Choice):
            return next(i for i, option in enumerate(dimension.options) if same(option, value))
        if dimension.prior is not None:
            return dimension.to_prior(value, weight=prior_weight(self._problem.space, name, self._num_results))
        assert isinstance(value, int | float)
        return float(value) if isinstance(dimension, Float) else value

    def _trial(self, number: int, point: Hyperparameters, loss: float | None) -> FrozenTrial:
        space = self._problem.space
        names = [name for name in space.ordered if space.is_active(name, point)]
        return FrozenTrial(
            number=number,
            trial_id=number,
            state=TrialState.RUNNING if loss is None else TrialState.COMPLETE,
            value=loss,
            datetime_start=_NEVER,
            datetime_complete=None if loss is None else _NEVER,
            params={name: self._to_optuna(name, point[name]) for name in names},
            distributions={name: self._distributions[name] for name in names},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )


class _View(InMemoryStorage):
    """Trials that are given, plus the one that is being asked for: the only one that Optuna may change."""

    def __init__(self, given: list[FrozenTrial], *, next_number: int) -> None:
        super().__init__()
        self.create_new_study([StudyDirection.MINIMIZE], _STUDY_NAME)
        self._asked = self._create_running_trial()
        self._asked.number = self._asked._trial_id = next_number
        self._all = [*given, self._asked]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [trial for trial in self._all if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        assert trial_id == self._asked.number
        return self._asked

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._asked.number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = self.get_trial(trial_id)
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.get_trial(trial_id).system_attrs[key] = value


class _KnownSpaceTPE(TPESampler):
    """Told the space instead of gathering it from every trial of the study."""

    def __init__(self, space: Space, **options: Any) -> None:
        super().__init__(**options)
        self._common = _common(space)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._common


class _KnownSpaceGP(GPSampler):
    """Told the space instead of gathering it from every trial of the study."""

    def __init__(self, space: Space, **options: Any) -> None:
        super().__init__(**options)
        self._common = _common(space)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._common


def _common(space: Space) -> dict[str, BaseDistribution]:
    """What exists in every point and has more than one value."""
    unconditional = {name: _distribution(d) for name, d in space.dimensions.items() if not d.when}
    return {name: distribution for name, distribution in unconditional.items() if not distribution.single()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    match dimension:
        case Choice():
            # By place in the list: Optuna cannot tell True from 1, nor 1 from 1.0.
            return CategoricalDistribution(range(len(dimension.options)))
        case Float() | Integer() if dimension.prior is not None:
            return FloatDistribution(0.0, 1.0)
        case Integer():
            return IntDistribution(dimension.low, dimension.high, log=dimension.log)
        case Float():
            return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's log lines, its warnings that a feature may change, and that diverged runs are clipped."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message="Clip non-finite values")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
