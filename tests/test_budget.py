"""Budgets and the ledger: reading, adding up, and what is left."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.budget import SPEND_KINDS, Budget, Cost, Ledger, Left
from thalweg.errors import ConfigError

costs = st.builds(
    Cost,
    samples=st.integers(0, 10**6),
    tokens=st.integers(0, 10**9),
    flops=st.integers(0, 2**40).map(float),
    seconds=st.integers(0, 10**6).map(float),
    device_seconds=st.integers(0, 10**6).map(float),
)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("20 min", {"seconds": 1200.0}),
        ("20min", {"seconds": 1200.0}),
        ("1.5 hours", {"seconds": 5400.0}),
        ("90 s", {"seconds": 90.0}),
        ("2 device-hours", {"device_seconds": 7200.0}),
        ("3 device_minutes", {"device_seconds": 180.0}),
        ("12 runs, 1e15 flops", {"runs": 12, "flops": 1e15}),
        ("1 run", {"runs": 1}),
        ("2e6 tokens, 5000 samples", {"tokens": 2_000_000, "samples": 5000}),
        ({"minutes": 20, "runs": 12.0}, {"seconds": 1200.0, "runs": 12}),
        (Budget(runs=2), {"runs": 2}),
    ],
)
def test_reads_what_people_write(text: str, limits: dict[str, float]) -> None:
    budget = Budget.parse(text)
    assert budget.limits() == limits
    assert all(type(getattr(budget, name)) is int for name in ("runs", "samples", "tokens") if name in limits)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "budget: '' sets no limit"),
        ({}, "budget: {} sets no limit"),
        ("twenty min", "budget: cannot read 'twenty min'"),
        ("20", "budget: cannot read '20'"),
        ("1e minutes", "budget: cannot read '1e minutes'"),
        ("20 minuts", "budget: unknown unit 'minuts'. Did you mean 'minutes'?"),
        ("0 runs", "budget: runs = 0 must be a number above zero"),
        ("-5 min", "budget: seconds = -300 must be a number above zero"),
        ({"minutes": math.nan}, "budget: seconds = nan must be a number above zero"),
        ({"minutes": math.inf}, "budget: seconds = inf must be a number above zero"),
        ({"runs": math.inf}, "budget: runs = inf must be a whole number"),
        ({"runs": math.nan}, "budget: runs = nan must be a whole number"),
        ("1e999 tokens", "budget: tokens = inf must be a whole number"),
        ("1.5 runs", "budget: runs = 1.5 must be a whole number"),
        ({"runs": "12"}, "budget: runs = '12' must be a number"),
        ({"runs": True}, "budget: runs = True must be a number"),
        ({"runs": None}, "budget: runs = None must be a number"),
        ("1 hour, 20 min", "budget: seconds is given twice"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Budget.parse(text)


def test_describes_itself() -> None:
    budget = Budget(runs=1, tokens=2_000_000, flops=1e15, seconds=30.0, device_seconds=1800.0)
    assert budget.describe() == "1 run, 2,000,000 tokens, 1e+15 FLOPs, 30 seconds, 0.5 device-hours"


LEDGER = Ledger(
    spent={
        "s-0": {"train": Cost(tokens=100, seconds=10.0, device_seconds=10.0), "evaluate": Cost(tokens=5, seconds=1.0)},
        "s-1": {"train": Cost(tokens=40, seconds=4.0, device_seconds=4.0), "repeated": Cost(tokens=10, seconds=1.0)},
    },
    num_runs=3,
    wall_seconds=9.0,
)


def test_the_ledger_counts_all_work() -> None:
    assert LEDGER.of("s-0") == Cost(tokens=105, seconds=11.0, device_seconds=10.0)
    assert LEDGER.of("s-2") == Cost()
    assert LEDGER.total() == Cost(tokens=155, seconds=16.0, device_seconds=14.0)
    by_kind = LEDGER.by_kind()
    assert by_kind["train"] == Cost(tokens=140, seconds=14.0, device_seconds=14.0)
    assert by_kind["repeated"].tokens == 10
    assert by_kind["setup"] == Cost()


def test_left_counts_runs_and_the_studys_own_clock() -> None:
    """Seconds are the study's wall time, 9, not the 16 that two workers spent."""
    left = Budget(runs=4, tokens=200, seconds=10.0, device_seconds=10.0).left(LEDGER)
    assert left.amounts == {"runs": 1.0, "tokens": 45.0, "seconds": 1.0, "device_seconds": 0.0}
    assert left.used_up == "device_seconds"
    assert Budget(runs=4).left(LEDGER).used_up is None
    assert Budget(runs=3).left(LEDGER).used_up == "runs"


def test_forks_are_no_new_runs() -> None:
    ledger = Ledger(num_runs=5, num_forks=3)
    assert Budget(runs=4).left(ledger).amounts == {"runs": 2.0}
    assert Budget(runs=2).left(ledger).used_up == "runs"


def test_lacks_names_the_first_limit_that_would_be_exceeded() -> None:
    left = Left({"runs": 1.0, "tokens": 45.0})
    assert left.lacks(Cost(tokens=45), num_runs=1) is None
    assert left.lacks(Cost(tokens=46)) == "tokens"
    assert left.lacks(Cost(), num_runs=2) == "runs"
    assert left.lacks(Cost(flops=1e30, seconds=1e9)) is None


@given(st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from(SPEND_KINDS), costs)))
def test_totals_agree_however_they_are_added(spent: dict[str, dict[str, Cost]]) -> None:
    ledger = Ledger(spent=spent)  # type: ignore[arg-type]
    assert sum(ledger.by_kind().values(), Cost()) == ledger.total()
    assert sum((ledger.of(run) for run in spent), Cost()) == ledger.total()


@given(costs, costs)
def test_what_is_left_after_spending(first: Cost, second: Cost) -> None:
    """A cost fits exactly where spending it leaves nothing negative."""
    budget = Budget(tokens=10**9, samples=10**6, flops=float(2**40), device_seconds=1e6)
    left = budget.left(Ledger(spent={"a": {"train": first}}))
    fits = left.lacks(second) is None
    both = first + second
    assert fits == all(getattr(both, name) <= limit for name, limit in budget.limits().items())
