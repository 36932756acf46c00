"""Staying with jobs, on a cluster that is played."""

import dataclasses
import pathlib
from typing import Any

import pytest

from pes_cluster.cluster.job import Attempt, JobError
from pes_cluster.cluster.settings import ClusterSettings
from pes_cluster.ray_backend import waiting
from pes_cluster.ray_backend.jobs import Entry

ENTRY = Entry({}, pathlib.Path("."), ClusterSettings())
FIRST = Attempt("a", 1)
LOST: dict[str, Any] = {"status": "FAILED", "error": "JOB_SUPERVISOR_ACTOR_DIED"}
RUNNING: dict[str, Any] = {"status": "RUNNING"}
FINISHED: dict[str, Any] = {"status": "SUCCEEDED", "exit_code": 0}
FAILED: dict[str, Any] = {"status": "FAILED", "exit_code": 1}


class Played:
    """A cluster of which every look is given: how the newest attempt stands."""

    def __init__(self, *looks: dict[str, Any] | JobError | None) -> None:
        self._looks, self.submitted = list(looks), [FIRST]

    def attempts(self) -> list[Attempt]:
        look = self._looks.pop(0)
        if isinstance(look, JobError):
            raise look
        if look is None:
            return []
        return [dataclasses.replace(self.submitted[-1], **look)]

    def submit(self, attempt: Attempt, entry: Entry) -> None:
        assert entry is ENTRY
        self.submitted.append(attempt)

    def log(self, attempt: Attempt) -> str:
        del attempt
        return "step 1\npes: the first\npes: sigma: must be positive\n"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PERIOD", 0.0)


def waited(played: Any, losses: int = 2) -> tuple[Attempt, list[str]]:
    said: list[str] = []
    (ended,) = waiting.wait(played, {FIRST: ENTRY}, losses, said.append)
    return ended, said


def test_it_is_said_how_a_job_goes_on_and_ends() -> None:
    ended, said = waited(Played({}, RUNNING, RUNNING, FINISHED))
    assert ended.state == "finished"
    assert said == ["a: waiting", "a: running", "a: finished"]


def test_a_job_that_is_lost_goes_on_elsewhere() -> None:
    played = Played(RUNNING, LOST, RUNNING, FINISHED)
    ended, said = waited(played)
    assert (ended.number, ended.state) == (2, "finished")
    assert [attempt.number for attempt in played.submitted] == [1, 2]
    assert "a: was lost with its node; goes on, attempt 2" in said


def test_a_head_that_forgot_the_job_is_told_again() -> None:
    played = Played(RUNNING, JobError("no cluster answers"), None, RUNNING, FINISHED)
    ended, _ = waited(played)
    assert (ended.number, ended.state) == (2, "finished")


def test_a_budget_that_is_used_up_ends_the_wait() -> None:
    played = Played(LOST, LOST, LOST)
    ended, said = waited(played, losses=2)
    assert (ended.number, ended.state) == (3, "failed")
    assert said[-1].startswith("a: failed")


def test_a_job_that_fails_by_itself_is_not_tried_again() -> None:
    played = Played(RUNNING, FAILED)
    ended, said = waited(played)
    assert ended.state == "failed" and len(played.submitted) == 1
    assert said[-1] == "a: failed (sigma: must be positive)"


def test_a_cluster_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "AWAY_SECONDS", 0.0)
    with pytest.raises(JobError, match="no cluster answers; given up after 0 s"):
        waited(Played(JobError("no cluster answers")))


def test_a_job_that_is_refused_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full(Played):
        """It takes no more jobs, and has another one that goes on."""

        def attempts(self) -> list[Attempt]:
            look = self._looks.pop(0)
            assert isinstance(look, dict)
            return [dataclasses.replace(FIRST, **LOST), Attempt("b", 1, **look)]

        def submit(self, attempt: Attempt, entry: Entry) -> None:
            raise JobError("takes no jobs")

    monkeypatch.setattr(waiting, "AWAY_SECONDS", -1.0)
    full: Any = Full(RUNNING, FINISHED)
    said: list[str] = []
    both = {FIRST: ENTRY, Attempt("b", 1): ENTRY}
    lost, other = waiting.wait(full, both, 1, said.append)
    assert (lost.state, other.state) == ("failed", "finished")
    assert said[0] == "a: failed (takes no jobs; given up after -1 s)"
    assert said[1:] == ["b: running", "b: finished"]


def test_a_job_that_is_forgotten_and_not_to_be_submitted_again_has_failed() -> None:
    ended, said = waited(Played(RUNNING, None), losses=0)
    assert ended.state == "failed"
    assert said == ["a: running", "a: failed (the cluster knows no such job)"]


def test_a_log_that_went_with_its_node_is_no_reason_to_be_silent() -> None:
    class Mute(Played):
        def log(self, attempt: Attempt) -> str:
            raise JobError("no log")

    ended, said = waited(Mute(LOST | {"message": "its node died"}), losses=0)
    assert ended.state == "failed" and said == ["a: failed (its node died)"]
