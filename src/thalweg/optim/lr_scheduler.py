"""A schedule as torch and Hugging Face's `Trainer` want it: an `LRScheduler`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from thalweg.errors import ConfigError
from thalweg.schedules import Schedule


class ScheduledLR(LRScheduler):
    """Set each parameter group's learning rate to its own `initial_lr` times `schedule(position)`.

    After n calls of `step()` the position is `n * per_step`. The schedule is a function of the position and is never
    part of the state, so what was constructed is in force after `load_state_dict`: a changed peak, schedule or batch
    size. Where the batch size has changed, the position goes on from where it was, by the new `per_step`.

    Load the optimizer's state first, then this one's, as Hugging Face's `Trainer` does: torch's optimizer brings its
    old learning rates with it, and loading this scheduler puts its own back.

    Args:
        optimizer: the peak of each group is its `initial_lr`, else its `lr`.
        schedule: position -> multiplier of the peak.
        per_step: how far a step moves the position: 1 for a schedule in steps, samples or tokens per optimizer step
            for one in samples or tokens.
        last_epoch: the number of the last step that was made, as torch's schedulers have it; -1 for none.
    Raises:
        ConfigError: `per_step` is not a positive number.

    >>> from thalweg.schedules import linear
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    >>> scheduler = ScheduledLR(optimizer, linear(warmup=32, horizon=96), per_step=16)
    >>> rates = []
    >>> for _ in range(7):
    ...     rates.append(scheduler.get_last_lr()[0])
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates
    [0.0, 0.25, 0.5, 0.375, 0.25, 0.125, 0.0]
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, schedule: Schedule, *, per_step: float = 1.0, last_epoch: int = -1
    ) -> None:
        if not (per_step > 0 and math.isfinite(per_step)):
            raise ConfigError(
                f"per_step = {per_step} must be a positive number: 1 for a schedule in steps, else the samples or"
                " tokens of an optimizer step"
            )
        # torch's constructor makes the first step, which asks for all of these.
        self.schedule = schedule
        self.per_step = per_step
        self.origin = 0.0
        super().__init__(optimizer, last_epoch)

    @property
    def position(self) -> float:
        """Where on its axis the schedule is, in its own unit."""
        return self.origin + self.last_epoch * self.per_step

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rate of each group at the position."""
        multiplier = self.schedule(self.position)
        return [peak * multiplier for peak in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Three numbers: neither the schedule nor the peaks, which belong to the run and not to its state."""
        return {"last_epoch": self.last_epoch, "per_step": self.per_step, "origin": self.origin}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state's position, with the peaks, the schedule and the step length of this scheduler.

        The learning rates are in force at once. The state of another scheduler of torch's or Hugging Face's is taken
        too: of it only the number of steps is used.

        Raises:
            ConfigError: the state does not say how many steps were made.
        """
        num_steps = state_dict.get("last_epoch")
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 0:
            raise ConfigError(
                f"an LR scheduler's state needs last_epoch, a count of steps; this one has last_epoch = {num_steps!r}"
                f" among {', '.join(sorted(map(str, state_dict))) or 'nothing'}"
            )
        before = float(state_dict.get("per_step", self.per_step))
        origin = float(state_dict.get("origin", 0.0))
        self.last_epoch = num_steps
        # By the difference, so that an unchanged step length leaves the origin exactly as it was.
        self.origin = origin + num_steps * (before - self.per_step)
        self._last_lr = []
        for group, peak, lr in zip(self.optimizer.param_groups, self.base_lrs, self.get_lr(), strict=True):
            group["initial_lr"] = peak
            if isinstance(group["lr"], torch.Tensor):
                # A compiled or captured optimizer reads this very tensor.
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
            self._last_lr.append(lr)


def use_schedule(trainer: Any, make_schedule: Callable[[float], Schedule], *, per_step: float = 1.0) -> None:
    """Let a Hugging Face `Trainer` train by a schedule; it builds its optimizer itself, as it would have.

    The horizon is known when training begins, so a function is given: it gets the run's number of optimizer steps
    times `per_step`. Checkpoints of the Trainer hold the scheduler's position only; on a resume the new schedule and
    the new learning rate are in force.

    Where the user builds the optimizer, no help is needed: `Trainer(..., optimizers=(optimizer, ScheduledLR(...)))`.

    Args:
        trainer: a `transformers.Trainer` or one of its subclasses, TRL's included.
        make_schedule: horizon -> schedule, both in the unit that `per_step` is in.
        per_step: samples or tokens per optimizer step; 1 for a schedule in steps.
    Raises:
        ConfigError: the trainer has an LR scheduler already.

    >>> from thalweg.schedules import linear
    >>> use_schedule(trainer, lambda horizon: linear(warmup=0.1 * horizon, horizon=horizon))  # doctest: +SKIP
    """
    if trainer.lr_scheduler is not None:
        raise ConfigError(
            f"the Trainer has an LR scheduler already, a {type(trainer.lr_scheduler).__name__}: leave it out of"
            " optimizers=(optimizer, scheduler), or give ScheduledLR(optimizer, schedule) there"
        )

    def create_scheduler(num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        if trainer.lr_scheduler is None:
            schedule = make_schedule(num_training_steps * per_step)
            trainer.lr_scheduler = ScheduledLR(optimizer or trainer.optimizer, schedule, per_step=per_step)
            # So that the Trainer drops it before it trains again, perhaps to another horizon.
            trainer._created_lr_scheduler = True
        scheduler: LRScheduler = trainer.lr_scheduler
        return scheduler

    trainer.create_scheduler = create_scheduler
