"""Makes the figures of the guide pages.

    python docs/figures/make.py              # those that need no training: seconds
    python docs/figures/make.py clipping     # some of them, by name
    python docs/figures/make.py --train      # those of real runs too: about 10 minutes on 2 cores

Each is drawn by the package's own code, from formulas or from runs that are trained for it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import drawn
import picture
import trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(drawn.FIGURES)}")
    parser.add_argument("--train", action="store_true", help="also train, and draw the figures of those runs")
    parser.add_argument("--work", type=Path, help="with --train: the folder for its runs; one that has them is used")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder to write into")
    options = parser.parse_args()
    if unknown := set(options.names) - set(drawn.FIGURES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}. Known: {', '.join(drawn.FIGURES)}")
    for name in options.names or drawn.FIGURES:
        picture.write(drawn.FIGURES[name](), options.out / f"{name}.png")
        print(f"{name}.png")
    if options.train:
        with tempfile.TemporaryDirectory() as folder:
            trained.draw(options.work or Path(folder), options.out)


if __name__ == "__main__":
    main()
