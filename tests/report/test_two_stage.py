"""What the report says of a two-stage search: agreement of ranks, overlap by chance, and the saving."""

from __future__ import annotations

import io
import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import kendalltau, spearmanr

from thalweg.report.page import render
from thalweg.report.summary import summary
from thalweg.report.two_stage import agreement, as_dict, overlap, overlap_chance, saving, scored, sentences
from thalweg.report.two_stage_panel import two_stage_panels
from thalweg.report.view import StudyView
from thalweg.tree import Report, Run

STRATEGY = {"name": "two_stage", "sampler": "tpe", "num_configs": 20, "top_k": 5}


def one(make: SimpleNamespace, number: int, early: float, final: float | None, **changes: Any) -> Run:
    """A run of 1,000 positions, scored at 200 and, where it went on, at 1,000."""
    reports = [Report(200, {"accuracy": early})] + ([] if final is None else [Report(1000, {"accuracy": final})])
    fields: dict[str, Any] = {
        "horizon": 1000,
        "until": 1000,
        "position": 200 if final is None else 1000,
        "status": "paused" if final is None else "finished",
        "origin": "two_stage",
        "reports": tuple(reports),
    }
    run: Run = make.run(number, **(fields | changes))
    return run


def study(make: SimpleNamespace, pairs: list[tuple[float, float | None]], **changes: Any) -> StudyView:
    runs = [one(make, n, early, final) for n, (early, final) in enumerate(pairs, start=1)]
    view: StudyView = make.view(runs, **({"strategy": STRATEGY} | changes))
    return view


FIVE: list[tuple[float, float | None]] = [(0.80, 0.90), (0.79, 0.91), (0.78, 0.88), (0.77, 0.86), (0.76, 0.87)]
TWENTY = [*FIVE, *[(0.70 - 0.01 * n, None) for n in range(15)]]


def test_agreement_by_hand(make: SimpleNamespace) -> None:
    """Ranks 1 2 3 4 5 against 2 1 3 5 4: d^2 sums to 4, so 1 - 6 * 4 / (5 * 24) = 0.8; 8 pairs agree and 2 do not."""
    view = study(make, TWENTY)
    found = agreement(view, scored(view))
    assert found is not None
    assert (found.num_runs, found.spearman, found.kendall) == (5, pytest.approx(0.8), pytest.approx(0.6))
    # Of the 120 orders of 5, those with at most 2 pairs the wrong way round: 1 + 4 + 9.
    assert found.chance == pytest.approx(14 / 120)
    half = 1.959963984540054 * math.sqrt((1 + 0.32) / 2)
    assert found.interval == pytest.approx((math.tanh(math.atanh(0.8) - half), math.tanh(math.atanh(0.8) + half)))


def test_agreement_equals_scipys_with_ties(make: SimpleNamespace) -> None:
    pairs: list[tuple[float, float | None]] = [(0.5, 0.6), (0.5, 0.7), (0.6, 0.7), (0.7, 0.7), (0.8, 0.9), (0.9, 0.8)]
    view = study(make, pairs)
    found = agreement(view, scored(view))
    assert found is not None
    assert found.spearman == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert found.kendall == pytest.approx(kendalltau(*zip(*pairs, strict=True)).statistic)


@pytest.mark.parametrize("pairs", [[], [(0.5, 0.6), (0.6, 0.7)], [(0.5, 0.6), (0.5, 0.7), (0.5, 0.8)]])
def test_too_little_to_tell_is_said(make: SimpleNamespace, pairs: list[tuple[float, float | None]]) -> None:
    view = study(make, pairs)
    assert agreement(view, scored(view)) is None
    assert any("Too few runs" in line for line in sentences(view))


def test_chance_of_the_overlap() -> None:
    """4 of 5 of 20: (C(5,4) C(15,1) + 1) / C(20,5); and by counting all subsets of a small one."""
    assert overlap_chance(20, 5, 4) == pytest.approx(76 / 15504)
    draws = [len({0, 1, 2} & set(chosen)) for chosen in itertools.combinations(range(7), 3)]
    for shared in range(4):
        assert overlap_chance(7, 3, shared) == pytest.approx(sum(d >= shared for d in draws) / len(draws))


def test_overlap_needs_runs_beyond_the_best(make: SimpleNamespace) -> None:
    view = study(make, TWENTY)
    assert overlap(view, scored(view)) is None
    assert any("nothing about" in line for line in sentences(view))
    # All twenty to the end; the first, 0.80 early, ends last.
    pairs = [(0.80 - 0.01 * n, 0.95 - 0.01 * n if n else 0.1) for n in range(20)]
    view = study(make, list(pairs))
    assert overlap(view, scored(view)) == (4, 5, 20)
    assert any("4 of the 5 best early runs are among the 5 best of 20" in line for line in sentences(view))
    assert any("0.0049" in line for line in sentences(view))


def test_the_saving_is_the_ledgers(make: SimpleNamespace) -> None:
    """8 of 20 whole runs were trained."""
    found = saving(study(make, TWENTY))
    assert found is not None
    assert found.field == "flops"
    assert found.share == pytest.approx(0.6)


def test_others_and_what_went_wrong(make: SimpleNamespace) -> None:
    baseline = make.baseline(0, reports=(Report(1200, {"accuracy": 0.7}), Report(6000, {"accuracy": 0.8})))
    gone_early = one(make, 1, 0.5, None, status="diverged", position=150, reports=())
    gone_late = one(make, 2, 0.6, None, status="diverged", position=700)
    failed = one(make, 3, 0.6, None, status="failed", position=100, reports=())
    view = make.view([baseline, gone_early, gone_late, failed, one(make, 4, 0.7, 0.8)], strategy=STRATEGY)
    entries = scored(view)
    assert [entry.run.number for entry in entries] == [1, 2, 4]
    assert math.isnan(entries[0].early)
    assert entries[0].final is None
    assert entries[1].final == -math.inf
    assert two_stage_panels(view)[0].figure is not None


def test_a_branch_is_the_early_score_over_trunks(make: SimpleNamespace) -> None:
    trunk = one(make, 1, 0.1, 0.9)
    branch = one(
        make, 2, 0.6, None, parent=trunk.id, fork_position=180, horizon=200, position=200, status="finished",
        reports=(Report(200, {"accuracy": 0.65}),),
    )  # fmt: skip
    view = make.view([trunk, branch], strategy={**STRATEGY, "trunk": True})
    assert [(entry.early, entry.final) for entry in scored(view)] == [(0.65, 0.9)]
    found = saving(view)
    assert found is not None
    assert found.share == pytest.approx(-0.02)  # 1,000 and a branch of 20, instead of 1,000
    assert "nothing saved" in sentences(view)[-1]


def test_summary_page_and_json_show_it(make: SimpleNamespace) -> None:
    view = study(make, TWENTY)
    console = Console(file=io.StringIO(), width=80)
    console.print(summary(view))
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "Spearman 0.80" in text
    assert "60% saved" in text
    page = render(view, {})
    assert "figure-two-stage" in page
    assert "Spearman 0.80" in page
    found = as_dict(view)
    assert found is not None
    assert found["scored_early"] == 20
    assert found["trained_to_the_end"] == 5


def test_other_strategies_show_nothing(make: SimpleNamespace) -> None:
    view = make.rich_view(5)
    assert (sentences(view), as_dict(view), two_stage_panels(view)) == ([], None, [])
