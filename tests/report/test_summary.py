"""The terminal's texts: summary, plan and progress."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console, RenderableType

from thalweg.budget import Budget, Cost, Ledger
from thalweg.report.plan import Plan, plan_dict, plan_table
from thalweg.report.progress import Progress, events
from thalweg.report.summary import summary
from thalweg.space import Space
from thalweg.tree import Metric, Report, Tree

ACCURACY = Metric("accuracy", "max")


def shown(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines()), default=0) <= width
    return str(text)


def test_summary_says_what_was_found(make: SimpleNamespace) -> None:
    text = shown(summary(make.rich_view(12)))
    for part in (
        "lr (1e-6 to 0.001, log scale)",
        "12 runs, 8 minutes",
        "7.5e-5",
        "86.1% (84.5% to 87.5%)",
        "which is more than noise",
        "device time",
        "of it by failed and diverged runs",
        "12 runs: 6 paused, 4 finished, 1 failed, 1 diverged.",
        "imdb-4 failed: ValueError: out of range",
    ):
        assert part in " ".join(text.split()), part


@pytest.mark.parametrize("num_runs", [1, 3, 200])
def test_summary_of_any_size(make: SimpleNamespace, num_runs: int) -> None:
    assert f"{num_runs} run" in shown(summary(make.rich_view(num_runs)))


def test_summary_of_no_run_and_of_failures_only(make: SimpleNamespace) -> None:
    assert "0 runs." in shown(summary(make.view([])))
    failed = [make.run(n, status="failed", reports=(), error=f"boom {n}") for n in range(1, 9)]
    text = shown(summary(make.view(failed)))
    assert "No run has finished" in text
    assert "boom 1" in text
    assert "... and 3 more." in text


def test_markup_and_control_characters_in_names_are_shown_as_they_are(make: SimpleNamespace) -> None:
    values = {"[bold]lr": "[blink]x[/]"}
    run = make.run(1, id="[red]a\x1b[31m[/red]", hyperparameters=values, reports=(Report(9, {"accuracy": 0.7}),))
    text = shown(summary(make.view([run, make.run(2, status="failed", error="\x1b[2J[/nope]", reports=())])), 120)
    assert "\x1b" not in text
    assert "[red]a?[31m[/red]" in text
    assert "[/nope]" in text


def test_importing_the_summary_imports_nothing_heavy() -> None:
    code = (
        "import sys, thalweg.report.summary, thalweg.report.plan, thalweg.report.progress;"
        "print([m for m in ('plotly', 'optuna', 'torch', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def a_plan(**changes: object) -> Plan:
    fields: dict[str, object] = {
        "study": "imdb",
        "strategy": "halving with tpe",
        "metric": ACCURACY,
        "space": Space.parse({"lr": {"log": [1e-6, 1e-3]}, "dropout": 0.1}),
        "budget": Budget(runs=12, seconds=480.0),
        "num_runs": 12,
        "cost": Cost(tokens=6_280_000, flops=2.9e14),
        "expected_seconds": 430.0,
        "workers": 2,
        "facts": {"data": "2,000 reviews to train", "checkpoints": "runs/checkpoints"},
    }
    return Plan(**(fields | changes))  # type: ignore[arg-type]


def test_plan_says_what_will_be_spent() -> None:
    text = shown(plan_table(a_plan()))
    for part in (
        "lr: 1e-6 to 0.001",
        "dropout: 0.1 (fixed)",
        "about 12",
        "6.28 M tokens",
        "about 7.2 min",
        "2 workers",
    ):
        assert part in text
    assert "runs/checkpoints" in text
    assert "if the budget did not end it sooner" not in text


def test_plan_where_little_is_known() -> None:
    text = shown(plan_table(a_plan(num_runs=None, expected_seconds=None, cost=Cost(), budget=Budget(), workers=1)))
    assert "as many as the budget allows" in text
    assert "not known before the first run, on 1 worker" in text
    assert "no limit" in text


def test_plan_beyond_its_budget_says_so() -> None:
    assert "if the budget did not end it sooner" in " ".join(shown(plan_table(a_plan(expected_seconds=900.0))).split())


def test_plan_as_json() -> None:
    facts = json.loads(json.dumps(plan_dict(a_plan()), allow_nan=False))
    assert facts["budget"] == {"runs": 12, "seconds": 480.0}
    assert facts["space"]["lr"] == {"log": [1e-6, 1e-3]}
    assert facts["cost"]["tokens"] == 6_280_000


def test_events_tell_a_run_from_start_to_finish(make: SimpleNamespace) -> None:
    first, second = Report(667, {"accuracy": 0.8}), Report(6000, {"accuracy": 0.85})
    values = {"hyperparameters": {"lr": 3e-5}, "horizon": 6000}
    stages = [
        make.run(1, **values, status="pending", position=0, until=667, reports=()),
        make.run(1, **values, status="running", position=0, until=667, reports=()),
        make.run(1, **values, status="paused", position=667, until=667, reports=(first,)),
        make.run(1, **values, status="running", position=667, until=6000, reports=(first,)),
        make.run(1, **values, status="interrupted", position=3000, until=6000, reports=(first,)),
        make.run(1, **values, status="running", position=3000, until=6000, reports=(first,)),
        make.run(1, **values, status="finished", position=6000, until=6000, reports=(first, second)),
    ]
    told = []
    before: dict[str, object] = {}
    for run in stages:
        tree = Tree.of([run])
        told.append(events(before, tree, ACCURACY, "samples"))  # type: ignore[arg-type]
        before = dict(tree.runs)
    assert told == [
        [],
        ["started imdb-1: lr 3e-5"],
        ["imdb-1 reached 667 of 6,000 samples: accuracy 80.0%"],
        ["promoted imdb-1 from 667 to 6,000 samples"],
        ["interrupted imdb-1 at 3,000 samples"],
        ["resumed imdb-1 at 3,000 samples"],
        ["finished imdb-1: accuracy 85.0%"],
    ]


def test_events_of_a_run_that_failed_between_two_looks(make: SimpleNamespace) -> None:
    run = make.run(1, status="failed", position=40, reports=(), error="Traceback (x):\n  a\nKeyError: 'lr'\n")
    told = events({}, Tree.of([run]), ACCURACY, "steps")
    assert told[0].startswith("started imdb-1")
    assert told[1] == "failed imdb-1 at 40 steps: KeyError: 'lr'"


def progress_output(make: SimpleNamespace, *, terminal: bool, quiet: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=terminal)
    runs = [make.baseline(), *(make.run(n, status="running", position=500, reports=()) for n in range(1, 12))]
    ledger = Ledger({}, 12, 62.0)
    budget = Budget(runs=12, seconds=480.0, tokens=1000)
    with Progress("imdb", ACCURACY, "samples", budget, console=console, quiet=quiet) as progress:
        progress.update(Tree.of([]), Ledger(), {})
        progress.update(Tree.of(runs), ledger, {"imdb-1": (900, {"train/loss": math.nan})}, "checkpoint [red]written")
    return stream.getvalue()


def test_progress_is_a_line_per_event_where_there_is_no_terminal(make: SimpleNamespace) -> None:
    lines = progress_output(make, terminal=False).splitlines()
    assert lines[0].startswith("[1.0 min] started imdb-0: lr 5e-5")
    assert "[1.0 min] finished imdb-0: accuracy 83.6%" in lines
    assert lines[-1] == "[1.0 min] checkpoint [red]written"


def test_quiet_progress_shows_nothing(make: SimpleNamespace) -> None:
    assert progress_output(make, terminal=False, quiet=True) == ""
    assert progress_output(make, terminal=True, quiet=True) == ""


def test_progress_does_not_tell_old_news(make: SimpleNamespace) -> None:
    stream = io.StringIO()
    with Progress("imdb", ACCURACY, "samples", Budget(), console=Console(file=stream, width=80)) as progress:
        progress.update(make.rich_view(12).tree, Ledger(), {})
    assert stream.getvalue() == ""


def test_live_progress_shows_runs_budget_and_best(make: SimpleNamespace) -> None:
    text = progress_output(make, terminal=True)
    for part in ("budget: seconds", "imdb-1 ", "... and 3 more", "best so far: imdb-0", "not a number"):
        assert part in text


def test_progress_fits_80_columns(make: SimpleNamespace) -> None:
    runs = [make.run(n, id=f"a-very-long-study-name-indeed-{n}", status="running", reports=()) for n in range(1, 4)]
    progress = Progress("a-very-long-study-name-indeed", ACCURACY, "samples", Budget(tokens=10**9, flops=1e18))
    text = shown(progress.render(Tree.of(runs), Ledger({}, 3, 99999.0), {}))
    assert len(text.splitlines()) <= 10
