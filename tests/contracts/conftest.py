"""Makes tests/search/virtual_workers.py and what is beside this file importable."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / "search"), str(Path(__file__).parent)]
