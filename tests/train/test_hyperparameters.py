"""Names, ranges, aliases, and what an extension changes."""

from __future__ import annotations

import pytest

from thalweg.errors import ConfigError
from thalweg.space import Space
from thalweg.train.hyperparameters import (
    ALIASES,
    FineTuneHyperparameters,
    Optimization,
    PretrainHyperparameters,
    check_schedules,
)


@pytest.mark.parametrize("kind", [FineTuneHyperparameters, PretrainHyperparameters])
def test_other_libraries_names_mean_the_same(kind: type[Optimization]) -> None:
    given = {"learning_rate": 1e-3, "max_grad_norm": 0.5, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1}
    assert kind.parse(given) == kind.parse({"lr": 1e-3, "clip": 0.5, "schedule": "cosine", "warmup": 0.1})
    assert kind.spelled(given, "lr") == "learning_rate"
    assert kind.spelled({}, "lr") == "lr"


def test_aliases_lead_to_names_that_exist_and_hide_none() -> None:
    names = {*vars(FineTuneHyperparameters()), *vars(PretrainHyperparameters())}
    assert set(ALIASES.values()) <= names
    assert not set(ALIASES) & names


def test_a_hyperparameter_under_two_names_is_refused() -> None:
    with pytest.raises(ConfigError, match="'learning_rate' and 'lr' are the same"):
        FineTuneHyperparameters.parse({"lr": 1e-3, "learning_rate": 1e-4})
    space = Space.parse({"lr": {"log": [1e-5, 1e-3]}, "learning_rate": 1e-4})
    with pytest.raises(ConfigError, match="are the same hyperparameter"):
        FineTuneHyperparameters.check_space(space)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": "cosin"}, r"schedule = 'cosin' must be the name of a schedule. Did you mean 'cosine'"),
        ({"decay_form": "1-sqr"}, r"decay_form = '1-sqr' must be the name of a form of decay. Did you mean '1-sqrt'"),
        ({"clip_by": "layer"}, r"clip_by = 'layer' must be the name of a way of clipping"),
        ({"weight_decay_kind": "L2"}, r"weight_decay_kind = 'L2' must be .* decoupled, independent, l2"),
        ({"clip": -1.0}, r"clip = -1.0 must be a number of at least 0"),
        ({"clip": float("nan")}, r"clip = nan must be a number of at least 0"),
        ({"warmup": -0.1}, r"warmup = -0.1 must be a number of at least 0"),
        ({"floor": 1.0}, r"floor = 1.0 must be a number of at least 0 and below 1"),
        ({"tokens": 0}, r"tokens = 0 must be a whole number of at least 1"),
        ({"num_cycles": 1.5}, r"num_cycles = 1.5 must be a whole number"),
        ({"epochs": 3}, r"unknown hyperparameter 'epochs'"),
        ({"lr": True}, r"lr = True must be a number above 0"),
        ({"schedule": 3}, r"schedule = 3 must be the name of a schedule"),
    ],
)
def test_what_cannot_work_is_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainHyperparameters.parse(given)  # type: ignore[arg-type]


def test_a_space_in_which_a_schedule_does_not_fit_its_run_is_refused() -> None:
    space = Space.parse({"warmup": {"linear": [0.0, 0.5]}, "decay": 0.6, "schedule": "wsd"})
    with pytest.raises(ConfigError, match=r"longer than the run of 100 together\nwith .*decay = 0.6"):
        check_schedules(space, PretrainHyperparameters.parse, lambda _: 100)
    fine = Space.parse({"warmup": {"linear": [0.0, 0.4]}, "decay": 0.6, "schedule": "wsd"})
    check_schedules(fine, PretrainHyperparameters.parse, lambda _: 100)


def test_an_extension_keeps_the_warm_up_and_spells_as_was_given() -> None:
    given = {"num_tokens": 1000, "warmup_ratio": 0.1, "schedule": "wsd"}
    settings = PretrainHyperparameters.parse(given)
    changes = settings.extended(given, 1000, 4000)
    assert changes == {"num_tokens": 4000, "warmup_ratio": 100.0}
    before, after = settings.schedule_for(1000), PretrainHyperparameters.parse({**given, **changes}).schedule_for(4000)
    assert settings.decay_start(1000) == 900
    assert [before(p) for p in range(901)] == [after(p) for p in range(901)]
    assert after(3600) == 1.0
    assert after(4000) == 0.0


def test_a_cyclic_schedule_is_extended_by_another_cycle_from_the_decayed_end() -> None:
    given = {"tokens": 1000, "schedule": "cyclic_wsd", "warmup": 0.1, "num_cycles": 2}
    settings = PretrainHyperparameters.parse(given)
    assert settings.schedule_for(1000)(1000) == 0.0
    changes = settings.extended(given, 1000, 2000)
    after = PretrainHyperparameters.parse({**given, **changes}).schedule_for(2000)
    assert after(1001) == 1.0  # back to the peak at once
    assert after(1900) == 1.0
    assert after(1950) == pytest.approx(0.5)
    assert after(2000) == 0.0
