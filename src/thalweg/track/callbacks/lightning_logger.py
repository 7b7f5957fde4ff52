"""A logger for Lightning: `Trainer(logger=ThalwegLogger("my-project"))`, with `lightning` or `pytorch_lightning`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalweg.errors import ConfigError
from thalweg.track.callbacks.checkpoints import remember
from thalweg.track.callbacks.plain_values import numbers_in, plain
from thalweg.track.callbacks.run_source import RunSource
from thalweg.track.client import TrackedRun

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")
"""One library under two names. Loading the second beside the first would take seconds and give nothing."""


def _package() -> str:
    loaded = [name for name in _PACKAGES if sys.modules.get(name) is not None]
    installed = [name for name in _PACKAGES if importlib.util.find_spec(name.split(".")[0]) is not None]
    if not loaded and not installed:
        raise ConfigError("ThalwegLogger needs Lightning: pip install lightning")
    return (loaded or installed)[0]


_loggers = importlib.import_module(f"{_package()}.loggers.logger")
_rank_zero_only = importlib.import_module(f"{_package()}.utilities.rank_zero").rank_zero_only


class ThalwegLogger(_loggers.Logger):  # type: ignore[misc, name-defined]
    """Tracks what a LightningModule logs, on rank zero alone.

    `logger.experiment` is the TrackedRun. Checkpoints that `ModelCheckpoint` writes are remembered where they are. The
    run ends with `fit`, as failed with its traceback where that failed; a `test` after it adds to the same run.

    Args:
        target: a project's name, or a TrackedRun, which the logger then does not end.
        run, project: the same by name; `run` may also be the id of a run that goes on.
        prefix: put before every metric's name, with a "/".
        options: for `thalweg.init`.
    Raises:
        ConfigError: neither a project nor a run.
    """

    def __init__(
        self,
        target: str | TrackedRun | None = None,
        *,
        run: str | TrackedRun | None = None,
        project: str | None = None,
        prefix: str = "",
        **options: Any,
    ) -> None:
        super().__init__()
        self._source = RunSource("ThalwegLogger", target, run=run, project=project, options=options, at_checkpoint=True)
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def name(self) -> str:
        """The project."""
        return self._source.project

    @property
    def version(self) -> str:
        """The run's id: Lightning keeps its checkpoints in a folder of this name. On rank zero alone."""
        return self._source.run().id if _rank_zero_only.rank == 0 else ""

    @property
    @_loggers.rank_zero_experiment  # type: ignore[untyped-decorator]
    def experiment(self) -> TrackedRun:
        """The run; elsewhere than on rank zero, something that takes any call and does nothing."""
        return self._source.live()

    def checkpoint(self) -> str | None:
        """The file for `trainer.fit(ckpt_path=...)`: the newest of the run's lineage, None where there is none.

        Lightning restores the optimizer's learning rate with it. A fork that changes the rate sets it afterwards, in
        `on_train_start` of its module.
        """
        found = self._source.checkpoint(main=_rank_zero_only.rank == 0)
        return None if found is None else str(found)

    @_rank_zero_only  # type: ignore[untyped-decorator]
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Keep a point of each metric."""
        if points := numbers_in(metrics, self._prefix):
            self._source.live().log(points, step=step)

    @_rank_zero_only  # type: ignore[untyped-decorator]
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Keep the hyperparameters of a module or data module. Whatever follows them is left out."""
        values = vars(params) if isinstance(params, Namespace) else params
        if values:
            self._source.live().set(plain(values))

    @_rank_zero_only  # type: ignore[untyped-decorator]
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Remember where a checkpoint is."""
        # The file saved last is named by an attribute that is not public; the public ones name the last or the best.
        path = getattr(checkpoint_callback, "_last_checkpoint_saved", "") or checkpoint_callback.last_model_path
        path = path or checkpoint_callback.best_model_path
        if path and Path(path).exists():
            step = getattr(checkpoint_callback, "_last_global_step_saved", None)
            remember(self._source.live(), Path(path), step)

    @_rank_zero_only  # type: ignore[untyped-decorator]
    def save(self) -> None:
        """See to it that all is in the store."""
        if self._source.begun and not self._source.ended:
            self._source.live().flush()

    @_rank_zero_only  # type: ignore[untyped-decorator]
    def finalize(self, status: str) -> None:
        """End the run, where this logger made it."""
        # Lightning says "failed" for Ctrl-C too, and calls this while it handles the exception.
        error = sys.exception()
        if status in ("success", "finished"):
            self._source.finish()
        elif isinstance(error, KeyboardInterrupt):
            self._source.finish("stopped")
        else:
            self._source.finish("failed", "".join(traceback.format_exception(error)) if error else status)
