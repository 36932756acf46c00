"""Shards in this process: laptops, tests, small problems."""

from typing import Any

import numpy as np

from pes_cluster.cluster.assignment import assign
from pes_cluster.cluster.checkpoint import Part
from pes_cluster.cluster.leaves import Arrays, check_blocks
from pes_cluster.cluster.pool import Lost, Scored
from pes_cluster.cluster.shard import Shard
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import Report
from pes_cluster.core.task import Theta


class LocalPool:
    """A pool whose shards are called one after another.

    An exception in the task's code is the caller's own, so it is left to rise.
    """

    def __init__(self, work: Work, shards: int = 1) -> None:
        self.num_blocks = work.program().num_blocks
        self._assignment = assign(self.num_blocks, shards)
        self.shards = len(self._assignment)
        functions: dict[str, Any] = {}  # Compiled once for all of them.
        self._shards = [Shard(work, functions) for _ in self._assignment]

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """See `Pool`."""
        check_blocks(blocks, self.num_blocks)
        for shard, owned in zip(self._shards, self._assignment, strict=True):
            shard.adopt({i: blocks[i] if blocks else None for i in owned}, next_step)
        return None

    def step(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """See `Pool`."""
        return in_order(shard.advance(outer_step, theta) for shard in self._shards)

    def score(self, outer_step: int, theta: Theta) -> list[Scored] | Lost:
        """See `Pool`."""
        seen = in_order(shard.score(outer_step, theta) for shard in self._shards)
        return [Scored(*one) for one in seen]

    def weighted_sum(
        self, theta: Theta, weights: list[np.ndarray]
    ) -> list[Theta] | Lost:
        """See `Pool`."""
        return in_order(
            shard.weighted_sum(theta, {i: weights[i] for i in owned})
            for shard, owned in zip(self._shards, self._assignment, strict=True)
        )

    def evaluate(
        self, theta: Theta, outer_step: int, episodes: int
    ) -> list[float] | Lost:
        """See `Pool`."""
        indices = list(range(episodes))
        return in_order([self._shards[0].evaluate(theta, outer_step, indices)])

    def save(self, folder: str) -> list[Part] | Lost:
        """See `Pool`."""
        return [
            shard.save(folder, f"shard_{index}")
            for index, shard in enumerate(self._shards)
        ]

    def close(self) -> None:
        """See `Pool`."""
        self._shards.clear()


def in_order(parts: Any) -> list[Any]:
    """Merges the shards' answers by index into one list in index order."""
    merged: dict[int, Any] = {}
    for part in parts:
        merged |= part
    return [merged[index] for index in sorted(merged)]
