"""Hyperband: brackets of successive halving that begin at different rungs, in turn."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg.search.brackets import Bracket, Brackets, bracket_of, sampled
from thalweg.search.rungs import check_max_roots, make_ladder, most_roots, shares
from thalweg.search.strategy import Observation, Problem, Sampler
from thalweg.space import Hyperparameters


def brackets(eta: int, num_rungs: int) -> list[Bracket]:
    """The paper's brackets, those that begin with the most and shortest runs first.

    With R = eta^s_max, bracket s begins `ceil((s_max + 1) / (s + 1) * eta^s)` runs at a share of `eta^-s`, and keeps
    one in `eta` of them at each rung. Each takes about as much as the others.

    >>> [bracket.sizes for bracket in brackets(3, 3)]
    [(9, 3, 1), (5, 1), (3,)]
    """
    shapes = []
    for s in reversed(range(num_rungs)):
        begun = -(-num_rungs * eta**s // (s + 1))
        shapes.append(Bracket(num_rungs - 1 - s, tuple(max(1, begun // eta**k) for k in range(s + 1))))
    return shapes


class Hyperband(Brackets):
    """Cycle through brackets, from many runs that are compared early to a few that are compared at their horizon only.

    How early a comparison can be trusted is not known beforehand; Hyperband spends as much on each answer. A bracket is
    synchronous; what becomes of lost runs, idle workers and the end is in `Brackets`. Rungs, trunks and shortened
    schedules are as in `halving`. A sampler that draws by the rung at which a root begins (`prior_band`) is told it. In
    the paper roots are drawn at random: `sampler = "random"`.

    Args:
        problem: what is searched.
        sampler: proposes the roots.
        name: the actions' origin.
        eta: one in `eta` runs goes on from each rung.
        num_rungs, first_fraction, rungs: where the rungs are, as in `halving`; there are as many brackets as rungs.
        max_roots: most configurations to begin, or None for as many as the budget allows.
        trunk: score the rungs on branches.
        shortened: score the rungs on runs of their own, whose schedules end there.
    Raises:
        ConfigError: an option is out of its range, two say the same, or the trainer cannot do what they ask for.
    Source: Li et al. 2018, JMLR 18(185), arXiv:1603.06560.
    """

    def __init__(
        self,
        problem: Problem,
        sampler: Sampler,
        name: str,
        *,
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
        ladder = make_ladder(problem, ends, name, trunk=trunk, shortened=shortened)
        most = most_roots(max_roots, sampler.num_points)
        cycle = brackets(eta, len(ends))
        if hasattr(sampler, "at_rung"):
            sampler = _ByRung(sampler, cycle)
        super().__init__(ladder, sampled(sampler, ladder), cycle, most=most)


class _ByRung:
    """A sampler whose draws depend on the rung at which a root begins, for the brackets of a cycle."""

    num_points: int | None = None

    def __init__(self, sampler: Sampler, cycle: Sequence[Bracket]) -> None:
        self._cycle = cycle
        self._at: dict[int, Sampler] = {bracket.first: sampler.at_rung(bracket.first) for bracket in cycle}  # type: ignore[attr-defined]

    def propose(
        self, observations: Sequence[Observation], pending: Sequence[Hyperparameters], index: int
    ) -> Hyperparameters | None:
        """See `Sampler.propose`."""
        return self._at[bracket_of(self._cycle, index).first].propose(observations, pending, index)
