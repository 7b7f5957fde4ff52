"""What people ask of a study's loop from elsewhere: rows in the store that join its tree through the same actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from thalweg.errors import ConfigError, StoreError
from thalweg.track.study_store import StudyStore
from thalweg.tree import Ask, Continue, Fork, Pause, Restart, Run, Stop, Unpause

if TYPE_CHECKING:
    from thalweg.loop import Loop


def take_requests(loop: Loop) -> Iterator[str]:
    """Carry out what waits, and answer it. Yields a message for each."""
    for request in loop.store.pending_requests(loop.study.name):
        try:
            _carry_out(loop, request.ask)
            outcome = "done"
        except (ConfigError, StoreError, KeyError) as error:
            outcome = f"refused: {error}"
        loop.store.answer_request(request.id, outcome)
        yield f"{request.author or 'by hand'}: {describe(request.ask)}: {outcome}"


def _carry_out(loop: Loop, ask: Ask) -> None:
    match ask:
        case Pause() | Unpause():
            loop.store.set_paused(loop.study.name, isinstance(ask, Pause))
        case Restart(run_id, at):
            if loop.is_training(run_id):
                raise ConfigError(f"{run_id} is being trained: stop it first")
            loop.tree.absorb(restart(loop.store, run_id, at))
        case _:
            loop.apply(ask)


def restart(store: StudyStore, run_id: str, at: int) -> Run:
    """Rewind a run to a position of its own, from which the study's loop goes on with it.

    What it did past the position is hidden by a cut, and nothing is deleted. What that cost stays in the ledger.

    Raises:
        ConfigError: it has no checkpoint there, or has nothing left to train from there.
        StoreError: a process trains it.
    """
    run = store.read_run(run_id)
    if run.status == "running" and store.run_times(run_id).live:
        raise StoreError(f"run {run_id} is being trained; stop it first: thalweg stop {run_id}")
    points = restart_points(store, run)
    if at not in points:
        raise ConfigError(
            f"run {run_id} cannot be restarted from {at:,}: it has no checkpoint there. It has:"
            f" {', '.join(f'{point:,}' for point in points)}"
        )
    if at >= run.horizon:
        raise ConfigError(f"run {run_id} ends at {run.horizon:,}: restart it from an earlier position")
    store.cut(run_id, at)
    until = run.until if run.until > at else run.horizon
    return store.update_run(run_id, status="interrupted", position=at, until=until)


def restart_points(store: StudyStore, run: Run) -> list[int]:
    """The positions that a run can be restarted from, rising: where it began, and its own checkpoints."""
    return sorted({run.fork_position, *(record.position for record in store.checkpoints(run.id))})


def describe(ask: Ask) -> str:
    """What was asked for, in words."""
    match ask:
        case Stop(run):
            return f"stop {run}"
        case Continue(run, until):
            return f"continue {run} to {until}"
        case Fork(parent, at):
            return f"fork {parent} at {at}"
        case Restart(run, at):
            return f"restart {run} from {at}"
        case Pause():
            return "pause the study"
        case Unpause():
            return "go on with the study"
        case _:
            return "start"
