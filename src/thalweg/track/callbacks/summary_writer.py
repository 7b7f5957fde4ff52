"""A `SummaryWriter` with the calls of `torch.utils.tensorboard`: change the import, and the scalars come here.

from thalweg.track.callbacks.summary_writer import SummaryWriter
"""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from thalweg.errors import ConfigError
from thalweg.track.callbacks.plain_values import numbers_in, plain
from thalweg.track.callbacks.run_source import RunSource
from thalweg.track.client import TrackedRun

_NOT_KEPT = {
    "add_audio": "audio",
    "add_custom_scalars": "layouts of custom scalars",
    "add_custom_scalars_marginchart": "layouts of custom scalars",
    "add_custom_scalars_multilinechart": "layouts of custom scalars",
    "add_embedding": "embeddings",
    "add_figure": "figures",
    "add_graph": "graphs",
    "add_histogram": "histograms",
    "add_histogram_raw": "histograms",
    "add_image": "images",
    "add_image_with_boxes": "images",
    "add_images": "images",
    "add_mesh": "meshes",
    "add_onnx_graph": "graphs",
    "add_pr_curve": "precision-recall curves",
    "add_pr_curve_raw": "precision-recall curves",
    "add_tensor": "tensors",
    "add_video": "video",
}
"""Calls of TensorBoard's writer, and what they would have kept."""


class SummaryWriter:
    """Tracks scalars, texts and hyperparameters that are written with TensorBoard's calls.

    Args:
        log_dir: its last folder names the run, the one above it the project: "runs/lr-0.1" is run "lr-0.1" of project
            "runs". The same folder again goes on with the same run. None: a new run of project "runs".
        comment: put at the end of a name made from date and host.
        purge_step: points from this step on are hidden: what a resumed training is about to write again.
        max_queue, flush_secs, filename_suffix: taken and not needed.
        run: a run to write instead, which `close` does not end.
        options: for `thalweg.init`.
    """

    def __init__(
        self,
        log_dir: str | Path | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
        *,
        run: TrackedRun | None = None,
        **options: Any,
    ) -> None:
        self._warned: set[str] = set()
        if run is not None:
            self.log_dir = str(log_dir or f"{run.project}/{run.id}")
            self._source = RunSource("SummaryWriter", run, run=None, project=None, options=options)
            return
        if not log_dir:
            moment = time.strftime("%b%d_%H-%M-%S")
            project, name = "runs", f"{moment}_{socket.gethostname()}{comment}"
        else:
            # A uid of the whole path: folders of one name in two places are two runs.
            place = Path(log_dir).absolute()
            project, name = place.parent.name or "runs", place.name
            options = {"run": f"tensorboard:{place}"} | options
        if purge_step is not None:
            options = {"at": max(purge_step - 1, 0)} | options
        self.log_dir = str(log_dir or Path("runs") / name)
        self._source = RunSource("SummaryWriter", None, run=None, project=project, options={"name": name} | options)

    @property
    def run(self) -> TrackedRun:
        """What it writes."""
        return self._source.run()

    def get_logdir(self) -> str:
        """The folder that it was given, or would have made. Nothing is in it."""
        return self.log_dir

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Keep a point. Its time is now, its value a float64; without a step it is the run's next one."""
        points = numbers_in({tag: scalar_value})
        if not points:
            raise ConfigError(f"{tag} = {scalar_value!r} is not one number")
        self._source.live().log(points, step=global_step)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Keep a point of each, named "main_tag/tag", in one call."""
        self._source.live().log(numbers_in(tag_scalar_dict, f"{main_tag}/"), step=global_step)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Mapping[str, Any] | None = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Keep hyperparameters, and points of the metrics, in this run: TensorBoard would make another beside it."""
        run = self._source.live()
        run.set(plain(hparam_dict))
        if points := numbers_in(metric_dict):
            last = run.last_step
            run.log(points, step=global_step if global_step is not None else 0 if last is None else last)

    def add_text(
        self, tag: str, text_string: str, global_step: int | None = None, walltime: float | None = None
    ) -> None:
        """Keep a text as a note."""
        place = f" (step {global_step})" if global_step is not None else ""
        self._source.live().note(f"{tag}{place}: {text_string}")

    def flush(self) -> None:
        """See to it that all is in the store."""
        if self._source.begun and not self._source.ended:
            self._source.live().flush()

    def close(self) -> None:
        """End the run. What is added afterwards takes it up again, as with TensorBoard's."""
        self._source.finish()

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in _NOT_KEPT:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def pass_over(*_: Any, **__: Any) -> None:
            kind = _NOT_KEPT[name]
            if kind not in self._warned:
                self._warned.add(kind)
                warnings.warn(f"thalweg keeps no {kind}: {name} does nothing", UserWarning, stacklevel=2)

        return pass_over

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, KeyboardInterrupt):
            self._source.finish("stopped")
        else:
            self._source.finish("failed", f"{kind.__name__}: {error}")
