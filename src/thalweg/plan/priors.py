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
import textwrap
from collections.abc import Sequence

from thalweg.plan.finetune_priors import for_finetuning
from thalweg.plan.pretrain_priors import for_pretraining
from thalweg.plan.suggestion import MODES, Mode, Subject, Suggestion
from thalweg.space import Space

__all__ = ["MODES", "Mode", "Subject", "Suggestion", "as_space", "as_toml", "suggest"]


def suggest(subject: Subject) -> list[Suggestion]:
    """What to search for a subject, and what to fix.

    Returns:
        The most important first.
    """
    return for_pretraining(subject) if subject.mode == "pretrain" else for_finetuning(subject)


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


def _toml(entry: object) -> str:
    if isinstance(entry, dict):
        return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in entry.items()) + " }"
    # JSON's strings, lists, numbers and booleans are TOML's.
    return json.dumps(entry)
