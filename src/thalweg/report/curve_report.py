"""A run's curves for people: what they show, in sentences and charts. A fork's curves are its lineage's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thalweg.report.chart import COLOURS, Chart, Line, Mark
from thalweg.report.curves import line
from thalweg.scaling.curves import Finding, RunCurves, find_all
from thalweg.scaling.smoothing import Curve, smooth

if TYPE_CHECKING:
    from thalweg.track.store import Store

NAMES: Mapping[str, tuple[str, ...]] = {
    "training": ("train/loss", "loss", "train_loss", "training_loss"),
    "validation": ("validation/loss", "eval/loss", "eval_loss", "validation_loss", "val_loss"),
    "gradient_norm": ("train/gradient_norm", "gradient_norm", "train/grad_norm", "grad_norm"),
    "rate": ("train/lr", "lr", "train/learning_rate", "learning_rate"),
}
"""What the curves are called: by our own trainers first, then elsewhere. The first that a run has is taken."""

DEFAULT_CLIP: Mapping[str, float] = {"finetune": 1.0, "pretrain": 1.0}
"""Kind of trainer -> the clip threshold of a run whose hyperparameters name none."""

NUM_POINTS = 1000
"""Points of a line in a chart."""

SPAN = 100.0
"""The smoothed curve reaches over this part of the whole: a hundredth."""

APART = 0.03
"""Marks closer than this share of the axis become one, as their labels would overlap."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """One run as its charts and findings need it."""

    run: str
    curves: RunCurves
    raw: Line | None
    """The training loss with all its extremes; None where none was logged."""
    lineage: Sequence[str]
    """The root first, and the run itself last."""
    findings: Sequence[Finding]


def curve_findings(store: Store, run_id: str) -> list[Finding]:
    """What a run's curves show, by position; empty where nothing stands out or no curve has a known name.

    Raises:
        StoreError: there is no such run.
    """
    return find_all(_read_curves(store, run_id)[0])


def read_report(store: Store, run_id: str) -> RunReport:
    """A run's curves over its lineage, and what they show.

    Raises:
        StoreError: there is no such run.
    """
    curves, names, lineage = _read_curves(store, run_id)
    raw = None
    if "training" in names:
        x, y = line(store.reduced(run_id, names["training"], num_buckets=NUM_POINTS))
        scale = store.study(store.run_study(run_id)).scale
        raw = Line(name="", x=(x / scale).tolist(), y=y.tolist())
    return RunReport(run=run_id, curves=curves, raw=raw, lineage=lineage, findings=find_all(curves))


def curve_charts(reports: Sequence[RunReport]) -> list[Chart]:
    """The picture: losses, learning rate below, then gradient norms; a chart without curves is left out.

    The training loss is drawn smoothed, and pale as it was logged; validation is dashed. Findings and forks are marked.
    """
    several = len(reports) > 1
    forks = [mark for report in reports for mark in _fork_marks(report)]
    marks = [*forks, *(mark for report in reports for mark in _finding_marks(report, several))]
    losses, rates, norms = [], [], []
    for report, colour in _coloured(reports):
        prefix = f"{report.run} " if several else ""
        if report.raw is not None:
            losses.append(Line(name="", x=report.raw.x, y=report.raw.y, colour=_pale(colour)))
        losses += _loss_lines(report, prefix, colour)
        rates += _lines(report.curves.rate, f"{prefix}learning rate", colour)
        norm = report.curves.gradient_norm
        norms += _lines(norm, f"{prefix}gradient norm", _pale(colour), named=False)
        norms += _smoothed(norm, f"{prefix}gradient norm, smoothed", colour)
    # All pale lines first, so that they lie below.
    losses.sort(key=lambda entry: bool(entry.name))
    norms.sort(key=lambda entry: bool(entry.name))
    label = f"position ({reports[0].curves.unit})" if reports else "position"
    axis = _axis(reports)
    marks, forks = _joined(marks, axis), _joined(forks, axis)
    over = "Gradient norm, before clipping"
    positive = all(value > 0 for entry in norms for value in entry.y)
    charts = [
        Chart(title=_title(reports, "loss"), x_label=label, y_label="loss", lines=losses, marks=marks),
        Chart(title="Learning rate", x_label=label, y_label="learning rate", lines=rates, marks=forks),
        Chart(title=over, x_label=label, y_label="norm", lines=norms, marks=forks, log_y=positive),
    ]
    return [chart for chart in charts if chart.lines]


def terminal_chart(reports: Sequence[RunReport]) -> Chart | None:
    """Smoothed training loss and validation loss, for the terminal; None where there is neither."""
    several = len(reports) > 1
    lines = [
        drawn
        for report, colour in _coloured(reports)
        for drawn in _loss_lines(report, f"{report.run} " if several else "", colour)
    ]
    if not lines:
        return None
    label = f"position ({reports[0].curves.unit})"
    return Chart(title=_title(reports, "loss"), x_label=label, y_label="loss", lines=lines)


def report_dict(report: RunReport) -> dict[str, Any]:
    """A run's findings as plain values."""
    curves = report.curves
    named = {"training": curves.training, "validation": curves.validation, "gradient_norm": curves.gradient_norm}
    return {
        "run": report.run,
        "lineage": list(report.lineage),
        "forks": list(curves.forks),
        "unit": curves.unit,
        "points": {name: len(curve) for name, curve in named.items() if curve is not None},
        "findings": [
            {"kind": f.kind, "position": f.position, "severity": f.severity, "text": f.text} for f in report.findings
        ],
    }


def _read_curves(store: Store, run_id: str) -> tuple[RunCurves, dict[str, str], tuple[str, ...]]:
    """The curves, the metric that each is, and the lineage."""
    study = store.study(store.run_study(run_id))
    config = study.config
    present = set(store.metrics(run_id))
    names = {
        what: name
        for what, known in NAMES.items()
        if (name := next((n for n in known if n in present), None)) is not None
    }
    series = {what: store.series(run_id, name) for what, name in names.items()}
    drawn = {what: Curve.of(found.positions / study.scale, found.values) for what, found in series.items()}
    any_series = next(iter(series.values()), None)
    lineage = any_series.runs if any_series is not None else (run_id,)
    forks = [at / study.scale for at in any_series.fork_positions[1:]] if any_series is not None else []
    clip = _clip(store.read_run(run_id).hyperparameters, config)
    curves = RunCurves(**drawn, clip=clip, forks=tuple(forks), unit=study.unit)
    return curves, names, lineage


def _clip(hyperparameters: Mapping[str, Any], config: Mapping[str, Any]) -> float | None:
    """The threshold of the global norm; None where the run clips otherwise, not at all, or where it is not known."""
    if hyperparameters.get("clip_by", "norm") != "norm":
        return None
    default = DEFAULT_CLIP.get(str((config.get("trainer") or {}).get("kind")))
    named = (hyperparameters[n] for n in ("clip", "clip_norm", "max_grad_norm") if n in hyperparameters)
    value = next(named, default)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _coloured(reports: Sequence[RunReport]) -> list[tuple[RunReport, str]]:
    return [(report, COLOURS[i % len(COLOURS)]) for i, report in enumerate(reports)]


def _loss_lines(report: RunReport, prefix: str, colour: str) -> list[Line]:
    validation = _lines(report.curves.validation, f"{prefix}validation", colour, dash=True)
    return [*_smoothed(report.curves.training, f"{prefix}training, smoothed", colour), *validation]


def _lines(curve: Curve | None, name: str, colour: str, *, dash: bool = False, named: bool = True) -> list[Line]:
    if curve is None or not len(curve):
        return []
    each = -(-len(curve) // NUM_POINTS)
    x, y = curve.positions[::each].tolist(), curve.values[::each].tolist()
    return [Line(name=name if named else "", x=x, y=y, dash=dash, colour=colour)]


def _smoothed(curve: Curve | None, name: str, colour: str) -> list[Line]:
    if curve is None or not len(curve):
        return []
    length = float(curve.positions[-1] - curve.positions[0])
    values = smooth(curve.positions, curve.values, span=length / SPAN) if length else curve.values
    return _lines(Curve(curve.positions, values, curve.broken), name, colour)


def _pale(colour: str) -> str:
    """Mixed with two parts of white."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{(part + 2 * 255) // 3:02x}" for part in parts)


def _fork_marks(report: RunReport) -> list[Mark]:
    pairs = zip(report.lineage[1:], report.curves.forks, strict=True)
    return [Mark(position=position, text=f"fork {child}") for child, position in pairs]


def _finding_marks(report: RunReport, several: bool) -> list[Mark]:
    prefix = f"{report.run}: " if several else ""
    return [Mark(position=finding.position, text=f"{prefix}{finding.kind}") for finding in report.findings]


def _axis(reports: Sequence[RunReport]) -> float:
    """The length of the drawn axis."""
    drawn = [curve.positions for report in reports if (curve := report.curves.training) is not None and len(curve)]
    return float(max(p[-1] for p in drawn) - min(p[0] for p in drawn)) if drawn else 0.0


def _joined(marks: Sequence[Mark], axis: float) -> list[Mark]:
    """Marks by position; those that lie close together become one, with each text once."""
    joined: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: mark.position):
        if joined and mark.position - joined[-1].position <= APART * axis:
            before = joined.pop()
            texts = dict.fromkeys([*before.text.split(", "), mark.text])
            mark = Mark(position=before.position, text=", ".join(texts))
        joined.append(mark)
    return joined


def _title(reports: Sequence[RunReport], what: str) -> str:
    names = ", ".join(" > ".join(report.lineage) for report in reports[:3])
    more = f" and {len(reports) - 3} more" if len(reports) > 3 else ""
    return f"{names}{more}: {what}"
