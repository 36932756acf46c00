"""Which faults strike which run, and when: drawn from a seed, the same every time."""

import dataclasses
import random
from collections.abc import Sequence

# What strikes, and for how many seconds it lasts where it lasts by itself.
KINDS: dict[str, tuple[float, float]] = {
    "shard killed": (0.0, 0.0),
    "raylet killed": (0.0, 0.0),
    "host cut": (6.0, 12.0),
    "host crashed": (1.0, 3.0),
    "host paused": (1.0, 10.0),
    "drain notice": (0.0, 0.0),
    "driver killed": (0.0, 0.0),
    "head lost, Redis": (1.0, 3.0),
    "slow link": (4.0, 8.0),
    "disk full": (3.0, 6.0),
    "checkpoint cut short": (0.0, 0.0),
}
NEEDS_REDIS = "head lost, Redis"
CLUSTER_LOST = "head lost"  # Without Redis, all is lost but what is on disk.
EARLIEST, LATEST = 0.15, 0.8  # Of a run's outer steps.


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: What; one of `KINDS`, or `CLUSTER_LOST`.
        step: Once so many outer steps are done.
        draw: In [0, 1): which of those that can be struck.
        seconds: How long it lasts, where it lasts.
    """

    kind: str
    step: int
    draw: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """One run and its faults, in order."""

    name: str
    faults: tuple[Fault, ...] = ()

    @property
    def redis(self) -> bool:
        """Whether the head must keep what it knows in Redis."""
        return any(fault.kind == NEEDS_REDIS for fault in self.faults)


def schedule(
    seed: int, outer_steps: int, runs: int = 6, each: int = 2, redis: bool = True
) -> list[Plan]:
    """A run without faults, some with every kind of fault, one that loses its cluster.

    Args:
        seed: The faults are drawn from it.
        outer_steps: Length of a run.
        runs: Over how many runs the faults are dealt.
        each: How often every kind strikes, in all.
        redis: Whether there is a Redis.
    """
    draw = random.Random(seed)
    kinds = [kind for kind in KINDS if redis or kind != NEEDS_REDIS] * each
    draw.shuffle(kinds)
    hands = [kinds[run::runs] for run in range(runs)] + [[CLUSTER_LOST]]
    return [
        Plan("calm"),
        *(
            Plan(f"run {number}", _faults(draw, hand, outer_steps))
            for number, hand in enumerate(hands, start=1)
        ),
    ]


def _faults(
    draw: random.Random, kinds: Sequence[str], outer_steps: int
) -> tuple[Fault, ...]:
    """Spreads the kinds over a run, each at a random step of its share."""
    share = (LATEST - EARLIEST) / len(kinds)
    found = []
    for place, kind in enumerate(kinds):
        at = EARLIEST + share * (place + draw.random())
        seconds = draw.uniform(*KINDS.get(kind, (1.0, 3.0)))
        fault = Fault(kind, round(at * outer_steps), draw.random(), round(seconds, 1))
        found.append(fault)
    return tuple(found)
