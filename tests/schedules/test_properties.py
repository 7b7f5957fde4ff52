"""What every schedule keeps: TOML and back, copies, its range, and no state."""

from __future__ import annotations

import pickle
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.schedules import (
    DECAY_FORMS,
    RUN_SCHEDULES,
    SCHEDULES,
    BatchRamp,
    Schedule,
    Stage,
    constant,
    cosine,
    cyclic_cosine,
    cyclic_wsd,
    for_run,
    from_toml,
    in_steps,
    inverse_sqrt,
    join,
    linear,
    lr_range,
    multi_stage,
    polynomial,
    preset_names,
    presets,
    repeat,
    run_schedule_names,
    scale,
    stretch,
    to_toml,
    wsd,
)

LENGTHS = st.one_of(st.integers(1, 10**13), st.floats(1, 1e13))
SHARES = st.floats(0, 0.9)
POSITIVE_SHARES = st.floats(1e-4, 0.9)
FORMS = st.sampled_from(sorted(DECAY_FORMS))
FLOORS_ABOVE_0 = st.floats(1e-4, 0.4)


@st.composite
def with_warmup(draw: st.DrawFn, make: Any, **more: st.SearchStrategy[Any]) -> Schedule:
    horizon = draw(LENGTHS)
    schedule: Schedule = make(
        warmup=draw(SHARES) * horizon, horizon=horizon, floor=draw(SHARES), **{k: draw(v) for k, v in more.items()}
    )
    return schedule


@st.composite
def cyclic_wsds(draw: st.DrawFn) -> Schedule:
    period = draw(st.integers(100, 10**9))
    shared = {
        "warmup": draw(st.floats(0, 0.3)) * period,
        "rewarmup": draw(st.floats(0, 0.3)) * period,
        "decay_form": draw(FORMS),
        "floor": draw(FLOORS_ABOVE_0),
        "end_included": draw(st.booleans()),
        "start": draw(st.integers(0, 10**9)),
    }
    if draw(st.booleans()):
        num_cycles = draw(st.one_of(st.none(), st.integers(1, 5)))
        growth = draw(st.floats(1, 3))
        return cyclic_wsd(
            period=period, num_cycles=num_cycles, cycle_growth=growth, decay=draw(st.floats(0.01, 0.6)), **shared
        )
    lengths = draw(st.lists(st.integers(period, 3 * period), min_size=1, max_size=5))
    ends = [shared["start"] + sum(lengths[: i + 1]) for i in range(len(lengths))]
    peaks = draw(st.lists(st.floats(0.5, 1), min_size=len(ends), max_size=len(ends)))
    return cyclic_wsd(ends=ends, peaks=peaks, decay=draw(st.floats(1, 0.6 * period)), **shared)


@st.composite
def cyclic_cosines(draw: st.DrawFn) -> Schedule:
    period = draw(LENGTHS)
    return cyclic_cosine(
        period=period,
        cycle_growth=draw(st.floats(1, 3)),
        cycle_peak=draw(st.floats(0.8, 1)),
        num_cycles=draw(st.integers(1, 4)),
        warmup=draw(SHARES) * period,
        warmup_in=draw(st.sampled_from(["first", "each"])),
        floor=draw(st.floats(0, 0.4)),
        start=draw(st.floats(0, 1e9)),
    )


STAGES = st.builds(Stage, length=LENGTHS, begin=POSITIVE_SHARES, end=POSITIVE_SHARES, form=FORMS)
RAMPS = st.builds(
    lambda start, increment, num, over: BatchRamp(
        start=start, increment=increment, over=over, final=start + num * increment
    ),
    st.integers(1, 100),
    st.integers(1, 50),
    st.integers(1, 20),
    st.integers(1, 10**6),
)
SIMPLE: dict[str, st.SearchStrategy[Schedule]] = {
    "constant": st.builds(constant, warmup=st.one_of(st.just(0), LENGTHS)),
    "linear": with_warmup(linear),
    "polynomial": with_warmup(polynomial, power=st.floats(0.1, 5)),
    "cosine": with_warmup(cosine),
    "inverse_sqrt": st.builds(
        inverse_sqrt, warmup=LENGTHS, timescale=st.one_of(st.none(), LENGTHS), floor=st.one_of(st.just(0), SHARES)
    ),
    "wsd": st.one_of(
        st.builds(wsd, warmup=LENGTHS, stable=LENGTHS, decay=LENGTHS, floor=FLOORS_ABOVE_0, decay_form=FORMS),
        st.builds(wsd, stable=LENGTHS, decay=LENGTHS, decay_form=st.just("exponential"), half_life=LENGTHS),
    ),
    "cyclic_cosine": cyclic_cosines(),
    "cyclic_wsd": cyclic_wsds(),
    "multi_stage": st.builds(multi_stage, stages=st.lists(STAGES, min_size=1, max_size=4)),
    "lr_range": st.builds(lr_range, horizon=LENGTHS, floor=POSITIVE_SHARES),
}


def composed(parts: st.SearchStrategy[Schedule]) -> dict[str, st.SearchStrategy[Schedule]]:
    def joined(found: list[Schedule]) -> st.SearchStrategy[Schedule]:
        num = len(found) - 1
        boundaries = st.lists(LENGTHS, min_size=num, max_size=num, unique=True)
        return boundaries.map(lambda drawn: join(schedules=found, boundaries=sorted(drawn)))

    return {
        "join": st.lists(parts, min_size=1, max_size=3).flatmap(joined),
        "scale": st.builds(scale, parts, factor=POSITIVE_SHARES),
        "repeat": st.builds(repeat, parts, period=LENGTHS, times=st.one_of(st.none(), st.integers(1, 9))),
        "stretch": st.builds(stretch, parts, factor=st.floats(1e-3, 1e3)),
        "in_steps": st.builds(in_steps, parts, RAMPS, tokens_per_sample=st.integers(1, 4096)),
    }


ONCE = st.one_of(*SIMPLE.values())
TWICE = st.one_of(ONCE, *composed(ONCE).values())
BY_KIND = {**SIMPLE, **composed(TWICE)}


# By the dictionary itself, so that a schedule that is new there cannot be left out here.
@pytest.mark.parametrize("kind", SCHEDULES)
@settings(max_examples=40)
@given(data=st.data(), positions=st.lists(st.floats(0, 1e14), min_size=1, max_size=8))
def test_every_schedule(kind: str, data: st.DataObject, positions: list[float]) -> None:
    schedule = data.draw(BY_KIND[kind])
    values = [schedule(position) for position in positions]
    assert all(0.0 <= value <= 1.0 + 1e-12 for value in values)
    text = to_toml(schedule)
    assert tomllib.loads(text)["kind"] == kind
    for copy in (from_toml(text), pickle.loads(pickle.dumps(schedule))):
        assert copy == schedule
        assert hash(copy) == hash(schedule)
        assert repr(copy) == repr(schedule)
        assert [copy(position) for position in reversed(positions)] == values[::-1]


def test_presets_are_printed_and_parsed_too() -> None:
    for found in presets():
        assert from_toml(to_toml(found.schedule)) == found.schedule


@given(
    name=st.sampled_from(RUN_SCHEDULES),
    horizon=st.integers(10, 10**12),
    warmup=st.floats(0.001, 0.2),
    decay=st.floats(0.01, 0.5),
    floor=st.floats(1e-3, 0.3),
    num_cycles=st.integers(1, 4),
    growth=st.floats(0.8, 2),
    peak=st.floats(0.8, 1),
)
def test_a_runs_schedule_begins_at_0_reaches_the_peak_and_ends_at_the_floor(
    name: str,
    horizon: int,
    warmup: float,
    decay: float,
    floor: float,
    num_cycles: int,
    growth: float,
    peak: float,
) -> None:
    if name.startswith("cyclic"):
        warmup /= 10
        decay /= 2
    lr = for_run(
        name,
        horizon=horizon,
        warmup=warmup,
        decay=decay,
        floor=floor,
        num_cycles=num_cycles,
        cycle_growth=growth,
        cycle_peak=peak,
    )
    assert lr(0) == pytest.approx(floor if name == "lr_range" else 0.0)
    top = horizon if name == "lr_range" else warmup * horizon
    assert lr(top) == pytest.approx(1.0)
    if name not in ("constant", "lr_range", "inverse_sqrt"):
        assert lr(horizon) == pytest.approx(floor, rel=1e-6)
        assert lr(2 * horizon) == floor


@given(
    name=st.sampled_from(["linear", "cosine", "wsd", "cyclic_cosine", "cyclic_wsd", *preset_names()]),
    horizon=st.integers(100, 10**9),
    share=st.floats(0, 1),
    unit=st.sampled_from([16, 2048]),
)
def test_a_runs_schedule_does_not_depend_on_the_unit(name: str, horizon: int, share: float, unit: int) -> None:
    """In shares, and away from jumps, where rounding decides on which side a position is."""
    shared: dict[str, Any] = {"warmup": 0.05, "num_cycles": 3}
    position = share * horizon
    here = for_run(name, horizon=horizon, **shared)
    there = for_run(name, horizon=horizon * unit, **shared)
    around = [here(position * (1 + sign * 1e-7)) for sign in (-1, 1)]
    if abs(around[0] - around[1]) < 1e-3:
        assert there(position * unit) == pytest.approx(here(position), abs=1e-3)


def test_names_of_runs() -> None:
    assert run_schedule_names() == [*RUN_SCHEDULES, *preset_names()]
    assert "wsd" in run_schedule_names()
    assert "bloom-176b" in run_schedule_names()
