"""Values that were published or worked by hand: decay forms, published runs, cycles of reference codes."""

from __future__ import annotations

import math

import pytest

from thalweg.schedules import (
    BatchRamp,
    Schedule,
    constant,
    convert,
    cosine,
    cyclic_cosine,
    cyclic_wsd,
    in_steps,
    join,
    preset,
    presets,
    wsd,
)


@pytest.mark.parametrize(
    ("form", "floor", "values"),
    [
        ("linear", 0.0, (0.75, 0.5, 0.25)),
        ("1-sqrt", 0.0, (0.5, 0.292893, 0.133975)),
        ("cosine", 0.0, (0.853553, 0.5, 0.146447)),
        ("megatron-exponential", 0.0, (0.681793, 0.414214, 0.189207)),
        ("exponential", 0.1, (0.562341, 0.316228, 0.177828)),
        ("square", 0.0, (0.9375, 0.75, 0.4375)),
        ("mirror-cosine", 0.0, (0.646447, 0.5, 0.353553)),
        ("inverse", 0.1, (0.307692, 0.181818, 0.129032)),
    ],
)
def test_decay_forms(form: str, floor: float, values: tuple[float, ...]) -> None:
    lr = wsd(stable=100, decay=400, decay_form=form, floor=floor)
    assert [lr(p) for p in (200, 300, 400)] == pytest.approx(values, abs=5e-7)
    assert lr(100) == 1.0
    assert lr(500) == lr(10_000) == floor


def test_minicpms_half_life() -> None:
    lr = wsd(stable=1000, decay=30_000, decay_form="exponential", half_life=5000)
    assert [lr(1000 + elapsed) for elapsed in (0, 5000, 10_000)] == [1.0, 0.5, 0.25]
    assert lr(1000 + 16_609.6) == pytest.approx(0.1, rel=1e-5)
    # Six half-lives, and what has been reached is held.
    assert lr(31_000) == lr(1e9) == 1 / 64


def rate(name: str, position: float) -> float:
    found = preset(name)
    return found.peak * found.schedule(position)


def test_bloom() -> None:
    # The first two are from the published training log.
    assert rate("bloom-176b", 59_312) == pytest.approx(1.94354e-5, rel=1e-5)
    assert rate("bloom-176b", 158_692_272) == pytest.approx(1.149683e-5, rel=1e-6)
    assert rate("bloom-176b", (183_105 + 200_000_000) / 2) == pytest.approx(3.3e-5, rel=1e-12)
    assert rate("bloom-176b", 200_000_000) == rate("bloom-176b", 220_000_000) == pytest.approx(6e-6)
    assert convert(183_105, given="samples", wanted="tokens", tokens_per_sample=2048) == 374_999_040
    assert convert(220_000_000, given="samples", wanted="tokens", tokens_per_sample=2048) == 450_560_000_000


def test_blooms_small_siblings() -> None:
    """The same lengths, another peak and the floor 1e-5."""
    peak = 3.0e-4
    lr = cosine(warmup=183_105, horizon=200_000_000, floor=1e-5 / peak)
    assert peak * lr((183_105 + 200_000_000) / 2) == pytest.approx((peak + 1e-5) / 2)


def by_hand(start: int, increment: int, over: float, final: int, samples: float) -> int:
    """Steps until so many samples are consumed, one after the other."""
    consumed = num_steps = 0
    while consumed < samples:
        size = final
        if consumed < over:
            size = start + increment * int(consumed / (over / ((final - start) // increment)))
        consumed += size
        num_steps += 1
    return num_steps


@pytest.mark.parametrize("start", [16, 192])
def test_blooms_batch_ramp(start: int) -> None:
    """Both starts that are published. Equal samples are not equal steps."""
    ramp = BatchRamp(start=start, increment=16, over=9_765_625, final=2048)
    for samples in (1000, 59_312, 183_105, 5_000_000, 9_765_625, 20_000_000):
        assert math.ceil(ramp.steps_at(samples)) == by_hand(start, 16, 9_765_625, 2048, samples)


def test_blooms_log_line_is_a_step_of_the_ramp_from_16() -> None:
    ramp = preset("bloom-176b").batch
    assert ramp is not None
    # The first increment comes after 9,765,625 / 127 = 76,894 samples, so the batch is 16 until then.
    assert ramp.steps_at(59_312) == 59_312 / 16 == 3707
    other = BatchRamp(start=192, increment=16, over=9_765_625, final=2048)
    assert other.steps_at(59_312) == pytest.approx(59_312 / 192)
    lr = in_steps(preset("bloom-176b").schedule, ramp)
    assert 6e-5 * lr(3707) == pytest.approx(1.94354e-5, rel=1e-5)


def test_llama_3() -> None:
    for step, expected in ((4000, 4e-5), (8000, 8e-5), (604_000, 4.04e-5), (1_200_000, 8e-7)):
        assert rate("llama-3-405b", step) == pytest.approx(expected, rel=1e-9)
    assert rate("llama-3-405b", 1_249_999) == pytest.approx(8e-7)
    assert rate("llama-3-405b", 1_250_003) == 0.0
    # The other reading of the paper, with the warm-up before the 1.2 M steps.
    other = cosine(warmup=8000, horizon=1_208_000, floor=0.01)
    assert 8e-5 * other(604_000) == pytest.approx(4.0815e-5, rel=2e-5)


def test_olmo_2() -> None:
    end = 928_646 * 4_194_304
    stage_1 = cosine(warmup=8_388_608_000, horizon=5e12, floor=0.1)
    assert 3e-4 * stage_1(end) == pytest.approx(6.1351e-5, rel=1e-4)
    assert rate("olmo-2-7b", end - 1) == pytest.approx(6.1351e-5, rel=1e-4)
    # As the released configuration of stage 2 has it, 0.24 % more.
    assert rate("olmo-2-7b", end) == pytest.approx(6.1499e-5, rel=1e-5)
    assert rate("olmo-2-7b", end + 25e9) == pytest.approx(6.1499e-5 / 2, rel=1e-5)
    assert rate("olmo-2-7b", preset("olmo-2-7b").length) == 0.0


def test_gpt_3() -> None:
    assert rate("gpt-3-175b", 375e6) == 6e-5
    assert rate("gpt-3-175b", (375e6 + 260e9) / 2) == pytest.approx(3.3e-5)
    assert rate("gpt-3-175b", 260e9) == rate("gpt-3-175b", 300e9) == pytest.approx(6e-6)


def test_minicpm() -> None:
    half_life = 5000 * 3.93e6
    assert rate("minicpm-2.4b", 1e12) == 0.01
    assert rate("minicpm-2.4b", 1e12 + 2 * half_life) == pytest.approx(0.0025)


def test_deepseek() -> None:
    # 2,000 steps of 3,072 and of 4,608 sequences of 4,096 tokens.
    assert rate("deepseek-v3", 2000 * 3072 * 4096) == 2.2e-4
    for position, expected in ((10e12, 2.2e-4), (12.15e12, 1.21e-4), (14.4e12, 2.2e-5), (14.7e12, 7.3e-6)):
        assert rate("deepseek-v3", position) == pytest.approx(expected)
    assert rate("deepseek-llm-67b", 1000 * 4608 * 4096) == pytest.approx(1.6e-4)
    for position, multiplier in ((2000 * 4608 * 4096, 1), (1.5999e12, 1), (1.6e12, 0.316), (1.8e12, 0.1), (2e12, 0.1)):
        assert rate("deepseek-llm-67b", position) == pytest.approx(3.2e-4 * multiplier)


def test_bert() -> None:
    for position, expected in ((0, 0.0), (5000, 5e-5), (10_000, 1e-4), (505_000, 5e-5), (1_000_000, 0.0)):
        assert rate("bert-base", position) == pytest.approx(expected)


def test_every_preset_says_where_its_numbers_are_from_and_reaches_its_peak() -> None:
    names = [found.name for found in presets()]
    assert len(names) >= 8
    for found in presets():
        assert preset(found.name) is found
        assert found.source
        values = [found.schedule(found.length * i / 1000) for i in range(1001)]
        assert max(values) == pytest.approx(1.0, abs=0.01)
        assert min(values) >= 0.0


def test_sgdr_restarts() -> None:
    lr = cyclic_cosine(period=10, cycle_growth=2)
    assert [lr(p) for p in (0, 10, 30, 70, 150)] == [1.0] * 5
    assert [lr(p) < 0.03 for p in (9, 29, 69, 149)] == [True] * 4
    assert lr(25) == pytest.approx(0.146447, abs=5e-7)
    assert cyclic_cosine(period=10, cycle_growth=2, cycle_peak=0.75)(30) == 0.5625


def test_hugging_faces_hard_restarts_count_cycles_of_the_whole_run() -> None:
    lr = cyclic_cosine(period=50, num_cycles=2)
    assert [lr(p) for p in (25, 50, 75, 100)] == pytest.approx([0.5, 1.0, 0.5, 0.0])
    behind_a_warmup = join(schedules=[constant(warmup=20), lr], boundaries=[20])
    assert [behind_a_warmup(p) for p in (10, 45, 70, 95, 120)] == pytest.approx([0.5, 0.5, 1.0, 0.5, 0.0])


def test_levanters_cycles() -> None:
    """From its unit tests: cycle points 300 and 700 of 1,000 steps, a decay of a tenth of each cycle."""
    lr = cyclic_wsd(ends=[300, 700, 1000], decay=0.1, decay_form="inverse", floor=0.1)
    assert [lr(p) for p in (0, 269, 300, 659, 701, 969)] == [1.0] * 6
    assert all(lr(p) < 1.0 for p in (271, 661, 971))
    assert lr(285) == pytest.approx(0.181818, abs=5e-7)
    assert lr(1000) == lr(5000) == 0.1


def test_levanters_rewarmup() -> None:
    lr = cyclic_wsd(period=100, num_cycles=2, warmup=10, rewarmup=20, decay=0.1, floor=0.2)
    assert [lr(p) for p in (0, 5, 10, 90, 95)] == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.6])
    assert [lr(p) for p in (100, 110, 120, 190, 200)] == pytest.approx([0.2, 0.6, 1.0, 1.0, 0.2])


def test_olmo_cores_cycles() -> None:
    """From its unit tests. There the position at which a cycle ends has the floor."""
    lr = cyclic_wsd(period=1000, warmup=100, decay=200, end_included=True)
    assert lr(0) == 0.0
    assert [lr(p) for p in range(100, 800)] == [1.0] * 700
    assert lr(801) < 1.0
    assert [lr(p) for p in (1000, 1001, 2000)] == [0.0, 1.0, 0.0]
    two = cyclic_wsd(ends=[1000, 2000], warmup=100, decay=200, end_included=True)
    assert [two(p) for p in range(2001)] == [lr(p) for p in range(2001)]
    share = cyclic_wsd(period=1000, num_cycles=1, warmup=50, decay=0.3, end_included=True)
    assert share(700) == 1.0
    assert share(701) < 1.0
    peaks = cyclic_wsd(ends=[1000, 2000], peaks=[1.0, 0.5], decay=200, end_included=True)
    assert [peaks(p) for p in (500, 1001, 1500, 1900)] == pytest.approx([1.0, 0.5, 0.5, 0.25])


def test_linguas_cycles() -> None:
    """A decay is a share of all steps so far: 25, 50, 75 and 100 steps of cycles of 250."""
    lr = cyclic_wsd(period=250, num_cycles=4, decay=0.1, decay_of="all", decay_form="inverse", floor=0.1)
    for begin, length in ((225, 25), (450, 50), (675, 75), (900, 100)):
        assert lr(begin) == 1.0
        assert lr(begin + 1) < 1.0
        values = [lr(begin + share * length) for share in (0.25, 0.5, 0.75)]
        assert values == pytest.approx([0.307692, 0.181818, 0.129032], abs=5e-7)
    assert [lr(p) for p in (250, 500, 750)] == [1.0] * 3


def test_both_shares_are_the_same_in_the_first_cycle_only() -> None:
    def values(lr: Schedule, begin: int) -> list[float]:
        return [lr(p) for p in range(begin, begin + 250)]

    of_cycle = cyclic_wsd(period=250, num_cycles=4, decay=0.1)
    of_all = cyclic_wsd(period=250, num_cycles=4, decay=0.1, decay_of="all")
    assert values(of_cycle, 0) == values(of_all, 0)
    assert values(of_cycle, 250) != values(of_all, 250)


def test_marins_growing_periods() -> None:
    """A decay of 1,000 steps every 10,000; cycles twice as long later, with the first peak three quarters of it."""
    lr = cyclic_wsd(period=10_000, cycle_growth=2, num_cycles=3, decay=1000, cycle_peak=0.75)
    assert [lr(p) for p in (9000, 9500, 10_000, 29_000, 29_500, 30_000, 69_000, 69_500, 70_000)] == pytest.approx(
        [1.0, 0.5, 0.75, 0.75, 0.375, 0.5625, 0.5625, 0.28125, 0.0]
    )
