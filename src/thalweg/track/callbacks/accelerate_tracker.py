"""A tracker for Hugging Face Accelerate: `Accelerator(log_with=ThalwegTracker("my-project"))`."""

from __future__ import annotations

from typing import Any

from thalweg.errors import ConfigError

try:
    from accelerate.tracking import GeneralTracker, on_main_process
except ImportError as error:
    raise ConfigError("ThalwegTracker needs accelerate: pip install accelerate") from error

from thalweg.track.callbacks.plain_values import numbers_in, plain
from thalweg.track.callbacks.run_source import RunSource
from thalweg.track.client import TrackedRun


class ThalwegTracker(GeneralTracker):  # type: ignore[misc]
    """Tracks what an Accelerator logs, on the main process alone.

    Args:
        target: a project's name, or a TrackedRun, which `accelerator.end_training()` then does not end.
        run, project: the same by name; `run` may also be the id of a run that goes on.
        options: for `thalweg.init`.
    Raises:
        ConfigError: neither a project nor a run.
    """

    name = "thalweg"
    requires_logging_directory = False
    main_process_only = True

    def __init__(
        self,
        target: str | TrackedRun | None = None,
        *,
        run: str | TrackedRun | None = None,
        project: str | None = None,
        **options: Any,
    ) -> None:
        self._source = RunSource("ThalwegTracker", target, run=run, project=project, options=options)
        super().__init__()

    @on_main_process  # type: ignore[untyped-decorator]
    def start(self) -> None:
        """Begin the run. `Accelerator.init_trackers` calls this."""
        self._source.live()

    @property
    def tracker(self) -> TrackedRun:
        """The run: what `accelerator.get_tracker("thalweg", unwrap=True)` gives. On the main process alone."""
        return self._source.run()

    @on_main_process  # type: ignore[untyped-decorator]
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Keep the run's hyperparameters."""
        self._source.live().set(plain(values))

    @on_main_process  # type: ignore[untyped-decorator]
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Keep those of the values that are numbers."""
        if points := numbers_in(values):
            self._source.live().log(points, step=step)

    @on_main_process  # type: ignore[untyped-decorator]
    def finish(self) -> None:
        """End the run, where this tracker made it."""
        self._source.finish()
