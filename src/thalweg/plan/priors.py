"""A space to search, with priors, for a model, an amount of data and a way of training.

Names and units are those of our trainers (`train/hyperparameters.py`). What published work agrees on, or what hardly
matters, is fixed rather than searched: each dimension costs runs.

>>> subject = Subject(mode="lora", num_parameters=8.03e9, width=4096, family="llama", num_rows=20_000)
>>> lr = next(found for found in suggest(subject) if found.name == "lr")
>>> lr.entry.prior, lr.entry.confidence
(0.000286, 'medium')
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from thalweg.errors import ConfigError, nearest
from thalweg.plan import tuning_laws as laws
from thalweg.space import Choice, Confidence, Dimension, Float, Integer, Space, Value

Mode = Literal["full", "lora", "pretrain"]
MODES: tuple[Mode, ...] = ("full", "lora", "pretrain")

_BERT = "Devlin et al. 2019 (BERT), arXiv:1810.04805, appendix A.3"
_ROBERTA = "Liu et al. 2019 (RoBERTa), fairseq README.glue"
_SMALL_BERT = "Turc et al. 2019, arXiv:1908.08962, google-research/bert README"
_STABLE = "Mosbach et al. 2021, arXiv:2006.04884"
_NO_REGRET = "Schulman and Thinking Machines 2025 (LoRA Without Regret), tinker-cookbook"
_STEP_LAW = "Li et al. 2025 (Step Law), arXiv:2503.04715"
_POWER_LINES = "Bergsma et al. 2025 (Power Lines), arXiv:2505.13738"
_TIMESCALE = "Wang and Aitchison 2024, arXiv:2405.13698"
_QLORA = "Dettmers et al. 2023 (QLoRA), arXiv:2305.14314"
_WSD = "Hu et al. 2024 (MiniCPM), arXiv:2404.06395; Hägele et al. 2024, arXiv:2405.18392"
_OLIVER = "Oliver and Wang 2024, arXiv:2407.13906"
_RECIPES = "the recipes of litgpt (Llama-3-8B) and of DeepSeek-V2, arXiv:2405.04434"
_ADAPTERS = "the recipes of Alpaca-LoRA, Axolotl, litgpt, PEFT and torchtune"
_OURS = "a rule of this library's own"

_SMALL, _LARGE = 1e8, 4e8
"""Parameters up to which an encoder is smaller than BERT-base, and from which it is larger than BERT-large."""

_SMALLEST = 4e6
"""Parameters of the smallest model that Turc et al. fine-tuned."""

_BEYOND = 10.0
"""A law is followed this far beyond the ends of what it was fitted on, and no further."""

_MIN_STEPS = 200
"""Optimiser steps that a pre-training run has at least, whatever the law for batches says."""

_ROWS_A_BATCH = 8
"""A fine-tuning batch is at most one in so many of the rows."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is to be trained, on how much data, and how."""

    mode: Mode
    """All weights (`full`), an adapter (`lora`), or a new model (`pretrain`)."""
    num_parameters: float
    """Of the model; for pre-training without the embedding."""
    kind: Literal["encoder", "decoder"] = "decoder"
    """Whether the pre-trained model is like BERT or like GPT; for fine-tuning."""
    width: int | None = None
    """Of the model's residual stream, where it is known; for fine-tuning."""
    family: str | None = None
    """`llama`, `qwen`, or another's name; for fine-tuning."""
    num_rows: int | None = None
    """Training rows, for fine-tuning."""
    num_tokens: float | None = None
    """Tokens that a run trains on, for pre-training."""
    context: int = 2048
    """Tokens of a training sequence, for pre-training."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"mode = {self.mode!r} is not known. {nearest(str(self.mode), MODES)}")
        size = ("num_tokens", self.num_tokens) if self.mode == "pretrain" else ("num_rows", self.num_rows)
        if size[1] is None:
            what = "tokens that a run trains on" if self.mode == "pretrain" else "training rows"
            raise ConfigError(f"mode = {self.mode!r} needs the number of {what}")
        counts = {"num_parameters": self.num_parameters, size[0]: size[1], "context": self.context}
        for name, value in (counts | ({} if self.width is None else {"width": self.width})).items():
            if not (value >= 1 and math.isfinite(value)):
                raise ConfigError(f"{name} = {value:g} must be at least 1 and finite")


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One hyperparameter: what to search or to fix, and why."""

    name: str
    entry: Dimension | Value
    """A dimension, or a fixed value."""
    why: str
    """The rule, with the numbers of this case."""
    source: str


def suggest(subject: Subject) -> list[Suggestion]:
    """What to search for a subject, and what to fix.

    Returns:
        The most important first.
    """
    if subject.mode == "pretrain":
        return _pretrain(subject)
    epochs = _epochs(subject)
    batch = _batch_of_rows(subject)
    num_steps = _typical(epochs) * (subject.num_rows or 0) / _typical(batch)
    lr = _lora_lr(subject, num_steps) if subject.mode == "lora" else _full_lr(subject)
    if subject.mode == "lora":
        return [lr, batch, epochs, *_adapter(subject), _unused_decay(), *_course(subject)]
    return [lr, batch, epochs, _weak_decay(_typical(lr), num_steps), *_course(subject)]


def as_space(suggestions: Sequence[Suggestion]) -> Space:
    """The space that suggestions make."""
    return Space.parse({found.name: found.entry for found in suggestions})


def as_toml(suggestions: Sequence[Suggestion]) -> str:
    """A table `[space]` for a study file, each entry under a comment that says why and from where."""
    space = as_space(suggestions).to_dict()
    lines = ["[space]"]
    for found in suggestions:
        lines += textwrap.wrap(f"{found.why} Source: {found.source}.", 118, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"{found.name} = {_toml(space[found.name])}")
    return "\n".join(lines) + "\n"


def _full_lr(subject: Subject) -> Suggestion:
    if subject.kind == "encoder":
        return _encoder_lr(subject)
    if subject.width is None:
        why = "Where the model's width is not known: what TRL's SFTTrainer has by default."
        return _found("lr", _around(2e-5, "low"), why, "TRL, SFTConfig")
    prior, exponent, confidence = _by_width(subject)
    why = (
        f"5e-5 · (2000 / width)^{exponent:g} at width {subject.width:,}, a tenth of the rule for LoRA."
        f"{_of_family(subject)} Published SFT rates are 5e-6 to 2e-5 for models of 7B and more."
    )
    return _found("lr", _around(prior / laws.LORA_FACTOR, confidence), why, _NO_REGRET)


def _encoder_lr(subject: Subject) -> Suggestion:
    size = subject.num_parameters
    if size < _SMALL:
        why = (
            f"The middle, by ratios, of the published grid for BERTs of 4M to 110M parameters: 3e-5, 5e-5, 1e-4, 3e-4"
            f" (this model has {_count(size)})."
        )
        prior = (3e-5 * 5e-5 * 1e-4 * 3e-4) ** 0.25
        confidence: Confidence = "medium" if size >= _SMALLEST else "low"
        return _found("lr", _log(1e-5, 5e-4, prior, confidence), why, _SMALL_BERT)
    if size <= _LARGE:
        why = "Within the published grid for BERT-base and BERT-large: 2e-5, 3e-5, 4e-5, 5e-5."
        return _found("lr", _log(5e-6, 2e-4, 3e-5, "high"), why, _BERT)
    why = (
        f"The largest encoder with a published grid, 1e-5 to 3e-5, has 355M parameters; this model has {_count(size)}."
    )
    return _found("lr", _log(1e-6, 1e-4, 1e-5, "low"), why, _ROBERTA)


def _lora_lr(subject: Subject, num_steps: float) -> Suggestion:
    is_short = num_steps < laws.LORA_SHORT_STEPS
    factor = laws.LORA_FACTOR_SHORT if is_short else laws.LORA_FACTOR
    short = f" Runs of less than {laws.LORA_SHORT_STEPS} steps take 15 times instead of 10 times." if is_short else ""
    if subject.kind == "encoder" or subject.width is None:
        full = _typical(_full_lr(subject))
        why = f"{factor:g} times the rate for training all weights, {full:.2g}, whatever the rank.{short}"
        return _found("lr", _around(factor * full, "low"), why, _NO_REGRET)
    prior, exponent, confidence = _by_width(subject)
    why = (
        f"5e-5 · 10 · (2000 / width)^{exponent:g} at width {subject.width:,}, whatever the rank.{short}"
        f"{_of_family(subject)} Published LoRA recipes have 1e-4 to 3e-4."
    )
    return _found("lr", _around(prior * factor / laws.LORA_FACTOR, confidence), why, _NO_REGRET)


def _by_width(subject: Subject) -> tuple[float, float, Confidence]:
    """A LoRA adapter's rate, the exponent that it comes from, and how much it is believed."""
    assert subject.width is not None
    low, high = laws.TINKER_WIDTHS
    exponent = laws.TINKER_EXPONENTS.get(subject.family or "", laws.TINKER_EXPONENTS["llama"])
    within = low <= subject.width <= high and subject.family in laws.TINKER_EXPONENTS
    width = round(min(max(subject.width, low / _BEYOND), high * _BEYOND))
    return laws.tinker_lora_lr(width, exponent), exponent, "medium" if within else "low"


def _of_family(subject: Subject) -> str:
    assert subject.width is not None
    low, high = laws.TINKER_WIDTHS
    parts = []
    if subject.family not in laws.TINKER_EXPONENTS:
        parts.append("the exponent is Llama's, as there is none for this family")
    if not low <= subject.width <= high:
        parts.append(f"the rule is known for widths of {low:,} to {high:,}")
    return f" Low confidence: {'; '.join(parts)}." if parts else ""


def _batch_of_rows(subject: Subject) -> Suggestion:
    assert subject.num_rows is not None
    most = max(1, subject.num_rows // _ROWS_A_BATCH)
    usual = [8, 16, 32]
    if most >= usual[-1]:
        why = (
            "Batches of 16 and 32 are BERT's grid; 8 is Hugging Face's default."
            if subject.mode == "full"
            else "A LoRA adapter loses more than full training does in large batches: stay at 32 or below."
        )
        options, prior = usual, 16
    else:
        options = [size for size in (1, 2, 4, *usual) if size <= most][-3:]
        prior = options[-1]
        why = f"At most one in {_ROWS_A_BATCH} of {subject.num_rows:,} rows, so that an epoch has several steps."
    source = _OURS if most < usual[-1] else _BERT if subject.mode == "full" else _NO_REGRET
    return _found("batch_size", _options(options, prior, "medium"), why, source)


def _epochs(subject: Subject) -> Suggestion:
    rows = subject.num_rows or 0
    if subject.kind == "encoder":
        table = (
            (1_000, 3, 20, 10, "Small data take up to 20 epochs to train stably.", _STABLE),
            (10_000, 2, 10, 5, "10 epochs are published for RTE's 2,490 rows, 2 to 4 for larger data.", _ROBERTA),
            (100_000, 2, 4, 3, "The published grid: 2, 3, 4.", _BERT),
            (math.inf, 1, 3, 2, "The published grid is 2, 3, 4; with so many rows fewer do.", _BERT),
        )
    else:
        table = (
            (1_000, 2, 10, 5, "Small data are passed more often; 10 epochs are the most that is published.", _OURS),
            (10_000, 1, 5, 3, "Alpaca-LoRA has 3, litgpt 2; gains saturate near 6,500 rows.", _OLIVER),
            (100_000, 1, 3, 2, "Published recipes have 2 (litgpt, DeepSeek-V2) or 3 (Alpaca-LoRA).", _RECIPES),
            (math.inf, 1, 2, 1, "With so many rows one pass or two do.", _OURS),
        )
    _, low, high, prior, why, source = next(row for row in table if rows < row[0])
    confidence: Confidence = "medium" if 10_000 <= rows < 100_000 else "low"
    entry = Integer(low, high, log=high > 5 * low, prior=prior, confidence=confidence)
    return _found("epochs", entry, f"{why} There are {rows:,} rows here.", source)


def _adapter(subject: Subject) -> list[Suggestion]:
    found = [
        _found(
            "lora_r",
            _options([8, 16, 32, 64], 16, "low"),
            "With the scale alpha / r the best learning rate hardly depends on the rank; more rank holds more data.",
            _NO_REGRET,
        ),
        _found("lora_alpha", 32.0, "Fixed: the rule for the learning rate is for alpha = 32.", _NO_REGRET),
    ]
    if (subject.num_rows or 0) < 10_000:
        entry = Float(0.0, 0.1, prior=0.05, confidence="low")
        why = "0.05 in Alpaca-LoRA, Axolotl and litgpt, 0 in PEFT and torchtune; few rows are soon known by heart."
        return [*found, _found("lora_dropout", entry, why, _ADAPTERS)]
    why = "0 in PEFT and torchtune: with this many rows an adapter does not need it."
    return [*found, _found("lora_dropout", 0.0, why, _ADAPTERS)]


def _unused_decay() -> Suggestion:
    return _found("weight_decay", 0.0, "Fixed: an adapter begins at zero and stays small.", _QLORA)


def _weak_decay(lr: float, num_steps: float) -> Suggestion:
    share = laws.timescale(lr=lr, weight_decay=0.01, num_steps=max(num_steps, 1.0))
    why = (
        f"BERT's. Fixed, as it hardly acts: its timescale, 1 / (lr · weight decay), is {share:,.0f} times as long as a"
        " run of the suggested settings."
    )
    return _found("weight_decay", 0.01, why, f"{_BERT}; {_TIMESCALE}")


def _course(subject: Subject) -> list[Suggestion]:
    if subject.kind == "encoder":
        return [
            _found("schedule", "linear", "As BERT and RoBERTa are fine-tuned.", f"{_BERT}; {_ROBERTA}"),
            _found("warmup", 0.06, "A share of the run: RoBERTa's 6%.", _ROBERTA),
        ]
    recipes = "LLaMA-Factory, Axolotl and torchtune, their recipes for Llama 3"
    return [
        _found("schedule", "cosine", "As most recipes for language models have it.", recipes),
        _found("warmup", 0.03, "A share of the run: QLoRA's 3%.", _QLORA),
    ]


def _pretrain(subject: Subject) -> list[Suggestion]:
    assert subject.num_tokens is not None
    size = _within(subject.num_parameters, laws.STEP_LAW_PARAMETERS)
    length = _within(subject.num_tokens, laws.STEP_LAW_TOKENS)
    outside = _outside(subject)
    confidence: Confidence = "low" if outside else "high"
    lr = laws.step_law_lr(size, length)
    used = f"N = {_count(size)}, D = {_count(length)}"
    why = f"1.79 N^-0.713 D^0.307 at {used}.{outside} In their runs the rate ended at 1e-5, not at 0."
    batch = _batch_of_sequences(subject, length)
    num_steps = subject.num_tokens / (_typical(batch) * subject.context)
    return [
        _found("lr", _around(lr, confidence), why, _STEP_LAW),
        batch,
        _decay_by_timescale(subject, lr, num_steps, "low" if outside else "medium"),
        _found(
            "warmup",
            _log(0.005, 0.1, 0.02, "medium"),
            "A share of the run: 0.3% to 1% in published runs of 300B tokens and more; short runs take a larger one.",
            "nanoGPT, Llama 2 (arXiv:2307.09288), Pythia (arXiv:2304.01373)",
        ),
        _found("schedule", "wsd", "As good as cosine at every length, and a run can be made longer.", _WSD),
        _found("decay", 0.2, "A share of the run: with 10% to 20% the end is as good as cosine's.", _WSD),
        _found("tokens", round(subject.num_tokens), "What a run is given.", "your data or budget"),
    ]


def _batch_of_sequences(subject: Subject, length: float) -> Suggestion:
    assert subject.num_tokens is not None
    outside = _outside(subject, "D")
    law = laws.step_law_batch(length)
    most = max(1.0, subject.num_tokens / (_MIN_STEPS * subject.context))
    wanted = law / subject.context
    middle = math.log2(min(max(wanted, 1.0), most))
    near = sorted({2 ** max(0, math.floor(middle) + step) for step in (-1, 0, 1)})
    options = [number for number in near if number <= most]
    prior = min(options, key=lambda number: abs(math.log2(number) - middle))
    why = f"0.58 D^0.571 = {law:,.0f} tokens at D = {_count(length)}, in sequences of {subject.context:,}.{outside}"
    if wanted > most:
        why += f" Cut to {_MIN_STEPS} steps a run."
    confidence: Confidence = "low" if outside or wanted > most else "high"
    source = f"{_STEP_LAW}; {_OURS}" if wanted > most else _STEP_LAW
    return _found("batch_size", _options(options, prior, confidence), why, source)


def _decay_by_timescale(subject: Subject, lr: float, num_steps: float, confidence: Confidence) -> Suggestion:
    assert subject.num_tokens is not None
    ratio = subject.num_tokens / subject.num_parameters
    share = laws.power_lines_timescale(ratio)
    found = laws.weight_decay_for(share, lr=lr, num_steps=max(num_steps, 1.0))
    low, high = 0.01, 1.0
    why = (
        f"{found:.2g} makes AdamW's timescale, at the learning rate and batch above, 1.084 (D / N)^-0.527 = {share:.3g} of"
        f" the run, at {ratio:,.3g} tokens a parameter."
    )
    prior = min(max(found, low), high)
    if prior != found:
        why += f" Held to {prior:g}: published runs have 0.01 to 0.3."
        confidence = "low"
    return _found("weight_decay", _log(low, high, prior, confidence), why, f"{_POWER_LINES}; {_TIMESCALE}")


def _within(value: float, fitted: tuple[float, float]) -> float:
    return min(max(value, fitted[0] / _BEYOND), fitted[1] * _BEYOND)


def _outside(subject: Subject, names: str = "ND") -> str:
    """What lies outside of what the Step Law was fitted on, in words; empty where nothing does."""
    assert subject.num_tokens is not None
    checks = (
        ("N", subject.num_parameters, laws.STEP_LAW_PARAMETERS),
        ("D", subject.num_tokens, laws.STEP_LAW_TOKENS),
    )
    parts = []
    for name, value, (low, high) in checks:
        if name in names and not low <= value <= high:
            held = _within(value, (low, high))
            parts.append(
                f"{name} = {_count(value)} is outside of the fitted {_count(low)} to {_count(high)}"
                + (f", of which {_count(held)} is ten times beyond" if held != value else "")
            )
    return f" Low confidence: {'; '.join(parts)}." if parts else ""


def _found(name: str, entry: Dimension | Value, why: str, source: str) -> Suggestion:
    return Suggestion(name=name, entry=entry, why=why, source=source)


def _around(prior: float, confidence: Confidence) -> Float:
    """A tenth to ten times of a prior."""
    return _log(prior / 10, prior * 10, prior, confidence)


def _log(low: float, high: float, prior: float, confidence: Confidence) -> Float:
    # The ends are rounded outwards enough not to matter: a prior is a few times away from them.
    return Float(_rounded(low, 2), _rounded(high, 2), log=True, prior=_rounded(prior, 3), confidence=confidence)


def _options(options: Sequence[int], prior: int, confidence: Confidence) -> Choice | int:
    return Choice(tuple(options), prior=prior, confidence=confidence) if len(options) > 1 else options[0]


def _typical(found: Suggestion) -> float:
    """The prior, or the fixed value."""
    value = found.entry.prior if isinstance(found.entry, Float | Integer | Choice) else found.entry
    assert isinstance(value, int | float)
    return float(value)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _count(value: float) -> str:
    """A large number for a person: 59.3M."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def _toml(entry: object) -> str:
    if isinstance(entry, dict):
        return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in entry.items()) + " }"
    # JSON's strings, lists, numbers and booleans are TOML's.
    return json.dumps(entry)
