"""How many shards a run is meant to have, whatever it has."""

import pytest

from pes_cluster.cluster.scaling import target_shards
from pes_cluster.cluster.transport import Node, Nodes

HOLDS_SIX = Nodes((Node("a", 4), Node("b", 2)), "a")
FULL = Nodes((), "a")


@pytest.mark.parametrize(
    "asked, nodes, blocks, now, target",
    [
        (8, HOLDS_SIX, 20, 6, 8),  # Asked for, though there is no room for them now.
        (8, HOLDS_SIX, 5, 5, 5),  # No shard is without a block.
        (2, HOLDS_SIX, 20, 6, 2),
        (None, HOLDS_SIX, 20, 3, 6),
        (None, HOLDS_SIX, 4, 3, 4),
        (None, FULL, 20, 3, 3),  # A cluster of which nothing is known.
        (None, FULL, 20, 0, 1),
    ],
)
def test_the_target_does_not_sink_with_what_is_lost(
    asked: int | None, nodes: Nodes, blocks: int, now: int, target: int
) -> None:
    assert target_shards(asked, nodes, blocks, now) == target
