"""Adam with weight decay in its three forms, and what a decay means over a run.

With a weight w, its gradient g, the learning rate lr of the step and peak_lr of the run, and Adam's update
u(g) = m_hat / (sqrt(v_hat) + epsilon), where m and v average g and g*g:

    l2            w <- w - lr * u(g + weight_decay * w)               the decay passes through Adam's moments
    decoupled     w <- w - lr * u(g) - lr * weight_decay * w          AdamW as in PyTorch and Hugging Face
    independent   w <- w - lr * u(g) - lr / peak_lr * weight_decay * w

So a decoupled decay of 0.1 at a peak of 3e-4 is an independent one of 3e-5: numbers do not carry over from one form to
another. With `l2` a weight with large gradients hardly decays, since Adam divides the decay by their size too.

Sources: Loshchilov & Hutter 2019, arXiv:1711.05101 (l2 against decoupled); MosaicML Composer's `DecoupledAdamW`
(independent).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from thalweg.errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch

WeightDecayKind = Literal["decoupled", "l2", "independent"]

KINDS: tuple[WeightDecayKind, ...] = get_args(WeightDecayKind)


def adam(
    groups: Iterable[Mapping[str, Any]],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay_kind: WeightDecayKind = "decoupled",
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Make torch's Adam or AdamW with this form of weight decay.

    The learning rate may change afterwards, in `param_groups`, as schedules do: an independent decay stays relative to
    the peak that is given here. All three forms have the same state (`exp_avg`, `exp_avg_sq`, `step`): moments of one
    go on in another. Load the moments only (`state`, with the new optimiser's own `param_groups`): torch keeps the
    learning rate, the decay and its form in `param_groups`, and loading those brings the old ones back.

    Args:
        groups: as `parameter_groups` makes them: `params` and `weight_decay`. A group may have its own peak `lr`.
        lr: peak learning rate of the groups without their own.
        fused: torch's fused kernel, on CPU and CUDA.
    Raises:
        ConfigError: an unknown form, a learning rate that is not above 0, a weight decay that is negative or missing.
    """
    import torch

    _check_kind(weight_decay_kind)
    own = []
    for group in groups:
        peak = group.get("lr", lr)
        if "weight_decay" not in group:
            raise ConfigError("a parameter group has no weight_decay; make the groups with parameter_groups")
        _check(lr=peak, weight_decay=group["weight_decay"])
        scale = 1 / peak if weight_decay_kind == "independent" else 1.0
        own.append({**group, "weight_decay": group["weight_decay"] * scale})
    make = torch.optim.Adam if weight_decay_kind == "l2" else torch.optim.AdamW
    return make(own, lr=lr, betas=betas, eps=epsilon, fused=fused)


def decay_factor(
    *, lr: float, weight_decay: float, kind: WeightDecayKind = "decoupled", peak_lr: float | None = None
) -> float:
    """What one step multiplies a weight by, apart from its gradient.

    Args:
        lr: learning rate of the step.
        peak_lr: of the run; None where the step is at the peak.
    Raises:
        ConfigError: for `l2`, where it depends on the gradients; or a number out of range.

    >>> decay_factor(lr=3e-4, weight_decay=0.1)
    0.99997
    >>> decay_factor(lr=1e-4, weight_decay=0.03, kind="independent", peak_lr=3e-4)
    0.99
    >>> round(decay_factor(lr=0.1, weight_decay=0.1) ** 3, 6)
    0.970299
    """
    _check_kind(kind)
    peak = lr if peak_lr is None else peak_lr
    _check(lr=peak, weight_decay=weight_decay)
    if not 0 <= lr <= peak:
        raise ConfigError(f"lr = {lr} must be between 0 and the peak, {peak}")
    if kind == "l2":
        raise ConfigError(
            "kind = 'l2' has no fixed decay factor: Adam scales the decay by the gradients; see shrinkage"
        )
    if kind == "decoupled":
        return 1 - lr * weight_decay
    return 1 - weight_decay * lr / peak


def timescale_steps(lr: float, weight_decay: float) -> float:
    """Over how many steps decoupled weight decay averages: a weight is an exponential moving average of its updates.

    Args:
        lr: the peak learning rate; a schedule makes the time scale longer while the rate is lower.
        weight_decay: decoupled; for an independent one pass `weight_decay / lr`.
    Returns:
        1 / (lr * weight_decay); infinite without decay.
    Raises:
        ConfigError: a number out of range.
    Source: Wang & Aitchison 2024, arXiv:2405.13698.

    >>> round(timescale_steps(3e-4, 0.1), 1)
    33333.3
    """
    _check(lr=lr, weight_decay=weight_decay)
    return 1 / (lr * weight_decay) if weight_decay else math.inf


def timescale_fraction(*, lr: float, weight_decay: float, batch_size: float, horizon: float) -> float:
    """The same as a share of the run. The best share depends little on the size of the model.

    Args:
        batch_size, horizon: both in one unit: tokens per step and tokens in all, or samples.
    Returns:
        batch_size / (lr * weight_decay * horizon); infinite without decay.
    Raises:
        ConfigError: a number out of range.
    Source: Wang & Aitchison 2024, arXiv:2405.13698; Bergsma et al. 2025, arXiv:2505.13738, as a share of the run.

    >>> round(timescale_fraction(lr=3e-4, weight_decay=0.1, batch_size=4e6, horizon=2e12), 6)  # Llama 2 7B
    0.066667
    """
    if not 0 < batch_size <= horizon < math.inf:
        raise ConfigError(f"batch_size = {batch_size} and horizon = {horizon} must satisfy 0 < batch_size <= horizon")
    return timescale_steps(lr, weight_decay) * batch_size / horizon


def shrinkage(
    kind: WeightDecayKind,
    *,
    lr: float,
    weight_decay: float,
    gradient_scale: float,
    num_steps: int,
    schedule: Callable[[float], float] = lambda _: 1.0,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How one weight shrinks under Adam when its gradient has a size but no direction: it is +scale, -scale, +scale ...

    Shows the difference between the forms: `decoupled` and `independent` shrink all weights alike, `l2` hardly touches
    a weight with large gradients, and takes the rate's full step each time from one without.

    Args:
        lr: peak learning rate.
        gradient_scale: size of the gradient, at least 0.
        schedule: step -> multiplier of the peak.
    Returns:
        The weight before each step and after the last, `num_steps + 1` values from 1.0 on. Betas are 0.9 and 0.999,
        epsilon 1e-8.
    Raises:
        ConfigError: a number out of range.

    >>> [round(float(w), 6) for w in shrinkage("decoupled", lr=0.1, weight_decay=0.1, gradient_scale=0, num_steps=3)]
    [1.0, 0.99, 0.9801, 0.970299]
    >>> [round(float(w), 6) for w in shrinkage("l2", lr=0.1, weight_decay=0.1, gradient_scale=0, num_steps=1)]
    [1.0, 0.9]
    """
    _check_kind(kind)
    _check(lr=lr, weight_decay=weight_decay)
    if not 0 <= gradient_scale < math.inf or num_steps < 0:
        raise ConfigError(f"gradient_scale = {gradient_scale} and num_steps = {num_steps} must both be at least 0")
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8
    weights = np.ones(num_steps + 1)
    m = v = 0.0
    for step in range(num_steps):
        w, rate = weights[step], lr * schedule(step)
        g = gradient_scale * (-1) ** step
        if kind == "l2":
            g += weight_decay * w
        else:
            w *= decay_factor(lr=rate, weight_decay=weight_decay, kind=kind, peak_lr=lr)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat, v_hat = m / (1 - beta1 ** (step + 1)), v / (1 - beta2 ** (step + 1))
        weights[step + 1] = w - rate * m_hat / (math.sqrt(v_hat) + epsilon)
    return weights


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of weight decay {kind!r}. {nearest(kind, KINDS)}")


def _check(*, lr: float, weight_decay: float) -> None:
    if not 0 < lr < math.inf:
        raise ConfigError(f"lr = {lr} must be a number above 0")
    if not 0 <= weight_decay < math.inf:
        raise ConfigError(f"weight_decay = {weight_decay} must be a number of at least 0")
