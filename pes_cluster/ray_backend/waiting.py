"""Stays with jobs until they end, and submits again what was lost with its node.

Ray does not try a job again. A job's supervisor outlives its driver, but not its node;
who waits for the job, elsewhere, outlives both, and the head too.
"""

import contextlib
import dataclasses
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
        except JobError as error:  # Its head may be starting again.
            if time.monotonic() - heard > AWAY_SECONDS:
                raise JobError(f"{error}; given up after {AWAY_SECONDS:g} s") from None
            continue
        heard = time.monotonic()
        for one in waits:
            one.look(jobs, there.get(one.attempt.name))
    return [one.attempt for one in waits]


class _Wait:
    """One job that is waited for."""

    def __init__(
        self, attempt: Attempt, entry: Entry, losses: int, say: Callable[[str], None]
    ) -> None:
        self.attempt, self.ended = attempt, False
        self._entry, self._left, self._say = entry, losses, say
        self._state = ""
        self._refused: float | None = None  # Since when it cannot be submitted again.

    def look(self, jobs: Jobs, now: Attempt | None) -> None:
        """Takes note of how the job stands, and acts on it."""
        if self.ended:
            return
        again = follows(self.attempt, now, self._left)
        if again is not None:
            self._submit(jobs, again)
        elif now is None:
            self._end("the cluster knows no such job")
        else:
            self.attempt, self.ended = now, not now.live
            if now.state != self._state:
                self._state = now.state
                self._say(f"{now.name}: {now.state}{_why(jobs, now)}")

    def _submit(self, jobs: Jobs, again: Attempt) -> None:
        """Submits it again; a refusal is waited out, and holds up no other job."""
        try:
            jobs.submit(again, self._entry)
        except JobError as error:
            self._refused = self._refused or time.monotonic()
            if time.monotonic() - self._refused > AWAY_SECONDS:
                self._end(f"{error}; given up after {AWAY_SECONDS:g} s")
            return
        self.attempt, self._state, self._refused = again, "", None
        self._left -= 1
        self._say(
            f"{again.name}: was lost with its node; goes on, attempt {again.number}"
        )

    def _end(self, why: str) -> None:
        """Gives the job up, as one that failed."""
        self.attempt = dataclasses.replace(self.attempt, status="FAILED", message=why)
        self.ended = True
        self._say(f"{self.attempt.name}: failed ({why})")


def _why(jobs: Jobs, ended: Attempt) -> str:
    """What a job that failed has said last, or its cluster of it."""
    if ended.state != "failed":
        return ""
    log = ""
    with contextlib.suppress(JobError):  # Logs go with the node that they lie on.
        log = jobs.log(ended)
    said = [line for line in log.splitlines() if line.startswith("pes: ")]
    last = said[-1].removeprefix("pes: ") if said else advice(log) or ended.message
    return f" ({' '.join(last.split())[:300]})"
