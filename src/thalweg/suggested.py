"""The space that is suggested for a trainer: what `thalweg.plan.priors` knows, for the trainer's own model and data.

In a study file (in Python: `space="suggested"`, or a mapping with `"suggested": True`):

    [space]
    suggested = true
    epochs = 3              # what is given here goes before what is suggested
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from thalweg.errors import ConfigError
from thalweg.plan.priors import Mode, Subject, Suggestion, suggest
from thalweg.space import Space
from thalweg.train.hyperparameters import ALIASES
from thalweg.trainer import Trainer

KEY = "suggested"


def is_suggested(spec: object) -> bool:
    """Whether a space asks for suggestions."""
    return spec == KEY or (isinstance(spec, Mapping) and spec.get(KEY) is True)


def read_space(spec: Mapping[str, Any] | Space | str, trainer: Trainer) -> Space:
    """The space that a study file or a call gives, with what is suggested where it asks for that.

    Raises:
        ConfigError: see `Space.parse`; nothing can be suggested for this trainer; or a string that is not "suggested".
    """
    if isinstance(spec, str) and spec != KEY:
        raise ConfigError(f"space = {spec!r} must be a mapping of names to dimensions, or '{KEY}'")
    if isinstance(spec, Space) or not is_suggested(spec):
        assert not isinstance(spec, str)
        return Space.parse(spec)
    own = {} if isinstance(spec, str) else {name: entry for name, entry in spec.items() if name != KEY}
    found = suggest(subject_of(trainer, own))
    return Space.parse({entry.name: entry.entry for entry in without(found, own)} | own)


def without(suggestions: list[Suggestion], own: Mapping[str, Any]) -> list[Suggestion]:
    """The suggestions for what is not given under any of its names."""
    given = {ALIASES.get(name, name) for name in own}
    return [found for found in suggestions if found.name not in given]


def subject_of(trainer: Trainer, own: Mapping[str, Any] | None = None) -> Subject:
    """What a trainer trains, on how much data. Reads its data and the configuration of its model.

    Args:
        own: entries of the space that are given; `tokens` decides the length of a pre-training run, which is one pass
            over the training text otherwise.
    Raises:
        ConfigError: the trainer is not `FineTune` or `Pretrain`, or its data or model cannot be read.
    """
    from thalweg.train.finetune import FineTune
    from thalweg.train.pretrain import Pretrain

    if isinstance(trainer, FineTune):
        mode: Mode = "lora" if trainer.adapter == "lora" else "full"
        subject = subject_of_model(trainer.model, mode, num_rows=trainer.describe()["rows"]["train"])
        return dataclasses.replace(subject, kind="decoder") if trainer.task == "causal" else subject
    if isinstance(trainer, Pretrain):
        given = _longest((own or {}).get("tokens", (own or {}).get("num_tokens")))
        return Subject(
            mode="pretrain",
            num_parameters=trainer.model.num_non_embedding(),
            num_tokens=trainer.describe()["num_tokens"]["train"] if given is None else given,
            context=trainer.model.context,
        )
    raise ConfigError(
        f"space: nothing is suggested for {type(trainer).__name__}, as its model and hyperparameters are its own;"
        " give the dimensions, such as lr = { log = [1e-6, 1e-3] }, or see 'thalweg space suggest --help'"
    )


def subject_of_model(
    model: str,
    mode: Mode,
    *,
    num_rows: int | None = None,
    num_tokens: float | None = None,
    context: int | None = None,
) -> Subject:
    """What is known of a model from its configuration; its weights are not loaded.

    Args:
        model: as `FineTune.model`: a hub id, a local folder, a GGUF file, `package:NAME/path`.
    Raises:
        ConfigError: it cannot be read, or the amount of data that the mode needs is missing.
    """
    from thalweg.train.model import skeleton
    from thalweg.train.sizes import measure

    try:
        made = skeleton(model, "classification", 2)
    except ConfigError:
        # Some decoders cannot classify; if it is not that, the reason is given here.
        made = skeleton(model, "causal", 0)
    config = made.config.get_text_config()
    architectures = made.config.architectures or []
    num_parameters = measure(made).num_parameters
    if mode == "pretrain":
        num_parameters -= made.get_input_embeddings().weight.numel()
    return Subject(
        mode=mode,
        num_parameters=num_parameters,
        kind="decoder" if any("CausalLM" in name or "LMHead" in name for name in architectures) else "encoder",
        width=config.hidden_size,
        family=next((name for name in ("llama", "qwen") if config.model_type.startswith(name)), config.model_type),
        num_rows=num_rows,
        num_tokens=num_tokens,
        context=context or min(getattr(config, "max_position_embeddings", None) or 2048, 2048),
    )


def _longest(entry: Any) -> float | None:
    """The most of what one entry of a space stands for, where that is a number."""
    if entry is None:
        return None
    space = Space.parse({"tokens": entry, "lr": {"log": [1e-6, 1e-3]}})
    value = space.fixed.get("tokens")
    if value is None:
        value = max(space.dimensions["tokens"].grid(2), key=lambda number: number if isinstance(number, int) else 0)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
