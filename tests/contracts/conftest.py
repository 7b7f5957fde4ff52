"""Makes tests/search/virtual_workers.py importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "search"))
