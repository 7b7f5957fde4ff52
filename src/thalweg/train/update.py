"""One run's optimiser: what turns accumulated gradients into a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from thalweg.optim.clipping import Clipper, NonFiniteGradient
from thalweg.optim.groups import parameter_groups
from thalweg.optim.monitor import Monitor
from thalweg.optim.weight_decay import adam
from thalweg.train.hyperparameters import Optimization
from thalweg.trainer import Diverged


class Update:
    """Clips, sets the learning rate, steps and measures, all by a run's hyperparameters.

    Args:
        model: its trainable parameters are the optimiser's.
        horizon: what the learning-rate schedule runs to.
        groups: parameter groups with their own rates and decays, such as muP's; None: by weight decay alone.
        decay_embeddings: whether weight decay acts on embeddings.
        components: what `clip_by = "component"` clips together and the monitor measures together: name -> regular
            expression on parameters' names.
        monitor_every: steps between measurements; 0: none.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        settings: Optimization,
        horizon: int,
        *,
        groups: list[dict[str, Any]] | None = None,
        decay_embeddings: bool = True,
        components: Mapping[str, str] | None = None,
        monitor_every: int = 0,
    ) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._peak = settings.lr
        self._schedule = settings.schedule_for(horizon)
        if groups is None:
            groups = parameter_groups(model, weight_decay=settings.weight_decay, decay_embeddings=decay_embeddings)
        kind: Any = settings.weight_decay_kind
        self._optimizer = adam(
            groups,
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            epsilon=settings.epsilon,
            weight_decay_kind=kind,
        )
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        by: Any = settings.clip_by
        grouped = components if by == "component" else None
        self._clipper = Clipper(self.parameters, by=by, threshold=settings.clip or None, components=grouped)
        self._monitor = (
            Monitor(self._optimizer, self.parameters, components=components, every=monitor_every)
            if monitor_every
            else None
        )

    def step(self, loss: torch.Tensor, position: int, number: int) -> dict[str, float]:
        """Take a step with the gradients that have been accumulated, and let go of them.

        Args:
            loss: the step's mean loss, 0-d: to be logged, and named where the gradients are broken.
            position: where the step begins.
            number: of the step; the monitor measures multiples of its interval.
        Returns:
            What to log at the step's end.
        Raises:
            Diverged: the loss or a gradient is not finite; no weight has changed.
        """
        multiplier = self._schedule(position)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * multiplier
        if self._monitor is not None:  # it reads the rate
            self._monitor.before_step(number)
        try:
            norm = float(self._clipper.clip())
        except NonFiniteGradient as error:
            raise Diverged(f"at position {position} the training loss is {float(loss):g}; {error}") from None
        value = float(loss)
        if not math.isfinite(value):
            raise Diverged(f"at position {position} the training loss is {value:g}")
        self._optimizer.step()
        seen = {} if self._monitor is None else self._monitor.after_step(number)
        self.drop_gradients()
        return seen | {"train/loss": value, "train/gradient_norm": norm, "train/lr": self._peak * multiplier}

    def drop_gradients(self) -> None:
        """Forget what has been accumulated."""
        self._optimizer.zero_grad(set_to_none=True)

    def moments(self) -> dict[str, Any]:
        """The optimiser's state by parameter, for a checkpoint."""
        return {name: self._optimizer.state[p] for name, p in self.parameters.items() if p in self._optimizer.state}

    def load_moments(self, moments: Mapping[str, Any]) -> None:
        """Take a checkpoint's moments. Learning rate, decay and the like stay this run's own, even after a fork."""
        index = {id(p): i for i, p in enumerate(p for g in self._optimizer.param_groups for p in g["params"])}
        state = {index[id(p)]: moments[name] for name, p in self.parameters.items() if name in moments}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
