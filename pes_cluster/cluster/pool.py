"""What the driver may ask of its shards, wherever they run."""

import dataclasses
from typing import Protocol

import numpy as np

from pes_cluster.cluster.checkpoint import Part
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.leaves import Arrays
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import Report
from pes_cluster.core.task import Theta


@dataclasses.dataclass(frozen=True)
class Lost:
    """An answer that will not come: a value, never an exception across the boundary.

    Attributes:
        shard: Which one.
        reason: One line.
        user_error: The task's own code raised; trying elsewhere would raise again.
        resumable: The blocks are gone; those of the newest durable checkpoint will do.
    """

    shard: int
    reason: str
    user_error: bool = False
    resumable: bool = False


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores [pairs, 2] of a block, which pairs are active [pairs], and the report."""

    scores: np.ndarray
    active: np.ndarray
    report: Report


class Pool(Protocol):
    """Shards that own the blocks. Reports come back in block order, or as `Lost`."""

    num_blocks: int

    @property
    def shards(self) -> int:
        """How many shards own blocks now."""
        ...

    @property
    def shards_target(self) -> int:
        """How many are aimed at, the lost ones included."""
        ...

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """Hands the blocks to the shards: saved ones, or (None) fresh ones."""
        ...

    def step(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """One window of every block at theta."""
        ...

    def submit(self, outer_step: int, theta: Theta) -> None:
        """Begins a window whose reports `step` takes, at the same theta."""
        ...

    def probe(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """What `step` would report at another theta; the blocks stay as they are."""
        ...

    def score(self, outer_step: int, theta: Theta) -> list[Scored] | Lost:
        """One window of every block, whose scores are shaped before they count."""
        ...

    def weighted_sum(
        self, theta: Theta, weights: list[np.ndarray]
    ) -> list[Theta] | Lost:
        """The gradient sums of the shaped scores, by block."""
        ...

    def evaluate(
        self, theta: Theta, outer_step: int, episodes: int
    ) -> list[float] | Lost:
        """Losses of full unperturbed episodes, in the order of their keys."""
        ...

    def save(self, folder: str) -> list[Part] | Lost:
        """Every shard writes its part of a checkpoint.

        Raises:
            CheckpointError: A part cannot be written.
        """
        ...

    def saved(self) -> None:
        """Takes note that the checkpoint stands: losses are counted anew."""
        ...

    def resize(self, shards: int | None) -> None:
        """Aims at another number of shards; None: as many as there is room for."""
        ...

    def rescale(self, work: Work) -> Lost | None:
        """Takes up another work, with more or fewer particles, between two windows."""
        ...

    def events(self) -> list[Event]:
        """What befell the shards since this was last asked."""
        ...

    def notice(self) -> str | None:
        """Why a durable checkpoint should be written now: this node will go, say."""
        ...

    def close(self) -> None:
        """Ends the shards."""
        ...
