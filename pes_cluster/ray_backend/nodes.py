"""Which hosts live, which will go and when: looked up beside the run, never in it.

Ray answers from its head, which can hang or be gone. A thread asks every second; who
wants to know gets the latest answer at once.
"""

import logging
import math
import threading
import time
from typing import Any

import ray
from ray._private.state import state as ray_state
from ray.exceptions import RayError

from pes_cluster.cluster.settings import PerShard
from pes_cluster.cluster.transport import Node, Nodes
from pes_cluster.ray_backend.room import Offer, slots

logger = logging.getLogger(__name__)

PERIOD = 1.0  # Seconds between two looks.


class NodeWatch:
    """The latest view of the cluster's hosts."""

    def __init__(self, per_shard: PerShard) -> None:
        """Takes the first look before it returns."""
        self._per_shard = per_shard
        self._here = ray.get_runtime_context().get_node_id()
        self._closed = threading.Event()
        self.nodes = self._look()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        self._thread.join(timeout=2 * PERIOD)

    def _watch(self) -> None:
        while not self._closed.wait(PERIOD):
            # While the head is away the latest view stands.
            try:
                self.nodes = self._look()
            except (RayError, OSError, RuntimeError, ValueError, LookupError) as error:
                logger.info("no word of the hosts: %s", error)

    def _look(self) -> Nodes:
        deadlines = draining()
        alive = tuple(
            Node(
                described["NodeID"],
                slots(described["Resources"], described["Labels"], self._per_shard),
                _seconds_left(deadlines.get(described["NodeID"])),
            )
            for described in ray.nodes()
            if described["Alive"]
        )
        return Nodes(alive, self._here)


def offers() -> list[Offer]:
    """What the nodes that live offer, asked now."""
    return [
        Offer(_name(described), described["Resources"], described["Labels"])
        for described in ray.nodes()
        if described["Alive"]
    ]


def name_of(node: str | None) -> str:
    """What people call a node, by its id."""
    names = {described["NodeID"]: _name(described) for described in ray.nodes()}
    return names.get(node or "", node or "unknown")


def draining() -> dict[str, int]:
    """Deadlines (milliseconds since 1970; 0: none was given) of leaving nodes, by id.

    Ray has no public call for it. Where this private one should be gone, nodes leave
    without notice, and their shards are rebuilt as after a crash.
    """
    get = getattr(ray_state, "get_draining_nodes", None)
    return {} if get is None else get()


def _name(described: dict[str, Any]) -> str:
    host, ip = described["NodeManagerHostname"], described["NodeManagerAddress"]
    return f"{host} ({ip})"


def _seconds_left(deadline: int | None) -> float | None:
    if deadline is None:
        return None
    return max(deadline / 1000 - time.time(), 0.0) if deadline > 0 else math.inf
