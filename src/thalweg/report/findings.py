"""What a study found, as plain values: the summary prints them, `--json` emits them, the HTML report shows them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

from thalweg.budget import SPEND_KINDS, Cost
from thalweg.report import two_stage
from thalweg.report.confirmation import confirmation_dicts
from thalweg.report.front import front_dict
from thalweg.report.intervals import Difference, newcombe, overlap, usable
from thalweg.report.view import StudyView
from thalweg.report.wording import difference, first_line, result, score
from thalweg.trainer import Estimate
from thalweg.tree import Run

NUM_TOP = 5


def summary_dict(view: StudyView) -> dict[str, Any]:
    """All facts of the summary as JSON values; what is not a finite number is the string "nan", "inf" or "-inf"."""
    best, baseline = view.best, view.baseline
    return {
        "study": view.name,
        "metric": {"name": view.metric.name, "goal": view.metric.goal},
        "unit": view.unit,
        "strategy": as_json(dict(view.strategy)),
        "seed": view.seed,
        "space": {name: dimension.describe() for name, dimension in view.space.dimensions.items()},
        "fixed": as_json(dict(view.space.fixed)),
        "budget": as_json(view.budget.limits()),
        "runs": {"total": len(view.tree), "by_status": dict(Counter(view.status(run) for run in view.tree))},
        "spent": {
            "wall_seconds": as_json(view.ledger.wall_seconds),
            "total": _cost(view.total_cost),
            "by_kind": {kind: _cost(view.ledger.by_kind()[kind]) for kind in SPEND_KINDS},
            "failed_and_diverged": _cost(view.lost()),
        },
        "best": _run(view, best) if best else None,
        "baseline": _run(view, baseline) if baseline else None,
        "comparison": _comparison(view, best, baseline),
        "verdict": verdict(view),
        "confirmation": as_json(confirmation_dicts(view)),
        "front": as_json(front_dict(view)),
        "two_stage": as_json(two_stage.as_dict(view)),
        "stopped_by": None if view.stopped_by is None else dataclasses.asdict(view.stopped_by),
        "top": [_run(view, run) for run in view.ranked()[:NUM_TOP]],
        "failures": [
            {"run": run.id, "status": run.status, "error": first_line(run.error)}
            for run in view.tree
            if run.status in ("failed", "diverged")
        ],
    }


def verdict(view: StudyView) -> str:
    """One plain sentence or two: what the search was worth, by the held-back data where there are some."""
    best, baseline = view.best, view.baseline
    if best is None:
        return f"No run has finished with a usable {view.metric.name}, so there is nothing to recommend yet."
    if baseline is None:
        return "There is no baseline run to compare the best run with."
    if best.id == baseline.id:
        others = len(view.ranked()) - 1
        if not others:
            return "Only the baseline has finished, so there is nothing to compare it with yet."
        beaten = "the one other finished run" if others == 1 else f"the {others} other finished runs"
        return f"The baseline did at least as well as {beaten}: keep its hyperparameters."
    ours, theirs = view.test(best), view.test(baseline)
    if ours is None or theirs is None:
        return _without_test(view, best, baseline)
    if not (usable(ours) and usable(theirs)):
        return "A held-back result is not a finite number, so the best run and the baseline cannot be compared."
    return _with_test(view, ours, theirs)


def changed(view: StudyView, run: Run) -> dict[str, tuple[Any, Any]]:
    """Hyperparameters that are not the baseline's: name -> (the baseline's or None, the run's or None)."""
    reference = view.baseline_hyperparameters
    names = list(dict.fromkeys([*run.hyperparameters, *reference]))
    pairs = {name: (reference.get(name), run.hyperparameters.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def held_back_difference(view: StudyView) -> Difference | None:
    """Held-back accuracy of the best run minus the baseline's; None for another metric or without both results."""
    best, baseline = view.best, view.baseline
    if best is None or baseline is None or best.id == baseline.id or view.metric.name != "accuracy":
        return None
    ours, theirs = view.test(best), view.test(baseline)
    return None if ours is None or theirs is None else newcombe(ours, theirs)


def _with_test(view: StudyView, ours: Estimate, theirs: Estimate) -> str:
    name = view.metric.name
    gain = view.metric.loss(theirs.value) - view.metric.loss(ours.value)
    start = f"The best run's held-back test {name} differs from the baseline's by"
    start = f"{start} {difference(name, ours.value - theirs.value)}{'' if gain >= 0 else ', for the worse'}"
    gap = held_back_difference(view)
    if gap is not None:
        ends = f"{difference(name, gap.low).removesuffix(' points')} to {difference(name, gap.high)}"
        if gap.is_noise:
            return f"{start}, which may be noise: the 95% interval, {ends}, includes zero."
        return f"{start}, which is more than noise: the 95% interval is {ends}."
    if overlap(ours, theirs):
        return f"{start}, which may be noise: the two 95% intervals overlap."
    return f"{start}, which is more than noise: the two 95% intervals do not overlap."


def _without_test(view: StudyView, best: Run, baseline: Run) -> str:
    name = view.metric.name
    ours, theirs = result(best, view.metric), result(baseline, view.metric)
    caution = "no held-back test results say whether that is more than noise"
    if ours is None or theirs is None or not math.isfinite(theirs):
        reached = baseline.status if theirs is None else f"{score(name, theirs)} {name}"
        return f"The baseline ({reached}) has no usable {name} to compare the best run with."
    moved = difference(name, ours - theirs)
    return f"The best run's validation {name} differs from the baseline's by {moved}; {caution}."


def _comparison(view: StudyView, best: Run | None, baseline: Run | None) -> dict[str, Any] | None:
    if best is None or baseline is None or best.id == baseline.id:
        return None
    ours, theirs = view.test(best), view.test(baseline)
    if ours is None or theirs is None:
        return None
    gap = held_back_difference(view)
    shared = overlap(ours, theirs)
    noise = gap.is_noise if gap else shared
    return {
        "test_difference": as_json(ours.value - theirs.value),
        "low": gap.low if gap else None,
        "high": gap.high if gap else None,
        "method": "Newcombe hybrid score" if gap else "overlap of intervals",
        "intervals_overlap": shared,
        "more_than_noise": None if noise is None else not noise,
    }


def _run(view: StudyView, run: Run) -> dict[str, Any]:
    test = view.test(run)
    return {
        "run": run.id,
        "status": view.status(run),
        "origin": run.origin,
        "parent": run.parent,
        "position": run.position,
        "horizon": run.horizon,
        "hyperparameters": as_json(dict(run.hyperparameters)),
        "changed": {name: {"baseline": as_json(b), "value": as_json(v)} for name, (b, v) in changed(view, run).items()},
        "validation": as_json(result(run, view.metric)),
        "test": as_json(dataclasses.asdict(test)) if test else None,
        "cost": _cost(view.ledger.of(run.id)),
    }


def _cost(cost: Cost) -> dict[str, Any]:
    entry: dict[str, Any] = as_json(dataclasses.asdict(cost))
    return entry


def as_json(value: Any) -> Any:
    """JSON has no NaN and no infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value
