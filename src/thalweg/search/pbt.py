"""Population-based training: members train side by side, and the worst go on from the best, changed."""

from __future__ import annotations

from thalweg.budget import Left
from thalweg.search.exploit import PopulationStrategy, Settings
from thalweg.search.perturb import Perturb, mutable
from thalweg.search.strategy import Problem
from thalweg.tree import Action, Tree


class PBT:
    """Train a population side by side; whenever a member falls behind, go on from a better one in its place.

    **Marks.** A member trains from mark to mark, `interval` of its own horizon apart, and is evaluated there. Members
    are compared at the same mark only: at equal positions where all horizons are equal, at the same share of the
    learning-rate schedule where the horizon is searched too.

    **Exploit.** A member is in the worst `quantile` of the results at its mark (`truncation`), or a member drawn at
    random beats it there (`tournament`): it is stopped, and a fork of a member drawn from the best `quantile`, or of
    the one that beat it, takes its place. The fork begins at the checkpoint at which the winner waits, with its
    weights, optimiser state and hyperparameters; what is changed is in force after the state was loaded. A member that
    is equal to the winner goes on.

    **Explore.** Each of `mutate` is multiplied by 1 + `perturb` or 1 - `perturb`, or drawn from the space anew, with
    probability `resample`; see `Perturb`.

    **Asynchronous.** A member is judged as soon as half of the results at its mark are there; before, it goes on. The
    furthest behind go first, so with fewer workers than members all results are there. A loser whose winners are all
    being trained waits for the first of them to reach its next mark and then goes on from there: it has lost no time,
    and has trained an interval less. Nobody waits for the slowest.

    **Losses.** A member that failed, diverged or was stopped is replaced by a fork of a good one. Where all are lost
    before the first mark, the study ends.

    **The budget.** Members begin while there is room to bring all of them to their horizons. Where it turns out that
    there is not, the worst are stopped and not replaced.

    What is found is a schedule of hyperparameters rather than one value of each: `thalweg replay` shows it and trains
    it from scratch. Selection is greedy: it favours what improves the metric within an interval, such as an early
    decay of the learning rate.

    Args:
        problem: what is searched.
        name: the actions' origin.
        population: members, at least 2.
        interval: share of a run between two comparisons, in (0, 1).
        selection: `truncation` or `tournament`.
        quantile: share that is replaced at a mark by truncation, in (0, 0.5]; at least one member.
        perturb: factors are 1 + `perturb` and 1 - `perturb`, in (0, 1).
        resample: probability that a hyperparameter is drawn anew.
        mutate: the hyperparameters to mutate; by default all that a fork can change.
    Raises:
        ConfigError: an option out of range, or a hyperparameter that cannot be mutated, with the reason.
    Source: Jaderberg et al. 2017, arXiv:1711.09846; quantile and probability are those of Ray Tune.
    """

    share = 1.0

    def __init__(
        self,
        problem: Problem,
        name: str,
        *,
        population: int = 8,
        interval: float = 0.1,
        selection: str = "truncation",
        quantile: float = 0.25,
        perturb: float = 0.2,
        resample: float = 0.25,
        mutate: list[str] | None = None,
    ) -> None:
        settings = Settings(population=population, interval=interval, selection=selection, quantile=quantile)
        names = mutable(problem, mutate)
        self._inner = PopulationStrategy(
            problem, name, settings, Perturb(problem, names, perturb=perturb, resample=resample)
        )

    @property
    def num_roots(self) -> int | None:
        return self._inner.settings.population

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        return self._inner.decide(tree, free_slots=free_slots, left=left)
