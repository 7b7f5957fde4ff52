"""A run and its ancestors, and how much of each belongs to the run's curve.

Nothing is copied when a run is forked: a child inherits its parent's points up to and including the fork, at read.
Where both have a point at a position the child's wins. A cut hides what a run had written past a position before it was
rewound.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, bindparam, case, cast, literal, null, select

from thalweg.track.schema import cut, run

MAX_POSITION = 2**63 - 1
"""The greatest position that a store can hold."""


@dataclass(frozen=True)
class Link:
    """A run as seen from the end of a lineage."""

    key: int
    run_id: str
    fork_position: int
    """Where the run itself begins; 0 for a root."""
    generation: int
    """The run's present generation: that of its journal."""
    limit: int
    """The last of its positions that the reader inherits."""
    last_generation: int
    """The newest of its generations that the reader inherits."""
    cuts: tuple[tuple[int, int], ...]
    """(generation, position) of each cut that the reader sees."""

    def visible_until(self, generation: int) -> int:
        """The last position up to which points of a generation are seen; -1 where none is."""
        if generation > self.last_generation:
            return -1
        return min([self.limit, *(position for cut_in, position in self.cuts if cut_in >= generation)])


# The walk up from a run. `fork_limit` is the least fork position passed on the way, `child_fork` that of the child next
# to the ancestor, `child_generation` the ancestor's generation when that child was made; the last two are NULL for the
# run itself.
_walk = (
    select(
        run.c.key,
        run.c.parent_key,
        literal(0).label("depth"),
        cast(literal(MAX_POSITION), BigInteger).label("fork_limit"),
        cast(null(), BigInteger).label("child_fork"),
        cast(null(), BigInteger).label("child_generation"),
    )
    .where(run.c.key == bindparam("run_key"))
    .cte("lineage", recursive=True)
)
_child = run.alias("child")
_parent = run.alias("parent")
lineage = _walk.union_all(
    select(
        _parent.c.key,
        _parent.c.parent_key,
        _walk.c.depth + 1,
        case((_child.c.fork_position < _walk.c.fork_limit, _child.c.fork_position), else_=_walk.c.fork_limit),
        _child.c.fork_position,
        cast(_child.c.parent_generation, BigInteger),
    )
    .join_from(_walk, _child, _child.c.key == _walk.c.key)
    .join(_parent, _parent.c.key == _child.c.parent_key)
)
"""The recursive query over a run (bind `run_key`) and its ancestors, to join with."""

_links = (
    select(lineage, run.c.id, run.c.fork_position, run.c.generation, cut.c.generation, cut.c.position)
    .join_from(lineage, run, run.c.key == lineage.c.key)
    .outerjoin(cut, cut.c.run_key == lineage.c.key)
    .order_by(lineage.c.depth.desc(), cut.c.key)
)


def read_lineage(connection: Connection, run_key: int) -> list[Link]:
    """A run's ancestors, the root first, and the run itself last."""
    links: list[Link] = []
    cuts: list[tuple[int, int]] = []
    rows = connection.execute(_links, {"run_key": run_key}).all()
    for i, row in enumerate(rows):
        (key, _, _, limit, child_fork, child_generation, run_id, fork_position, generation, cut_in, cut_at) = row
        if cut_in is not None:
            cuts.append((cut_in, cut_at))
        if i + 1 < len(rows) and rows[i + 1][0] == key:
            continue
        link = Link(key, run_id, fork_position, generation, limit, generation, tuple(cuts))
        links.append(link if child_fork is None else _as_inherited(link, child_fork, child_generation))
        cuts = []
    return links


def _as_inherited(link: Link, child_fork: int, child_generation: int) -> Link:
    """What a child sees of its parent: a rewind of the parent to before the fork, made later, is not in its past."""
    before = tuple(entry for entry in link.cuts if entry[0] < child_generation)
    rewinds = [cut_in for cut_in, cut_at in link.cuts if cut_in >= child_generation and cut_at < child_fork]
    last = min(rewinds, default=link.generation)
    return Link(link.key, link.run_id, link.fork_position, link.generation, link.limit, last, before)


def own_link(connection: Connection, run_key: int) -> Link:
    """The run alone, inheriting nothing."""
    return read_lineage(connection, run_key)[-1]
