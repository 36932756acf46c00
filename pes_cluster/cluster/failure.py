"""What a failure means for the run: a new process elsewhere, or the end. Pure.

Three budgets, each for what it is: bugs (processes that die by themselves), preemptions
(hosts that die or are taken away), and the driver's own deaths, which the supervisor
counts. A durable checkpoint is progress: it refills the first two.
"""

import dataclasses

from pes_cluster.cluster.transport import Failure

SUSPECT_SECONDS = 30.0  # After a host was lost: it may be half alive.
BROKEN_SECONDS = 3600.0  # After the task raised there, and perhaps there alone.


@dataclasses.dataclass(frozen=True)
class Budgets:
    """How many losses a run survives without a durable checkpoint between them.

    Attributes:
        bugs: Processes that died or hung though their host lived.
        preemptions: Shards whose host died, was cut off or taken away, or had no room.
    """

    bugs: int = 8
    preemptions: int = 100

    def __post_init__(self) -> None:
        for name in ("bugs", "preemptions"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be at least 0")


@dataclasses.dataclass(frozen=True)
class Losses:
    """What was lost since the last durable checkpoint.

    Attributes:
        bugs: Charged to the budget of bugs.
        preemptions: Charged to the budget of preemptions.
        raised: (error line, node) of the errors that the called code raised.
    """

    bugs: int = 0
    preemptions: int = 0
    raised: tuple[tuple[str, str | None], ...] = ()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What follows a failure.

    Attributes:
        losses: The tally from now on.
        give_up: Why the run cannot go on; None: replace the shard.
        user_error: It is the task's own error, seen twice.
        avoid_seconds: For how long its node gets no new shard.
    """

    losses: Losses
    give_up: str | None = None
    user_error: bool = False
    avoid_seconds: float = 0.0


def judge(
    losses: Losses, budgets: Budgets, failure: Failure, node: str | None, hosts: int
) -> Verdict:
    """Decides what follows a shard's failure.

    An error that the task raised is tried once more, on another host where there is
    one: it may have been the host's (a missing file, a broken device). The same error
    again is the task's own.
    """
    if failure.kind == "task":
        return _raised(losses, budgets, failure.reason, node, hosts)
    host = failure.kind in ("host", "preempted", "unplaced")
    if host:
        losses = dataclasses.replace(losses, preemptions=losses.preemptions + 1)
        used, allowed, name = losses.preemptions, budgets.preemptions, "preemptions"
    else:
        losses = dataclasses.replace(losses, bugs=losses.bugs + 1)
        used, allowed, name = losses.bugs, budgets.bugs, "bugs"
    give_up = None
    if used > allowed:
        give_up = (
            f"{failure.reason}; {used} losses since the last checkpoint, more than "
            f"cluster.budgets.{name}={allowed}"
        )
    # A process that dies on a live host says nothing against the host.
    avoid_seconds = 0.0 if failure.kind == "process" else SUSPECT_SECONDS
    return Verdict(losses, give_up, avoid_seconds=avoid_seconds)


def _raised(
    losses: Losses, budgets: Budgets, reason: str, node: str | None, hosts: int
) -> Verdict:
    before = [where for line, where in losses.raised if line == reason]
    elsewhere = any(where != node for where in before)
    losses = dataclasses.replace(
        losses, bugs=losses.bugs + 1, raised=(*losses.raised, (reason, node))
    )
    # Nor does an error whose text is never the same have no end.
    spent = losses.bugs > max(budgets.bugs, 1)
    if elsewhere or (before and hosts < 2) or len(before) > 1 or spent:
        return Verdict(losses, reason, user_error=True)
    return Verdict(losses, avoid_seconds=BROKEN_SECONDS if hosts > 1 else 0.0)
