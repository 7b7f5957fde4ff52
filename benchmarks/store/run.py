"""How fast the store writes and reads points, and how many bytes they take; beside other trackers and plain NumPy.

    make bench NAME=store

Writes result.json beside this file. Numbers are medians over repeats; what is compared takes turns within a repeat.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.track.store import Store

sys.path.append(str(Path(__file__).parents[1]))
import result

try:
    from peers import PEERS, Calls
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed; the peers are an extra: pip install -e '.[bench]'")

NUM_POINTS = 1_000_000
NUM_BUCKETS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    wide: Calls = [
        (step, {f"metric/{i}": v for i, v in enumerate(rng.normal(size=100).tolist())}) for step in range(1000)
    ]
    long: Calls = [(step, {"loss": value}) for step, value in enumerate(rng.normal(size=100_000).tolist())]
    claims = writing("100 metrics x 1,000 steps", wide, options.repeats)
    claims += writing("1 metric x 100,000 steps", long, options.repeats)
    claims += reading(rng, options.repeats)
    result.write(options.out, claims, ["numpy", "mlflow", "trackio", "tensorboard"])


def writing(shape: str, calls: Calls, repeats: int) -> list[dict[str, Any]]:
    """Points per second of the store and of each peer."""
    num_points = sum(len(metrics) for _, metrics in calls)
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, write in {"thalweg": write_thalweg, **PEERS}.items():
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                seconds.setdefault(name, []).append(write(calls, Path(folder)))
                print(f"{shape}: {name} {num_points / seconds[name][-1]:,.0f} points/s", flush=True)
    rates = {name: num_points / statistics.median(times) for name, times in seconds.items()}
    targets = {
        "mlflow": 100,
        "trackio": 5,
        "trackio, its storage alone": None,
        "tensorboard": None,
        "sqlite rows": None,
    }
    return [
        result.claim(
            f"points a second, {shape}, against {peer}",
            {"thalweg": round(rates["thalweg"]), peer: round(rates[peer])},
            rates["thalweg"] / rates[peer],
            at_least=target,
        )
        for peer, target in targets.items()
    ]


def write_thalweg(calls: Calls, folder: Path) -> float:
    """A writer's calls until `finish` has returned: everything is committed and compacted."""
    with Store.open(folder / "thalweg.db") as store:
        run_id = new_run(store)
        writer = store.writer(run_id)
        start = time.perf_counter()
        for position, metrics in calls:
            writer.log(position, metrics)
        writer.finish("finished", len(calls))
        return time.perf_counter() - start


def reading(rng: np.random.Generator, repeats: int) -> list[dict[str, Any]]:
    """A long series read and reduced, against NumPy on the raw values in a file; and the size of the store."""
    values = rng.normal(size=NUM_POINTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values.tofile(folder / "raw")
        with Store.open(folder / "thalweg.db") as store:
            run_id = new_run(store)
            empty = size(folder / "thalweg.db")
            with store.writer(run_id) as writer:
                for position, value in enumerate(values.tolist()):
                    writer.log(position, {"loss": value})
                writer.finish("finished", NUM_POINTS)
        # Closed, so that all is in the file itself.
        bytes_per_point = (size(folder / "thalweg.db") - empty) / NUM_POINTS
        with Store.open(folder / "thalweg.db") as store:
            reduced = store.reduced(run_id, "loss", num_buckets=NUM_BUCKETS)
            assert reduced.min.min() == values.min()
            assert reduced.max.max() == values.max()
            assert len(reduced) == NUM_BUCKETS

            def by_store() -> None:
                store.reduced(run_id, "loss", num_buckets=NUM_BUCKETS)

            def by_numpy() -> None:
                raw = np.fromfile(folder / "raw")
                starts = np.arange(NUM_BUCKETS) * len(raw) // NUM_BUCKETS
                np.minimum.reduceat(raw, starts)
                np.maximum.reduceat(raw, starts)

            def whole() -> None:
                store.series(run_id, "loss")

            ours, theirs, full = median_seconds([by_store, by_numpy, whole], 10 * repeats)
    measured = {"store_ms": ours * 1e3, "file_and_numpy_ms": theirs * 1e3, "store_unreduced_ms": full * 1e3}
    return [
        result.claim(
            f"time to read {NUM_POINTS:,} points into {NUM_BUCKETS:,} min/max buckets, against a raw file and NumPy",
            {name: round(ms, 3) for name, ms in measured.items()},
            ours / theirs,
            at_most=3,
        ),
        result.claim(
            f"bytes a point, {NUM_POINTS:,} normal values with position and time, of the closed file",
            {"bytes_per_point": round(bytes_per_point, 3)},
            bytes_per_point,
            at_most=10,
        ),
    ]


def median_seconds(functions: list[Callable[[], None]], repeats: int) -> list[float]:
    """The median time of each, taken in turns."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, times in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def new_run(store: Store) -> str:
    store.create_study("benchmark", {})
    return store.create_run("benchmark", hyperparameters={}, horizon=1, until=1, seed=0, origin="hand").id


def size(path: Path) -> int:
    return path.stat().st_size


if __name__ == "__main__":
    main()
