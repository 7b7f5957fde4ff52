"""The figures of real runs: the study of examples/extend.toml, extended, and what the commands show of it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import picture

from thalweg.report.chart import Chart, Line, Mark
from thalweg.report.palette import BLUE, GREEN, GREY, ORANGE
from thalweg.track.store import Store

EXAMPLES = Path(__file__).parents[2] / "examples"
BUDGETS = (200_000, 400_000, 800_000, 1_600_000)
BRANCHES = ("extend-0", "extend-2", "extend-3", "extend-7")
NEAR = 840_000
"""The budget of extend-6, whose decay begins soon after that of extend-3."""
SHOWN_FROM = 150_000
"""Tokens before which the loss falls so fast that a chart would show nothing else."""


def draw(work: Path, out: Path) -> None:
    """Train where that is not done yet, and draw all figures.

    Args:
        work: the folder where the runs are; what is there already is not trained again.
        out: the folder for the pictures.
    """
    work.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLES / "extend.toml", work)
    _grow(work)
    with Store.open(work / ".thalweg" / "store.db", read_only=True) as store:
        _save("trunk-and-branches", [_losses(store), _rates(store, BRANCHES)], out)
        _save("cyclic", [_both(store), _rates(store, ["extend-3", "extend-5"])], out)
    _save("landscape", _landscapes(work), out)
    commands = {
        "lr-range": ["lr-range", "extend.toml", "--from", "1e-4", "--to", "10", "--length", "300000"],
        "curves": ["curves", "extend-8"],
        "check-mup": ["check-mup"],
    }
    for name, command in commands.items():
        _command(work, *command, "--out", str((out / f"{name}.png").absolute()))
        picture.reduce(out / f"{name}.png")
        print(f"{name}.png")
    _save("extend", _comparison(work), out)


def _grow(work: Path) -> None:
    """Both runs of the study, and their extensions, in this order: they are numbered from extend-2 on."""
    if (work / ".thalweg" / "store.db").exists():
        return
    _command(work, "tune", "extend.toml")
    for run, budget in (("extend-0", BUDGETS[1]), ("extend-2", BUDGETS[2])):
        _command(work, "extend", run, "--to", str(budget))
    for run, budget in (("extend-1", BUDGETS[1]), ("extend-4", BUDGETS[2])):
        _command(work, "extend", run, "--to", str(budget), "--set", f"decay={budget // 10}")
    for budget in (NEAR, BUDGETS[3]):
        _command(work, "extend", "extend-3", "--to", str(budget))
    # extend-8, at a learning rate that is far too high.
    _command(work, "extend", "extend-2", "--to", "600000", "--set", "lr=0.1")


def _command(work: Path, *arguments: str) -> str:
    """Run a command of thalweg, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "thalweg", *arguments], cwd=work, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def _save(name: str, charts: Sequence[Chart], out: Path) -> None:
    picture.write(charts, out / f"{name}.png")
    print(f"{name}.png")


def _validation(store: Store, run: str, start: float, end: float) -> tuple[list[float], list[float]]:
    """Position and validation loss of a run's lineage between two positions, its report at the end included."""
    found = store.series(run, "validation/loss")
    points = dict(zip(found.positions.tolist(), found.values.tolist(), strict=True))
    points |= {report.position: report.metrics["loss"] for report in store.read_run(run).reports}
    kept = sorted((p, loss) for p, loss in points.items() if start <= p <= end)
    return [p for p, _ in kept], [loss for _, loss in kept]


def _losses(store: Store) -> Chart:
    """The trunk, and each branch from where it leaves the trunk."""
    begins = {run: 0.9 * budget for run, budget in zip(BRANCHES, BUDGETS, strict=True)}
    # A step may begin just before the decay and be evaluated after it.
    step = 1024
    x, y = _validation(store, BRANCHES[-1], SHOWN_FROM, begins[BRANCHES[-1]] + step)
    lines = [Line(name="trunk: learning rate held", x=x, y=y, colour=BLUE)]
    for run in BRANCHES:
        x, y = _validation(store, run, begins[run], float("inf"))
        name = f"branches: learning rate decayed, to {', '.join(f'{b:,}' for b in BUDGETS)}"
        lines.append(Line(name="" if lines[1:] else name, x=x, y=y, colour=ORANGE))
    marks = [Mark(position=begin, text=f"{run} decays") for run, begin in begins.items()]
    return Chart(title="One trunk, four budgets", x_label="tokens", y_label="validation loss", lines=lines, marks=marks)


def _both(store: Store) -> Chart:
    """The lineages of the last extensions: of the trunk's last branch, and of the last cycle."""
    lines = []
    for run, text, colour in (("extend-3", "wsd", BLUE), ("extend-5", "cyclic_wsd", ORANGE)):
        x, y = _validation(store, run, SHOWN_FROM, float("inf"))
        lines.append(Line(name=f"{text} ({run})", x=x, y=y, colour=colour))
    return Chart(
        title="To 800,000 tokens on the trunk, and over decayed weights",
        x_label="tokens",
        y_label="validation loss",
        lines=lines,
    )


def _rates(store: Store, runs: Sequence[str]) -> Chart:
    lines = []
    for run in runs:
        found = store.series(run, "train/lr")
        lines.append(Line(name=run, x=found.positions.tolist(), y=found.values.tolist()))
    return Chart(
        title="Learning rate, of each run's whole lineage", x_label="tokens", y_label="learning rate", lines=lines
    )


def _landscapes(work: Path) -> list[Chart]:
    """The loss between two checkpoints before the decay, and between two after it: far apart, and close together."""
    with Store.open(work / ".thalweg" / "store.db", read_only=True) as store:
        held, decayed = {}, {}
        for run, budget in (("extend-3", BUDGETS[2]), ("extend-6", NEAR), ("extend-7", BUDGETS[3])):
            positions = [checkpoint.position for checkpoint in store.checkpoints(run)]
            held[run] = f"{run}@{max(p for p in positions if p <= 0.9 * budget)}"
            decayed[run] = f"{run}@{max(positions)}"
    charts = []
    for other, title in (("extend-7", "Far apart: twice the tokens"), ("extend-6", "Close together: 35 steps, and 39")):
        lines = []
        for ends, words, colour in ((held, "learning rate held", BLUE), (decayed, "decayed", ORANGE)):
            found = json.loads(_command(work, "landscape", ends["extend-3"], ends[other], "--json"))
            print(f"{found['a']} to {found['b']}: {found['text']}")
            name = f"{found['a']} to {found['b']}, {words}"
            lines.append(Line(name=name, x=found["alphas"], y=found["losses"], colour=colour))
        marks = [Mark(position=0.0, text="A"), Mark(position=1.0, text="B")]
        axes = {"x_label": "share of the way from A to B", "y_label": "validation loss"}
        charts.append(Chart(title=title, lines=lines, marks=marks, **axes))  # type: ignore[arg-type]
    return charts


def _comparison(work: Path) -> list[Chart]:
    """Final losses over the tokens that they took in all, of examples/extend.py."""
    found = _measured(work)
    lines = []
    for name, entry, colour in (
        ("wsd", "wsd", BLUE),
        ("cyclic_wsd", "cyclic", ORANGE),
        ("cyclic_wsd, its last cycle longer", "same_tokens", GREEN),
        ("wsd, had each budget a run of its own", "separate", GREY),
    ):
        for i, losses in enumerate(found[entry]["losses"]):
            dash = entry in ("separate", "same_tokens")
            x = found[entry]["tokens"]
            lines.append(Line(name="" if i else name, x=x, y=losses, colour=colour, dash=dash))
    return [
        Chart(
            title="Validation loss at the ends, over all tokens that were trained until then; three seeds",
            x_label="tokens trained in all",
            y_label="validation loss",
            lines=lines,
        )
    ]


def _measured(work: Path) -> dict[str, Any]:
    """Each seed's losses, and the tokens that were trained until then."""
    path = work / "extend.json"
    if not path.exists():
        spec = importlib.util.spec_from_file_location("extend_example", EXAMPLES / "extend.py")
        assert spec is not None
        assert spec.loader is not None
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)
        seeds = [example.Runs(seed, work / "extend.db") for seed in example.SEEDS]
        print(example.compare(seeds))
        first = seeds[0]
        measured = {
            name: {
                "losses": [[one.loss(run) for run in getattr(one, name)] for one in seeds],
                "tokens": [first.tokens(getattr(first, name)[: k + 1]) for k in range(len(getattr(first, name)))],
            }
            for name in ("wsd", "cyclic")
        }
        # It leaves the cyclic runs where their last cycle begins.
        last = [*first.cyclic[:-2], *first.same_tokens]
        measured["same_tokens"] = {
            "losses": [[one.loss(run) for run in one.same_tokens] for one in seeds],
            "tokens": [first.tokens(last[:-1]), first.tokens(last)],
        }
        separate = [sum(example.BUDGETS[: k + 1]) for k in range(len(example.BUDGETS))]
        measured["separate"] = {"losses": measured["wsd"]["losses"], "tokens": separate}
        path.write_text(json.dumps(measured))
    read: dict[str, Any] = json.loads(path.read_text())
    return read
