"""Shards in this process: laptops, tests, small problems."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from pes_cluster.cluster.assignment import assign
from pes_cluster.cluster.checkpoint import Part
from pes_cluster.cluster.events import Event
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
        self._functions: dict[str, Any] = {}  # Compiled once for all of them.
        self._wanted, self._next_step, self._handed_out = shards, 0, False
        self._ahead: tuple[int, list[Report]] | None = None
        self._arrange(work)

    @property
    def shards(self) -> int:
        """How many shards own blocks."""
        return len(self._shards)

    @property
    def shards_target(self) -> int:
        """How many are aimed at; none of them is ever lost."""
        return len(self._shards)

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """See `Pool`."""
        check_blocks(blocks, self.num_blocks)
        self._next_step, self._ahead, self._handed_out = next_step, None, True
        for shard, owned in self._owned:
            given = {i: blocks[i] if blocks else None for i in owned}
            shard.adopt(given, owned, next_step)
        return None

    def step(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """See `Pool`."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == outer_step:
            return ahead[1]
        self._next_step = outer_step + 1
        return in_order(
            shard.advance(outer_step, theta, owned) for shard, owned in self._owned
        )

    def submit(self, outer_step: int, theta: Theta) -> None:
        """See `Pool`."""
        reports = self.step(outer_step, theta)
        assert not isinstance(reports, Lost)
        self._ahead = (outer_step, reports)

    def probe(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """See `Pool`."""
        return in_order(
            shard.probe(outer_step, theta, owned) for shard, owned in self._owned
        )

    def score(self, outer_step: int, theta: Theta) -> list[Scored] | Lost:
        """See `Pool`."""
        self._next_step = outer_step + 1
        seen = in_order(
            shard.score(outer_step, theta, owned) for shard, owned in self._owned
        )
        return [Scored(*one) for one in seen]

    def weighted_sum(
        self, theta: Theta, weights: list[np.ndarray]
    ) -> list[Theta] | Lost:
        """See `Pool`."""
        return in_order(
            shard.weighted_sum(theta, {i: weights[i] for i in owned})
            for shard, owned in self._owned
        )

    def evaluate(
        self, theta: Theta, outer_step: int, episodes: int
    ) -> list[float] | Lost:
        """See `Pool`."""
        indices = list(range(episodes))
        return in_order([self._shards[0].evaluate(theta, outer_step, indices)])

    def save(self, folder: str) -> list[Part] | Lost:
        """See `Pool`."""
        return in_order(
            shard.save(folder, f"blocks_{owned[0]}_{owned[-1]}", owned)
            for shard, owned in self._owned
        )

    def saved(self) -> None:
        """See `Pool`."""

    def resize(self, shards: int | None) -> None:
        """See `Pool`."""
        blocks = self._blocks() if self._handed_out else None
        self._wanted = shards or 1
        self._arrange(self._work)
        if blocks is not None:
            self.restore(blocks, self._next_step)

    def rescale(self, work: Work) -> Lost | None:
        """See `Pool`."""
        if not self._handed_out:
            self._arrange(work)
            return None
        kept = merged(
            shard.resized(work, [i for i in owned if i < work.program().num_blocks])
            for shard, owned in self._owned
        )
        self._arrange(work)
        for shard, owned in self._owned:
            shard.adopt({i: kept.get(i) for i in owned}, owned, self._next_step)
        return None

    def events(self) -> list[Event]:
        """See `Pool`."""
        return []

    def notice(self) -> str | None:
        """See `Pool`."""
        return None

    def close(self) -> None:
        """See `Pool`."""
        self._shards, self._assignment = [], []

    @property
    def _owned(self) -> list[tuple[Shard, list[int]]]:
        return list(zip(self._shards, self._assignment, strict=True))

    def _blocks(self) -> dict[int, Arrays]:
        return merged(shard.snapshot(owned) for shard, owned in self._owned)

    def _arrange(self, work: Work) -> None:
        """Starts as many shards as are wanted, without blocks."""
        self._work, self.num_blocks = work, work.program().num_blocks
        self._functions.clear()
        self._assignment = assign(self.num_blocks, self._wanted)
        self._shards = [Shard(work, self._functions) for _ in self._assignment]


def merged(parts: Iterable[dict[int, Any]]) -> dict[int, Any]:
    """Merges the shards' answers by index."""
    answers: dict[int, Any] = {}
    for part in parts:
        answers |= part
    return answers


def in_order(parts: Iterable[dict[int, Any]]) -> list[Any]:
    """Merges the shards' answers by index into one list in index order."""
    answers = merged(parts)
    return [answers[index] for index in sorted(answers)]
