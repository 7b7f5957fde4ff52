"""`thalweg schedule list` and `thalweg schedule show`: learning-rate schedules, drawn before anything is trained."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.arguments import JsonOption, parse_settings, print_json
from thalweg.errors import ConfigError, nearest
from thalweg.schedules import (
    RUN_SCHEDULES,
    SCHEDULES,
    Preset,
    Schedule,
    for_run,
    from_toml,
    parse_toml,
    preset,
    preset_names,
    presets,
    read_preset,
    run_schedule_names,
    stretch,
    to_toml,
)

if TYPE_CHECKING:
    from rich.table import Table

    from thalweg.report.chart import Chart

app = typer.Typer(help="List and draw learning-rate schedules.", no_args_is_help=True, rich_markup_mode=None)

_HORIZON = 1000.0
_NUM_DRAWN = 1000
_NUM_ROWS = 10

_LARGE: Mapping[int, str] = {10**9: "billion", 10**6: "million"}

# What is drawn where a name alone would be refused, or would not show what the schedule is for.
_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "inverse_sqrt": {"warmup": 0.1},
    "cyclic_cosine": {"num_cycles": 4},
    "cyclic_wsd": {"num_cycles": 4},
    "lr_range": {"floor": 1e-4},
}


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A schedule to be drawn."""

    name: str
    label: str
    schedule: Schedule
    horizon: float
    published: Preset | None = None
    """What peak, unit and source are known from."""

    def positions(self, num_intervals: int) -> list[float]:
        return [self.horizon * i / num_intervals for i in range(num_intervals + 1)]


def _complete(incomplete: str) -> list[str]:
    return [name for name in run_schedule_names() if name.startswith(incomplete)]


@app.command("list")
def list_schedules(json: JsonOption = False) -> None:
    """List the schedules that a run can have by name, and the published runs whose schedules are known.

    Example: thalweg schedule list
    """
    from rich.console import Console
    from rich.table import Table

    described = {name: _first_line(name) for name in RUN_SCHEDULES}
    if json:
        published = [
            {"name": p.name, "unit": p.unit, "peak": p.peak, "length": p.length, "source": p.source} for p in presets()
        ]
        print_json({"schedules": described, "presets": published})
        return
    schedules = Table("schedule", "what it does", box=None, pad_edge=False)
    for name, text in described.items():
        schedules.add_row(name, text)
    runs = Table("published run", "peak", "length", "source", box=None, pad_edge=False)
    for found in presets():
        runs.add_row(found.name, f"{found.peak:g}", f"{_number(found.length)} {found.unit}", found.source)
    console = Console()
    console.print(schedules)
    console.print()
    console.print(runs)
    print("\nDraw one: thalweg schedule show wsd")


@app.command("show")
def show(
    names: Annotated[
        list[str],
        typer.Argument(help="Schedules, published runs, or TOML files of either.", autocompletion=_complete),
    ],
    horizon: Annotated[
        float | None,
        typer.Option(help="The run's length. By default a published run's own, if it is shown alone; else 1000."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of named schedules, such as warmup=0.1; repeat for more."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also draw into this .png, .svg or .html file.")] = None,
    json: JsonOption = False,
) -> None:
    """Draw schedules, and print their rates.

    Example: thalweg schedule show wsd cosine cyclic_wsd --set warmup=0.05 --out schedules.png
    """
    from rich.console import Console

    from thalweg.report.chart import chart_text, write_charts

    if horizon is None and len(names) > 1:
        horizon = _HORIZON
    settings = _settings(set_ or [])
    shown = [_shown(name, horizon, settings) for name in names]
    chart = _chart(shown)
    if out is not None:
        write_charts([chart], out)
    if json:
        print_json({"schedules": [_as_dict(entry) for entry in shown], "chart": None if out is None else str(out)})
        return
    console = Console()
    print(chart_text(chart, width=min(console.width, 100)))
    console.print(_table(shown))
    for entry in shown:
        if entry.published is not None:
            print(f"{entry.name}: {entry.published.source}")
    if out is not None:
        print(f"Chart: {out}")


def _shown(name: str, horizon: float | None, settings: Mapping[str, Any]) -> _Shown:
    if name.endswith(".toml") or Path(name).is_file():
        return _from_file(Path(name), horizon)
    if name in preset_names():
        return _published(name, preset(name), horizon)
    if name not in RUN_SCHEDULES:
        raise ConfigError(
            f"unknown schedule {name!r}. {nearest(name, run_schedule_names())}; or give a TOML file that ends in .toml"
        )
    used = {**_EXAMPLES.get(name, {}), **settings}
    horizon = _HORIZON if horizon is None else horizon
    words = ", ".join(f"{key} = {value}" for key, value in used.items())
    label = f"{name} ({words})" if words else name
    return _Shown(name=name, label=label, schedule=for_run(name, horizon=horizon, **used), horizon=horizon)


def _from_file(path: Path, horizon: float | None) -> _Shown:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist. Schedules by name: {', '.join(run_schedule_names())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        if "kind" not in parse_toml(text):
            return _published(path.name, read_preset(text), horizon)
        schedule = from_toml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if horizon is None:
        raise ConfigError(f"{path} describes a schedule alone, which has no length: give --horizon")
    return _Shown(name=path.name, label=path.name, schedule=schedule, horizon=_checked(horizon))


def _published(name: str, found: Preset, horizon: float | None) -> _Shown:
    length = found.length if horizon is None else _checked(horizon)
    schedule = found.schedule if length == found.length else stretch(found.schedule, factor=length / found.length)
    return _Shown(name=name, label=found.name, schedule=schedule, horizon=length, published=found)


def _checked(horizon: float) -> float:
    # Through a schedule that refuses what is no horizon, so that the words are the same everywhere.
    for_run("constant", horizon=horizon)
    return horizon


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """`--set` options, by `for_run`'s own names."""
    return parse_settings(
        given, [name for name in inspect.signature(for_run).parameters if name not in ("name", "horizon")]
    )


def _chart(shown: Sequence[_Shown]) -> Chart:
    from thalweg.report.chart import Chart, Line

    alone = shown[0] if len(shown) == 1 else None
    published = alone.published if alone else None
    factor = published.peak if published else 1.0
    unit = published.unit if published and alone and alone.horizon == published.length else "position"
    scale = next((n for n in _LARGE if unit != "position" and shown[0].horizon >= 10 * n), 1)
    lines = []
    for entry in shown:
        positions = entry.positions(_NUM_DRAWN)
        name = "" if alone else entry.label
        y = [factor * entry.schedule(position) for position in positions]
        lines.append(Line(name=name, x=[position / scale for position in positions], y=y))
    return Chart(
        title=alone.label if alone else "Learning-rate schedules",
        x_label=f"{_LARGE.get(scale, '')} {unit}".strip(),
        y_label="learning rate" if published else "share of the peak learning rate",
        lines=lines,
        log_y=alone is not None and alone.name == "lr_range",
    )


def _table(shown: Sequence[_Shown]) -> Table:
    """Positions and multipliers; the rates too, of a published run that is shown alone."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("position", justify="right")
    for entry in shown:
        table.add_column(entry.label, justify="right", overflow="fold")
    published = shown[0].published if len(shown) == 1 else None
    if published is not None:
        table.add_column("learning rate", justify="right")
    for position in shown[0].positions(_NUM_ROWS):
        multipliers = [entry.schedule(position) for entry in shown]
        rates = [published.peak * multipliers[0]] if published else []
        table.add_row(_number(position), *(f"{value:.4g}" for value in multipliers + rates))
    return table


def _as_dict(entry: _Shown) -> dict[str, Any]:
    positions = entry.positions(_NUM_DRAWN)
    multipliers = [entry.schedule(position) for position in positions]
    found = {
        "name": entry.name,
        "horizon": entry.horizon,
        "schedule": tomllib.loads(to_toml(entry.schedule)),
        "positions": positions,
        "multipliers": multipliers,
    }
    if entry.published is None:
        return found
    peak = entry.published.peak
    known = {"unit": entry.published.unit, "peak": peak, "source": entry.published.source}
    return {**found, **known, "learning_rates": [peak * multiplier for multiplier in multipliers]}


def _first_line(name: str) -> str:
    return (inspect.getdoc(SCHEDULES[name]) or "").split("\n", 1)[0]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.4g}"
