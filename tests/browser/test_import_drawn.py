"""A Neptune user's export, brought in by the command, has its forks drawn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from thalweg.cli.app import app


@pytest.fixture(scope="module")
def neptune() -> ModuleType:
    """What writes an export by the documented schema, from the tests of the importer."""
    path = Path(__file__).parents[1] / "track" / "transfer" / "test_import_neptune.py"
    spec = importlib.util.spec_from_file_location("neptune_exports", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_neptune_export_comes_in_with_its_forks_drawn(
    page: Any, serve: Callable[..., str], tmp_path: Path, neptune: ModuleType
) -> None:
    data = tmp_path / "exports" / "data"
    # The leaf's file comes before its parent's, and the root's is the last.
    for run, parent, at, values in [
        ("a-leaf", "b-child", 1.5, {"1.75": 0.25, "2": 0.125}),
        ("b-child", "c-root", 1.0, {"1.25": 0.75, "1.5": 0.5, "2": 9.0}),
        ("c-root", None, 0.0, {"0.5": 3.0, "1": 2.0, "3": 1.0}),
    ]:
        neptune.write(data, run, [*neptune.about(run, parent, at), *neptune.points(run, "loss", values)])
    store = tmp_path / "store.db"
    command = ["import", "neptune", str(data.parent), "--project", "lm", "--store", str(store)]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    address = serve(store)
    page.goto(f"{address}/p/lm?tab=tree")
    page.locator("[role=treeitem]").nth(2).wait_for()
    levels = [int(item.get_attribute("aria-level")) for item in page.locator("[role=treeitem]").all()]
    assert levels == [1, 2, 3]
    # The leaf's curve is its own two points after what it inherits: the child's to 1.5, and the root's to 1.
    page.locator("[role=treeitem]").nth(2).dispatch_event("click")
    page.wait_for_url("**/r/lm-*")
    page.get_by_text("6 of 6 points shown").wait_for()
