"""Thalweg as a tracker, beside MLflow, trackio, Aim, TensorBoard, W&B offline and GoodSeed; what its store withstands;
and its dashboard in a browser.

    python benchmarks/tracking/run.py [--quick] [--only logging,reading,reliability,browser] [--out FILE]

Writes result.json beside this file. Each tracker is installed into a virtual environment of its own under build/, and
measured there by `peer.py`. Medians of repeats; the trackers take turns within a repeat. Takes about 15 minutes.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

import environments
from environments import Lab

sys.path.append(str(Path(__file__).parents[1]))
import result

SECTIONS = {
    "logging": "logging_speed",
    "reading": "reading_speed",
    "reliability": "reliability",
    "browser": "browser",
}
"""Each a module with `claims`."""

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, only to see that everything runs")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by commas")
    parser.add_argument("--peers", default=",".join(environments.REQUIREMENTS), help="trackers, by commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    if options.quick and options.out == Path(__file__).with_name("result.json"):
        options.out = ROOT / "build" / "tracking-quick.json"
        options.out.parent.mkdir(exist_ok=True)
    pythons = environments.make_all(ROOT / "build" / "benchmarks" / "tracking", options.peers.split(","))
    lab = Lab(pythons, options.quick, 1 if options.quick else options.repeats)
    claims = []
    for section in options.only.split(","):
        start = time.monotonic()
        claims += importlib.import_module(SECTIONS[section]).claims(lab)
        print(f"{section}: {time.monotonic() - start:.0f} s", flush=True)
    result.write(options.out, claims, ["numpy"])
    print("peers:", ", ".join(environments.REQUIREMENTS[name] for name in options.peers.split(",")))


if __name__ == "__main__":
    main()
