"""The checkpoint from which a run goes on: its own newest one, or that of the run which it was forked from."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from thalweg.errors import StoreError
from thalweg.track.client import TrackedRun
from thalweg.track.opening import DEFAULT_STORE
from thalweg.track.records import SavedFile
from thalweg.track.store import Store

CHECKPOINT = "checkpoint"
"""The name under which callbacks save checkpoints."""

_log = logging.getLogger("thalweg")


def newest_checkpoint(run: TrackedRun, *, name: str = CHECKPOINT) -> SavedFile | None:
    """The newest of the run's lineage that is still on disk: a fork sees its parent's up to the fork.

    Trainers delete older checkpoints as they go (`save_total_limit`, `save_top_k`): what is gone is passed over.

    Raises:
        StoreError: the store cannot be read.
    """
    with Store.open(run.store, read_only=True) as store:
        return newest(file for file in store.files(run.id) if file.name == name)


def newest(files: Iterable[SavedFile]) -> SavedFile | None:
    """The one of the highest position that is there; of several at one position the last saved."""
    there = [file for file in files if file.path.exists()]
    return max(there, key=lambda file: (file.position, file.created), default=None)


def remember(run: TrackedRun, path: Path, step: int | None) -> None:
    """Keep where a checkpoint is. A store that cannot take that now must not end training."""
    try:
        run.save(path.absolute(), name=CHECKPOINT, step=step, copy=False)
    except (StoreError, OSError) as error:
        _log.warning("run %s: the checkpoint at %s is not remembered: %s", run.id, path, error)


def store_location(store: str | Path | None) -> str:
    """Where `thalweg.init` keeps its runs under such a `store=`."""
    return str(store or os.environ.get("THALWEG_STORE") or DEFAULT_STORE)
