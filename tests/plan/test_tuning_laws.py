"""Laws against values worked out independently of this code, and the properties that their formulas have."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.plan import tuning_laws as laws

SIZES = st.floats(1e3, 1e13)


@pytest.mark.parametrize(
    ("num_parameters", "num_tokens", "lr", "batch"),
    [(7e9, 1.4e12, 9.16557e-4, 4_998_815), (1e9, 1e11, 1.63250e-3, 1_107_715)],
)
def test_the_step_law_at_worked_values(num_parameters: float, num_tokens: float, lr: float, batch: int) -> None:
    assert laws.step_law_lr(num_parameters, num_tokens) == pytest.approx(lr, rel=5e-6)
    assert round(laws.step_law_batch(num_tokens)) == batch


@pytest.mark.parametrize(
    ("width", "family", "lr"),
    [(4096, "llama", 2.8564e-4), (8192, "llama", 1.6623e-4), (2048, "llama", 4.9082e-4), (4096, "qwen", 4.7298e-4)],
)
def test_the_rule_for_lora_at_worked_values(width: int, family: str, lr: float) -> None:
    assert laws.tinker_lora_lr(width, laws.TINKER_EXPONENTS[family]) == pytest.approx(lr, rel=2e-5)


@pytest.mark.parametrize(
    ("batch", "lr", "tokens", "share"),
    [(4e6, 3e-4, 2e12, 0.066667), (3.2e6, 6e-5, 300e9, 1.7778)],
)
def test_timescales_of_published_runs(batch: float, lr: float, tokens: float, share: float) -> None:
    """Llama 2 7B and GPT-3 175B, with weight decay 0.1."""
    assert laws.timescale(lr=lr, weight_decay=0.1, num_steps=tokens / batch) == pytest.approx(share, rel=1e-4)


def test_the_timescale_in_steps() -> None:
    assert laws.timescale(lr=3e-4, weight_decay=0.1, num_steps=1) == pytest.approx(33_333.3, rel=1e-5)


@given(SIZES, SIZES)
def test_doubling_the_model_or_the_data_changes_rates_by_the_laws_exponents(size: float, tokens: float) -> None:
    lr = laws.step_law_lr(size, tokens)
    assert laws.step_law_lr(2 * size, tokens) == pytest.approx(lr * 2**-0.713)
    assert laws.step_law_lr(size, 2 * tokens) == pytest.approx(lr * 2**0.307)
    assert laws.step_law_batch(2 * tokens) == pytest.approx(laws.step_law_batch(tokens) * 2**0.571)
    assert laws.power_lines_timescale(2 * tokens) == pytest.approx(laws.power_lines_timescale(tokens) * 2**-0.527)


@given(st.floats(1e-6, 1.0), st.floats(1e-3, 10.0), st.floats(1, 1e7))
def test_weight_decay_is_the_inverse_of_the_timescale(lr: float, share: float, num_steps: float) -> None:
    decay = laws.weight_decay_for(share, lr=lr, num_steps=num_steps)
    assert laws.timescale(lr=lr, weight_decay=decay, num_steps=num_steps) == pytest.approx(share)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_sizes_that_are_no_sizes_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"num_parameters = .* must be above zero"):
        laws.step_law_lr(value, 1e9)
    with pytest.raises(ConfigError, match=r"num_tokens = .* must be above zero"):
        laws.step_law_batch(value)
    with pytest.raises(ConfigError, match=r"lr = .* must be above zero"):
        laws.timescale(lr=value, weight_decay=0.1, num_steps=10)
