"""The shard pool on Ray: the Ray to run on, the transport over it, and their end."""

import contextlib
import time

import ray

from pes_cluster.cluster.settings import ClusterSettings
from pes_cluster.cluster.shard_pool import ShardPool
from pes_cluster.cluster.work import Work
from pes_cluster.ray_backend.session import RayStartError, session, unmet
from pes_cluster.ray_backend.transport import RayTransport

START_SECONDS = 60.0  # For the first shard to be placed and to begin.


class RayPool(ShardPool):
    """A `ShardPool` that lives and ends with its Ray.

    Raises:
        RayStartError: Ray cannot be started, or cannot hold the shards.
    """

    def __init__(self, work: Work, settings: ClusterSettings) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(session(settings))
            total = ray.cluster_resources()
            lacking = unmet(total, settings.shards or 1, settings.per_shard)
            if lacking is not None:
                raise RayStartError(lacking)
            transport = RayTransport(settings.per_shard)
            stack.callback(transport.close)
            super().__init__(work, transport, settings)
            self._await_start()
            self._session = stack.pop_all()

    def close(self) -> None:
        """See `Pool`."""
        self._session.close()

    def _await_start(self) -> None:
        """Waits until every shard has its place.

        A run that never got its shards is told so in one line; one that has begun
        treats those that do not start as lost.
        """
        deadline = time.monotonic() + START_SECONDS
        waiting = list(self._members)
        while waiting and time.monotonic() < deadline:
            waiting = [m for m in waiting if self._transport.node_of(m.actor) is None]
            time.sleep(0.01 if waiting else 0)
        if waiting:
            each = self._settings.per_shard
            started = self.shards - len(waiting)
            raise RayStartError(
                f"per_shard: {started} of {self.shards} shards started within "
                f"{START_SECONDS:g} s; each needs a node with {each.num_cpus:g} CPU, "
                f"{each.num_gpus:g} GPU free and labels {each.labels}"
            )
