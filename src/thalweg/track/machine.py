"""What the machine does while a run is trained, and what the run was made with."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_log = logging.getLogger("thalweg")

_PACKAGES = ("thalweg", "torch", "transformers", "peft", "accelerate", "datasets", "trl", "lightning", "numpy")
_MAX_DIFF_BYTES = 100_000


def meters() -> Callable[[], dict[str, float]]:
    """A function that measures the machine and this process now.

    Its metrics: `system/cpu_percent` (of all cores), `system/memory_percent`, `system/process_memory_bytes`, and for
    each GPU k that NVIDIA's library shows `system/gpu_k_percent`, `system/gpu_k_memory_bytes`, `system/gpu_k_watts`,
    `system/gpu_k_celsius`.
    """
    process = psutil.Process()
    psutil.cpu_percent()  # the first call has nothing to compare with
    gpus = _gpu_meters()

    def measure() -> dict[str, float]:
        found = {
            "system/cpu_percent": psutil.cpu_percent(),
            "system/memory_percent": psutil.virtual_memory().percent,
            "system/process_memory_bytes": float(process.memory_info().rss),
        }
        for gpu in gpus:
            found |= gpu()
        return found

    return measure


def _gpu_meters() -> list[Callable[[], dict[str, float]]]:
    try:
        import pynvml  # nvidia-ml-py

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except ImportError:
        return []
    except pynvml.NVMLError:  # no driver, no card
        return []

    def meter(index: int, handle: Any) -> Callable[[], dict[str, float]]:
        name = f"system/gpu_{index}"
        parts: dict[str, Callable[[], float]] = {
            f"{name}_percent": lambda: float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            f"{name}_memory_bytes": lambda: float(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
            f"{name}_watts": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000.0,
            f"{name}_celsius": lambda: float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        }

        def measure() -> dict[str, float]:
            found = {}
            for part, read in parts.items():
                # A card need not have every sensor.
                with contextlib.suppress(pynvml.NVMLError):
                    found[part] = read()
            return found

        return measure

    return [meter(index, handle) for index, handle in enumerate(handles)]


def environment(*, code: bool) -> dict[str, Any]:
    """Where and with what a run is made: machine, versions, the command, and the code's version.

    Args:
        code: whether to ask git for the commit and for what has changed since.
    """
    facts: dict[str, Any] = {
        "user": user(),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "num_cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "folder": os.getcwd(),
        "packages": _packages(),
    }
    if code and (found := _code()):
        facts["code"] = found
    return facts


def user() -> str:
    """Who runs this process, as others are told."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        return f"user {os.getuid()}"


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _code() -> dict[str, Any]:
    """The commit that the script's folder is at, and what has changed since; empty outside of git."""
    script = Path(sys.argv[0]).absolute() if sys.argv and sys.argv[0] else None
    folder = script.parent if script is not None and script.is_file() else Path.cwd()

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=2, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    found: dict[str, Any] = {"commit": commit}
    if branch := git("rev-parse", "--abbrev-ref", "HEAD"):
        found["branch"] = branch
    if script is not None:
        found["script"] = str(script)
    if diff := git("diff", "HEAD"):
        found["diff"] = diff[:_MAX_DIFF_BYTES]
        if len(diff) > _MAX_DIFF_BYTES:
            found["diff_cut_at_bytes"] = _MAX_DIFF_BYTES
    return found
