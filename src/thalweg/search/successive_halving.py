"""Synchronous successive halving: a fixed number of runs, of which the best go on at each rung when all are there."""

from __future__ import annotations

from thalweg.search.brackets import Bracket, Brackets, check_num_configs, sampled
from thalweg.search.rungs import check_max_roots, make_ladder, most_roots, shares
from thalweg.search.strategy import Problem, Sampler


class SuccessiveHalving(Brackets):
    """Begin `num_configs` runs; when all are at a rung, the best go on; then begin the next ones.

    Of n runs, `floor(n / eta^k)` are trained to rung k, and at least one.

    Rungs, trunks and shortened schedules are as in `halving`; what becomes of lost runs, idle workers and the end is in
    `Brackets`. Beside asynchronous halving it promotes nobody by mistake (a run that is among the best of the first
    three need not be among the best of nine), and pays for it by beginning all before any goes on: within small
    budgets, `halving` has a whole run earlier.

    Args:
        problem: what is searched.
        sampler: proposes the roots.
        name: the actions' origin.
        num_configs: runs in a bracket; None for `eta^(num_rungs - 1)`, of which one reaches the horizon. At least 2.
        eta: one in `eta` runs goes on from each rung.
        num_rungs, first_fraction, rungs: where the rungs are, as in `halving`.
        max_roots: most configurations to begin, or None for as many as the budget allows.
        trunk: score the rungs on branches.
        shortened: score the rungs on runs of their own, whose schedules end there.
    Raises:
        ConfigError: an option is out of its range, two say the same, or the trainer cannot do what they ask for.
    Source: Jamieson and Talwalkar 2016, arXiv:1502.07943.
    """

    def __init__(
        self,
        problem: Problem,
        sampler: Sampler,
        name: str,
        *,
        num_configs: int | None = None,
        eta: int = 3,
        num_rungs: int | None = None,
        first_fraction: float | None = None,
        rungs: list[float] | None = None,
        max_roots: int | None = None,
        trunk: bool = False,
        shortened: bool = False,
    ) -> None:
        ends = shares(eta=eta, num_rungs=num_rungs, first_fraction=first_fraction, rungs=rungs)
        check_max_roots(max_roots)
        check_num_configs(num_configs, least=2)
        num_configs = eta ** (len(ends) - 1) if num_configs is None else num_configs
        sizes = tuple(max(1, num_configs // eta**k) for k in range(len(ends)))
        ladder = make_ladder(problem, ends, name, trunk=trunk, shortened=shortened)
        most = most_roots(max_roots, sampler.num_points)
        super().__init__(ladder, sampled(sampler, ladder), [Bracket(0, sizes)], most=most)
