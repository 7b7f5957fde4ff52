"""docs/tracking.md says nothing that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import thalweg
from thalweg.track.store import Store

GUIDE = Path(__file__).parents[3] / "docs" / "tracking.md"
TEXT = GUIDE.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_each_block_is_python_and_its_imports_work(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("thalweg"):
            module = __import__(str(node.module), fromlist=["*"])
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "thalweg":
            assert hasattr(thalweg, node.attr), node.attr


def test_the_loop_the_fork_and_the_resumption_run(store: Store) -> None:
    names: dict[str, Any] = {"train_one_step": lambda: 0.5, "lr": 1e-3}
    wanted = [block for block in BLOCKS if "thalweg.init(" in block or "continue_best" in block]
    beginning, fork, best, resumed, _ = wanted
    exec(compile(beginning, "guide", "exec"), names)
    exec(compile(fork, "guide", "exec"), names)
    assert names["fork"].fork_step == 500
    names["fork"].log({"validation/accuracy": 0.95}, step=600)
    names["fork"].finish()
    exec(compile(best, "guide", "exec"), names)
    assert store.run_details(names["run"].id).lineage == ("my-project-0", "my-project-1", "my-project-2")
    assert names["run"].fork_step == 600
    names["run"].finish()
    exec(compile(resumed.splitlines()[0], "guide", "exec"), names)
    assert (names["run"].id, names["run"].last_step) == ("my-project-0", 1000)
    names["run"].finish()
    assert store.series("my-project-0", "validation/accuracy").values.tolist() == [0.91]
    assert len(store.series("my-project-0", "train/loss")) == 1000


def test_the_commands_exist() -> None:
    import typer.main

    from thalweg.cli.app import app

    commands: Any = typer.main.get_command(app)
    for words in re.findall(r"(?:^    |`)thalweg ([a-z]+(?: [a-z]+)?)", TEXT, re.MULTILINE):
        first, _, second = words.partition(" ")
        assert first in commands.commands, first
        if first == "import":
            assert second in commands.commands[first].commands, second


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (GUIDE.parent / target).exists(), target
    for script in re.findall(r"`(?:examples/tracking/)?(\w+\.py)`", TEXT):
        assert (GUIDE.parents[1] / "examples" / "tracking" / script).exists(), script
