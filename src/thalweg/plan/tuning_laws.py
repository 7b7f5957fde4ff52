"""Published laws for learning rate, batch size and weight decay, as pure functions."""

from __future__ import annotations

from thalweg.errors import ConfigError

STEP_LAW_PARAMETERS = (6e7, 1e9)
"""Model sizes that the Step Law was fitted on, without the embedding."""

STEP_LAW_TOKENS = (2e9, 1e11)
"""Training lengths that it was fitted on."""

TINKER_WIDTHS = (2048, 8192)
"""Hidden widths for which the authors publish their rule's rates."""

TINKER_EXPONENTS = {"llama": 0.781, "qwen": 0.0775}
"""By family of models."""

LORA_FACTOR = 10.0
"""A LoRA adapter's best learning rate over that of training all weights."""

LORA_FACTOR_SHORT = 15.0
"""The same for runs of less than `LORA_SHORT_STEPS` steps."""

LORA_SHORT_STEPS = 100


def step_law_lr(num_parameters: float, num_tokens: float) -> float:
    """The best peak learning rate of pre-training: 1.79 N^-0.713 D^0.307.

    Args:
        num_parameters: N, without the embedding.
        num_tokens: D, trained on in all.
    Raises:
        ConfigError: one of them is not above zero.
    Source: Li et al. 2025 (Step Law), arXiv:2503.04715. The rate fell to 1e-5 in all their runs.

    >>> f"{step_law_lr(7e9, 1.4e12):.5e}"
    '9.16557e-04'
    """
    _check(num_parameters=num_parameters, num_tokens=num_tokens)
    return float(1.79 * num_parameters**-0.713 * num_tokens**0.307)


def step_law_batch(num_tokens: float) -> float:
    """The best batch size of pre-training in tokens: 0.58 D^0.571, whatever the model's size.

    Args:
        num_tokens: D, trained on in all.
    Raises:
        ConfigError: it is not above zero.
    Source: Li et al. 2025 (Step Law), arXiv:2503.04715.

    >>> round(step_law_batch(1.4e12))
    4998815
    """
    _check(num_tokens=num_tokens)
    return float(0.58 * num_tokens**0.571)


def tinker_lora_lr(width: int, exponent: float = TINKER_EXPONENTS["llama"]) -> float:
    """The best learning rate of a LoRA adapter with alpha 32 and scale alpha / r: 5e-5 · 10 · (2000 / width)^exponent.

    A tenth of it is the rule for training all weights. The rank does not matter.

    Args:
        width: of the model's residual stream.
        exponent: one of `TINKER_EXPONENTS`.
    Raises:
        ConfigError: the width is not above zero.
    Source: Schulman and Thinking Machines 2025 (LoRA Without Regret), and their tinker-cookbook.

    >>> f"{tinker_lora_lr(4096):.4e}"
    '2.8564e-04'
    """
    _check(width=width)
    return float(5e-5 * LORA_FACTOR * (2000 / width) ** exponent)


def power_lines_timescale(tokens_per_parameter: float) -> float:
    """The best timescale of AdamW as a share of a pre-training run: 1.084 (D / N)^-0.527.

    Raises:
        ConfigError: the ratio is not above zero.
    Source: Bergsma et al. 2025 (Power Lines), arXiv:2505.13738.

    >>> round(power_lines_timescale(1.0), 3)
    1.084
    """
    _check(tokens_per_parameter=tokens_per_parameter)
    return float(1.084 * tokens_per_parameter**-0.527)


def timescale(*, lr: float, weight_decay: float, num_steps: float) -> float:
    """How long AdamW remembers updates, 1 / (lr · weight decay) steps, as a share of a run.

    Raises:
        ConfigError: one of them is not above zero.
    Source: Wang and Aitchison 2024, arXiv:2405.13698.

    >>> round(timescale(lr=3e-4, weight_decay=0.1, num_steps=500_000), 6)  # Llama 2: 2T tokens in batches of 4M
    0.066667
    """
    _check(lr=lr, weight_decay=weight_decay, num_steps=num_steps)
    return 1 / (lr * weight_decay * num_steps)


def weight_decay_for(share: float, *, lr: float, num_steps: float) -> float:
    """The weight decay that gives a run this timescale, the inverse of `timescale`.

    Raises:
        ConfigError: one of them is not above zero.

    >>> round(weight_decay_for(0.066667, lr=3e-4, num_steps=500_000), 4)
    0.1
    """
    _check(share=share, lr=lr, num_steps=num_steps)
    return 1 / (lr * share * num_steps)


def _check(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{name} = {value:g} must be above zero")
