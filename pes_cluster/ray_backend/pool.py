"""The shard pool on Ray: the Ray to run on, the transport over it, and their end."""

import contextlib
import dataclasses
import time

from pes_cluster.cluster.roster import NODES_SECONDS
from pes_cluster.cluster.settings import ClusterSettings
from pes_cluster.cluster.shard_pool import ShardPool
from pes_cluster.cluster.work import Work
from pes_cluster.ray_backend.nodes import offers
from pes_cluster.ray_backend.room import lacking
from pes_cluster.ray_backend.session import RayStartError, session
from pes_cluster.ray_backend.transport import RayTransport

START_SECONDS = 60.0  # For the first shard to be placed and to begin.
BUILD_SECONDS = 60.0  # For the shards to build their programs; longer is only slow.


class RayPool(ShardPool):
    """A `ShardPool` that lives and ends with its Ray.

    Args:
        work: The run's recipes.
        settings: The cluster section.
        begun: The run goes on: hosts that it has lost since do not end it, and it
            makes do with the room that there is.

    Raises:
        RayStartError: Ray cannot be started, or cannot hold the shards.
    """

    def __init__(
        self, work: Work, settings: ClusterSettings, *, begun: bool = False
    ) -> None:
        self._makes_do = begun or settings.autoscaling
        with contextlib.ExitStack() as stack:
            stack.enter_context(session(settings))
            least = dataclasses.replace(settings, shards=1) if begun else settings
            line = lacking(least, offers())
            if line is not None:
                raise RayStartError(line)
            self._ray = RayTransport(settings.per_shard)
            stack.callback(self._ray.close)
            super().__init__(work, self._ray, settings)
            self._await_start()
            self._await_built()
            self._session = stack.pop_all()

    def close(self) -> None:
        """See `Pool`."""
        self._session.close()

    def _await_start(self) -> None:
        """Waits until every shard has its place.

        A run that never got its shards is told so in one line; one that has begun
        treats those that do not start as lost. Where nodes are added on demand, or
        were lost, it begins with those that it got, and asks for the others later.
        """
        growing, began = self._settings.autoscaling, time.monotonic()
        waiting, seconds = list(self._members), START_SECONDS
        while waiting and time.monotonic() - began < seconds:
            waiting = [m for m in waiting if self._transport.node_of(m.actor) is None]
            none = len(waiting) == len(self._members)
            seconds = NODES_SECONDS if growing and none else START_SECONDS
            time.sleep(0.01 if waiting else 0)
        started = [member for member in self._members if member not in waiting]
        if waiting and not (self._makes_do and started):
            each = self._settings.per_shard
            raise RayStartError(
                f"per_shard: {len(started)} of {self.shards} shards started within "
                f"{seconds:g} s; each needs a node with {each.num_cpus:g} CPU, "
                f"{each.num_gpus:g} GPU free and labels {each.labels}"
            )
        for member in waiting:
            self._transport.kill(member.actor)
        self._roster.settle(started, [])

    def _await_built(self) -> None:
        """Refuses a node on which a shard cannot be built: it lacks data, or code.

        Here nothing has been written yet. Later it would be one loss after the other.
        """
        deadline = time.monotonic() + BUILD_SECONDS
        for member in self._members:
            line = self._ray.broken(member.actor, max(deadline - time.monotonic(), 0))
            if line is not None:
                raise RayStartError(f"per_shard: {line}")
