"""Priors for pre-training: the Step Law, and weight decay by AdamW's timescale."""

from __future__ import annotations

import math

from thalweg.plan import tuning_laws as laws
from thalweg.plan.suggestion import Subject, Suggestion, around, in_words, log_scale, options_of, typical, within
from thalweg.space import Confidence

_STEP_LAW = "Li et al. 2025 (Step Law), arXiv:2503.04715"
_POWER_LINES = "Bergsma et al. 2025 (Power Lines), arXiv:2505.13738"
_TIMESCALE = "Wang and Aitchison 2024, arXiv:2405.13698"
_WSD = "Hu et al. 2024 (MiniCPM), arXiv:2404.06395; Hägele et al. 2024, arXiv:2405.18392"
_OURS = "a rule of this library's own"

_MIN_STEPS = 200
"""Optimiser steps that a pre-training run has at least, whatever the law for batches says."""


def for_pretraining(subject: Subject) -> list[Suggestion]:
    """What to search and to fix for pre-training; the most important first."""
    assert subject.num_tokens is not None
    size = within(subject.num_parameters, laws.STEP_LAW_PARAMETERS)
    length = within(subject.num_tokens, laws.STEP_LAW_TOKENS)
    outside = _outside(subject)
    confidence: Confidence = "low" if outside else "high"
    lr = laws.step_law_lr(size, length)
    used = f"N = {in_words(size)}, D = {in_words(length)}"
    why = f"1.79 N^-0.713 D^0.307 at {used}.{outside} In their runs the rate ended at 1e-5, not at 0."
    batch = _batch_of_sequences(subject, length)
    num_steps = subject.num_tokens / (typical(batch) * subject.context)
    return [
        Suggestion("lr", around(lr, confidence), why, _STEP_LAW),
        batch,
        _decay_by_timescale(subject, lr, num_steps, "low" if outside else "medium"),
        Suggestion(
            "warmup",
            log_scale(0.005, 0.1, 0.02, "medium"),
            "A share of the run: 0.3% to 1% in published runs of 300B tokens and more; short runs take a larger one.",
            "nanoGPT, Llama 2 (arXiv:2307.09288), Pythia (arXiv:2304.01373)",
        ),
        Suggestion("schedule", "wsd", "As good as cosine at every length, and a run can be made longer.", _WSD),
        Suggestion("decay", 0.2, "A share of the run: with 10% to 20% the end is as good as cosine's.", _WSD),
        Suggestion("tokens", round(subject.num_tokens), "What a run is given.", "your data or budget"),
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
    why = f"0.58 D^0.571 = {law:,.0f} tokens at D = {in_words(length)}, in sequences of {subject.context:,}.{outside}"
    if wanted > most:
        why += f" Cut to {_MIN_STEPS} steps a run."
    confidence: Confidence = "low" if outside or wanted > most else "high"
    source = f"{_STEP_LAW}; {_OURS}" if wanted > most else _STEP_LAW
    return Suggestion("batch_size", options_of(options, prior, confidence), why, source)


def _decay_by_timescale(subject: Subject, lr: float, num_steps: float, confidence: Confidence) -> Suggestion:
    assert subject.num_tokens is not None
    ratio = subject.num_tokens / subject.num_parameters
    share = laws.power_lines_timescale(ratio)
    found = laws.weight_decay_for(share, lr=lr, num_steps=max(num_steps, 1.0))
    low, high = 0.01, 1.0
    why = (
        f"{found:.2g} makes AdamW's timescale, at the learning rate and batch above, 1.084 (D / N)^-0.527 ="
        f" {share:.3g} of the run, at {ratio:,.3g} tokens a parameter."
    )
    prior = min(max(found, low), high)
    if prior != found:
        why += f" Held to {prior:g}: published runs have 0.01 to 0.3."
        confidence = "low"
    return Suggestion("weight_decay", log_scale(low, high, prior, confidence), why, f"{_POWER_LINES}; {_TIMESCALE}")


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
            held = within(value, (low, high))
            parts.append(
                f"{name} = {in_words(value)} is outside of the fitted {in_words(low)} to {in_words(high)}"
                + (f", of which {in_words(held)} is ten times beyond" if held != value else "")
            )
    return f" Low confidence: {'; '.join(parts)}." if parts else ""
