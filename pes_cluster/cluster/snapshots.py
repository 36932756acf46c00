"""What is needed to rebuild any block: a copy of it, and the thetas since.

```
 saved: block -> copy before window b, in another failure domain than the shard
 ring:  the thetas of windows b, b+1, ..., now-1
 rebuilt = copy, replayed through the ring: the same bits
```

A copy counts only once it has arrived; until then the one before it, and the thetas
since that one, are kept.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pes_cluster.cluster.leaves import Arrays
from pes_cluster.core.task import Theta

SHARE = 0.015  # Of the run's time, spent on snapshots.
EARLY = 10  # Windows to the second copy: the first one's cost is that of a cold start.
REPLAY_SECONDS = 300.0  # The most that a replay should take, whatever copies cost.
RING_BYTES = 256 * 2**20  # Of thetas in the driver's memory.


@dataclasses.dataclass(frozen=True)
class Copy:
    """Blocks as they were before a window.

    Attributes:
        at_step: That window.
        blocks: Their arrays in the driver's memory, None for a fresh block; empty where
            a buddy keeps them.
        buddy: The process that keeps them, under `name`.
        node: Where the buddy runs.
    """

    at_step: int
    blocks: Mapping[int, Arrays | None] = dataclasses.field(default_factory=dict)
    buddy: Any = None
    name: str = ""
    node: str | None = None


@dataclasses.dataclass(frozen=True)
class _Coming:
    """A copy under way: it counts when `arrival` has ended well."""

    copy: Copy
    indices: tuple[int, ...]
    arrival: Any
    since: float


class Snapshots:
    """The copy of every block, the ring of thetas, and when the next copy is due."""

    def __init__(self) -> None:
        self.saved: dict[int, Copy] = {}
        self.ring: list[tuple[int, Theta]] = []
        self._costs: list[float] = []  # Of the latest two; seconds that shards waited.
        self._coming: list[_Coming] = []

    def begin(self, indices: Sequence[int], copy: Copy) -> None:
        """Forgets everything; the blocks begin at this copy."""
        self.saved = dict.fromkeys(indices, copy)
        self.ring, self._coming = [], []

    def remember(self, outer_step: int, theta: Theta) -> None:
        """Adds the theta of a window that every block has gone through."""
        self.ring.append((outer_step, theta))

    def since(self, outer_step: int) -> list[tuple[int, Theta]]:
        """The windows from one on."""
        return [entry for entry in self.ring if entry[0] >= outer_step]

    def expect(
        self, copy: Copy, indices: Sequence[int], arrival: Any, since: float
    ) -> None:
        """Notes a copy that is under way."""
        self._coming.append(_Coming(copy, tuple(indices), arrival, since))

    def overdue(self, before: float) -> list[Any]:
        """The calls that copies begun before a time still wait for."""
        return [coming.arrival for coming in self._coming if coming.since < before]

    def took(self, seconds: float) -> None:
        """Notes for how long copies held the shards up."""
        self._costs = [*self._costs[-1:], seconds]

    @property
    def arrivals(self) -> list[Any]:
        """The calls that copies under way wait for."""
        return [coming.arrival for coming in self._coming]

    def arrived(self, arrival: Any, blocks: dict[int, Arrays] | None) -> list[Copy]:
        """Counts a copy that has arrived; returns the copies that nobody needs now.

        Args:
            arrival: The call that it waited for.
            blocks: What the driver keeps itself; None where a buddy keeps it.
        """
        (coming,) = [one for one in self._coming if one.arrival is arrival]
        self._coming.remove(coming)
        copy = dataclasses.replace(coming.copy, blocks=blocks or {})
        before = {index: self.saved[index] for index in coming.indices}
        for index in coming.indices:
            if before[index].at_step <= copy.at_step:
                self.saved[index] = copy
        self._trim()
        needed = {id(one) for one in self.saved.values()}
        old = {id(one): one for one in before.values() if id(one) not in needed}
        return list(old.values())

    def failed(self, arrival: Any) -> Copy:
        """Forgets and returns a copy that will not arrive; the one before it counts."""
        (coming,) = [one for one in self._coming if one.arrival is arrival]
        self._coming.remove(coming)
        return coming.copy

    def of(self, blocks: Iterable[int] | None = None) -> list[Copy]:
        """The copies that count: of these blocks, or all."""
        indices = self.saved if blocks is None else blocks
        return [self.saved[index] for index in indices]

    def groups(self, indices: Sequence[int]) -> list[tuple[Copy, list[int]]]:
        """The blocks grouped by the copy that they are rebuilt from."""
        groups: dict[int, tuple[Copy, list[int]]] = {}
        for index in indices:
            copy = self.saved[index]
            groups.setdefault(id(copy), (copy, []))[1].append(index)
        return list(groups.values())

    def due(self, step_seconds: float, theta_bytes: int) -> bool:
        """Whether it is time for new copies; none is begun while one is under way."""
        if self._coming or not self.ring:
            return False
        # The lower of two: one of them may have met a busy moment.
        wanted = interval(min(self._costs, default=0.0), step_seconds, theta_bytes)
        if len(self._costs) < 2:
            wanted = min(wanted, EARLY)
        return len(self.ring) >= wanted

    def _trim(self) -> None:
        oldest = min(copy.at_step for copy in self.saved.values())
        self.ring = [entry for entry in self.ring if entry[0] >= oldest]


def interval(cost: float, step_seconds: float, theta_bytes: int) -> int:
    """Windows between copies: as few as cost no more than `SHARE` of the time.

    Thetas that would fill the driver's memory shorten it, and so does a long replay.
    """
    affordable = math.ceil(cost / max(step_seconds, 1e-4) / SHARE)
    holds = RING_BYTES // max(theta_bytes, 1)
    bearable = math.floor(REPLAY_SECONDS / max(step_seconds, 1e-4))
    return max(min(affordable, holds, bearable), 1)
