"""Whether a two-stage search was right to trust its early scores, and what it saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from thalweg.report.view import StudyView
from thalweg.report.wording import CostField, amount
from thalweg.tree import Run, final_loss

NAME = "two_stage"
_FIRST_SHARE = 0.2
_TOP_K = 5
_MIN_PAIRS = 3
_MIN_INTERVAL = 5
_FIELDS: tuple[CostField, ...] = ("flops", "tokens", "samples", "device_seconds", "seconds")


@dataclass(frozen=True)
class Scored:
    """A configuration of stage 1."""

    run: Run
    early: float
    """The study's metric at the end of stage 1; not a finite number where the run diverged before."""
    final: float | None
    """At the run's horizon; not a finite number where it diverged on the way there from stage 1, None where it did not
    go on."""


@dataclass(frozen=True)
class Agreement:
    """How alike two rankings of the same runs are."""

    num_runs: int
    spearman: float
    interval: tuple[float, float] | None
    """95% interval of Spearman's correlation; None for fewer than 5 runs or a correlation of 1 or -1."""
    kendall: float
    chance: float
    """How likely a Kendall correlation of at least this is if the rankings have nothing to do with each other."""


@dataclass(frozen=True)
class Saving:
    """What training took, and what it would have taken to train every configuration to its end."""

    field: CostField
    spent: float
    whole: float
    """Estimated: each unfinished run's training, scaled to its horizon. What failed or diverged counts as it was."""

    @property
    def share(self) -> float:
        """The part of it that was not spent; negative where more was spent."""
        return 1 - self.spent / self.whole


def scored(view: StudyView) -> list[Scored]:
    """All roots but the baseline that were evaluated at the end of stage 1, in order of creation."""
    share = float(view.strategy.get("first_share", _FIRST_SHARE))
    found = []
    for run in sorted(view.tree.roots(), key=lambda run: run.number):
        if run.origin == "baseline":
            continue
        position = max(1, round(run.horizon * share))
        early = _on_branch(view, run, position) if view.strategy.get("trunk") else _at(view, run, position)
        if early is not None:
            found.append(Scored(run, early, _final(view, run) if math.isfinite(early) else None))
    return found


def agreement(view: StudyView, entries: Sequence[Scored]) -> Agreement | None:
    """Of the ranks at the two stages, over the runs that have both; None for fewer than 3 or if all are equal."""
    from scipy.stats import kendalltau, rankdata

    pairs = [(_loss(view, entry.early), _loss(view, entry.final)) for entry in entries if entry.final is not None]
    if len(pairs) < _MIN_PAIRS or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    first, second = (rankdata(side) for side in zip(*pairs, strict=True))
    first, second = first - first.mean(), second - second.mean()
    spearman = float((first @ second) / math.sqrt((first @ first) * (second @ second)))
    found = kendalltau(first, second, alternative="greater")
    return Agreement(len(pairs), spearman, _interval(spearman, len(pairs)), float(found.statistic), float(found.pvalue))


def overlap(view: StudyView, entries: Sequence[Scored]) -> tuple[int, int, int] | None:
    """How many of the k best early runs are among the k best at the end: (shared, k, runs with both).

    None unless more runs than k have both: where only the k best went on, there is nothing to compare them with.
    """
    both = [entry for entry in entries if entry.final is not None]
    top = int(view.strategy.get("top_k", _TOP_K))
    if len(both) <= top:
        return None
    order = range(len(both))
    early = sorted(order, key=lambda i: (_loss(view, both[i].early), both[i].run.number))[:top]
    late = sorted(order, key=lambda i: (_loss(view, both[i].final), both[i].run.number))[:top]
    return len(set(early) & set(late)), top, len(both)


def overlap_chance(total: int, top: int, shared: int) -> float:
    """How likely two unrelated rankings of `total` runs share at least so many of their `top` best: hypergeometric.

    >>> overlap_chance(20, 5, 4) == 76 / 15504
    True
    """
    ways = sum(math.comb(top, k) * math.comb(total - top, top - k) for k in range(shared, top + 1))
    return ways / math.comb(total, top)


def saving(view: StudyView) -> Saving | None:
    """What the strategy's own runs took to train, by the ledger; None where nothing tells."""
    roots = [run for run in view.tree.roots() if run.origin == view.strategy.get("name")]
    for field in _FIELDS:
        spent = whole = 0.0
        for run in roots:
            own = _trained(view, run, field)
            branches = [child for child in view.tree.children(run.id) if child.origin == run.origin]
            spent += own + sum(_trained(view, child, field) for child in branches)
            ended = run.status in ("failed", "diverged")
            whole += own if ended or not run.position else own * max(run.horizon / run.position, 1.0)
        if whole > 0:
            return Saving(field, spent, whole)
    return None


def sentences(view: StudyView) -> list[str]:
    """The facts in plain words; none for another strategy."""
    if view.strategy.get("name") != NAME:
        return []
    entries = scored(view)
    went_on = [entry for entry in entries if entry.final is not None]
    lines = [f"{_runs(len(entries))} scored early, {len(went_on)} of them trained to the end or until they diverged."]
    return [*lines, *_agreement_lines(view, entries), *_saving_lines(view)]


def as_dict(view: StudyView) -> dict[str, object] | None:
    """The same as JSON values; None for another strategy."""
    if view.strategy.get("name") != NAME:
        return None
    entries = scored(view)
    found, shared, saved = agreement(view, entries), overlap(view, entries), saving(view)
    return {
        "scored_early": len(entries),
        "trained_to_the_end": sum(entry.final is not None for entry in entries),
        "agreement": found
        and {
            "runs": found.num_runs,
            "spearman": found.spearman,
            "low": found.interval[0] if found.interval else None,
            "high": found.interval[1] if found.interval else None,
            "kendall": found.kendall,
            "chance": found.chance,
        },
        "overlap": shared
        and {"shared": shared[0], "top": shared[1], "runs": shared[2], "chance": overlap_chance(*_chance_of(shared))},
        "saving": saved and {"unit": saved.field, "spent": saved.spent, "whole": saved.whole, "share": saved.share},
    }


def _agreement_lines(view: StudyView, entries: Sequence[Scored]) -> list[str]:
    found = agreement(view, entries)
    if found is None:
        return [
            f"Too few runs have both scores to say whether the early ranks held: it takes {_MIN_PAIRS} that differ."
        ]
    interval = f" (95%: {found.interval[0]:.2f} to {found.interval[1]:.2f})" if found.interval else ""
    lines = [
        f"Ranks at the two stages, {found.num_runs} runs: Spearman {found.spearman:.2f}{interval}, Kendall"
        f" {found.kendall:.2f}; unrelated ranks would agree as well with a chance of {found.chance:.2g}."
    ]
    shared = overlap(view, entries)
    if shared is None:
        lines.append(
            "Only the best early runs went on, so this says how they were ordered among themselves, and nothing about"
            " those left out."
        )
    else:
        lines.append(
            f"{shared[0]} of the {shared[1]} best early runs are among the {shared[1]} best of {shared[2]} at the end;"
            f" by chance alone at least as many with {overlap_chance(*_chance_of(shared)):.2g}."
        )
    return lines


def _saving_lines(view: StudyView) -> list[str]:
    saved = saving(view)
    if saved is None:
        return []
    spent, whole = amount(saved.field, saved.spent), amount(saved.field, saved.whole)
    what = f"{saved.share:.0%} saved" if saved.share >= 0 else "nothing saved"
    return [f"Training took {spent}; all of them to their ends would have taken an estimated {whole}: {what}."]


def _chance_of(shared: tuple[int, int, int]) -> tuple[int, int, int]:
    count, top, total = shared
    return total, top, count


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"


def _interval(correlation: float, count: int) -> tuple[float, float] | None:
    """Bonett and Wright 2000, Psychometrika 65:23: Fisher's transform with a variance for Spearman's correlation."""
    if count < _MIN_INTERVAL or abs(correlation) > 1 - 1e-12:
        return None
    half = 1.959963984540054 * math.sqrt((1 + correlation**2 / 2) / (count - 3))
    centre = math.atanh(correlation)
    return math.tanh(centre - half), math.tanh(centre + half)


def _trained(view: StudyView, run: Run, field: CostField) -> float:
    cost = view.ledger.spent.get(run.id, {}).get("train")
    return float(getattr(cost, field)) if cost else 0.0


def _at(view: StudyView, run: Run, position: int) -> float | None:
    """The first evaluation with the metric from a position on, before the horizon; NaN if it diverged before."""
    for report in run.reports:
        if position <= report.position < run.horizon and view.metric.name in report.metrics:
            return report.metrics[view.metric.name]
    return math.nan if run.status == "diverged" and run.position <= position else None


def _on_branch(view: StudyView, run: Run, position: int) -> float | None:
    for child in view.tree.children(run.id):
        if child.horizon == position and child.origin == run.origin:
            loss = final_loss(child, view.metric)
            return None if loss is None else loss if view.metric.goal == "min" else -loss
    return math.nan if run.status == "diverged" else None


def _final(view: StudyView, run: Run) -> float | None:
    loss = final_loss(run, view.metric)
    return None if loss is None else loss if view.metric.goal == "min" else -loss


def _loss(view: StudyView, value: float | None) -> float:
    assert value is not None
    return view.metric.loss(value) if math.isfinite(value) else math.inf
