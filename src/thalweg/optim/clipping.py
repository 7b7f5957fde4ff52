"""Gradient clipping: by value, by the global norm, or component by component.

Clip once per optimiser step: after the last micro-batch has been accumulated, and after the gradients have been
unscaled. With a `GradScaler` a gradient that is not finite is no mistake, and the scaler skips the step:

    scaler.unscale_(optimizer)
    with contextlib.suppress(NonFiniteGradient):
        clipper.clip()
    scaler.step(optimizer)
    scaler.update()

Gradients must be whole: under FSDP each process has a part only, and its norm is not the gradient's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from thalweg.errors import ConfigError, nearest
from thalweg.trainer import Diverged

ClipKind = Literal["norm", "value", "component"]
"""norm: the whole gradient is scaled to a norm of at most the threshold.
value: each element is cut to [-threshold, threshold].
component: each component is scaled to a norm of at most the threshold, on its own.
"""


class NonFiniteGradient(Diverged):
    """A gradient has an infinite element or a NaN. Nothing has been clipped. A run that does not catch it diverged."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(tuple(names))
        self.names = tuple(names)
        """The parameters with such elements."""

    def __str__(self) -> str:
        shown = ", ".join(self.names[:5]) + (f" and {len(self.names) - 5} more" if len(self.names) > 5 else "")
        return f"the gradient is not finite in {shown}"


class Clipper:
    """Clips the gradients of a model's parameters, in place.

    Args:
        named_parameters: `dict(model.named_parameters())`. Those without a gradient are passed over at each step, so
            frozen ones may be among them; a parameter under two names counts once, under its first.
        by: what is clipped, see `ClipKind`.
        threshold: above 0; None or infinity measures only.
        components: name of a component -> regular expression, searched in the parameters' names, such as
            `{"query": "q_proj", "key": "k_proj", "value": "v_proj", "feed_forward": "mlp"}`. A parameter that none
            matches is its own component, and so are all by default.
    Raises:
        ConfigError: a threshold of 0, below or NaN, an unknown `by`, no parameters, sharded ones, `components` without
            `by = "component"`, a pattern that is not a regular expression, matches nothing, or matches what another
            does.
    Source: by norm, Pascanu et al. 2013, arXiv:1211.5063; by component, Yang & Ma 2022 (CWGNC), EMNLP.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> float(Clipper({"weight": weight}, threshold=1.0).clip())
    5.0
    >>> [round(x, 4) for x in weight.grad.tolist()]
    [0.6, 0.8]
    """

    def __init__(
        self,
        named_parameters: Mapping[str, torch.nn.Parameter],
        *,
        by: ClipKind = "norm",
        threshold: float | None,
        components: Mapping[str, str] | None = None,
    ) -> None:
        if by not in get_args(ClipKind):
            raise ConfigError(f"unknown way to clip, by = {by!r}. {nearest(by, get_args(ClipKind))}")
        if threshold is not None and not threshold > 0:
            raise ConfigError(f"threshold = {threshold} must be above 0; None or infinity measures and clips nothing")
        if components and by != "component":
            raise ConfigError(f"components are given, but by = {by!r}; use by = 'component', or leave them out")
        self._parameters = unshared(named_parameters)
        if not self._parameters:
            raise ConfigError("there is no parameter to clip")
        for name, parameter in self._parameters.items():
            if hasattr(parameter, "full_tensor"):
                raise ConfigError(f"parameter {name!r} is sharded over devices; clip it with torch's own functions")
        self._by = by
        self._threshold = math.inf if threshold is None else float(threshold)
        self._component_of = match_components(self._parameters, components or {})
        self._names: list[str] = []
        self._norms = torch.zeros(0)

    @torch.no_grad()
    def clip(self) -> Tensor:
        """Clip what has been accumulated in `.grad`.

        The norms are taken to the host once: that tells what is not finite, and spares the pass over the gradients
        where there is nothing to clip. Norms of float16 and bfloat16 are taken in float32. Finite gradients whose norm
        is beyond float32 are clipped rightly too.

        Returns:
            The global norm before clipping, 0-d.
        Raises:
            NonFiniteGradient: naming the parameters; the gradients are as they were.
            ConfigError: no parameter has a gradient, or a gradient is sparse.
        """
        found = dense_gradients(self._parameters)
        if not found:
            raise ConfigError(
                f"none of the {len(self._parameters)} parameters has a gradient: clip after backward, before zero_grad"
            )
        self._names, gradients = list(found), list(found.values())
        self._norms = tensor_norms(gradients)
        total: Tensor = torch.linalg.vector_norm(self._norms)
        if not math.isfinite(total):
            self._norms = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64).cpu() for g in gradients])
            broken = [n for n, norm in zip(self._names, self._norms.tolist(), strict=True) if not math.isfinite(norm)]
            if broken:
                raise NonFiniteGradient(broken)
            total = torch.linalg.vector_norm(self._norms)
        if math.isfinite(self._threshold):
            self._apply(gradients, total)
        return total

    def component_norms(self) -> dict[str, float]:
        """The norms of the components before the last `clip`; without it, empty.

        Where clipping is not by component, every parameter is one.
        """
        return joint_norms(zip(self._names, self._norms.tolist(), strict=True), self._component_of)

    def _apply(self, gradients: list[Tensor], total: Tensor) -> None:
        if self._by == "value":
            _clamp(gradients, self._threshold)
        elif self._by == "norm":
            # On the host in the norm's own precision: bit for bit what torch.nn.utils.clip_grad_norm_ multiplies by.
            scale = float(self._threshold / (total.cpu() + 1e-6))
            if scale < 1:
                _multiply(gradients, [scale] * len(gradients))
        else:
            norms = self.component_norms()
            scales = [self._threshold / (norms[self._component_of.get(name, name)] + 1e-6) for name in self._names]
            large = [i for i, scale in enumerate(scales) if scale < 1]
            _multiply([gradients[i] for i in large], [scales[i] for i in large])


def unshared(named_parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    """Each parameter once, under the first of its names."""
    first: dict[int, str] = {}
    for name, parameter in named_parameters.items():
        first.setdefault(id(parameter), name)
    return {name: named_parameters[name] for name in first.values()}


def dense_gradients(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """The gradients of those parameters that have one.

    Raises:
        ConfigError: one is sparse.
    """
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    for name, gradient in gradients.items():
        if gradient.layout != torch.strided:
            raise ConfigError(
                f"the gradient of {name!r} is sparse, which neither clipping nor monitoring can take; make its"
                " embedding with sparse=False"
            )
    return gradients


def match_components(names: Iterable[str], patterns: Mapping[str, str]) -> dict[str, str]:
    """Find the component of each parameter whose name one of the patterns is found in.

    Args:
        names: of the parameters.
        patterns: name of a component -> regular expression.
    Returns:
        name of a parameter -> name of a component, without those that no pattern matches.
    Raises:
        ConfigError: a pattern is not a regular expression, matches nothing, or matches what another does.

    >>> match_components(["0.q_proj.weight", "1.q_proj.weight", "norm.weight"], {"query": "q_proj"})
    {'0.q_proj.weight': 'query', '1.q_proj.weight': 'query'}
    """
    names = list(names)
    found: dict[str, str] = {}
    for component, pattern in patterns.items():
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"components: {component} = {pattern!r} is not a regular expression: {error}") from error
        matched = [name for name in names if expression.search(name)]
        if not matched:
            raise ConfigError(
                f"components: {component} = {pattern!r} matches none of {len(names)} parameters, such as"
                f" {', '.join(names[:: max(1, len(names) // 5)][:5])}"
            )
        for name in matched:
            if name in found:
                raise ConfigError(f"components: parameter {name!r} matches both {found[name]!r} and {component!r}")
            found[name] = component
    return found


def tensor_norms(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of each of one or more tensors: 1-D, on the device of the first, in at least float32."""
    places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, tensor in enumerate(tensors):
        places.setdefault((tensor.device, tensor.dtype), []).append(i)
    norms: list[Tensor] = [tensors[0]] * len(tensors)
    for (_, dtype), members in places.items():
        wide = torch.float32 if dtype.itemsize < 4 else None
        found = torch._foreach_norm([tensors[i] for i in members], 2.0, wide)
        for i, norm in zip(members, found, strict=True):
            norms[i] = norm.to(tensors[0].device)
    return torch.stack(norms)


def joint_norms(norms: Iterable[tuple[str, float]], component_of: Mapping[str, str]) -> dict[str, float]:
    """The norm of each component, from those of its parameters; one that is in no component is its own.

    >>> joint_norms([("a", 3.0), ("b", 4.0), ("c", 1.0)], {"a": "both", "b": "both"})
    {'both': 5.0, 'c': 1.0}
    """
    joint: dict[str, float] = {}
    for name, norm in norms:
        component = component_of.get(name, name)
        joint[component] = math.hypot(joint.get(component, 0.0), norm)
    return joint


def _multiply(tensors: list[Tensor], scales: list[float]) -> None:
    places: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[float]]] = {}
    for tensor, scale in zip(tensors, scales, strict=True):
        members, factors = places.setdefault((tensor.device, tensor.dtype), ([], []))
        members.append(tensor)
        factors.append(scale)
    for members, factors in places.values():
        torch._foreach_mul_(members, factors)


def _clamp(tensors: list[Tensor], threshold: float) -> None:
    elsewhere: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.device.type == "cpu":
            tensor.clamp_(-threshold, threshold)  # one pass over the memory, where torch's foreach takes two
        else:
            elsewhere.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    for members in elsewhere.values():
        torch._foreach_clamp_min_(members, -threshold)
        torch._foreach_clamp_max_(members, threshold)
