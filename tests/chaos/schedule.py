"""Which faults strike which run, and when: drawn from a seed, the same every time."""

import dataclasses
import random
from collections.abc import Sequence

SHARD_KILLED = "shard killed"
HOST_CUT = "host cut"
DRAIN_NOTICE = "drain notice"
DRIVER_KILLED = "driver killed"
HEAD_LOST_REDIS = "head lost, Redis"
HEAD_LOST = "head lost"  # All is lost then but what is on disk.
DISK_FULL = "disk full"
HALF_WRITTEN = "checkpoint half written"

# What strikes, and for how many seconds it lasts where it lasts by itself.
KINDS: dict[str, tuple[float, float]] = {
    SHARD_KILLED: (0.0, 0.0),
    "raylet killed": (0.0, 0.0),
    HOST_CUT: (6.0, 12.0),
    "host crashed": (1.0, 3.0),
    "host paused": (1.0, 10.0),
    DRAIN_NOTICE: (0.0, 0.0),
    DRIVER_KILLED: (0.0, 0.0),
    HEAD_LOST_REDIS: (1.0, 3.0),
    "slow link": (4.0, 8.0),
    DISK_FULL: (5.0, 8.0),
    HALF_WRITTEN: (0.0, 0.0),
}
ENDS_DRIVER = (DRIVER_KILLED, HALF_WRITTEN, HEAD_LOST)
EARLIEST, LATEST = 0.15, 0.8  # Of a run's outer steps.
COPIES = ("driver", "buddies")  # Who keeps the shards' snapshots, run by run.


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: What; one of `KINDS`, or `HEAD_LOST`.
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
    """One run and its faults, in order.

    Attributes:
        name: Of the run.
        faults: In order.
        overrides: Of the job's configuration.
        one_by_one: Each fault waits until nothing is left of the one before, and the
            run is stopped after the last.
    """

    name: str
    faults: tuple[Fault, ...] = ()
    overrides: tuple[str, ...] = ()
    one_by_one: bool = False

    @property
    def redis(self) -> bool:
        """Whether the head must keep what it knows in Redis."""
        return any(fault.kind == HEAD_LOST_REDIS for fault in self.faults)


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
    kinds = [kind for kind in KINDS if redis or kind != HEAD_LOST_REDIS] * each
    draw.shuffle(kinds)
    hands = [kinds[run::runs] for run in range(runs)] + [[HEAD_LOST]]
    length = f"run.outer_steps={outer_steps}"
    calm = Plan("calm", overrides=(length,))
    return [calm] + [
        Plan(
            f"run {number}",
            _faults(draw, hand, outer_steps),
            (length, f"cluster.snapshots={COPIES[number % 2]}"),
        )
        for number, hand in enumerate(hands, start=1)
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
