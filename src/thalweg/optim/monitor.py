"""What tells whether training is healthy: norms of gradients, sizes of updates, effective learning rates.

Everything is per component of the model, such as all query projections, and costs nothing between the steps at which it
is asked for:

    monitor = Monitor(optimizer, dict(model.named_parameters()), every=100)
    for step in range(num_steps):
        loss.backward()
        monitor.before_step(step)      # before clipping, to see the gradient as it came
        clipper.clip()
        optimizer.step()
        run.log(step, **monitor.after_step(step))
        optimizer.zero_grad()

`gradient_norm/COMPONENT`
    ||g||.
`update_ratio/COMPONENT`
    ||w_after - w_before|| / ||w_before||; about 1e-3 is usual, far less is frozen, far more unstable.
`effective_lr/COMPONENT`
    lr / ||w||^2: the learning rate as a weight sees it whose size does not change the model's output, as before a norm.
    Weight decay acts through it: smaller weights turn faster.
`adam_effective_lr`
    mean of lr / (sqrt(v_hat) + epsilon), the factor of the update in Adam's own formula, over the elements that have
    ever had a gradient: not the embeddings of words that have not come yet, whose lr / epsilon would be all one sees.
`avg_adam_elr`
    mean over all elements of lr / (sqrt(v) + epsilon), with v in place of v_hat = v / (1 - beta2^t): as the code of
    D'Angelo et al. 2024 (arXiv:2310.04415) has it under this name, to compare with theirs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import ConfigError
from thalweg.optim.clipping import dense_gradients, joint_norms, match_components, tensor_norms, unshared


@dataclass(frozen=True, kw_only=True)
class _Before:
    """What is known of a step before it is made."""

    step: int
    rates: dict[str, float]
    """By parameter, of those with a gradient."""
    gradient_norms: dict[str, float]
    weight_norms: dict[str, float]
    weights: list[Tensor]
    """Copies, in the order of `rates`."""


class Monitor:
    """Measures one step in every so many. See the top of the file for what it gives.

    A measured step holds a copy of the trainable weights.

    Args:
        optimizer: any of torch's; the last two values need one that keeps `exp_avg_sq`, like Adam.
        named_parameters: `dict(model.named_parameters())`; frozen ones are left out.
        components: name of a component -> regular expression, searched in the parameters' names. Where none matches,
            and by default, `default_components` applies.
        every: a step is measured where it is a multiple of this.
    Raises:
        ConfigError: `every` is below 1, there is nothing trainable, the optimiser lacks a parameter, or a pattern does
            not work (see `match_components`).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Mapping[str, torch.nn.Parameter],
        *,
        components: Mapping[str, str] | None = None,
        every: int = 100,
    ) -> None:
        if not (isinstance(every, int) and every >= 1):
            raise ConfigError(f"every = {every} must be a whole number of at least 1")
        self._parameters = {name: p for name, p in unshared(named_parameters).items() if p.requires_grad}
        if not self._parameters:
            raise ConfigError("there is no trainable parameter to monitor")
        held = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
        for name, parameter in self._parameters.items():
            if id(parameter) not in held:
                raise ConfigError(f"parameter {name!r} is not in the optimiser; leave it out, or freeze it")
        self._group_index = {name: held[id(parameter)] for name, parameter in self._parameters.items()}
        self._optimizer = optimizer
        self._every = every
        given = match_components(self._parameters, components or {})
        self._component_of = default_components(self._parameters) | given
        self._before: _Before | None = None

    def before_step(self, step: int) -> None:
        """Measure the gradients and the weights; to be called after backward, before `optimizer.step`.

        Raises:
            ConfigError: the step is due, and no parameter has a gradient, or a gradient is sparse.
        """
        if step % self._every:
            return
        gradients = dense_gradients(self._parameters)
        if not gradients:
            raise ConfigError(f"before_step({step}): no parameter has a gradient; call it after backward")
        weights = [self._parameters[name].detach() for name in gradients]
        self._before = _Before(
            step=step,
            rates=self._rates(gradients),
            gradient_norms=self._joint(gradients, tensor_norms(list(gradients.values()))),
            weight_norms=self._joint(gradients, tensor_norms(weights)),
            weights=[weight.clone() for weight in weights],
        )

    def after_step(self, step: int) -> dict[str, float]:
        """What the step did, by the names above; empty where it is not due.

        A component without a gradient is left out, and so are the two ratios of one whose weights were all 0.

        Raises:
            ConfigError: the step is due, and `before_step` was not called for it.
        """
        if step % self._every:
            return {}
        before, self._before = self._before, None
        if before is None or before.step != step:
            raise ConfigError(f"after_step({step}) needs before_step({step}), before the optimiser's step")
        with torch.no_grad():
            torch._foreach_sub_(before.weights, [self._parameters[name] for name in before.rates])
        updates = self._joint(before.rates, tensor_norms(before.weights))
        rates = self._mean_rates(before.rates)
        values = {f"gradient_norm/{component}": norm for component, norm in before.gradient_norms.items()}
        for component, norm in before.weight_norms.items():
            if norm != 0:
                values[f"update_ratio/{component}"] = updates[component] / norm
                values[f"effective_lr/{component}"] = rates[component] / norm**2
        return values | self._adam(before.rates)

    def _joint(self, names: Iterable[str], norms: Tensor) -> dict[str, float]:
        return joint_norms(zip(names, norms.tolist(), strict=True), self._component_of)

    def _rates(self, names: Iterable[str]) -> dict[str, float]:
        """The learning rate of each parameter in this step; a scheduler may change it right afterwards."""
        return {name: float(self._group_of(name)["lr"]) for name in names}

    def _group_of(self, name: str) -> dict[str, Any]:
        return self._optimizer.param_groups[self._group_index[name]]

    def _mean_rates(self, rates: Mapping[str, float]) -> dict[str, float]:
        """The learning rate of each component: the mean over its elements, where its parameters have different ones."""
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for name, rate in rates.items():
            component, size = self._component_of[name], self._parameters[name].numel()
            totals[component] = totals.get(component, 0.0) + rate * size
            counts[component] = counts.get(component, 0) + size
        return {component: total / counts[component] for component, total in totals.items()}

    @torch.no_grad()
    def _adam(self, rates: Mapping[str, float]) -> dict[str, float]:
        num_elements, num_touched, corrected, as_stored = 0, 0, 0.0, 0.0
        for name, rate in rates.items():
            state = self._optimizer.state.get(self._parameters[name], {})
            if "exp_avg_sq" not in state:
                continue
            group = self._group_of(name)
            root = state.get("max_exp_avg_sq", state["exp_avg_sq"]).sqrt()
            as_stored += rate * _sum_of_inverses(root, group["eps"])
            num_elements += root.numel()
            correction = math.sqrt(1 - float(group["betas"][1]) ** float(state["step"]))
            touched = root[root > 0] / correction
            corrected += rate * _sum_of_inverses(touched, group["eps"])
            num_touched += touched.numel()
        values = {"avg_adam_elr": as_stored / num_elements} if num_elements else {}
        return values | ({"adam_effective_lr": corrected / num_touched} if num_touched else {})


def default_components(names: Iterable[str]) -> dict[str, str]:
    """Put parameters together that have the same place in every layer, named by the end of their modules' names.

    Args:
        names: of the parameters.
    Returns:
        name of a parameter -> name of its component: its module's name without layer numbers, as short as it stays
        different from all others.

    >>> default_components(["h.0.attn.c_proj.weight", "h.0.mlp.c_proj.weight", "h.1.mlp.c_proj.bias", "wte.weight"])
    ... # doctest: +NORMALIZE_WHITESPACE
    {'h.0.attn.c_proj.weight': 'attn.c_proj', 'h.0.mlp.c_proj.weight': 'mlp.c_proj',
     'h.1.mlp.c_proj.bias': 'mlp.c_proj', 'wte.weight': 'wte'}
    """
    paths = {name: _module_path(name) for name in names}
    num_with: Counter[tuple[str, ...]] = Counter(path[i:] for path in set(paths.values()) for i in range(len(path)))
    short = {
        path: next((path[i:] for i in reversed(range(len(path))) if num_with[path[i:]] == 1), path)
        for path in set(paths.values())
    }
    return {name: ".".join(short[path]) for name, path in paths.items()}


def _module_path(name: str) -> tuple[str, ...]:
    parts = name.split(".")
    # PEFT keeps a layer that is trained whole below the adapter's name.
    if "modules_to_save" in parts:
        parts = [*parts[: parts.index("modules_to_save")], parts[-1]]
    path = tuple(part for part in parts[:-1] if not part.isdecimal())
    return path or tuple(parts[:-1]) or (parts[-1],)


def _sum_of_inverses(root: Tensor, epsilon: float) -> float:
    return float((root + epsilon).reciprocal_().sum(dtype=torch.float64))
