"""Numbers and names as a person would write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from thalweg.budget import Cost
from thalweg.space import Choice, Dimension
from thalweg.tree import Metric, Run

SHARES = frozenset({"accuracy", "f1", "precision", "recall"})
"""Metrics that lie between 0 and 1 and are written in percent."""

CostField = Literal["device_seconds", "seconds", "flops", "tokens", "samples"]


def plain(text: str) -> str:
    """Text without control characters, which could move a terminal's cursor or colour what follows.

    >>> plain("a\\x1b[31mb")
    'a?[31mb'
    """
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def number(value: Any) -> str:
    """A number to three significant digits, anything else as it is.

    >>> [number(v) for v in (3.2e-05, 1e-4, 0.1, 16, 12345, 1234567.0, 2e15, 1.0, True, "lora")]
    ['3.2e-5', '1e-4', '0.1', '16', '12,345', '1,230,000', '2e15', '1', 'True', 'lora']
    """
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        return plain(str(value))
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**9 else number(float(value))
    if not math.isfinite(value):
        return {math.inf: "infinite", -math.inf: "-infinite"}.get(value, "not a number")
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}" if abs(value) < 999.5 else "1,000" if value > 0 else "-1,000"
    if 1e3 <= abs(value) < 1e9:
        return f"{float(f'{value:.3g}'):,.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def score(metric: str, value: float | None) -> str:
    """A metric's value: shares in percent, others to four significant digits.

    >>> score("accuracy", 0.8412), score("loss", 0.43218), score("perplexity", math.inf), score("f1", None)
    ('84.1%', '0.4322', 'infinite', 'none')
    """
    if value is None:
        return "none"
    if not math.isfinite(value):
        return number(value)
    if metric in SHARES and -1 <= value <= 1:
        return f"{100 * value:.1f}%"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else number(value)


def difference(metric: str, value: float) -> str:
    """A difference of two scores, with its sign; of shares in percentage points.

    >>> difference("accuracy", 0.031), difference("loss", -0.02)
    ('+3.1 points', '-0.02')
    """
    if metric in SHARES:
        return f"{100 * value:+.1f} points"
    return ("+" if value >= 0 else "") + number(float(value))


def duration(seconds: float) -> str:
    """
    >>> [duration(s) for s in (0, 0.42, 7.34, 48, 432, 3600, 11520, 400000)]
    ['0 s', '0.42 s', '7.3 s', '48 s', '7.2 min', '1 h 0 min', '3 h 12 min', '4 d 15 h']
    """
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 3570:
        return f"{seconds / 60:.1f} min" if seconds < 570 else f"{seconds / 60:.0f} min"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def amount(field: CostField, value: float) -> str:
    """One part of a cost, with its unit.

    >>> amount("device_seconds", 90), amount("flops", 3.2e15), amount("tokens", 1250000), amount("samples", 1)
    ('1.5 device-minutes', '3.2e15 FLOPs', '1.25 M tokens', '1 sample')
    """
    if field == "device_seconds":
        return f"{value / 3600:,.1f} device-hours" if value >= 36000 else _counted(_short(value / 60), "device-minute")
    if field == "seconds":
        return duration(value)
    if field == "flops":
        return f"{number(float(value))} FLOPs"
    return _counted(_short(value), field.removesuffix("s"))


def cost_text(cost: Cost) -> str:
    """All parts of a cost that are not zero."""
    fields: tuple[CostField, ...] = ("device_seconds", "seconds", "samples", "tokens", "flops")
    return ", ".join(amount(f, getattr(cost, f)) for f in fields if getattr(cost, f)) or "nothing"


def hyperparameters_text(hyperparameters: Mapping[str, Any]) -> str:
    """
    >>> hyperparameters_text({"lr": 3.2e-05, "batch_size": 16})
    'lr 3.2e-5, batch_size 16'
    """
    return ", ".join(f"{plain(name)} {number(value)}" for name, value in hyperparameters.items()) or "none"


def range_text(dimension: Dimension) -> str:
    """A dimension of a space.

    >>> from thalweg.space import choice, log
    >>> range_text(log(1e-6, 1e-3, prior=2e-5)), range_text(choice([8, 16]))
    ('1e-6 to 0.001, log scale, prior 2e-5', '8, 16')
    """
    prior = "" if dimension.prior is None else f", prior {number(dimension.prior)}"
    if isinstance(dimension, Choice):
        return ", ".join(number(option) for option in dimension.options) + prior
    scale = ", log scale" if dimension.log else ""
    return f"{number(dimension.low)} to {number(dimension.high)}{scale}{prior}"


def first_line(error: str | None, limit: int = 160) -> str:
    """What an error says in one line: a traceback says it in its last one, where it is not indented.

    >>> first_line("Traceback (most recent call last):\\n  File x\\nValueError: no such column\\n")
    'ValueError: no such column'
    >>> first_line("loss is nan at position 12\\nmore")
    'loss is nan at position 12'
    """
    lines = [line.rstrip() for line in plain(error or "").splitlines() if line.strip()]
    if not lines:
        return "no message"
    line = lines[0]
    if line.startswith("Traceback "):
        # A message of several lines follows its exception's name: the first unindented line after the last frame.
        frames = [i for i, text in enumerate(lines) if text.startswith(" ")]
        after = lines[frames[-1] + 1 :] if frames else lines[1:]
        line = after[0] if after else lines[-1].strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def result(run: Run, metric: Metric) -> float | None:
    """The run's last evaluation of the study's metric, infinite loss and not-a-number included; None without one."""
    return next((r.metrics[metric.name] for r in reversed(run.reports) if metric.name in r.metrics), None)


def _counted(text: str, unit: str) -> str:
    return f"{text} {unit}" if text == "1" else f"{text} {unit}s"


def _short(value: float) -> str:
    for factor, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if value >= factor:
            return f"{value / factor:.3g}{suffix}"
    return (
        f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}" if value < 9.95 else f"{value:.1f}"
    )
