"""What a tracked run is made of: values made flat, warnings given once, a thread that looks at the machine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from thalweg.errors import ConfigError, ThalwegError
from thalweg.track.calls import as_float, check_names
from thalweg.track.machine import meters
from thalweg.track.store import Store
from thalweg.tree import Stop

REQUEST_SECONDS = 2.0
"""How often a tracked run looks whether somebody asked it to stop."""

_log = logging.getLogger("thalweg")


class Warner:
    """Says each thing once, however often it happens."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._said: set[str] = set()

    def warn(self, about: str, text: str) -> None:
        """Warn of something, unless it was warned of before."""
        if about not in self._said:
            self._said.add(about)
            _log.warning("run %s: %s: %s", self._run_id, about, text)


class Logs(Protocol):
    """What takes points."""

    def log(self, position: int, metrics: Mapping[str, float]) -> None: ...


class Meters:
    """A thread that measures the machine, and looks for requests, while a run is tracked."""

    def __init__(self, writer: Logs, created: float, system_seconds: float, look: Callable[[], None]) -> None:
        """
        Args:
            created: when the run was, in seconds since 1970: the machine's metrics are kept by the time since then.
            look: called every two seconds.
        """
        if system_seconds < 0:
            raise ConfigError(f"system_seconds = {system_seconds} must be positive, or 0 for no measurements")
        self._writer = writer
        self._created = created
        self._seconds = system_seconds
        self._look = look
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="thalweg-meters", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        measure = meters() if self._seconds else None
        began = time.monotonic()
        due = began + min(self._seconds, 1.0)
        looked = began
        while True:
            now = time.monotonic()
            rest = looked + REQUEST_SECONDS - now
            if self._closing.wait(max(0.0, min(rest, due - now) if measure else rest)):
                return
            try:
                if measure is not None and time.monotonic() >= due:
                    self._writer.log(max(0, round((time.time() - self._created) * 1000)), measure())
                    due = time.monotonic() + self._seconds
                if time.monotonic() >= looked + REQUEST_SECONDS:
                    looked = time.monotonic()
                    self._look()
            except (ThalwegError, OSError) as error:
                # The machine's metrics are worth no warning at every turn, and no end of training.
                _log.debug("meters: %s", error)


def stop_requests(store: Store, project: str, run_id: str) -> bool:
    """Answer the requests that ask for an end of a run; whether there was one."""
    found = [request for request in store.pending_requests(project) if request.ask == Stop(run_id)]
    for request in found:
        store.answer_request(request.id, "the script was told")
    return bool(found)


def flat_metrics(metrics: Mapping[Any, Any], prefix: str = "") -> tuple[dict[str, float], dict[str, str]]:
    """Metrics by their whole names, and what is wrong with those that cannot be recorded.

    >>> flat_metrics({"train": {"loss": 1}, "text": "x"})
    ({'train/loss': 1.0}, {'text': "text = 'x' is not one number"})
    """
    good: dict[str, float] = {}
    problems: dict[str, str] = {}
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            inner, wrong = flat_metrics(value, f"{name}/")
            good |= inner
            problems |= wrong
            continue
        try:
            check_names([name])
            if isinstance(value, (str, bytes)):
                raise ConfigError(f"{name} = {value!r} is not one number")
            good[name] = as_float(name, value)
        except ConfigError as error:
            problems[name] = str(error)
    return good, problems


def flat_hyperparameters(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters by their whole names, as values that can be kept; what is neither number nor list is its text.

    >>> flat_hyperparameters({"optimizer": {"lr": 1e-3, "betas": (0.9, 0.95)}})
    {'optimizer/lr': 0.001, 'optimizer/betas': [0.9, 0.95]}
    """
    if not isinstance(hyperparameters, Mapping):
        raise ConfigError(f"hyperparameters = {hyperparameters!r} must map names to values")
    return dict(_flat(hyperparameters, ""))


def _flat(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {}
    return str(value)
