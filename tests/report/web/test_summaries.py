"""Sums over many runs: the same as added up one by one, and not made at every question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.budget import SPEND_KINDS, Cost, Ledger
from thalweg.report.web import summaries as summing
from thalweg.report.web.summaries import Summaries, add_up
from thalweg.track.store import Store
from thalweg.tree import Metric

# Whole numbers, so that the order of adding does not show.
amounts = st.integers(0, 10**6)
costs = st.builds(
    lambda whole, real: Cost(
        samples=whole, tokens=2 * whole, flops=float(real), seconds=float(real), device_seconds=3.0 * real
    ),
    amounts,
    amounts,
)
ledgers = st.builds(
    lambda spent: Ledger(spent, len(spent), 7.0),
    st.dictionaries(st.text(max_size=3), st.dictionaries(st.sampled_from(SPEND_KINDS), costs, max_size=5), max_size=6),
)


@given(ledger=ledgers)
def test_sums_are_the_ledgers_own(ledger: Ledger) -> None:
    found = add_up(ledger)
    assert found.kinds == ledger.by_kind()
    assert found.total == ledger.total()
    assert found.device_seconds == {run: ledger.of(run).device_seconds for run in ledger.spent}


def test_a_sum_is_used_again_for_ten_times_as_long_as_it_took(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    asked = []

    def slow_rows(name: str) -> list[object]:
        nonlocal now
        now += 0.5
        asked.append(name)
        return []

    monkeypatch.setattr(summing.time, "monotonic", lambda: now)
    monkeypatch.setattr(store, "run_rows", slow_rows)
    summaries = Summaries(store)
    for moment in (100.0, 101.0, 105.4):
        now = max(now, moment)
        assert summaries.runs("vision", None).num_runs == 0
    assert asked == ["vision"]
    now = 105.5
    summaries.runs("vision", None)
    assert asked == ["vision", "vision"]


def test_the_best_run_is_by_the_studys_metric(store: Store) -> None:
    # Only the last of the four has finished, with 0.8; the others have paused.
    for goal in ("max accuracy", "min accuracy"):
        found = Summaries(store).runs("imdb", Metric.parse(goal))
        assert found.best is not None
        assert (found.best[0], found.best[1]) == ("imdb-3", pytest.approx(0.8))
    assert Summaries(store).runs("imdb", None).best is None
