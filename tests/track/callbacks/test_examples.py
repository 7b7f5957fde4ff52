"""The examples of examples/tracking run as they are: tracked, resumed, and forked with another learning rate."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thalweg.track.store import Store

FOLDER = Path(__file__).parents[3] / "examples" / "tracking"

EXAMPLES: dict[str, tuple[str, str, str, int, int, tuple[float, float]]] = {
    # script: project, loss, learning rate, step of the fork, last step, rate before and after it
    "torch_loop.py": ("torch-loop", "loss", "lr", 100, 300, (0.01, 0.001)),
    "hf_trainer.py": ("hf-trainer", "train/loss", "train/learning_rate", 20, 40, (1e-4, 1e-5)),
    "trl_sft.py": ("trl-sft", "train/loss", "train/learning_rate", 20, 40, (3e-3, 3e-4)),
    "lightning_module.py": ("lightning-module", "train/loss", "train/lr", 60, 119, (0.01, 0.001)),
}


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES)
def test_an_example_tracks_resumes_and_forks(script: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "THALWEG_STORE"}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, str(FOLDER / script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    project, loss, rate, fork_step, last, rates = EXAMPLES[script]
    assert f"made {project}-0, and {project}-1, a fork of it at step {fork_step}" in done.stdout
    assert "thalweg serve" in done.stdout

    with Store.open(tmp_path / ".thalweg" / "store.db") as store:
        assert store.check_integrity() == []
        rows = store.run_rows(project)
        assert [(row.name, row.status) for row in rows] == [("first", "finished"), ("gentler", "finished")]
        first, fork = (row.id for row in rows)
        assert (rows[1].parent, rows[1].fork_position) == (first, fork_step * 10**6)
        assert store.run_details(fork).lineage == (first, fork)
        parent, own, whole = (
            store.series(first, loss),
            store.series(fork, loss, inherited=False),
            store.series(fork, loss),
        )
        # The resumed run has each step once, and goes on to the end.
        steps = parent.positions // 10**6
        assert len(set(steps.tolist())) == len(steps)
        assert steps[-1] == last
        assert len(set((steps[1:] - steps[:-1]).tolist())) == 1
        # The fork's own points begin after the fork; what lies before is its parent's.
        assert own.positions.min() > fork_step * 10**6 - 10**6
        before = parent.positions <= fork_step * 10**6
        before &= parent.positions < own.positions.min()
        assert whole.values[: before.sum()].tolist() == parent.values[before].tolist()
        assert len(whole.values) == len(parent.values)
        # The changed learning rate is the one that was trained with.
        assert store.series(first, rate).values[-1] == pytest.approx(rates[0])
        assert store.series(fork, rate, inherited=False).values == pytest.approx(rates[1])
        assert own.values[-1] != parent.values[-1]
