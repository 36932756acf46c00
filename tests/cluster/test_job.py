"""Jobs as values: names, attempts, how they stand."""

import dataclasses

import pytest

from pes_cluster.cluster.job import (
    Attempt,
    JobError,
    State,
    following,
    from_metadata,
    grouped,
    named,
    newest,
)

ENDED = Attempt("a", 1, "g", "digest", status="FAILED", exit_code=1)


@pytest.mark.parametrize(
    "status, exit_code, state, live",
    [
        ("PENDING", None, "waiting", True),
        ("RUNNING", None, "running", True),
        ("SUCCEEDED", 0, "finished", False),
        ("STOPPED", None, "stopped", False),
        ("FAILED", 1, "failed", False),
        ("FAILED", None, "failed", False),
        ("FAILED", 75, "failed", False),
        ("FAILED", 130, "stopped", False),
        ("FAILED", 143, "stopped", False),
    ],
)
def test_how_an_attempt_stands(
    status: str, exit_code: int | None, state: State, live: bool
) -> None:
    attempt = Attempt("a", 1, status=status, exit_code=exit_code)
    assert (attempt.state, attempt.live) == (state, live)


def test_an_attempt_comes_back_from_what_the_cluster_keeps() -> None:
    attempt = Attempt("a", 12, "g", "digest")
    assert from_metadata(attempt.metadata()) == attempt
    assert attempt.id == "a-012"


@pytest.mark.parametrize("fields", [{}, {"job_name": "x"}, {"pes_name": "a"}])
def test_other_jobs_of_a_cluster_are_none_of_ours(fields: dict[str, str]) -> None:
    assert from_metadata(fields) is None


def test_the_newest_attempt_says_how_a_job_stands() -> None:
    second = dataclasses.replace(ENDED, number=2, status="RUNNING", exit_code=None)
    other = Attempt("b", 1)
    for attempts in ([ENDED, second, other], [other, second, ENDED]):
        assert newest(attempts) == {"a": second, "b": other}


def test_a_name_that_ended_goes_on_in_its_group() -> None:
    assert following("a", "", "digest", ENDED) == Attempt("a", 2, "g", "digest")
    assert following("a", "h", "digest", ENDED).group == "h"
    assert following("a", "h", "digest", None) == Attempt("a", 1, "h", "digest")


@pytest.mark.parametrize(
    "name, digest, before, words",
    [
        ("a b", "digest", None, "letters"),
        ("", "digest", None, "letters"),
        ("-a", "digest", None, "letters"),
        ("a/b", "digest", None, "letters"),
        ("a;b", "digest", None, "letters"),
        ("a", "other", ENDED, "another run's name"),
        ("a", "digest", Attempt("a", 1, status="RUNNING"), "is running already"),
        ("a", "digest", Attempt("a", 1), "is waiting already"),
    ],
)
def test_names_that_are_refused(
    name: str, digest: str, before: Attempt | None, words: str
) -> None:
    with pytest.raises(JobError, match=words):
        following(name, "", digest, before)


def test_what_is_not_there_is_told_with_what_is() -> None:
    jobs = newest([ENDED, Attempt("b", 1, "h")])
    assert named(jobs, "a") == ENDED
    assert grouped(jobs, "g") == [ENDED]
    with pytest.raises(JobError, match=r"c: no such job; jobs there: a, b"):
        named(jobs, "c")
    with pytest.raises(JobError, match=r"i: no such group; groups there: g, h"):
        grouped(jobs, "i")
    with pytest.raises(JobError, match="none"):
        named({}, "a")
