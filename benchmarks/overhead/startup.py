"""How long a fresh process takes to import thalweg, and to show its help."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPEATS = 7


def importing() -> dict[str, Any]:
    """Seconds of a whole process that imports thalweg, and of one that does nothing."""
    times = _in_turns(
        {"seconds": [sys.executable, "-c", "import thalweg"], "python_alone_seconds": [sys.executable, "-c", ""]}
    )
    code = "import sys, thalweg; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {**times, "torch_is_imported": shown.strip() == "True"}


def helping() -> dict[str, Any]:
    """Seconds of `thalweg --help`."""
    return _in_turns({"seconds": [str(Path(sys.executable).with_name("thalweg")), "--help"]})


def _in_turns(commands: dict[str, list[str]]) -> dict[str, Any]:
    """The median time of each, after one run that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for repeat in range(REPEATS + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
