"""Suggested spaces: worked cases, and what holds for whatever is asked."""

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.plan.priors import Subject, Suggestion, as_space, as_toml, suggest
from thalweg.space import Choice, Float, Integer, Space
from thalweg.train.hyperparameters import FineTuneHyperparameters, PretrainHyperparameters

LLAMA = {"num_parameters": 8.03e9, "width": 4096, "family": "llama"}
MINILM = {"num_parameters": 22.7e6, "width": 384, "family": "bert", "kind": "encoder"}
BERT = {"num_parameters": 109e6, "width": 768, "family": "bert", "kind": "encoder"}


def found(name: str, **subject: Any) -> Suggestion:
    return next(entry for entry in suggest(Subject(**subject)) if entry.name == name)


def prior(name: str, **subject: Any) -> Any:
    entry = found(name, **subject).entry
    return entry.prior if isinstance(entry, Float | Integer | Choice) else entry


def test_lora_on_llama_follows_the_published_rule() -> None:
    assert prior("lr", mode="lora", num_rows=20_000, **LLAMA) == 2.86e-4  # 2.8564e-4, three digits
    assert prior("lr", mode="full", num_rows=20_000, **LLAMA) == 2.86e-5  # a tenth
    assert prior("lora_alpha", mode="lora", num_rows=20_000, **LLAMA) == 32.0


def test_the_rank_is_searched_apart_from_the_rate() -> None:
    entry = found("lora_r", mode="lora", num_rows=20_000, **LLAMA).entry
    assert isinstance(entry, Choice)
    assert len(entry.options) > 1
    assert not entry.when
    assert "whatever the rank" in found("lr", mode="lora", num_rows=20_000, **LLAMA).why


def test_short_lora_runs_have_fifteen_times_the_full_rate() -> None:
    # 60 rows, 5 epochs, batches of 4: 75 steps.
    assert prior("lr", mode="lora", num_rows=60, **LLAMA) == 4.28e-4  # 2.8564e-5 · 15 = 4.2846e-4
    assert "15 times" in found("lr", mode="lora", num_rows=60, **LLAMA).why


def test_encoders_have_the_published_grids() -> None:
    lr = found("lr", mode="full", num_rows=20_000, **BERT)
    assert isinstance(lr.entry, Float)
    assert all(lr.entry.contains(rate) for rate in (2e-5, 3e-5, 4e-5, 5e-5))
    assert (lr.entry.prior, lr.entry.confidence) == (3e-5, "high")
    assert prior("batch_size", mode="full", num_rows=20_000, **BERT) == 16
    epochs = found("epochs", mode="full", num_rows=20_000, **BERT).entry
    assert isinstance(epochs, Integer)
    assert (epochs.low, epochs.prior, epochs.high) == (2, 3, 4)


def test_small_encoders_take_the_middle_of_their_own_grid() -> None:
    # 3e-5 · 5e-5 · 1e-4 · 3e-4 = 4.5e-17, whose fourth root is 8.19e-5.
    assert prior("lr", mode="full", num_rows=800, **MINILM) == 8.19e-5


def test_weight_decay_is_fixed_where_it_hardly_acts() -> None:
    decay = found("weight_decay", mode="full", num_rows=16_000, **BERT)
    assert decay.entry == 0.01
    # 3 epochs of 1,000 steps; 1 / (3e-5 · 0.01) = 3,333,333 steps: 1,111 times as many.
    assert "1,111 times as long" in decay.why


def test_few_rows_mean_more_epochs_and_smaller_batches() -> None:
    assert prior("epochs", mode="full", num_rows=500, **BERT) > prior("epochs", mode="full", num_rows=50_000, **BERT)
    batch = found("batch_size", mode="full", num_rows=40, **BERT).entry
    assert isinstance(batch, Choice)
    assert batch.options == (1, 2, 4)  # at most 40 / 8 = 5
    assert found("batch_size", mode="full", num_rows=8, **BERT).entry == 1


def test_pretraining_within_what_the_law_was_fitted_on() -> None:
    subject = {"mode": "pretrain", "num_parameters": 1e9, "num_tokens": 1e11, "context": 2048}
    lr = found("lr", **subject).entry
    assert isinstance(lr, Float)
    assert (lr.prior, lr.confidence) == (1.63e-3, "high")
    # 1,107,715 tokens are 541 sequences of 2,048: between 512 and 1,024, nearer to the first.
    batch = found("batch_size", **subject).entry
    assert isinstance(batch, Choice)
    assert (batch.options, batch.prior, batch.confidence) == ((256, 512, 1024), 512, "high")
    # tau = 1.084 · 100^-0.527 = 0.09573; steps = 1e11 / (512 · 2048) = 95,367;
    # 1 / (1.6325e-3 · 0.09573 · 95,367) = 0.0671
    assert prior("weight_decay", **subject) == 0.0671
    assert prior("schedule", **subject) == "wsd"
    assert 0.1 <= prior("decay", **subject) <= 0.2
    assert prior("tokens", **subject) == 100_000_000_000


def test_beyond_what_the_law_was_fitted_on_it_is_held_and_little_believed() -> None:
    small = {"mode": "pretrain", "num_tokens": 6e5, "context": 128}
    lr = found("lr", num_parameters=2e5, **small)
    assert isinstance(lr.entry, Float)
    assert lr.entry.confidence == "low"
    assert "outside of the fitted 60M to 1B" in lr.why
    # Ten times beyond: N = 6e6, D = 2e8. 1.79 · 6e6^-0.713 · 2e8^0.307 = 9.30e-3.
    assert lr.entry.prior == pytest.approx(1.79 * math.exp(-0.713 * math.log(6e6) + 0.307 * math.log(2e8)), rel=1e-3)
    assert prior("lr", num_parameters=1e5, **small) == lr.entry.prior
    batch = found("batch_size", num_parameters=2e5, **small).entry
    assert isinstance(batch, Choice)
    assert max(int(option) for option in batch.options) * 128 * 200 <= 6e5  # at least 200 steps


def test_an_unknown_family_or_width_is_little_believed() -> None:
    for other in ({"family": "mamba"}, {"width": 512}, {"width": None}):
        entry = found("lr", mode="lora", num_rows=20_000, **(LLAMA | other)).entry
        assert isinstance(entry, Float)
        assert entry.confidence == "low"


SUBJECTS = st.one_of(
    st.builds(
        Subject,
        mode=st.sampled_from(["full", "lora"]),
        num_parameters=st.floats(1, 1e13),
        kind=st.sampled_from(["encoder", "decoder"]),
        width=st.none() | st.integers(1, 10**6),
        family=st.sampled_from([None, "llama", "qwen", "bert"]),
        num_rows=st.integers(1, 10**9),
    ),
    st.builds(
        Subject,
        mode=st.just("pretrain"),
        num_parameters=st.floats(1, 1e13),
        num_tokens=st.floats(1, 1e15),
        context=st.integers(1, 10**6),
    ),
)


@given(SUBJECTS)
def test_whatever_is_asked_the_space_is_one_that_the_trainer_takes(subject: Subject) -> None:
    suggestions = suggest(subject)
    space = as_space(suggestions)
    kind = PretrainHyperparameters if subject.mode == "pretrain" else FineTuneHyperparameters
    kind.check_space(space, without=None if subject.mode == "lora" else "lora_")
    assert Space.parse(tomllib.loads(as_toml(suggestions))["space"]) == space
    for entry in suggestions:
        assert entry.why
        assert entry.source
        if isinstance(entry.entry, Float | Integer | Choice):
            assert entry.entry.prior is not None
            assert entry.entry.contains(entry.entry.prior)
    assert "lr" in space.dimensions


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ({"mode": "lorra", "num_parameters": 1e9, "num_rows": 5}, "mode = 'lorra' is not known. Did you mean 'lora'"),
        ({"mode": "full", "num_parameters": 1e9}, "needs the number of training rows"),
        ({"mode": "pretrain", "num_parameters": 1e9, "num_rows": 5}, "needs the number of tokens"),
        ({"mode": "full", "num_parameters": 0, "num_rows": 5}, "num_parameters = 0 must be at least 1"),
        ({"mode": "full", "num_parameters": 1e9, "num_rows": 0}, "num_rows = 0 must be at least 1"),
        ({"mode": "full", "num_parameters": math.inf, "num_rows": 5}, "num_parameters = inf"),
        ({"mode": "full", "num_parameters": 1e9, "num_rows": 5, "width": -1}, "width = -1"),
    ],
)
def test_subjects_that_make_no_sense_are_refused(subject: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Subject(**subject)
