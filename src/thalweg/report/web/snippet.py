"""Python that forks a run from code: what the page offers to copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thalweg.report.web.steps import step_of

if TYPE_CHECKING:
    from thalweg.track.records import RunRow, StudyRecord

_FORK = """\
import thalweg

with thalweg.init({project!r}, fork_of={run!r}, at={at!r}, hyperparameters={hyperparameters!r}{store}) as run:
    for step in range(int(run.fork_step) + 1, ...):
        run.log({{"loss": ...}}, step=step)
"""

_GO_ON = """\
import thalweg

with thalweg.init({project!r}, run={run!r}{at}{store}) as run:
    for step in range(int(run.last_step or 0) + 1, ...):
        run.log({{"loss": ...}}, step=step)
"""

_STUDY = """\
from thalweg.track.store import Store
from thalweg.tree import Fork

with Store.open({store!r}) as store:
    # Changed hyperparameters go into the braces; past any horizon means to the fork's own.
    store.add_request({project!r}, Fork({run!r}, at={at}, changes={{}}, until=2**62))
"""


def fork_snippet(record: StudyRecord, row: RunRow, location: str, checkpoints: Sequence[int] = ()) -> str:
    """A program that forks a run where it stands: at its newest checkpoint where it has some.

    Names are written as Python writes them, so that none can end its string.

    Args:
        location: the store's; a URL is left out, as it may hold a password.
        checkpoints: the positions of the run's own, rising.
    """
    at = checkpoints[-1] if checkpoints else row.position
    if record.kind == "study":
        place = "postgresql://..." if "://" in location else location
        return _STUDY.format(store=place, project=record.name, run=row.id, at=at)
    return _FORK.format(
        project=record.name,
        run=row.id,
        at=step_of(at, record.scale),
        hyperparameters=dict(row.hyperparameters),
        store=_store(location),
    )


def go_on_snippet(record: StudyRecord, row: RunRow, location: str) -> str:
    """A program that goes on with a tracked run where it ended."""
    return _GO_ON.format(project=record.name, run=row.id, at="", store=_store(location))


def rewind_snippet(record: StudyRecord, row: RunRow, location: str) -> str:
    """A program that goes on with a tracked run from an earlier step."""
    at = f", at={step_of(row.fork_position, record.scale)!r}"
    return _GO_ON.format(project=record.name, run=row.id, at=at, store=_store(location))


def _store(location: str) -> str:
    return "" if "://" in location else f", store={location!r}"
