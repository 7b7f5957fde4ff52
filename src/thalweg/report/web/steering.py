"""What a person asks for from the page: requests to a study's loop; notes, tags and names, which are entered at once.

A request is checked as far as the store can tell; the loop, which knows the trainer, has the last word on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from thalweg.errors import ConfigError, StoreError, nearest
from thalweg.report.web.answers import Refused
from thalweg.report.web.run_data import lineage_of
from thalweg.report.web.snippet import fork_snippet, go_on_snippet, rewind_snippet
from thalweg.report.web.steps import step_of
from thalweg.track.positions import to_position
from thalweg.tree import ENDED, Continue, Fork, Pause, Restart, Stop, Unpause

if TYPE_CHECKING:
    from thalweg.track.records import RunRow, StudyRecord
    from thalweg.track.store import Store

Body = Mapping[str, Any]
Snippet = Callable[["StudyRecord", "RunRow", str], str]

TO_THE_HORIZON = 2**62
"""Beyond any horizon: to the run's own, which its hyperparameters decide."""

MOST_TEXT = 100_000
"""Characters in a note."""


def steer_run(store: Store, run_id: str, verb: str, body: Body, author: str) -> dict[str, Any]:
    """Carry out one of `VERBS` on a run.

    Returns:
        `{"request": id or None, "message": text}`.
    Raises:
        Refused, ConfigError, StoreError: it cannot be.
    """
    if verb not in VERBS:
        raise Refused(404, f"unknown action {verb!r}. {nearest(verb, VERBS)}")
    who = _text(body, "author", most=200) if body.get("author") is not None else author
    return VERBS[verb](store, run_id, body, who)


def pause(store: Store, name: str, body: Body, author: str, *, resume: bool) -> dict[str, Any]:
    """Let a study train nothing until it is unpaused, or let it go on.

    The store has the word on that, which a loop looks at whether it runs now or later: the request is answered at once,
    and stays as the record of who asked.
    """
    record = store.study(name)
    if record.kind != "study":
        raise Refused(409, f"{name!r} is a project: no loop runs it that could be paused. Stop its runs one by one")
    who = _text(body, "author", most=200) if body.get("author") is not None else author
    number = store.add_request(name, Unpause() if resume else Pause(), who)
    store.set_paused(name, not resume)
    # A loop may have taken it up in between, and come to the same.
    with suppress(StoreError):
        store.answer_request(number, "done")
    if store.live_session(name) is not None:
        return {"request": number, "message": "it goes on within seconds" if resume else "it pauses within seconds"}
    return {"request": number, "message": f"{'not paused' if resume else 'paused'}; study {name!r} is not running now"}


def _stop(store: Store, run_id: str, _body: Body, author: str) -> dict[str, Any]:
    row, record = _found(store, run_id)
    if row.status in ENDED:
        raise ConfigError(f"run {run_id} has already {_did(row.status)}: there is nothing to stop")
    number = store.add_request(record.name, Stop(run_id), author)
    if record.kind == "project":
        return {"request": number, "message": f"{run_id} is asked to stop; its process sees it at run.should_stop"}
    return _asked(store, record.name, number)


def _continue(store: Store, run_id: str, body: Body, author: str) -> dict[str, Any]:
    row, record = _of_study(store, run_id, go_on_snippet)
    if row.status in ENDED:
        raise ConfigError(f"run {run_id} has already {_did(row.status)}: fork it to train it further")
    until = _step(body, "until", record) if body.get("until") is not None else TO_THE_HORIZON
    if until <= row.position:
        at = step_of(row.position, record.scale)
        raise ConfigError(f"until = {body['until']!r} must lie beyond where {run_id} is, {at}")
    return _asked(store, record.name, store.add_request(record.name, Continue(run_id, until), author))


def _fork(store: Store, run_id: str, body: Body, author: str) -> dict[str, Any]:
    _, record = _of_study(store, run_id, fork_snippet)
    at = _step(body, "at", record)
    changes = _changes(body.get("changes", {}), record)
    until = _step(body, "until", record) if body.get("until") is not None else TO_THE_HORIZON
    if until <= at:
        raise ConfigError(f"until = {body['until']!r} must lie beyond the fork point, {body['at']!r}")
    _require_checkpoint(store, run_id, at, record.scale)
    return _asked(store, record.name, store.add_request(record.name, Fork(run_id, at, changes, until), author))


def _restart(store: Store, run_id: str, body: Body, author: str) -> dict[str, Any]:
    row, record = _of_study(store, run_id, rewind_snippet)
    if row.status == "running":
        raise Refused(409, f"run {run_id} is being trained: stop it first")
    start = _step(body, "from", record)
    points = {row.fork_position, *(point.position for point in store.checkpoints(run_id))}
    if start not in points:
        known = _steps(points, record.scale)
        raise ConfigError(f"from = {body['from']!r}: run {run_id} has no checkpoint there. It has: {known}")
    if start >= row.horizon:
        end = step_of(row.horizon, record.scale)
        raise ConfigError(f"from = {body['from']!r}: run {run_id} ends at {end}; restart it from an earlier step")
    return _asked(store, record.name, store.add_request(record.name, Restart(run_id, start), author))


def _note(store: Store, run_id: str, body: Body, author: str) -> dict[str, Any]:
    store.add_note(run_id, _text(body, "text", most=MOST_TEXT), author)
    return {"request": None, "message": "noted"}


def _tags(store: Store, run_id: str, body: Body, _author: str) -> dict[str, Any]:
    tags = body.get("tags")
    if not isinstance(tags, list) or len(tags) > 1000:
        raise ConfigError(f"tags = {_short(tags)} must be a list of at most 1,000 texts")
    store.set_tags(run_id, list(dict.fromkeys(_text({"tag": tag}, "tag", most=1000) for tag in tags)))
    return {"request": None, "message": "tags changed"}


def _name(store: Store, run_id: str, body: Body, _author: str) -> dict[str, Any]:
    name = body.get("name")
    store.rename(run_id, None if name is None or name == "" else _text(body, "name", most=10_000))
    return {"request": None, "message": "renamed"}


VERBS: dict[str, Callable[[Store, str, Body, str], dict[str, Any]]] = {
    "stop": _stop,
    "continue": _continue,
    "fork": _fork,
    "restart": _restart,
    "note": _note,
    "tags": _tags,
    "name": _name,
}
"""What can be asked for of a run, by the last part of the address."""


def _found(store: Store, run_id: str) -> tuple[RunRow, StudyRecord]:
    details = store.run_details(run_id)
    return details.row, store.study(details.study)


def _of_study(store: Store, run_id: str, snippet: Snippet) -> tuple[RunRow, StudyRecord]:
    """A run of a study; for a tracked one the answer is the code that does what was asked for."""
    row, record = _found(store, run_id)
    if record.kind != "study":
        raise Refused(
            409,
            f"{run_id} is trained by a program of yours, so do it there: the snippet says how",
            snippet=snippet(record, row, store.location),
        )
    return row, record


def _asked(store: Store, name: str, number: int) -> dict[str, Any]:
    if store.live_session(name) is not None:
        return {"request": number, "message": "asked; the running study takes it up within seconds"}
    return {"request": number, "message": f"noted; study {name!r} is not running now: thalweg resume {name}"}


def _require_checkpoint(store: Store, run_id: str, at: int, scale: int) -> None:
    """Refuse a position without a checkpoint, of the run or of an ancestor that it shares that position with."""
    known: set[int] = set()
    limit = math.inf
    for ancestor, start in reversed(lineage_of(store, run_id)):
        found = {point.position for point in store.checkpoints(ancestor) if point.position <= limit}
        if at in found:
            return
        known |= found
        limit = min(limit, start)
    raise ConfigError(f"run {run_id} has no checkpoint at {step_of(at, scale)}. It has: {_steps(known, scale)}")


def _steps(positions: Collection[int], scale: int) -> str:
    return ", ".join(str(step_of(position, scale)) for position in sorted(positions)) or "none"


def _changes(changes: Any, record: StudyRecord) -> dict[str, Any]:
    if not isinstance(changes, dict):
        raise ConfigError(f"changes = {_short(changes)} must be an object of hyperparameters")
    space = record.config.get("space") or {}
    for name, value in changes.items():
        if name not in space:
            raise ConfigError(f"changes: unknown hyperparameter {_short(name)}. {nearest(name, space)}")
        if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(f"changes: {name} = {_short(value)} must be a finite number, a text, true or false")
        if isinstance(value, str):
            _text({name: value}, name, most=MOST_TEXT)
    return changes


def _step(body: Body, field: str, record: StudyRecord) -> int:
    value = body.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{field} = {_short(value)} must be a number of {record.unit}")
    return to_position(value, record.decimals)


def _text(body: Body, field: str, *, most: int) -> str:
    text = body.get(field)
    if not isinstance(text, str) or not text.strip() or len(text) > most:
        raise ConfigError(f"{field} = {_short(text)} must be a text of at most {most:,} characters, not empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{field} holds half of a character, which no file can keep") from None
    return text


def _did(status: str) -> str:
    return "failed" if status == "failed" else f"been {status}" if status == "stopped" else status


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
