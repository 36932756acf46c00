"""Runs as jobs of a cluster: their names, their attempts, and how they stand.

A job is a run with a name. Each time it is submitted, stopped and resumed it is another
attempt of the same run: the newest one says how the job stands.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal

State = Literal["waiting", "running", "finished", "stopped", "failed"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_STATES: dict[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "finished",
    "STOPPED": "stopped",
}
_STOPPED = (130, 143)  # Exit statuses of a run that was asked to stop.
RESUMABLE = 75  # That of a run that failed where it ran, and may go on elsewhere.
# What a cluster says of a job whose node has gone: its process had no say in it.
_GONE = (
    "JOB_SUPERVISOR_ACTOR_DIED",
    "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
)


class JobError(ValueError):
    """A job that cannot be submitted, found or asked; one line."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One submission of a job.

    Attributes:
        name: The job's.
        number: From 1.
        group: The group it was submitted in, or "".
        digest: Of the configuration that determines the result.
        status: The cluster's word for how it stands.
        exit_code: Of its process, once that has ended.
        message: What the cluster has to say.
        error: The cluster's word for what it failed of, where it was not by itself.
        began: When it began, in seconds since 1970.
        ended: When it ended.
    """

    name: str
    number: int
    group: str = ""
    digest: str = ""
    status: str = "PENDING"
    exit_code: int | None = None
    message: str = ""
    error: str = ""
    began: float | None = None
    ended: float | None = None

    @property
    def id(self) -> str:
        """What the cluster knows it by."""
        return f"{self.name}-{self.number:03d}"

    @property
    def state(self) -> State:
        """How it stands."""
        if self.exit_code in _STOPPED:
            return "stopped"
        return _STATES.get(self.status, "failed")

    @property
    def live(self) -> bool:
        """Whether it runs, or will."""
        return self.state in ("waiting", "running")

    @property
    def lost(self) -> bool:
        """Whether it failed because of where it ran: elsewhere it may go on."""
        return self.state == "failed" and (
            self.error in _GONE or self.exit_code == RESUMABLE
        )

    def metadata(self) -> dict[str, str]:
        """What the cluster keeps of it; `from_metadata` takes it back."""
        return {
            "pes_name": self.name,
            "pes_attempt": str(self.number),
            "pes_group": self.group,
            "pes_digest": self.digest,
        }


def from_metadata(fields: Mapping[str, str]) -> Attempt | None:
    """The attempt that a cluster's job is; None: it is somebody else's."""
    name, number = fields.get("pes_name"), fields.get("pes_attempt", "")
    if not name or not number.isdecimal():
        return None
    group, digest = fields.get("pes_group", ""), fields.get("pes_digest", "")
    return Attempt(name, int(number), group, digest)


def newest(attempts: Iterable[Attempt]) -> dict[str, Attempt]:
    """The newest attempt of each job, by name, in the order of their first ones."""
    found: dict[str, Attempt] = {}

    def place(attempt: Attempt) -> tuple[int, float, str]:
        # A cluster lists its jobs in no order; one that has not begun came last.
        began = math.inf if attempt.began is None else attempt.began
        return attempt.number, began, attempt.name

    for attempt in sorted(attempts, key=place):
        found[attempt.name] = attempt
    return found


def following(name: str, group: str, digest: str, before: Attempt | None) -> Attempt:
    """The attempt that is to be submitted now.

    Args:
        name: The job's.
        group: Its group.
        digest: Of its configuration.
        before: Its newest attempt so far.

    Raises:
        JobError: The name cannot be used, is in use, or is another run's.
    """
    if not _NAME.fullmatch(name):
        raise JobError(f"name {name!r}: letters, digits, '_', '.' and '-' only")
    if before is None:
        return Attempt(name, 1, group, digest)
    if before.live:
        raise JobError(f"{name}: is {before.state} already; choose another --name")
    if before.digest != digest:
        raise JobError(f"{name}: is another run's name; choose another --name")
    return Attempt(name, before.number + 1, group or before.group, digest)


def follows(before: Attempt, now: Attempt | None, left: int) -> Attempt | None:
    """The attempt to submit for who waits for a job; None: there is nothing to submit.

    Args:
        before: The attempt that was submitted.
        now: The job's newest one, as it stands; None: the cluster knows none, since its
            head was lost and another took its place.
        left: How many attempts may still be spent on losses.
    """
    if left < 1 or (now is not None and not now.lost):
        return None
    number = max(before.number, now.number if now else 0)
    return Attempt(before.name, number + 1, before.group, before.digest)


def named(jobs: Mapping[str, Attempt], name: str) -> Attempt:
    """The newest attempt of a job.

    Raises:
        JobError: There is no such job.
    """
    if name not in jobs:
        known = ", ".join(sorted(jobs)) or "none"
        raise JobError(f"{name}: no such job; jobs there: {known}")
    return jobs[name]


def meant(jobs: Mapping[str, Attempt], name: str) -> list[Attempt]:
    """The job of a name; where there is none, the jobs of the group of that name.

    Raises:
        JobError: There is neither.
    """
    if name in jobs:
        return [jobs[name]]
    try:
        return grouped(jobs, name)
    except JobError as error:
        known = ", ".join(sorted(jobs)) or "none"
        groups = str(error).rpartition("; ")[2]
        line = f"{name}: no such job or group; jobs there: {known}; {groups}"
        raise JobError(line) from None


def grouped(jobs: Mapping[str, Attempt], group: str) -> list[Attempt]:
    """The jobs of a group.

    Raises:
        JobError: There is none.
    """
    found = [attempt for attempt in jobs.values() if attempt.group == group]
    if not found:
        groups = sorted({attempt.group for attempt in jobs.values()} - {""})
        known = ", ".join(groups) or "none"
        raise JobError(f"{group}: no such group; groups there: {known}")
    return found
