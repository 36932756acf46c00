"""How many shards, and when blocks move between them. Pure."""

import dataclasses

from pes_cluster.cluster.transport import Nodes

PATIENCE = 15.0  # Seconds that shards which are ready wait for those which are not.
HURRY = 10.0  # Seconds before a node is gone, at which its blocks move in any case.


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the shards are now.

    Attributes:
        nodes: Node of each shard that owns blocks; None where it is not known yet.
        ready: Nodes of new shards that have started and own nothing yet.
        starting: New shards that have not started yet.
        waited: Seconds since the last of the ready ones was begun.
    """

    nodes: tuple[str | None, ...]
    ready: tuple[str, ...] = ()
    starting: int = 0
    waited: float = 0.0


@dataclasses.dataclass(frozen=True)
class Change:
    """What to do at a step boundary.

    Attributes:
        start: How many new shards to begin.
        keep: Positions (in `Layout.nodes`) of the shards that are to own blocks from
            now on, together with the ready ones; None: no block moves.
        drop: How many of the new shards, started or not, are not wanted any more.
    """

    start: int = 0
    keep: tuple[int, ...] | None = None
    drop: int = 0


def target_shards(asked: int | None, nodes: Nodes, num_blocks: int, now: int) -> int:
    """The number of shards that the run is meant to have, room for them or not.

    What was asked for, else what the cluster holds; never more than there are blocks.
    """
    aimed = max(nodes.slots() or now, 1) if asked is None else asked
    return min(aimed, num_blocks)


def wanted_shards(
    asked: int | None, nodes: Nodes, num_blocks: int, now: int, growing: bool = False
) -> int:
    """The number of shards to aim at: what was asked for, or what the cluster holds.

    Never more than there are blocks, nor than there is room for, and at least one. A
    cluster of which nothing is known, or that is full, changes nothing. One that is
    growing makes room for what is asked for.
    """
    if growing and asked is not None:
        return max(min(asked, num_blocks), 1)
    room = nodes.slots()
    if room == 0:
        return max(now, 1)
    return max(min(room if asked is None else asked, room, num_blocks), 1)


def change(wanted: int, nodes: Nodes, layout: Layout, room: int) -> Change:
    """Decides what to start and what to move.

    New shards start while the others go on; blocks move once all of them are ready, or
    earlier where a node is about to be taken away, or some do not start.

    Args:
        wanted: How many shards to aim at.
        nodes: The hosts.
        layout: The shards.
        room: How many new ones can be begun now.
    """
    leaving = nodes.leaving
    staying = [i for i, node in enumerate(layout.nodes) if node not in leaving]
    coming = len(layout.ready) + layout.starting
    hurried = any(leaving.get(node or "", HURRY) < HURRY for node in layout.nodes)
    missing = min(wanted - len(staying) - coming, room)
    if missing > 0 and not hurried:
        return Change(start=missing)
    wanted = min(wanted, len(staying) + coming)
    spare = min(len(staying) + coming - wanted, coming)
    patient = not hurried and not (layout.ready and layout.waited > PATIENCE)
    if layout.starting > spare and patient:
        return Change(drop=spare)
    # Those that have not started yet are given up first.
    joining = len(layout.ready) - max(spare - layout.starting, 0)
    wanted = min(wanted, len(staying) + joining)
    keep = tuple(staying[: max(wanted - joining, 0)])
    if not keep and not joining:
        return Change(drop=spare)  # Nowhere to go: stay until the node is gone.
    settled = len(keep) == len(layout.nodes) and not joining
    return Change(keep=None if settled else keep, drop=spare)


def buddy_node(node: str | None, nodes: Nodes, avoid: frozenset[str]) -> str | None:
    """The node that keeps a copy of a node's blocks: the next one, in a ring by id.

    None where there is no other node.
    """
    others = sorted(other.id for other in nodes.staying(avoid) if other.id != node)
    after = [other for other in others if node is not None and other > node]
    return (after or others or [None])[0]
