"""What every peer's script does: run one study for each seed on one table, and print what came of it.

Imports numpy alone; the script that imports this adds its own tool.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from meter import Exhausted, Meter
from tables import all_tables

MAX_TRIALS = 5_000
"""A tool that asks for what costs nothing, such as a configuration that it has trained already, would never end."""

Search = Callable[[Meter, int], None]
"""Trains trials on the meter until it is exhausted, or the tool has had enough."""


def main(searches: Mapping[str, Search], *, starts_over: Collection[str] = ()) -> None:
    """Run the cell that the command line holds.

    Args:
        searches: by the studies' names.
        starts_over: the studies in which a configuration that is asked for at a higher fidelity is paid for from its
            beginning, as the tool has no way to go on with it. In all others a trial is trained once.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    asked = json.loads(sys.argv[1])
    table = all_tables()[asked["table"]]
    # Tools print as they like; the answers alone go to the real output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for seed in asked["seeds"]:
        resumes = asked["study"] not in starts_over
        meter = Meter(table, asked["variant"], asked["priors"], seed, asked["budget"], resumes=resumes)
        start = time.process_time()
        with contextlib.suppress(Exhausted):
            searches[asked["study"]](meter, seed)
        answer: dict[str, Any] = {
            "seed": seed,
            "trace": meter.trace,
            "spent": meter.spent / meter.whole,
            "num_runs": len(meter.trials),
            "cpu_seconds": round(time.process_time() - start, 2),
        }
        print(json.dumps(answer), file=answers, flush=True)
