"""Starting from what earlier studies found: their results, in the names of a new study's space.

A study's results are those of its roots that finished or diverged. Forks are left out: they were trained under several
hyperparameters in turn, or are evaluated at a budget of their own.

What was found becomes a part of the new study's configuration: a study that goes on decides as before, whatever has
been added to the earlier ones meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thalweg.errors import ConfigError, nearest
from thalweg.search.strategy import Earlier
from thalweg.space import Hyperparameters, Space
from thalweg.track.store import Store
from thalweg.train.hyperparameters import ALIASES
from thalweg.tree import Metric, final_loss


def gather(
    references: str | Sequence[str], *, study: str, space: Space, metric: Metric, store: str | Path
) -> tuple[Earlier, ...]:
    """Read earlier studies, or what this one has kept of them if it exists.

    Args:
        references: `STUDY`, of the same store, or `STORE:STUDY`; a string may name several with commas between.
        study: the new study's name.
        space: the new study's.
        metric: the new study's.
        store: the new study's.
    Raises:
        ConfigError: a study is missing, is this one or a project, is named twice, has no finished run, shares no
            dimension with the space, or improves in the other direction.
    """
    names = _split(references)
    if not names:
        return ()
    kept = _kept(study, store)
    if kept is not None and [found.name for found in kept] == names:
        return kept
    found = []
    for reference in names:
        where, _, name = reference.rpartition(":")
        if not where and name == study:
            raise ConfigError(f"warm_start: {name!r} is the study itself; name an earlier one")
        found.append(_read(reference, where or str(store), name, space, metric))
    return tuple(found)


def to_config(earlier: Sequence[Earlier]) -> list[dict[str, Any]]:
    """As JSON values; the loss of a diverged run is None."""
    return [
        {
            "study": study.name,
            "results": [
                [dict(hyperparameters), loss if math.isfinite(loss) else None]
                for hyperparameters, loss in study.results
            ],
        }
        for study in earlier
    ]


def from_config(config: Sequence[Mapping[str, Any]]) -> tuple[Earlier, ...]:
    """What `to_config` was given."""
    return tuple(
        Earlier(
            entry["study"],
            tuple((hyperparameters, math.inf if loss is None else loss) for hyperparameters, loss in entry["results"]),
        )
        for entry in config
    )


def in_short(earlier: Sequence[Earlier]) -> str:
    """Which studies, with how many results each."""
    return ", ".join(f"{study.name} ({len(study.results)} results)" for study in earlier) or "nothing"


def facts(earlier: Sequence[Earlier]) -> dict[str, str]:
    """What the plan tells a person about them; nothing where there are none."""
    return {"warm start": in_short(earlier)} if earlier else {}


def _split(references: str | Sequence[str]) -> list[str]:
    given = [references] if isinstance(references, str) else list(references)
    names = [name.strip() for entry in given for name in entry.split(",")]
    for position, name in enumerate(names):
        if not name or name.endswith(":"):
            raise ConfigError(f"warm_start = {given!r} must name studies, such as 'imdb' or 'other.db:imdb'")
        if name in names[:position]:
            raise ConfigError(f"warm_start: {name!r} is named twice")
    return names


def _kept(study: str, location: str | Path) -> tuple[Earlier, ...] | None:
    """What a study that exists was begun with."""
    if not _exists(location):
        return None
    with Store.open(location, read_only=True) as store:
        if study not in {record.name for record in store.studies()}:
            return None
        return from_config(store.study(study).config.get("warm_start") or [])


def _exists(location: str | Path) -> bool:
    return "://" in str(location) or Path(location).exists()


def _read(reference: str, location: str, name: str, space: Space, metric: Metric) -> Earlier:
    if not _exists(location):
        raise ConfigError(f"warm_start = {reference!r}: there is no store {location!r}")
    with Store.open(location, read_only=True) as store:
        studies = {record.name: record for record in store.studies() if record.kind == "study"}
        if name not in studies:
            known = nearest(name, studies) if studies else "It holds none"
            raise ConfigError(f"warm_start = {reference!r}: no study {name!r} in {location}. {known}")
        earlier_metric = Metric.parse(studies[name].config["metric"])
        tree = store.read_tree(name)
    if earlier_metric.goal != metric.goal:
        raise ConfigError(
            f"warm_start = {reference!r}: that study has the metric '{earlier_metric}', this one '{metric}': what was"
            " best there would be worst here"
        )
    ended = [(run, final_loss(run, earlier_metric)) for run in tree.roots()]
    losses = [(run.hyperparameters, loss) for run, loss in ended if loss is not None]
    if not any(math.isfinite(loss) for _, loss in losses):
        raise ConfigError(f"warm_start = {reference!r}: that study has no finished run with a result to learn from")
    results = [(shared, loss) for given, loss in losses if (shared := _renamed(given, space))]
    if not results:
        there = sorted({name for given, _ in losses for name in given})
        raise ConfigError(
            f"warm_start = {reference!r}: that study shares no dimension with this one's space. It has"
            f" {', '.join(there)}; here {', '.join(space.dimensions)} are searched"
        )
    return Earlier(reference, tuple(results))


def _renamed(given: Hyperparameters, space: Space) -> Hyperparameters:
    """Hyperparameters under the names that the space has for them; what it does not search is left out."""
    plain = {ALIASES.get(name, name): value for name, value in given.items()}
    found = {name: plain.get(ALIASES.get(name, name)) for name in space.dimensions}
    return {name: value for name, value in found.items() if value is not None}
