"""A virtual environment for each group of peers that can live together, made by plain pip under build/."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2] / "build" / "benchmarks" / "search"

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "optuna": ("optuna==5.0.0", "torch==2.13.0", "scipy"),
    "ray": ("ray[tune]==2.60.0", "hpbandster==0.7.4", "ConfigSpace==1.2.2"),
    "syne_tune": ("syne-tune[gpsearchers]==0.13.0",),
    "neps": ("neural-pipeline-search==0.17.0", "torch==2.13.0"),
    "smac": ("smac==2.4.1",),
}
"""What is installed, by the tool's name. A tool's version is the first one's."""
SCRIPTS = {tool: f"peers_{tool}.py" for tool in REQUIREMENTS}
"""Each runs one cell, and prints a line for each seed."""
STUDIES: dict[str, tuple[str, ...]] = {
    "optuna": ("tpe_hyperband", "tpe_median", "gp_hyperband", "gp_median", "tpe_hyperband_plain"),
    "ray": ("asha", "bohb"),
    "syne_tune": ("asha", "mobster", "hyper_tune", "dyhpo"),
    "neps": ("prior_band",),
    "smac": ("hyperband",),
}
"""What is measured of each."""

RESULTS_VERSION = 1
"""To be raised where tables, meter or a peer's script change, so that kept results are not taken for new ones."""
SLOW = {("optuna", "gp_hyperband"), ("optuna", "gp_median"), ("neps", "prior_band"), ("smac", "hyperband")} | {
    ("syne_tune", study) for study in ("mobster", "hyper_tune", "dyhpo")
}
"""Peers that take from ten seconds to minutes for one study (Gaussian processes, forests, files on disk): they get
fewer seeds and half of the budget, and no table of LoRA ranks, where there is nothing to model."""
NUM_SLOW_SEEDS = 5


def make(tool: str) -> Path | str:
    """A tool's Python, or why it could not be installed. What is there already is used again."""
    place, wanted = ROOT / "environments" / tool, "\n".join(REQUIREMENTS[tool])
    done = place / "installed"
    if done.exists() and done.read_text() == wanted:
        return place / "bin" / "python"
    print(f"installing {wanted.splitlines()[0]}", flush=True)
    try:
        venv.create(place, clear=True, with_pip=True)
        command = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, *wanted.splitlines()], check=True, capture_output=True, text=True, timeout=1_800)
    except subprocess.CalledProcessError as error:
        return f"could not be installed: {(error.stderr or '').strip().splitlines()[-1:]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be installed: {error}"
    done.write_text(wanted)
    return place / "bin" / "python"


def python_of(tool: str) -> Path | str:
    """The Python of a tool that `make` has installed."""
    python = ROOT / "environments" / tool / "bin" / "python"
    return python if (python.parents[1] / "installed").exists() else "not installed"


def mark(tool: str) -> str:
    """The tool with its version, as the folder of its results."""
    name = REQUIREMENTS[tool][0].replace("==", "-").replace("[", "-").replace("]", "")
    return f"{name}-{RESULTS_VERSION}"


def make_all(tools: Sequence[str]) -> dict[str, str]:
    """Install these; what could not be, with the reason."""
    made = {tool: make(tool) for tool in tools}
    return {tool: why for tool, why in made.items() if isinstance(why, str)}
