"""TOML that is written by hand: what parses, and what is refused by name. The round trip is in test_properties.py."""

from __future__ import annotations

import pytest

from thalweg.errors import ConfigError
from thalweg.schedules import (
    BatchRamp,
    Stage,
    constant,
    cyclic_wsd,
    from_toml,
    in_steps,
    join,
    linear,
    multi_stage,
    read_preset,
    repeat,
    scale,
    to_toml,
    wsd,
)


def test_compositions_are_tables_in_tables() -> None:
    text = """
    kind = "join"
    boundaries = [100]

    [[schedules]]
    kind = "constant"
    warmup = 10

    [[schedules]]
    kind = "scale"
    factor = 0.5
    schedule = { kind = "repeat", period = 20, schedule = { kind = "linear", horizon = 20 } }
    """
    expected = join(
        schedules=[constant(warmup=10), scale(repeat(linear(horizon=20), period=20), factor=0.5)], boundaries=[100]
    )
    assert from_toml(text) == expected
    assert from_toml(to_toml(expected)) == expected


def test_stages_ends_and_ramps() -> None:
    assert from_toml('kind = "multi_stage"\nstages = [{ length = 5, begin = 0, end = 1 }]') == multi_stage(
        stages=[Stage(length=5, begin=0, end=1)]
    )
    text = 'kind = "cyclic_wsd"\nends = [10, 30]\npeaks = [1.0, 0.5]\ndecay = 5\nend_included = true'
    assert from_toml(text) == cyclic_wsd(ends=[10, 30], peaks=[1.0, 0.5], decay=5, end_included=True)
    text = """
    kind = "in_steps"
    tokens_per_sample = 128
    ramp = { start = 2, increment = 2, over = 8, final = 6 }
    schedule = { kind = "linear", horizon = 1000 }
    """
    ramp = BatchRamp(start=2, increment=2, over=8, final=6)
    assert from_toml(text) == in_steps(linear(horizon=1000), ramp, tokens_per_sample=128)


def test_what_is_printed_is_what_a_person_would_write() -> None:
    assert to_toml(wsd(stable=80, decay=20, decay_form="1-sqrt")).splitlines() == [
        'kind = "wsd"',
        "warmup = 0.0",
        "stable = 80",
        "decay = 20",
        "floor = 0.0",
        'decay_form = "1-sqrt"',
    ]
    printed = to_toml(join(schedules=[constant(), linear(horizon=5)], boundaries=[7]))
    assert printed.splitlines() == [
        'kind = "join"',
        "schedules = [",
        '  { kind = "constant", warmup = 0.0 },',
        '  { kind = "linear", warmup = 0.0, horizon = 5, floor = 0.0 },',
        "]",
        "boundaries = [7]",
    ]


def test_numpy_numbers_are_printed_as_numbers() -> None:
    import numpy as np

    schedule = linear(warmup=np.float64(2.5), horizon=np.int64(10))
    assert to_toml(schedule) == 'kind = "linear"\nwarmup = 2.5\nhorizon = 10\nfloor = 0.0\n'


def test_a_function_of_your_own_cannot_be_printed() -> None:
    with pytest.raises(ConfigError, match="a function of your own"):
        to_toml(lambda position: 1.0)
    with pytest.raises(ConfigError, match="a function of your own"):
        to_toml(scale(lambda position: 1.0, factor=0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("horizon = = 3", "this is not TOML"),
        ("horizon = 3", "'kind' is missing"),
        ('kind = "linaer"', "kind = 'linaer' is unknown. Did you mean 'linear'"),
        ("kind = 3", "kind = 3 is unknown"),
        ("kind = []", r"kind = \[\] is unknown"),
        ('kind = "linear"', "'horizon' is missing"),
        ('kind = "linear"\nhorizn = 3\nhorizon = 3', "unknown key 'horizn'. Did you mean 'horizon'"),
        ('kind = "linear"\nhorizon = "3"', "horizon = '3' must be a number"),
        ('kind = "linear"\nhorizon = true', "horizon = True must be a number"),
        ('kind = "linear"\nhorizon = nan', "linear: horizon = nan"),
        ('kind = "linear"\nhorizon = 3\nfloor = 2', "linear: floor = 2"),
        ('kind = "wsd"\nstable = 3\ndecay = 1\ndecay_form = 1', "decay_form = 1 must be a string"),
        ('kind = "cyclic_wsd"\nperiod = 9\nend_included = 1', "end_included = 1 must be true or false"),
        ('kind = "cyclic_wsd"\nends = 9', "ends = 9 must be an array"),
        ('kind = "cyclic_wsd"\nends = [9, "x"]', r"ends\[1\] = 'x' must be a number"),
        ('kind = "cyclic_wsd"\nperiod = 9\ndecay_of = "al"', "decay_of = 'al' is unknown. Did you mean 'all'"),
        ('kind = "cyclic_cosine"\nperiod = 9\nnum_cycles = 1.5', "num_cycles = 1.5 must be a whole number"),
        ('kind = "cyclic_cosine"\nperiod = 9\nwarmup_in = []', r"warmup_in = \[\] is unknown"),
        ('kind = "multi_stage"\nstages = [{ length = 5, begin = 0 }]', r"'stages\[0\].end' is missing"),
        ('kind = "multi_stage"\nstages = [5]', r"stages\[0\] = 5 must be a table"),
        ('kind = "scale"\nfactor = 0.5\nschedule = 3', "schedule = 3 must be a table with a kind"),
        ('kind = "scale"\nfactor = 0.5\nschedule = { }', "'schedule.kind' is missing"),
        (
            'kind = "join"\nboundaries = []\nschedules = [{ kind = "linear", horizon = "x" }]',
            r"schedules\[0\].horizon = 'x' must be a number",
        ),
        (
            'kind = "join"\nboundaries = []\nschedules = [{ kind = "cos", horizon = 1 }]',
            r"schedules\[0\].kind = 'cos' is unknown. Did you mean 'cosine'",
        ),
    ],
)
def test_strict(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_toml(text)


PRESET = """
name = "mine"
unit = "tokens"
peak = 1e-3
length = 1000
source = "my notes"
schedule = { kind = "linear", horizon = 1000 }
"""


def test_a_preset_of_ones_own() -> None:
    found = read_preset(PRESET)
    assert found.schedule == linear(horizon=1000)
    assert (found.unit, found.peak, found.length, found.source) == ("tokens", 1e-3, 1000, "my notes")
    assert found.batch is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('unit = "tokens"', 'unit = "epochs"', "unit = 'epochs' is unknown"),
        ("peak = 1e-3", "peak = 0", "peak = 0"),
        ("peak = 1e-3", "", "'peak' is missing"),
        ("length = 1000", "length = inf", "length = inf"),
        ('source = "my notes"', "source = 3", "source = 3 must be a string"),
        ("horizon = 1000", "horizon = 1000, floor = 1", "floor = 1"),
        ("horizon = 1000", 'horizon = 1000, flor = "1"', "unknown key 'schedule.flor'. Did you mean 'floor'"),
        ("length = 1000", "length = 1000\nbatch = { start = 3 }", "'batch.final' is missing"),
        ("length = 1000", "length = 1000\ntokens_per_sample = 0", "tokens_per_sample = 0"),
    ],
)
def test_bad_presets(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_preset(PRESET.replace(old, new, 1))
