"""Jobs over Ray's own Jobs SDK: submitted, listed, followed, asked, stopped."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import pathlib
import re
import shlex
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import requests
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobSubmissionClient

from pes_cluster.cluster.control import Answer, Command, to_json
from pes_cluster.cluster.job import Attempt, JobError, from_metadata
from pes_cluster.cluster.marks import HISTORY, MARK, marked
from pes_cluster.cluster.settings import ClusterSettings
from pes_cluster.cluster.status import RunStatus, all_from_json, from_json
from pes_cluster.metrics.history import History, from_text
from pes_cluster.ray_backend import endpoint as endpoints
from pes_cluster.ray_backend.endpoint import Endpoint
from pes_cluster.ray_backend.environment import DRIVER
from pes_cluster.ray_backend.inquiry import END, READING
from pes_cluster.ray_backend.room import lacking, placed, total

logger = logging.getLogger(__name__)

SAVE_SECONDS = 120  # For the last checkpoint of a job that is to stop.
HELPER_SECONDS = 60.0  # For a helper job to be placed, and to begin.
ANSWER_SECONDS = (10.0, 30.0)  # For a connection, and for an answer over it.
SILENCE = 30.0  # Of a log that is followed, until its job is asked after.
_POLL = 0.2
_AT_ONCE = 16  # Logs.
# What Ray's client raises; of the last two not all are `OSError`.
_RAISED = (
    *(RuntimeError, ValueError, OSError, RayError),
    *(requests.RequestException, aiohttp.ClientError),
)
# They tell of every upload and connection, of every log that ends, and of what Ray
# leaves out of a working directory by itself.
_LOUD = {
    "ray.dashboard.modules.dashboard_sdk": logging.WARNING,
    "ray.dashboard.modules.job.sdk": logging.WARNING,
    "ray._private.runtime_env.packaging": logging.WARNING,
    "ray._private.runtime_env.working_dir": logging.ERROR,
}
_HELPER = "pes-helper-"
_SETTLED = 10.0  # Seconds after which Ray no longer looks after a job that ended.
_EXCLUDED = [".git", ".venv", "__pycache__", "runs", "*.egg-info"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a job runs.

    Attributes:
        env: Environment of its driver and of its shards.
        working_dir: Folder that travels with it.
        cluster: What it asks of the cluster.
    """

    env: Mapping[str, str]
    working_dir: pathlib.Path
    cluster: ClusterSettings


class _Client(JobSubmissionClient):
    """Ray's own, which would wait for ever for a host that was cut off."""

    def _do_request(self, *args: Any, **kwargs: Any) -> requests.Response:
        return super()._do_request(*args, **{"timeout": ANSWER_SECONDS} | kwargs)


class Jobs:
    """A client of one cluster, which `endpoint.check` has found to be there."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        for name, level in _LOUD.items():
            logging.getLogger(name).setLevel(level)
        with self._refusals():
            headers = dict(endpoint.headers)
            self._client = _Client(endpoint.address, headers=headers)

    def attempts(self) -> list[Attempt]:
        """All attempts of all jobs; other jobs of the cluster are passed over."""
        with self._refusals():
            details = self._client.list_jobs()
        found = [_attempt(one) for one in details]
        return [attempt for attempt in found if attempt is not None]

    def check(self, clusters: Sequence[ClusterSettings]) -> str | None:
        """Refuses what the nodes that are there cannot hold.

        Returns:
            What is to be said of where the drivers go, if it is not as it should be.

        Raises:
            JobError: One line with what was asked and what there is.
        """
        offers = endpoints.offers(self._endpoint)
        for cluster in clusters:
            line = lacking(cluster, offers)
            if line is not None:
                raise JobError(f"cluster.{line}")
        # Those that compute themselves ask for CPUs, and go where some are.
        return placed(offers) if any(one.pool == "ray" for one in clusters) else None

    def submit(self, attempt: Attempt, entry: Entry) -> None:
        """Submits an attempt; returns when the cluster has taken it."""
        runtime_env = {
            "working_dir": str(entry.working_dir),
            "excludes": excluded(entry.working_dir, self._endpoint.token_file),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(SAVE_SECONDS), **entry.env},
        }
        command = f"exec python -m pes_cluster job {attempt.name}"
        self._submit(attempt, command, runtime_env, entry.cluster)

    def resubmit(self, before: Attempt, cluster: ClusterSettings) -> Attempt:
        """Submits the next attempt of a job that has ended, as the last one was."""
        attempt = dataclasses.replace(before, number=before.number + 1)
        with self._refusals():
            details = self._client.get_job_info(before.id)
        self._submit(attempt, details.entrypoint, details.runtime_env or {}, cluster)
        return attempt

    def environment(self, attempt: Attempt) -> dict[str, str]:
        """The environment that an attempt was submitted with."""
        with self._refusals():
            details = self._client.get_job_info(attempt.id)
        return dict((details.runtime_env or {}).get("env_vars", {}))

    def stop(self, attempt: Attempt) -> Attempt:
        """Stops an attempt, which saves first; returns it as it ended."""
        with self._refusals():
            self._client.stop_job(attempt.id)
        return self._ended(attempt, SAVE_SECONDS + 10.0)

    def log(self, attempt: Attempt) -> str:
        """What an attempt has printed so far."""
        with self._refusals():
            return self._client.get_job_logs(attempt.id)

    def follow(self, attempt: Attempt) -> Iterator[str]:
        """What an attempt prints, until it ends."""
        return self.follow_job(attempt.id)

    def follow_job(self, name: str) -> Iterator[str]:
        """What a job of this id prints, until it ends."""
        with self._refusals(), asyncio.Runner() as runner:
            parts = aiter(self._client.tail_job_logs(name))
            while (part := runner.run(self._next(name, parts))) is not None:
                yield part

    async def _next(self, name: str, parts: Any) -> str | None:
        """The next part of a job's log; None: there will be none.

        A connection whose other end was cut off tells nothing: a log that is silent may
        be at its end, or its cluster away.
        """
        part = asyncio.ensure_future(anext(parts, None))
        try:
            while not (await asyncio.wait([part], timeout=SILENCE))[0]:
                if self._client.get_job_status(name).is_terminal():
                    return None
            return part.result()
        finally:
            part.cancel()

    def statuses(self, attempts: Sequence[Attempt]) -> dict[str, RunStatus]:
        """How runs stand, by name, as far as they have said."""
        seen: dict[str, RunStatus] = {}
        running = [one.name for one in attempts if one.state == "running"]
        if running:
            (line,) = self._help(["status", *running])
            seen = {status.name: status for status in all_from_json(line)}
        told = self.last_words([one for one in attempts if not one.live])
        return seen | {last.name: last for last in told if last is not None}

    def last_words(self, attempts: Sequence[Attempt]) -> list[RunStatus | None]:
        """How attempts that have ended stood then, as far as they have said so."""
        # All at once: a log whose node is cut off is waited for until a time-out.
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(threads.map(self._last_words, attempts))

    def _last_words(self, attempt: Attempt) -> RunStatus | None:
        line = self._left(attempt, MARK)
        with contextlib.suppress(ValueError):  # Another version's.
            return None if line is None else from_json(line)
        return None

    def histories(self, attempts: Sequence[Attempt]) -> dict[str, History]:
        """What jobs have to show, by name.

        Those that run say it themselves; the others have left it in the log of their
        newest attempt that could. A driver that was killed could not.

        Args:
            attempts: All of these jobs.
        """
        running = sorted({one.name for one in attempts if one.state == "running"})
        told = self._help(["history", *running], READING) if running else []
        found = {one.name: one for one in map(_history, told)}
        for attempt in sorted(attempts, key=lambda one: one.number, reverse=True):
            if attempt.name not in found and (left := self._left(attempt, HISTORY)):
                found[attempt.name] = _history(left)
        return found

    def ask(self, name: str, command: Command, seconds: float) -> Answer | None:
        """Hands a command to a run; None: no answer in time."""
        (line,) = self._help(["ask", name, to_json(command), str(seconds)], seconds)
        fields = json.loads(line)
        return fields and Answer(bool(fields["done"]), str(fields["line"]))

    def _submit(
        self,
        attempt: Attempt,
        command: str,
        runtime_env: dict[str, Any],
        cluster: ClusterSettings,
    ) -> None:
        with self._refusals():
            self._client.submit_job(
                entrypoint=command,
                submission_id=attempt.id,
                runtime_env=runtime_env,
                metadata=attempt.metadata(),
                **placement(cluster, total(endpoints.offers(self._endpoint))),
            )

    def start_helper(self, arguments: Sequence[str]) -> str:
        """Starts a helper on the cluster; returns its id."""
        words = ["python", "-m", "pes_cluster.ray_backend.inquiry", *arguments]
        name = f"{_HELPER}{uuid.uuid4().hex[:12]}"
        with self._refusals():
            self._forget_helpers()
            self._client.submit_job(
                entrypoint="exec " + shlex.join(words), submission_id=name
            )
        return name

    def stop_helper(self, name: str) -> None:
        """Asks a helper to end."""
        with self._refusals():
            self._client.stop_job(name)

    def _forget_helpers(self) -> None:
        """Deletes the helpers of earlier questions.

        Not as soon as they end: Ray would write them down again, as failed.
        """
        for one in self._client.list_jobs():
            name, ended = one.submission_id or "", _seconds(one.end_time)
            settled = ended is not None and time.time() - ended > _SETTLED
            if settled and name.startswith(_HELPER):
                with contextlib.suppress(RuntimeError):  # Another client has.
                    self._client.delete_job(name)

    def _help(self, arguments: Sequence[str], seconds: float = 0.0) -> list[str]:
        """Runs a helper on the cluster and returns its lines, once it has said all.

        Args:
            arguments: What is asked.
            seconds: That it may take to answer, once it has begun.
        """
        limit = HELPER_SECONDS + seconds
        name, end = self.start_helper(arguments), time.monotonic() + limit
        with self._refusals():
            while time.monotonic() < end:
                # Asked before the log: what has ended has said all that it will.
                ended = self._client.get_job_status(name).is_terminal()
                log = self._client.get_job_logs(name)
                said = marked(log[: log.rfind("\n") + 1])
                if END in said:
                    return said[: said.index(END)]
                if ended:
                    message = self._client.get_job_info(name).message
                    last = (log.strip() or message or "").splitlines()[-1:]
                    raise JobError(f"the helper job failed: {''.join(last)}")
                time.sleep(_POLL)
            self._client.stop_job(name)
        raise JobError(f"no answer of the helper job within {limit:g} s")

    def _left(self, attempt: Attempt, mark: str) -> str | None:
        """What an attempt has left in its log behind a mark, if any."""
        try:
            lines = marked(self.log(attempt), mark)
            return lines[-1] if lines else None
        except JobError as error:
            # Logs go with the node that they lie on.
            logger.info("%s: no log (%s)", attempt.id, error)
            return None

    def _ended(self, attempt: Attempt, seconds: float) -> Attempt:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self._refusals():
                found = _attempt(self._client.get_job_info(attempt.id))
            if found is not None and not found.live:
                return found
            time.sleep(_POLL)
        raise JobError(f"{attempt.name}: has not ended within {seconds:g} s")

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turns what Ray raises into one line that names the cluster."""
        try:
            yield
        except JobError:
            raise
        except _RAISED as error:
            line = " ".join(str(error).split())
            raise JobError(f"{self._endpoint.address}: {line[:500]}") from None


def excluded(working_dir: pathlib.Path, token_file: pathlib.Path | None) -> list[str]:
    """What of a working directory does not travel, as patterns of `.gitignore`.

    The token above all: the job's package is kept by the cluster.
    """
    names = list(_EXCLUDED)
    if token_file is not None:
        # By both names, where one is a link to the other.
        root = working_dir.resolve()
        for path in {token_file.resolve(), token_file.absolute()}:
            if path.is_relative_to(root):
                inside = path.relative_to(root).as_posix()
                names.append("/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", inside))
    return names


def advice(log: str) -> str | None:
    """What to do about a job whose log says that our package is not there; pure."""
    if "No module named pes_cluster" not in log:
        return None
    return "its node has no pes_cluster: install it on every node, or in their image"


def placement(cluster: ClusterSettings, there: Mapping[str, float]) -> dict[str, Any]:
    """Where a driver goes: to nodes for drivers, where there are; pure.

    One that computes in its own process takes the room of a shard.
    """
    chosen: dict[str, Any] = {}
    if there.get(DRIVER):
        chosen["entrypoint_resources"] = {DRIVER: 1}
    if cluster.pool == "local":
        chosen["entrypoint_num_cpus"] = cluster.per_shard.num_cpus
        chosen["entrypoint_num_gpus"] = cluster.per_shard.num_gpus
    return {name: value for name, value in chosen.items() if value}


def _attempt(details: JobDetails) -> Attempt | None:
    attempt = from_metadata(details.metadata or {})
    return attempt and dataclasses.replace(
        attempt,
        status=str(details.status),
        exit_code=details.driver_exit_code,
        message=details.message or "",
        error=details.error_type or "",
        began=_seconds(details.start_time),
        ended=_seconds(details.end_time),
    )


def _history(line: str) -> History:
    try:
        return from_text(line)
    except ValueError:
        raise JobError(
            "what a job has to show is not understood; has the cluster another "
            "version of pes_cluster?"
        ) from None


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
