"""A callback for Optuna, which makes a run of each trial: `optimize(..., callbacks=[ThalwegCallback("my-project")])`.

Thalweg's own search needs none of this: `thalweg.tune` keeps its trials as runs already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from thalweg.errors import ConfigError

try:
    import optuna
    from optuna.trial import FrozenTrial, Trial, TrialState
except ImportError as error:
    raise ConfigError("ThalwegCallback for Optuna needs optuna: pip install optuna") from error

from thalweg.track.callbacks.checkpoints import store_location
from thalweg.track.callbacks.plain_values import plain
from thalweg.track.client import TrackedRun, init
from thalweg.track.positions import to_position
from thalweg.track.records import NewRun
from thalweg.track.store import Store
from thalweg.tree import Status

_STATUS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


class ThalwegCallback:
    """Keeps each finished trial of an Optuna study as a run: parameters, intermediate values, value and state.

    A run's uid is the study's name and the trial's number: a trial that is given twice, by a study that was loaded and
    goes on or by a loop over `study.trials`, changes nothing. Threads of one study may share a callback.

    An objective that has more to say asks for its run:

        tracking = ThalwegCallback("my-project")

        def objective(trial):
            lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
            run = tracking.run(trial)
            for step in range(100):
                run.log({"loss": ...}, step=step)

    Args:
        project: the project that the runs belong to.
        intermediate, value: the names of their metrics. Several values are named by the study's `metric_names`, or
            value/0, value/1 and so on.
        options: for `thalweg.init`, where an objective asks for its run; of them `store` and `tags` for every run.
    Raises:
        ConfigError: no project; an option that would give all trials one run.
    """

    def __init__(
        self, project: str, *, intermediate: str = "intermediate", value: str = "value", **options: Any
    ) -> None:
        if not isinstance(project, str) or not project:
            raise ConfigError(f'project = {project!r} must be a name: ThalwegCallback("my-project")')
        if shared := sorted({"run", "name", "fork_of", "at", "hyperparameters"} & set(options)):
            raise ConfigError(f"ThalwegCallback: {', '.join(shared)}: each trial has its own")
        self.project = project
        self._intermediate, self._value = intermediate, value
        self._options = options
        self._open: dict[str, TrackedRun] = {}
        self._lock = threading.Lock()

    def run(self, trial: Trial | FrozenTrial, study: optuna.Study | None = None) -> TrackedRun:
        """The run of a trial that is going on, to log into. The callback ends it with the trial.

        Args:
            study: needed for a FrozenTrial, which does not know its study.
        """
        if study is None:
            if not isinstance(trial, Trial):
                raise ConfigError("a FrozenTrial does not know its study: run(trial, study)")
            study = trial.study
        uid = trial_uid(study, trial)
        with self._lock:
            if uid not in self._open:
                self._open[uid] = init(
                    self.project,
                    run=uid,
                    name=f"trial {trial.number}",
                    hyperparameters=plain(trial.params),
                    **self._options,
                )
            return self._open[uid]

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Keep a trial that has ended. Optuna calls this."""
        if trial.state not in _STATUS:
            return
        with self._lock:
            run = self._open.pop(trial_uid(study, trial), None)
        points = self._points(study, trial)
        if run is None:
            self._enter(study, trial, points)
            return
        run.set(plain(trial.params))  # the objective may have asked for its run first and for parameters later
        for metric, step, value in points:
            run.log({metric: value}, step=step)
        run.finish(status=_STATUS[trial.state], error=_reason(trial))

    def _points(self, study: optuna.Study, trial: FrozenTrial) -> list[tuple[str, int, float]]:
        """(metric, step, value); the values stand at the last step that was reported."""
        found = [(self._intermediate, step, value) for step, value in sorted(trial.intermediate_values.items())]
        # A pruned trial's value is its last intermediate one, if any: it has not reached its end.
        values: Sequence[float] = trial.values or () if trial.state == TrialState.COMPLETE else ()
        names = [self._value] if len(values) == 1 else [f"{self._value}/{i}" for i in range(len(values))]
        if values and study.metric_names:
            names = list(study.metric_names)
        last = max(trial.intermediate_values, default=0)
        return found + [(name, last, value) for name, value in zip(names, values, strict=True)]

    def _enter(self, study: optuna.Study, trial: FrozenTrial, points: list[tuple[str, int, float]]) -> None:
        """A trial that nobody has logged into: entered as a whole, with the times that Optuna knows."""
        started = _seconds(trial.datetime_start) or time.time()
        ended = _seconds(trial.datetime_complete) or started
        new = NewRun(
            uid=trial_uid(study, trial),
            name=f"trial {trial.number}",
            hyperparameters=plain(trial.params),
            tags=tuple(self._options.get("tags", ())),
            status=_STATUS[trial.state],
            created=started,
            started=started,
            ended=ended,
            error=_reason(trial),
        )
        with Store.open(store_location(self._options.get("store"))) as store:
            project = store.create_project(self.project)
            run_id, _ = store.track_run(project.name, new)
            for metric in sorted({metric for metric, _, _ in points}):
                own = [(to_position(step, project.decimals), value) for name, step, value in points if name == metric]
                positions = np.array([position for position, _ in own], np.int64)
                times_ms = np.full(len(own), round(ended * 1000), np.int64)
                store.import_points(run_id, metric, positions, times_ms, np.array([value for _, value in own]))


def trial_uid(study: optuna.Study, trial: Trial | FrozenTrial) -> str:
    """What makes a trial's run its own: the study's name and the trial's number."""
    return f"{study.study_name}-{trial.number}"


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _reason(trial: FrozenTrial) -> str | None:
    # Optuna logs the exception and does not keep it.
    return "the trial failed" if trial.state == TrialState.FAIL else None
