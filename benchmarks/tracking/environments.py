"""A virtual environment for each tracker, made by plain pip, and how something is measured in it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REQUIREMENTS = {
    "mlflow": "mlflow==3.17.2",
    "trackio": "trackio==0.43.0",
    "aim": "aim==3.29.1",
    "tensorboard": "tensorboard==2.21.0",
    "wandb": "wandb==0.31.0",
    "goodseed": "goodseed==0.4.0",
}
"""What is installed, by the peer's name."""

HERE = Path(__file__).parent


def make_all(folder: Path, names: Sequence[str]) -> dict[str, str | Path]:
    """Each tracker's Python, or why it could not be installed. What is there already is used again."""
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda name: make(folder / name, name), names)
    return {"thalweg": Path(sys.executable), **dict(zip(names, made, strict=True))}


def make(place: Path, name: str) -> Path | str:
    """One environment."""
    python, wanted = place / "bin" / "python", REQUIREMENTS[name]
    mark = place / "installed"
    if mark.exists() and mark.read_text() == wanted:
        return python
    print(f"installing {wanted}", flush=True)
    try:
        venv.create(place, clear=True, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary", wanted]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
    except subprocess.CalledProcessError as error:
        return f"could not be installed: {(error.stderr or '').strip().splitlines()[-1:]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be installed: {error}"
    mark.write_text(wanted)
    return python


def measure(python: Path | str, name: str, task: str, folder: Path, **options: Any) -> dict[str, Any]:
    """What `peer.py` answers; {"none": why} where there is no answer."""
    if isinstance(python, str):
        return {"none": python}
    command = [python, HERE / "peer.py", name, task, folder, json.dumps(options)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder.parent)
    except subprocess.TimeoutExpired:
        return {"none": "took more than 300 s"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        print(done.stderr[-2000:], file=sys.stderr, flush=True)
        return {"none": f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:200]}"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


@dataclass(frozen=True)
class Lab:
    """Where and how everything is measured."""

    pythons: Mapping[str, Path | str]
    """Each tracker's, Thalweg's own first; or why it has none."""
    quick: bool
    """Small sizes, to see that everything runs: no number means anything then."""
    repeats: int

    def pick(self, full: int, quick: int) -> int:
        """A size."""
        return quick if self.quick else full

    def measure(self, name: str, task: str, folder: Path, **options: Any) -> dict[str, Any]:
        """See `measure`; says what it does."""
        start = time.monotonic()
        answer = measure(self.pythons[name], name, task, folder, **options)
        print(f"  {name}: {task} {time.monotonic() - start:.1f} s {answer.get('none', '')}", flush=True)
        return answer


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is not there yet, and goes with all that is put into it."""
    with tempfile.TemporaryDirectory(prefix="thalweg-benchmark-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "data"
