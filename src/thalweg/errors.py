"""What goes wrong, as types.

`ConfigError` is for what a user can mend in an input; the command line answers it with exit code 2 and no traceback.
`assert` is kept for our own mistakes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ThalwegError(Exception):
    """Anything that thalweg raises on purpose."""


class ConfigError(ThalwegError, ValueError):
    """An input that cannot work: the message names the field, the value and what would work."""


class StoreError(ThalwegError):
    """The store cannot be opened, read or written: another version, a full disk, an unknown study or run."""


class CheckpointError(ThalwegError):
    """A checkpoint is missing, truncated or damaged."""


class RunInterrupted(BaseException):
    """Raised inside a run that was asked to stop, after its checkpoint is written.

    Not an `Exception`, so that a training loop's own `except Exception` does not swallow it.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message: the closest known name if one is close, then all of them.

    >>> nearest("lerning_rate", ["lr", "learning_rate"])
    "Did you mean 'learning_rate'? Known: learning_rate, lr"
    >>> nearest("x", ["alpha"])
    'Known: alpha'
    """
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}Known: {', '.join(known)}"
