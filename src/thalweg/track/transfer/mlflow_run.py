"""What an MLflow run becomes, wherever it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from thalweg.track.transfer.incoming import IncomingFile, IncomingNote, IncomingRun, Record, series_of
from thalweg.tree import Status

Point = tuple[int, int, float]
"""Step, milliseconds since 1970, value."""

_STATUS: dict[str, Status] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}
"""Any other has not ended."""
_NOTE = "mlflow.note.content"
_PARENT = "mlflow.parentRunId"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS: dict[str, Any] = {"True": True, "False": False, "true": True, "false": False}


def run_record(
    experiment: str,
    info: Mapping[str, Any],
    parameters: Mapping[str, str],
    tags: Mapping[str, str],
    files: tuple[IncomingFile, ...],
) -> IncomingRun:
    """A run as the store takes it in.

    Args:
        experiment: its experiment's name.
        info: `run_id`, `run_name`, `status` by its name, `start_time` and `end_time` in milliseconds since 1970,
            `artifact_uri`, and whatever else is to become a fact.
    """
    own = {key: value for key, value in tags.items() if not key.startswith("mlflow.")}
    # A nested run inherits no points of the one around it: it is no fork.
    named = [f"{key}={value}" if value else key for key, value in own.items()]
    named += [f"parent={tags[_PARENT]}"] if tags.get(_PARENT) else []
    facts = {key: value for key, value in tags.items() if key.startswith("mlflow.") and key != _NOTE}
    facts |= {"mlflow/experiment": experiment} | {
        f"mlflow/{key}": value for key, value in info.items() if key not in ("status", "start_time", "end_time")
    }
    note = tags.get(_NOTE)
    started = info["start_time"] / 1000 if info.get("start_time") is not None else None
    return IncomingRun(
        project=experiment,
        uid=f"mlflow:{info['run_id']}",
        name=info.get("run_name") or tags.get("mlflow.runName") or info["run_id"],
        hyperparameters={key: parameter(text) for key, text in parameters.items()},
        facts=facts,
        tags=tuple(named),
        notes=(IncomingNote(text=note, author=tags.get("mlflow.user")),) if note else (),
        files=files,
        status=_STATUS.get(info["status"], "running"),
        created=started,
        started=started,
        ended=info["end_time"] / 1000 if info.get("end_time") else None,
    )


def series_records(run_id: str, metric: str, points: Sequence[Point]) -> Iterator[Record]:
    """A metric's points. MLflow keeps no order of writing: of several at one step, the newest is the last."""
    in_time = sorted(points, key=lambda point: point[1])
    for record in series_of(run_id, metric, *zip(*in_time, strict=True)):
        if record is not None:
            yield record


def parameter(text: str) -> Any:
    """MLflow keeps parameters as text: what reads as a number or a truth value becomes one.

    >>> [parameter(text) for text in ("1e-05", "16", "True", "007", "adam")]
    [1e-05, 16, True, '007', 'adam']
    """
    if text in _WORDS:
        return _WORDS[text]
    if not _NUMBER.fullmatch(text) or re.match(r"[+-]?0\d", text):
        return text
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else float(text)


def artifacts(uri: str | None) -> tuple[IncomingFile, ...]:
    """The files of a run's artifact folder, where that is on this machine."""
    parts = urlsplit(uri or "")
    if not uri or parts.scheme not in ("", "file"):
        return ()
    folder = Path(unquote(parts.path) if parts.scheme else uri)
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return tuple(IncomingFile(name=path.relative_to(folder).as_posix(), path=path) for path in found)
