"""Clusters that stop answering, as hosts do that are cut off; played by a server."""

import asyncio
import http.server
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from ray.job_submission import JobStatus

from pes_cluster.cluster.job import Attempt, JobError
from pes_cluster.cluster.marks import MARK
from pes_cluster.cluster.status import RunStatus
from pes_cluster.ray_backend import jobs
from pes_cluster.ray_backend.endpoint import Endpoint
from pes_cluster.ray_backend.jobs import Jobs

VERSION = {"version": "4", "ray_version": "2.60.0", "ray_commit": "0"}
ENDED = Attempt("a", 1, status="FAILED")

pytestmark = pytest.mark.timeout(60)


class Head(http.server.BaseHTTPRequestHandler):
    """Tells its version; the log of one job has gone, and the rest is silence."""

    over = threading.Event()

    def do_GET(self) -> None:
        """Answers, or does not."""
        if self.path == "/api/version":
            self._reply(200, json.dumps(VERSION))
        elif "gone-001/logs" in self.path:
            self._reply(500, "Cannot connect to host")
        elif "refused" in self.path:
            self._reply(403, "Forbidden")
        else:
            self.over.wait(50)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.setattr(jobs, "ANSWER_SECONDS", (1.0, 0.3))
    Head.over.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Head) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Jobs(Endpoint(f"http://127.0.0.1:{server.server_port}"))
        finally:
            Head.over.set()
            server.shutdown()
            thread.join()


def test_an_answer_that_does_not_come_is_not_waited_for_without_end(
    client: Jobs,
) -> None:
    with pytest.raises(JobError, match="timed out"):
        client.attempts()


def test_a_job_whose_log_went_with_its_node_has_no_last_words(client: Jobs) -> None:
    gone = Attempt("gone", 1, status="FAILED")
    assert client.last_words([gone]) == [None]
    assert client.statuses([gone]) == {}


def test_logs_that_do_not_come_are_waited_for_together(
    client: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [Attempt(name, 1, status="FAILED") for name in "abc"]
    together = threading.Barrier(len(silent))

    def log(attempt: Attempt) -> str:
        together.wait(20)  # Broken, were it one after the other.
        return f"{MARK}{RunStatus(attempt.name, 10).to_json()}\n"

    monkeypatch.setattr(client, "log", log)
    assert client.statuses(silent) == {n: RunStatus(n, 10) for n in "abc"}


def test_a_token_that_is_refused_under_way_is_told_in_one_line(client: Jobs) -> None:
    with pytest.raises(JobError, match=r"^http://127\.0\.0\.1:\d+: "):
        client.log(Attempt("refused", 1))
    with pytest.raises(JobError, match=r"^http://127\.0\.0\.1:\d+: .*403"):
        list(client.follow(Attempt("refused", 1)))


class Tail:
    """A job's log that falls silent, in Ray's client's place."""

    def __init__(self, *states: JobStatus | RuntimeError) -> None:
        self.states = list(states)

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        assert name == "a-001"
        yield "step 1\n"
        await asyncio.sleep(50)

    def get_job_status(self, name: str) -> JobStatus:
        assert name == "a-001"
        state = self.states.pop(0)
        if isinstance(state, RuntimeError):
            raise state
        return state


def followed(
    client: Jobs, monkeypatch: pytest.MonkeyPatch, *states: JobStatus | RuntimeError
) -> list[str]:
    monkeypatch.setattr(jobs, "SILENCE", 0.05)
    tail = Tail(*states)
    monkeypatch.setattr(client, "_client", tail)
    try:
        return list(client.follow(ENDED))
    finally:
        assert tail.states == []


def test_a_log_that_is_silent_ends_with_its_job(
    client: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = (JobStatus.RUNNING, JobStatus.RUNNING, JobStatus.FAILED)
    assert followed(client, monkeypatch, *states) == ["step 1\n"]


def test_a_log_that_is_silent_since_its_cluster_is_away_is_given_up(
    client: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobError, match="no route"):
        followed(client, monkeypatch, JobStatus.RUNNING, RuntimeError("no route"))


def test_a_question_may_take_as_long_as_its_asker_says(
    client: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        """A helper that answers at its third look."""

        looks = 0

        def get_job_status(self, name: str) -> JobStatus:
            del name
            self.looks += 1
            return JobStatus.RUNNING

        def get_job_logs(self, name: str) -> str:
            del name
            status = RunStatus("a", 10).to_json()
            said = f"{MARK}[{status}]\n{MARK}{jobs.END}\n"
            return said if self.looks > 2 else ""

        def stop_job(self, name: str) -> None:
            del name

    monkeypatch.setattr(jobs, "HELPER_SECONDS", 0.0)
    monkeypatch.setattr(client, "_client", Slow())
    monkeypatch.setattr(client, "start_helper", lambda arguments: "pes-helper-1")
    with pytest.raises(JobError, match="no answer of the helper job within 0 s"):
        client._help(["status", "a"])
    assert len(client._help(["ask", "a"], 20.0)) == 1
