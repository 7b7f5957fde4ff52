"""The command line. Each command parses, calls one function, and prints."""

from __future__ import annotations

import sys

from thalweg.errors import ConfigError, StoreError, ThalwegError


def main() -> None:
    """The `thalweg` command.

    Exit codes: 0 done, 1 a study or a check failed, 2 an input that cannot work, 130 interrupted.
    """
    from thalweg.cli.app import app

    try:
        app()
    except (ConfigError, StoreError) as error:
        _fail(str(error), 2)
    except ThalwegError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        sys.exit(141)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
