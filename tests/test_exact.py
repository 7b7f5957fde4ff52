"""The benchmark `exact` in small: killed and resumed, or forked without a change, a run is bit for bit the same."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from thalweg.track.store import Store
from thalweg.train import checkpoint

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "exact"


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_exact_compare", BENCHMARK / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("case", ["function", "bert-full", "llama-lora"])
def test_killed_and_forked_runs_equal_the_uninterrupted_one(tmp_path: Path, case: str) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARK / "run.py"), "--cases", case, "--kills", "2", "--out", str(out)]
    subprocess.run(command, check=True, timeout=280)
    killed, forked = json.loads(out.read_text())
    assert killed["measured"]["kills"] == 2
    assert 0 < forked["measured"]["fork_position"] < forked["measured"]["horizon"]
    assert forked["measured"]["points_trained_by_the_fork"] > 0
    for claim in (killed, forked):
        assert claim["measured"]["points_compared"] > 500
        assert (claim["measured"]["points_lost"], claim["measured"]["differences"]) == (0, 0)
        assert claim["holds"]


def record(folder: Path, compare: ModuleType, **changes: Any) -> Any:
    """A run of three points, a report and a checkpoint, with something changed; as the benchmark sees it."""
    values = {"losses": [0.5, 0.25, 0.125], "result": 0.75, "weight": 1.0, "moment": 3, **changes}
    with Store.open(folder / "store.db") as store:
        store.create_study("study", {})
        run = store.create_run("study", hyperparameters={}, horizon=3, until=3, seed=0, origin="hand")
        with store.writer(run.id) as writer:
            for position, loss in enumerate(values["losses"], 1):
                writer.log(position, {"loss": loss})
            state = {"weights": np.array([values["weight"], 2.0], dtype=np.float32), "moment": values["moment"]}
            digest, num_bytes = checkpoint.write(folder / "checkpoint", state)
            writer.checkpoint(3, str(folder / "checkpoint"), digest, num_bytes)
            writer.report(3, {"accuracy": values["result"]})
            writer.finish("finished", 3)
    return compare.snapshot(folder / "store.db", run.id)


def test_equal_runs_have_no_differences(tmp_path: Path, compare: ModuleType) -> None:
    result = compare.compare(record(tmp_path / "a", compare), record(tmp_path / "b", compare))
    assert (result.num_points, result.num_lost, result.differences) == (4, 0, [])


@pytest.mark.parametrize(
    ("change", "num_lost", "places"),
    [
        ({"losses": [0.5, float(np.nextafter(0.25, 1)), 0.125]}, 0, ["loss at 2"]),
        ({"losses": [0.5, 0.25]}, 1, []),
        ({"losses": [0.5, 0.25, 0.125, 0.0]}, 0, ["loss at 4: not in the expected curve"]),
        ({"losses": [-0.0, 0.25, 0.125]}, 0, ["loss at 1"]),
        ({"result": 0.7500000000000001}, 0, ["validation/accuracy at 3", "report: 3"]),
        ({"weight": float(np.nextafter(np.float32(1), np.float32(2)))}, 0, ["checkpoint: state['weights']"]),
        ({"moment": 4}, 0, ["checkpoint: state['moment']"]),
        ({"moment": 3.0}, 0, ["checkpoint: state['moment']"]),
    ],
)
def test_the_smallest_difference_is_found(
    tmp_path: Path, compare: ModuleType, change: dict[str, Any], num_lost: int, places: list[str]
) -> None:
    result = compare.compare(record(tmp_path / "a", compare), record(tmp_path / "b", compare, **change))
    assert result.num_lost == num_lost
    assert result.differences == places
