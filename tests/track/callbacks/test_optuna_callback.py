from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest

from thalweg.errors import ConfigError
from thalweg.track.callbacks.optuna_callback import ThalwegCallback
from thalweg.track.store import Store

QUIET = {"system_seconds": 0, "code": False}

optuna.logging.set_verbosity(optuna.logging.WARNING)


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -1, 1)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    for step in range(4):
        trial.report(x * step, step)
        if trial.number == 1 and step == 2:
            raise optuna.TrialPruned
    if trial.number == 2:
        raise ZeroDivisionError("bad luck")
    return x + (kind == "a")


def search(callback: Any, num: int = 4) -> optuna.Study:
    study = optuna.create_study(study_name="demo", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=num, callbacks=[callback], catch=[ZeroDivisionError])
    return study


def test_each_trial_is_a_run(store: Store, curve: Callable[..., Any]) -> None:
    study = search(ThalwegCallback("trials", tags=["random"], **QUIET))
    rows = store.run_rows("trials")
    assert [row.name for row in rows] == ["trial 0", "trial 1", "trial 2", "trial 3"]
    assert [row.uid for row in rows] == ["demo-0", "demo-1", "demo-2", "demo-3"]
    assert [row.status for row in rows] == ["finished", "stopped", "failed", "finished"]
    assert [row.error for row in rows] == [None, None, "the trial failed", None]
    for row, trial in zip(rows, study.trials, strict=True):
        assert dict(row.hyperparameters) == trial.params
        assert row.tags == ("random",)
        assert curve(row.id, "intermediate") == trial.intermediate_values
        assert trial.datetime_start is not None
        assert row.started == pytest.approx(trial.datetime_start.timestamp())
        assert trial.datetime_complete is not None
        assert row.ended == pytest.approx(trial.datetime_complete.timestamp())
    assert curve(rows[0].id, "value") == {3: study.trials[0].value}
    assert curve(rows[1].id, "value") == {}


def test_a_trial_given_twice_changes_nothing(store: Store) -> None:
    callback = ThalwegCallback("trials", **QUIET)
    study = search(callback)
    before = store.run_rows("trials")
    points = [store.series(row.id, "intermediate").times.tolist() for row in before]
    for trial in study.trials:
        callback(study, trial)
    for trial in study.trials:
        ThalwegCallback("trials", **QUIET)(study, trial)
    assert store.run_rows("trials") == before
    assert [store.series(row.id, "intermediate").times.tolist() for row in before] == points


def test_an_objective_logs_into_its_trials_run(store: Store, curve: Callable[..., Any]) -> None:
    callback = ThalwegCallback("trials", **QUIET)

    def logs_more(trial: optuna.Trial) -> float:
        run = callback.run(trial)
        x = trial.suggest_float("x", 0, 1)
        for step in range(3):
            run.log({"loss": x * step}, step=step)
            trial.report(x * step, step)
        assert callback.run(trial) is run
        return x

    study = optuna.create_study(study_name="mine")
    study.optimize(logs_more, n_trials=4, n_jobs=2, callbacks=[callback])
    rows = {row.uid: row for row in store.run_rows("trials")}
    assert sorted(rows) == ["mine-0", "mine-1", "mine-2", "mine-3"]
    for trial in study.trials:
        row = rows[f"mine-{trial.number}"]
        assert row.status == "finished"
        assert dict(row.hyperparameters) == trial.params
        assert curve(row.id, "loss") == curve(row.id, "intermediate") == trial.intermediate_values
        assert curve(row.id, "value") == {2: trial.value}


@pytest.mark.filterwarnings("ignore:.*set_metric_names is experimental")
@pytest.mark.parametrize(("names", "expected"), [(None, ["value/0", "value/1"]), (["loss", "cost"], ["cost", "loss"])])
def test_several_values_have_names(store: Store, names: list[str] | None, expected: list[str]) -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    if names:
        study.set_metric_names(names)
    study.optimize(lambda _: (1.0, 2.0), n_trials=1, callbacks=[ThalwegCallback("trials", **QUIET)])
    (row,) = store.run_rows("trials")
    assert store.metrics(row.id) == expected
    assert dict(row.latest)[names[1] if names else "value/1"][1] == 2.0


def test_what_would_be_shared_by_all_trials_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="name, run: each trial has its own"):
        ThalwegCallback("trials", run="x", name="y")
    with pytest.raises(ConfigError, match="must be a name"):
        ThalwegCallback("")


def test_a_frozen_trial_needs_its_study(store: Store) -> None:
    study = search(ThalwegCallback("trials", **QUIET), num=1)
    with pytest.raises(ConfigError, match="does not know its study"):
        ThalwegCallback("trials").run(study.trials[0])
