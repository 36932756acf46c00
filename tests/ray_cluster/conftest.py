"""One Ray of several nodes on this machine for all tests of this folder."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from pes_cluster.ray_backend import session

HEALTH = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}

AddNode = Callable[[], Any]


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, on which the driver is."""
    session._use_token()
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        with session.connect(cluster.address):
            yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def add_node(cluster: Cluster) -> Iterator[AddNode]:
    """Adds nodes of one CPU; they are gone after the test."""
    nodes: list[Any] = []

    def add() -> Any:
        nodes.append(cluster.add_node(num_cpus=1))
        return nodes[-1]

    yield add
    for node in nodes:
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)
    deadline = time.monotonic() + 30
    while len(alive()) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(alive()) == 1


def alive() -> list[str]:
    """The ids of the nodes that live, the head's among them."""
    with contextlib.suppress(ConnectionError):
        return [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return []
