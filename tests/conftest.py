"""Options and markers of the whole suite."""

import os

import pytest

# One thread per process, as in a worker: results are compared bit for bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    # Deselected, not skipped: pytest counts them in its last line.
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]
