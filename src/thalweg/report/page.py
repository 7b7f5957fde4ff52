"""One self-contained HTML file about a study: facts, tables, figures, configuration. It loads nothing from anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.io
from plotly.offline import get_plotlyjs

from thalweg.budget import SPEND_KINDS, Cost
from thalweg.report.confirmation import confirmed, mean_text, statement
from thalweg.report.curve_report import curve_findings
from thalweg.report.curves import Curves, read_curves
from thalweg.report.figures import Panel, all_panels
from thalweg.report.findings import changed, verdict
from thalweg.report.front import front, objective_values, value_text
from thalweg.report.palette import cost_axis, template
from thalweg.report.style import SCRIPT, STYLE
from thalweg.report.summary import cost_rows, estimate_text, main_cost, searched_text, statuses_text
from thalweg.report.two_stage_panel import two_stage_panels
from thalweg.report.view import StudyView, read_view
from thalweg.report.wording import (
    amount,
    duration,
    first_line,
    hyperparameters_text,
    number,
    plain,
    result,
    score,
)
from thalweg.scaling.curves import Finding
from thalweg.trainer import Estimate
from thalweg.tree import Run

if TYPE_CHECKING:
    from thalweg.track.store import Store


def write_report(store: Store, study: str, path: str | Path) -> Path:
    """Write the report of a study, replacing the file where there is one.

    Returns:
        The file's path.
    Raises:
        StoreError: there is no study of that name.
        OSError: the file cannot be written.
    """
    view = read_view(store, study)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        findings = curve_findings(store, view.best.id) if view.best else []
        partial.write_text(render(view, read_curves(store, view), findings), encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def render(view: StudyView, curves: Curves, findings: Sequence[Finding] = ()) -> str:
    """The whole page as text; the findings are those in the best run's curves."""
    panels = [*all_panels(view, curves), *two_stage_panels(view)]
    body = [
        f"<header><p class='kind'>Thalweg study</p><h1>{_text(view.name)}</h1>",
        f"<p class='verdict'>{_text(verdict(view))}</p>{_tiles(view)}",
        f"<p>{_text(searched_text(view))} {_text(statuses_text(view))}</p></header>",
        _section("Best and baseline", _comparison(view)) if view.best else "",
        _confirmation(view),
        _front(view),
        *(_panel(panel) for panel in panels),
        _section("What the best run's curves say", _findings(findings)) if findings else "",
        _section("Why it stopped", f"<p>{_text(view.stopped_by.reason)}</p>") if view.stopped_by else "",
        _section("What it cost", _costs(view)),
        _section("Runs", _runs(view)) if len(view.tree) else "",
        _section("Configuration", _configuration(view)),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            "<html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            "<meta name='color-scheme' content='light dark'>",
            f"<title>{_text(view.name)} - Thalweg report</title>",
            f"<style>{STYLE}</style></head><body><main>",
            *body,
            "</main>",
            f"<script>{get_plotlyjs()}</script>",
            f"<script>const figures = {_figures(panels)};\n{SCRIPT}</script>",
            "</body></html>\n",
        ]
    )


def _confirmation(view: StudyView) -> str:
    groups = confirmed(view.tree, view.metric)
    if not groups:
        return ""
    head = ["runs", "seeds", f"mean {view.metric.name} (95% interval)", "hyperparameters"]
    rows = [
        _row(
            ", ".join(group.runs),
            [
                ", ".join(map(str, group.seeds)),
                mean_text(group, view.metric),
                hyperparameters_text({n: v for n, v in group.hyperparameters.items() if n not in view.space.fixed}),
            ],
        )
        for group in groups
    ]
    return _section("Over seeds", f"<p>{_text(statement(groups, view.metric))}</p>{_table(head, rows)}")


def _front(view: StudyView) -> str:
    runs = front(view) if view.objectives else []
    if not runs:
        return ""
    metrics, values = (view.metric, *view.objectives), objective_values(view)
    rows = [
        _row(
            run.id, [*(value_text(view, m, v) for m, v in zip(metrics, values[run.id], strict=True)), _short(view, run)]
        )
        for run in runs
    ]
    note = (
        "<p class='note'>Finished runs that no other beats in one objective without being worse in another. Cost is"
        " what was spent on the run and its lineage.</p>"
    )
    return _section("Best trade-offs", note + _table(["run", *(m.name for m in metrics), "hyperparameters"], rows))


def _findings(findings: Sequence[Finding]) -> str:
    return f"<ul>{''.join(f'<li>{_text(finding.text)}</li>' for finding in findings)}</ul>"


def _figures(panels: Sequence[Panel]) -> str:
    """All figures and the two templates as a JavaScript object."""
    parts = {panel.key: plotly.io.to_json(panel.figure) for panel in panels if panel.figure is not None}
    templates = json.dumps({"light": template(dark=False), "dark": template(dark=True)})
    drawn = ", ".join(f"{json.dumps(key)}: {_without_template(text)}" for key, text in parts.items())
    # The text stands in a script element: with no "<" in it nothing can close the element or open a comment.
    return f'{{"templates": {templates}, "drawn": {{{drawn}}}}}'.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _without_template(text: str) -> str:
    figure = json.loads(text)
    figure["layout"].pop("template", None)
    return json.dumps(figure, separators=(",", ":"))


def _tiles(view: StudyView) -> str:
    name, best, baseline = view.metric.name, view.best, view.baseline
    tiles: list[tuple[str, str, str]] = []
    if best is not None:
        for title, run in (("Best", best), ("Baseline", baseline)):
            if run is not None and not (title == "Baseline" and run.id == best.id):
                tiles.append(_score_tile(view, title, run))
        tiles.append(("Best hyperparameters", _short(view, best), ""))
    total = view.total_cost
    spent = f"{amount('tokens', total.tokens)}, {amount('flops', total.flops)}" if total.tokens else ""
    tiles.append(("Whole search", main_cost(total), spent))
    if view.ledger.wall_seconds:
        tiles.append(
            ("Wall time", duration(view.ledger.wall_seconds), f"budget: {view.budget.describe() or 'no limit'}")
        )
    if best is None:
        tiles.append((f"Best {name}", "none yet", ""))
    cells = [
        f"<div class='{'number' if len(value) < 24 else 'words'}'><dt>{_text(title)}</dt><dd>{_text(value)}</dd>"
        f"<p>{_text(note)}</p></div>"
        for title, value, note in tiles
    ]
    return f"<dl class='tiles'>{''.join(cells)}</dl>"


def _score_tile(view: StudyView, title: str, run: Run) -> tuple[str, str, str]:
    name, test = view.metric.name, view.test(run)
    if test is None:
        return f"{title}: validation {name}", score(name, result(run, view.metric)), run.id
    interval = f"95%: {score(name, test.low)} to {score(name, test.high)}, n = {test.num_samples:,}"
    return f"{title}: test {name}", score(name, test.value), f"{interval}; {run.id}"


def _short(view: StudyView, run: Run) -> str:
    return hyperparameters_text({n: v for n, v in run.hyperparameters.items() if n not in view.space.fixed})


def _comparison(view: StudyView) -> str:
    best, baseline = view.best, view.baseline
    assert best is not None
    runs = [best] if baseline is None or baseline.id == best.id else [best, baseline]
    different = changed(view, best)
    head = ["", *(f"{'Best' if run is best else 'Baseline'} ({run.id})" for run in runs)]
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.hyperparameters):
        mark = " class='changed'" if len(runs) == 2 and name in different else ""
        values = [number(run.hyperparameters[name]) if name in run.hyperparameters else "-" for run in runs]
        rows.append(
            f"<tr{mark}><th scope='row'>{_text(name)}</th>{''.join(f'<td>{_text(v)}</td>' for v in values)}</tr>"
        )
    name = view.metric.name
    rows.append(_row(f"validation {name}", [score(name, result(run, view.metric)) for run in runs]))
    for metric in dict.fromkeys([name, *(m for run in runs for m in _estimates(view, run))]):
        estimates = [_estimates(view, run).get(metric) for run in runs]
        if any(estimates):
            rows.append(_row(f"held-back test {metric} (95% interval)", [estimate_text(metric, e) for e in estimates]))
    rows += [_row(label, texts) for label, texts in cost_rows([view.ledger.of(run.id) for run in runs])]
    note = "<p class='note'>Values that differ from the baseline's are bold.</p>" if len(runs) == 2 else ""
    return _table(head, rows) + note


def _estimates(view: StudyView, run: Run) -> Mapping[str, Estimate]:
    return view.tests[run.id][1] if run.id in view.tests else {}


def _costs(view: StudyView) -> str:
    kinds = view.ledger.by_kind()
    rows = [(str(kind), kinds[kind]) for kind in SPEND_KINDS if kinds[kind] != Cost()]
    rows.append(("the whole search", view.total_cost))
    if view.lost() != Cost():
        rows.append(("of it by failed and diverged runs", view.lost()))
    head = ["", "device time", "tokens", "samples", "FLOPs"]
    cells = [_row(label, _cost_cells(cost)) for label, cost in rows]
    return _table(head, cells, "num")


def _cost_cells(cost: Cost) -> list[str]:
    return [
        amount("device_seconds", cost.device_seconds),
        amount("tokens", cost.tokens).removesuffix(" tokens"),
        amount("samples", cost.samples).removesuffix(" samples"),
        number(cost.flops),
    ]


def _runs(view: StudyView) -> str:
    """All runs: the finished ones first, the best on top, then the others in order of creation."""
    ranked = view.ranked()
    finished = {run.id for run in ranked}
    rest = [run for run in view.tree if run.id not in finished]
    searched = list(dict.fromkeys(n for run in view.tree for n in run.hyperparameters))
    searched = [name for name in searched if name not in view.space.fixed]
    _, _, unit = cost_axis(view)
    head = [
        "run",
        "status",
        f"validation {view.metric.name}",
        *searched,
        f"position ({view.unit})",
        f"cost ({unit})",
        "from",
    ]
    rows = [_run_row(view, run, searched) for run in [*ranked, *rest]]
    return f"<div class='long'>{_table(head, rows)}</div>"


def _run_row(view: StudyView, run: Run, searched: Sequence[str]) -> str:
    origin = f"fork of {run.parent} at {run.fork_position:,}" if run.parent else run.origin
    value = result(run, view.metric)
    field, factor, _ = cost_axis(view)
    cells = [
        "" if value is None else score(view.metric.name, value),
        *(number(run.hyperparameters[n]) if n in run.hyperparameters else "-" for n in searched),
        f"{run.position:,} of {run.horizon:,}",
        number(float(getattr(view.ledger.of(run.id), field)) / factor),
        origin,
    ]
    row = _row(run.id, [view.status(run), *cells])
    if run.error:
        row += (
            f"<tr class='error'><td colspan='{len(cells) + 2}'>"
            f"<details><summary>{_text(first_line(run.error))}</summary><pre>{_text(run.error)}</pre></details></td></tr>"
        )
    return row


def _configuration(view: StudyView) -> str:
    config: Any = dict(view.config) or {"seed": view.seed, "strategy": dict(view.strategy)}
    return f"<pre>{_text(json.dumps(config, indent=2, default=str))}</pre>"


def _panel(panel: Panel) -> str:
    drawing = f"<div class='figure' id='figure-{panel.key}'></div>" if panel.figure is not None else ""
    return _section(panel.title, f"<p class='note'>{_text(panel.caption)}</p>{drawing}")


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>"


def _table(head: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    titles = "".join(f"<th scope='col'>{_text(title)}</th>" for title in head)
    table = f"<table class='{kind}'><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<div class='wide'>{table}</div>"


def _row(label: str, cells: Sequence[str]) -> str:
    return f"<tr><th scope='row'>{_text(label)}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def _text(text: str) -> str:
    return escape(plain(str(text)))
