"""The guide pages: their figures exist and are made from the code, their study files and links are right."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

from thalweg.cli import study_file
from thalweg.schedules import from_toml
from thalweg.search import STRATEGIES

ROOT = Path(__file__).parents[1]
PAGES = ("schedules.md", "stability.md", "extending-a-run.md")
SEARCH_PAGES = (
    "strategies.md",
    "multi-fidelity.md",
    "population-based-training.md",
    "priors.md",
    "objectives-and-constraints.md",
    "simulate.md",
)
FIGURES = ROOT / "docs" / "figures"
LARGEST_BYTES = 120_000


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)


@pytest.fixture(scope="module")
def drawn() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_figures_drawn", FIGURES / "drawn.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_is_shown_and_small() -> None:
    shown = {match for name in PAGES for match in re.findall(r"!\[[^\]]+\]\(figures/([^)]+)\)", page(name))}
    assert shown == {path.name for path in FIGURES.glob("*.png")}
    assert all(path.stat().st_size < LARGEST_BYTES for path in FIGURES.glob("*.png"))


def test_figures_without_training_are_made_of_finite_numbers(drawn: ModuleType) -> None:
    for name, make in drawn.FIGURES.items():
        assert (FIGURES / f"{name}.png").exists()
        for chart in make():
            assert chart.lines
            for line in chart.lines:
                assert len(line.x) == len(line.y) > 1
                assert all(map(math.isfinite, line.y)), f"{name}: {chart.title}: {line.name}"


def test_clipping_in_the_figure_keeps_its_threshold(drawn: ModuleType) -> None:
    growing, steady = drawn._clipped(10.0, "norm")
    assert math.hypot(growing, steady) == pytest.approx(1.0, rel=1e-5)
    assert drawn._clipped(10.0, "component") == pytest.approx((1.0, 0.5), rel=1e-5)
    assert drawn._clipped(0.1, "value") == pytest.approx((0.1, 0.5), rel=1e-5)


@pytest.mark.parametrize("name", PAGES)
def test_toml_is_a_study_or_a_schedule(name: str, tmp_path: Path) -> None:
    for block in blocks(name, "toml"):
        tables = tomllib.loads(block)
        if "study" in tables:
            study_file.parse(tables, folder=tmp_path, default_name="docs")
        else:
            from_toml(block)


@pytest.mark.parametrize("name", [*PAGES, *SEARCH_PAGES])
def test_python_compiles_and_what_it_imports_exists(name: str) -> None:
    for block in blocks(name, "python"):
        compile(block, name, "exec")
        for module, names in re.findall(r"^from (thalweg\S*) import (.+)$", block, re.MULTILINE):
            loaded = importlib.import_module(module)
            for imported in names.split(","):
                assert hasattr(loaded, imported.strip()), f"{module} has no {imported}"


@pytest.mark.parametrize("name", [*PAGES, *SEARCH_PAGES])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"(?<!!)\[[^\]]+\]\(([^)#]+)[^)]*\)", page(name)):
        assert (ROOT / "docs" / target).exists(), target


@pytest.mark.parametrize("name", [*PAGES, *SEARCH_PAGES])
def test_commands_and_their_options_exist(name: str) -> None:
    from thalweg.cli.app import app

    root = get_command(app)
    found = re.findall(r"thalweg ((?:[a-z-]+ )+|[a-z-]+$)([^`\n#]*)", page(name), re.MULTILINE)
    assert found or name in SEARCH_PAGES
    for words, rest in found:
        command, known = root, {"--help"}
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, f"thalweg {words}"
            command = command.commands[word]
            known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known, f"thalweg {words}{rest}"


def test_the_example_files_are_the_same_study() -> None:
    spec = importlib.util.spec_from_file_location("docs_extend_example", ROOT / "examples" / "extend.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example
    try:
        spec.loader.exec_module(example)
    finally:
        del sys.modules[spec.name]
    study, _ = study_file.read(ROOT / "examples" / "extend.toml")
    assert study.trainer.model == example.TRAINER.model
    assert study.trainer.data.model_dump(exclude={"cache"}) == example.TRAINER.data.model_dump(exclude={"cache"})
    fixed = {name: value for name, value in example.SPACE.items() if name != "schedule"}
    assert dict(study.space.fixed) == fixed


def test_the_page_of_strategies_has_them_all() -> None:
    named = set(re.findall(r'`"(\w+)"`', page("strategies.md")))
    assert named == set(STRATEGIES)


def test_the_benchmarks_table_goes_between_its_marks() -> None:
    """Medians at 5, 10 and 20 of three budgets, the best at 10 first; a study without a number there comes last."""
    spec = importlib.util.spec_from_file_location("strategies_table", FIGURES / "strategies_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    groups = {
        "tables, unused": {
            "gp": {"median": [0.5, None, 0.2]},
            "random_uniform": {"median": [0.4, 0.3, 0.2]},
            "auto": {"median": [0.15, 0.125, 0.031]},
        }
    }
    claims = [{"claim": "another", "measured": {}}, {"claim": f"{module.CLAIM}; and so on", "measured": groups}]
    before, after = f"a\n{module.BEGIN}\n", f"{module.END}\nb\n"
    expected = """**tables, unused**

| study | 5 whole runs | 10 whole runs | 20 whole runs |
|---|---|---|---|
| **auto** | 0.15 | 0.12 | 0.03 |
| random, no priors | 0.40 | 0.30 | 0.20 |
| gp | 0.50 | - | 0.20 |
"""
    once = module.written(f"{before}old{after}", claims)
    assert once == before + expected + after
    assert module.written(once, claims) == once
    assert module.written(page("strategies.md"), claims).startswith("# Which strategy, when")
