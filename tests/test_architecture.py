"""Who may import whom (docs/architecture.md), and what `import thalweg` may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "thalweg"

NOUNS = {"errors", "dimensions", "space", "tree", "budget", "trainer"}
ANYTHING = {
    "study",
    "loop",
    "asked",
    "worker",
    "extension",
    "replay",
    "simulation",
    "comparison",
    "warm_start",
    "suggested",
    "cli",
    "__init__",
    "__main__",
}
"""The places where the stages meet."""
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "dimensions": set(),
    "space": set(),
    "tree": set(),
    "budget": set(),
    "trainer": set(),
    "schedules": set(),
    "adapters": set(),
    "decode": set(),
    "track": set(),
    "execute": set(),
    "scaling": {"schedules"},
    "optim": {"schedules"},
    "search": {"schedules", "scaling"},
    "plan": {"scaling", "schedules"},
    "train": {"schedules", "optim", "adapters", "decode"},
    "report": {"track", "scaling", "decode", "plan"},
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "factory", "base", "misc"}

FILES = sorted(SOURCE.rglob("*.py"))


def owner(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_rules(path: Path) -> None:
    home = owner(path)
    if home in ANYTHING:
        return
    assert home in ALLOWED, f"{home} is not in the layout: add it to docs/architecture.md and to this test"
    ours = {name.split(".")[1] for name in imported_modules(path) if name.startswith("thalweg.")}
    beyond = ours - NOUNS - ALLOWED[home] - {home}
    assert not beyond, f"{path.relative_to(SOURCE)} may not import {', '.join(sorted(beyond))}"


def test_only_the_bridge_imports_optuna_for_the_search() -> None:
    importers = {
        path.relative_to(SOURCE).as_posix()
        for path in FILES
        if owner(path) == "search" and any(name.split(".")[0] == "optuna" for name in imported_modules(path))
    }
    assert importers == {"search/optuna_bridge.py"}


def test_files_have_names_that_say_something() -> None:
    assert not {path.stem for path in FILES} & FORBIDDEN_NAMES
    # A file named as a module of the standard library or of a dependency would be confused with it.
    assert not {path.stem for path in FILES} & (set(sys.stdlib_module_names))


@pytest.mark.parametrize("statement", ["import thalweg", "import thalweg; thalweg.log(1e-5, 1e-2)"])
def test_importing_thalweg_loads_nothing_heavy(statement: str) -> None:
    heavy = ("torch", "transformers", "optuna", "plotly", "pandas", "sqlalchemy", "pydantic", "starlette", "ray")
    code = f"{statement}; import sys; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_public_names_exist() -> None:
    import thalweg

    for name in thalweg.__all__:
        assert getattr(thalweg, name) is not None
