"""Priors for fine-tuning: published grids and recipes, and the rule for LoRA's learning rate."""

from __future__ import annotations

import math

from thalweg.plan import tuning_laws as laws
from thalweg.plan.suggestion import BEYOND, Subject, Suggestion, around, in_words, log_scale, options_of, typical
from thalweg.space import Confidence, Float, Integer

_BERT = "Devlin et al. 2019 (BERT), arXiv:1810.04805, appendix A.3"
_ROBERTA = "Liu et al. 2019 (RoBERTa), fairseq README.glue"
_SMALL_BERT = "Turc et al. 2019, arXiv:1908.08962, google-research/bert README"
_STABLE = "Mosbach et al. 2021, arXiv:2006.04884"
_NO_REGRET = "Schulman and Thinking Machines 2025 (LoRA Without Regret), tinker-cookbook"
_TIMESCALE = "Wang and Aitchison 2024, arXiv:2405.13698"
_QLORA = "Dettmers et al. 2023 (QLoRA), arXiv:2305.14314"
_OLIVER = "Oliver and Wang 2024, arXiv:2407.13906"
_RECIPES = "the recipes of litgpt (Llama-3-8B) and of DeepSeek-V2, arXiv:2405.04434"
_ADAPTERS = "the recipes of Alpaca-LoRA, Axolotl, litgpt, PEFT and torchtune"
_OURS = "a rule of this library's own"

_SMALL, _LARGE = 1e8, 4e8
"""Parameters up to which an encoder is smaller than BERT-base, and from which it is larger than BERT-large."""

_SMALLEST = 4e6
"""Parameters of the smallest model that Turc et al. fine-tuned."""

_ROWS_A_BATCH = 8
"""A fine-tuning batch is at most one in so many of the rows."""


def for_finetuning(subject: Subject) -> list[Suggestion]:
    """What to search and to fix for fine-tuning, of all weights or of an adapter; the most important first."""
    epochs = _epochs(subject)
    batch = _batch_of_rows(subject)
    num_steps = typical(epochs) * (subject.num_rows or 0) / typical(batch)
    lr = _lora_lr(subject, num_steps) if subject.mode == "lora" else _full_lr(subject)
    if subject.mode == "lora":
        return [lr, batch, epochs, *_adapter(subject), _unused_decay(), *_course(subject)]
    return [lr, batch, epochs, _weak_decay(typical(lr), num_steps), *_course(subject)]


def _full_lr(subject: Subject) -> Suggestion:
    if subject.kind == "encoder":
        return _encoder_lr(subject)
    if subject.width is None:
        why = "Where the model's width is not known: what TRL's SFTTrainer has by default."
        return Suggestion("lr", around(2e-5, "low"), why, "TRL, SFTConfig")
    prior, exponent, confidence = _by_width(subject)
    why = (
        f"5e-5 · (2000 / width)^{exponent:g} at width {subject.width:,}, a tenth of the rule for LoRA."
        f"{_of_family(subject)} Published SFT rates are 5e-6 to 2e-5 for models of 7B and more."
    )
    return Suggestion("lr", around(prior / laws.LORA_FACTOR, confidence), why, _NO_REGRET)


def _encoder_lr(subject: Subject) -> Suggestion:
    size = subject.num_parameters
    if size < _SMALL:
        why = (
            f"The middle, by ratios, of the published grid for BERTs of 4M to 110M parameters: 3e-5, 5e-5, 1e-4, 3e-4"
            f" (this model has {in_words(size)})."
        )
        prior = (3e-5 * 5e-5 * 1e-4 * 3e-4) ** 0.25
        confidence: Confidence = "medium" if size >= _SMALLEST else "low"
        return Suggestion("lr", log_scale(1e-5, 5e-4, prior, confidence), why, _SMALL_BERT)
    if size <= _LARGE:
        why = "Within the published grid for BERT-base and BERT-large: 2e-5, 3e-5, 4e-5, 5e-5."
        return Suggestion("lr", log_scale(5e-6, 2e-4, 3e-5, "high"), why, _BERT)
    why = (
        "The largest encoder with a published grid, 1e-5 to 3e-5, has 355M parameters;"
        f" this model has {in_words(size)}."
    )
    return Suggestion("lr", log_scale(1e-6, 1e-4, 1e-5, "low"), why, _ROBERTA)


def _lora_lr(subject: Subject, num_steps: float) -> Suggestion:
    is_short = num_steps < laws.LORA_SHORT_STEPS
    factor = laws.LORA_FACTOR_SHORT if is_short else laws.LORA_FACTOR
    short = f" Runs of less than {laws.LORA_SHORT_STEPS} steps take 15 times instead of 10 times." if is_short else ""
    if subject.kind == "encoder" or subject.width is None:
        full = typical(_full_lr(subject))
        why = f"{factor:g} times the rate for training all weights, {full:.2g}, whatever the rank.{short}"
        return Suggestion("lr", around(factor * full, "low"), why, _NO_REGRET)
    prior, exponent, confidence = _by_width(subject)
    why = (
        f"5e-5 · 10 · (2000 / width)^{exponent:g} at width {subject.width:,}, whatever the rank.{short}"
        f"{_of_family(subject)} Published LoRA recipes have 1e-4 to 3e-4."
    )
    return Suggestion("lr", around(prior * factor / laws.LORA_FACTOR, confidence), why, _NO_REGRET)


def _by_width(subject: Subject) -> tuple[float, float, Confidence]:
    """A LoRA adapter's rate, the exponent that it comes from, and how much it is believed."""
    assert subject.width is not None
    low, high = laws.TINKER_WIDTHS
    exponent = laws.TINKER_EXPONENTS.get(subject.family or "", laws.TINKER_EXPONENTS["llama"])
    within = low <= subject.width <= high and subject.family in laws.TINKER_EXPONENTS
    width = round(min(max(subject.width, low / BEYOND), high * BEYOND))
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
    return Suggestion("batch_size", options_of(options, prior, "medium"), why, source)


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
    return Suggestion("epochs", entry, f"{why} There are {rows:,} rows here.", source)


def _adapter(subject: Subject) -> list[Suggestion]:
    found = [
        Suggestion(
            "lora_r",
            options_of([8, 16, 32, 64], 16, "low"),
            "With the scale alpha / r the best learning rate hardly depends on the rank; more rank holds more data.",
            _NO_REGRET,
        ),
        Suggestion("lora_alpha", 32.0, "Fixed: the rule for the learning rate is for alpha = 32.", _NO_REGRET),
    ]
    if (subject.num_rows or 0) < 10_000:
        entry = Float(0.0, 0.1, prior=0.05, confidence="low")
        why = "0.05 in Alpaca-LoRA, Axolotl and litgpt, 0 in PEFT and torchtune; few rows are soon known by heart."
        return [*found, Suggestion("lora_dropout", entry, why, _ADAPTERS)]
    why = "0 in PEFT and torchtune: with this many rows an adapter does not need it."
    return [*found, Suggestion("lora_dropout", 0.0, why, _ADAPTERS)]


def _unused_decay() -> Suggestion:
    return Suggestion("weight_decay", 0.0, "Fixed: an adapter begins at zero and stays small.", _QLORA)


def _weak_decay(lr: float, num_steps: float) -> Suggestion:
    share = laws.timescale(lr=lr, weight_decay=0.01, num_steps=max(num_steps, 1.0))
    why = (
        f"BERT's. Fixed, as it hardly acts: its timescale, 1 / (lr · weight decay), is {share:,.0f} times as long as a"
        " run of the suggested settings."
    )
    return Suggestion("weight_decay", 0.01, why, f"{_BERT}; {_TIMESCALE}")


def _course(subject: Subject) -> list[Suggestion]:
    if subject.kind == "encoder":
        return [
            Suggestion("schedule", "linear", "As BERT and RoBERTa are fine-tuned.", f"{_BERT}; {_ROBERTA}"),
            Suggestion("warmup", 0.06, "A share of the run: RoBERTa's 6%.", _ROBERTA),
        ]
    recipes = "LLaMA-Factory, Axolotl and torchtune, their recipes for Llama 3"
    return [
        Suggestion("schedule", "cosine", "As most recipes for language models have it.", recipes),
        Suggestion("warmup", 0.03, "A share of the run: QLoRA's 3%.", _QLORA),
    ]
