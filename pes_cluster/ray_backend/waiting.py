"""Stays with jobs until they end, and submits again what was lost with its node.

Ray does not try a job again. A job's supervisor outlives its driver, but not its node;
who waits for the job, elsewhere, outlives both, and the head too.
"""

import time
from collections.abc import Callable, Mapping

from pes_cluster.cluster.job import Attempt, JobError, follows, newest
from pes_cluster.ray_backend.jobs import Entry, Jobs, advice

PERIOD = 1.0  # Seconds between two looks.
AWAY_SECONDS = 600.0  # For a cluster that does not answer to come back.


def wait(
    jobs: Jobs,
    submitted: Mapping[Attempt, Entry],
    losses: int,
    say: Callable[[str], None],
) -> list[Attempt]:
    """Waits for jobs; returns each as it ended, in the order of submission.

    Args:
        jobs: The cluster.
        submitted: What is waited for, and how it is submitted again.
        losses: How often each may be lost with where it ran and go on elsewhere.
        say: Is told of every change, in one line.

    Raises:
        JobError: The cluster was away for too long.
    """
    waits = [_Wait(attempt, entry, losses, say) for attempt, entry in submitted.items()]
    heard = time.monotonic()
    while not all(one.ended for one in waits):
        time.sleep(PERIOD)
        try:
            there = newest(jobs.attempts())
            for one in waits:
                one.look(jobs, there.get(one.attempt.name))
            heard = time.monotonic()
        except JobError as error:
            # Its head may be starting again. Another refusal comes again, until then.
            if time.monotonic() - heard > AWAY_SECONDS:
                raise JobError(f"{error}; given up after {AWAY_SECONDS:g} s") from None
    return [one.attempt for one in waits]


class _Wait:
    """One job that is waited for."""

    def __init__(
        self, attempt: Attempt, entry: Entry, losses: int, say: Callable[[str], None]
    ) -> None:
        self.attempt, self.ended = attempt, False
        self._entry, self._left, self._say = entry, losses, say
        self._state = ""

    def look(self, jobs: Jobs, now: Attempt | None) -> None:
        """Takes note of how the job stands, and acts on it."""
        if self.ended:
            return
        again = follows(self.attempt, now, self._left)
        if again is not None:
            jobs.submit(again, self._entry)
            self.attempt, self._state = again, ""
            self._left -= 1
            self._say(
                f"{again.name}: was lost with its node; goes on, attempt {again.number}"
            )
            return
        if now is None:
            raise JobError(f"{self.attempt.name}: the cluster knows no such job")
        self.attempt, self.ended = now, not now.live
        if now.state != self._state:
            self._state = now.state
            self._say(f"{now.name}: {now.state}{_why(jobs, now)}")


def _why(jobs: Jobs, ended: Attempt) -> str:
    """What a job that failed has said last, or its cluster of it."""
    if ended.state != "failed":
        return ""
    log = jobs.log(ended)
    said = [line for line in log.splitlines() if line.startswith("pes: ")]
    last = said[-1].removeprefix("pes: ") if said else advice(log) or ended.message
    return f" ({' '.join(last.split())[:300]})"
