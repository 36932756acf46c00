"""What nodes can hold, and where drivers go; nothing here needs Ray."""

import pytest

from pes_cluster.cluster.settings import ClusterSettings, PerShard
from pes_cluster.ray_backend.room import Offer, lacking, placed, slots, total

NODES = [
    Offer("head", {"CPU": 0.0}, head=True),
    Offer("w1", {"CPU": 4.0, "GPU": 1.0}, {"tier": "spot"}),
    Offer("w2", {"CPU": 3.0, "driver": 64.0}),
]


def test_the_resources_of_all_nodes_together() -> None:
    assert total(NODES) == {"CPU": 7.0, "GPU": 1.0, "driver": 64.0}


@pytest.mark.parametrize(
    "per_shard, each",
    [
        (PerShard(), [0, 4, 3]),
        (PerShard(2.0), [0, 2, 1]),
        (PerShard(0.1), [0, 40, 30]),
        (PerShard(1.0, 0.5), [0, 2, 0]),
        (PerShard(labels={"tier": "spot"}), [0, 4, 0]),
        (PerShard(0.0), [1, 1, 1]),
    ],
)
def test_how_many_shards_a_node_holds(per_shard: PerShard, each: list[int]) -> None:
    assert [slots(one.resources, one.labels, per_shard) for one in NODES] == each


@pytest.mark.parametrize(
    "cluster, words",
    [
        (ClusterSettings(), None),
        (ClusterSettings(shards=7), None),
        (ClusterSettings(shards=8), "8 with 1 CPU each need 8 CPU, the cluster has 7"),
        (ClusterSettings(shards=8), "cluster.autoscaling=true"),
        (ClusterSettings(shards=8, autoscaling=True), None),
        (ClusterSettings(shards=8, pool="local"), None),
        (ClusterSettings(per_shard=PerShard(1.0, 2.0)), "2 GPU, the cluster has 1"),
        (
            ClusterSettings(per_shard=PerShard(5.0)),
            "has to fit on a node; 1 with 5 CPU",
        ),
        (ClusterSettings(per_shard=PerShard(5.0)), "4 CPU, 1 GPU (w1); 3 CPU, 0 GPU"),
        (ClusterSettings(pool="local", per_shard=PerShard(5.0)), "fit on a node"),
        (ClusterSettings(shards=3, per_shard=PerShard(2.0)), None),
        (
            ClusterSettings(shards=5, per_shard=PerShard(labels={"tier": "spot"})),
            "labels tier=spot",
        ),
        (ClusterSettings(shards=9, per_shard=PerShard(0.0)), None),
    ],
)
def test_what_the_nodes_cannot_hold_is_said(
    cluster: ClusterSettings, words: str | None
) -> None:
    line = lacking(cluster, NODES)
    assert line == words if words is None or line is None else words in line


def test_it_is_said_where_drivers_go_if_no_node_is_for_them() -> None:
    assert placed(NODES) is None
    assert placed(NODES[:1]) is None
    line = placed(NODES[:2])
    assert line is not None and "run on the head, head," in line
    assert "--resources=" in line
