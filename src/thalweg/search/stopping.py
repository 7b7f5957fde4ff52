"""Ending a study by rules, whatever its strategy."""

from __future__ import annotations

from thalweg.budget import Left
from thalweg.errors import ConfigError
from thalweg.scaling.stopping import Stopping, verdict
from thalweg.search.strategy import Problem, Strategy
from thalweg.tree import Action, Tree


class EndsByRule:
    """A strategy that begins nothing more once a rule is met.

    When the target is reached, nothing more is done at all. By the other two rules the strategy is told that no more
    roots may begin, as when the budget's runs are used up: it brings what has begun to an end, such as a promotion or a
    confirmation. Where that finds a better run, and the rule is then not met any more, the search goes on.

    The rules look at one metric: a search with several objectives can have a target only.

    Raises:
        ConfigError: a rule that cannot be kept with several objectives.
    """

    def __init__(self, inner: Strategy, problem: Problem, stopping: Stopping) -> None:
        barred = [name for name in stopping.rules() if name != "target"]
        if problem.objectives and barred:
            raise ConfigError(
                f"stopping.{barred[0]}: with several objectives there is no single best run to improve; 'target', a"
                f" value of {problem.metric.name}, would work"
            )
        self._inner = inner
        self._metric = problem.metric
        self._stopping = stopping
        self.share = inner.share
        self.num_roots = inner.num_roots

    def decide(self, tree: Tree, *, free_slots: int, left: Left) -> list[Action]:
        """See `Strategy.decide`."""
        met = verdict(tree, self._metric, self._stopping)
        if met is None:
            return self._inner.decide(tree, free_slots=free_slots, left=left)
        if met.rule == "target":
            return []
        return self._inner.decide(
            tree, free_slots=free_slots, left=Left({**left.amounts, "runs": 0.0}, left.whole_runs)
        )
