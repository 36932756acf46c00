"""Jobs as values: names, attempts, how they stand."""

import dataclasses
import itertools

import pytest

from pes_cluster.cluster.job import (
    Attempt,
    JobError,
    State,
    following,
    follows,
    from_metadata,
    grouped,
    meant,
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


def test_jobs_stand_in_the_order_in_which_they_were_submitted() -> None:
    first, second = Attempt("b", 1, began=1.0), Attempt("a", 1, began=2.0)
    again, last = Attempt("b", 2, began=3.0), Attempt("c", 1)
    for attempts in itertools.permutations([first, second, again, last]):
        assert list(newest(attempts).items()) == [
            ("b", again),
            ("a", second),
            ("c", last),
        ]


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


DIED = Attempt("a", 3, "g", "digest", "FAILED", error="JOB_SUPERVISOR_ACTOR_DIED")


@pytest.mark.parametrize(
    "attempt, lost",
    [
        (DIED, True),
        (dataclasses.replace(ENDED, exit_code=75), True),
        (ENDED, False),
        (dataclasses.replace(DIED, error="RUNTIME_ENV_SETUP_FAILURE"), False),
        (dataclasses.replace(DIED, status="STOPPED"), False),
        (dataclasses.replace(DIED, status="RUNNING"), False),
        (dataclasses.replace(DIED, exit_code=143), False),
    ],
)
def test_what_was_lost_with_where_it_ran(attempt: Attempt, lost: bool) -> None:
    assert attempt.lost == lost


def test_what_was_lost_goes_on_within_its_budget() -> None:
    before, after = Attempt("a", 3, "g", "digest"), Attempt("a", 4, "g", "digest")
    assert follows(before, DIED, 1) == after
    assert follows(before, DIED, 0) is None
    assert follows(before, None, 1) == after  # A new head knows nothing of it.
    assert follows(before, None, 0) is None
    assert follows(before, dataclasses.replace(ENDED, number=3), 1) is None
    # Somebody else has submitted it again.
    assert follows(before, dataclasses.replace(before, number=7), 1) is None
    seven = dataclasses.replace(DIED, number=7)
    assert follows(before, seven, 1) == dataclasses.replace(after, number=8)


def test_a_name_means_a_job_or_else_a_group() -> None:
    one, two = Attempt("a", 1, "g"), Attempt("g", 1, "h")
    jobs = {"a": one, "g": two}
    assert meant(jobs, "a") == [one] and meant(jobs, "g") == [two]
    assert meant(jobs, "h") == [two]
    line = "x: no such job or group; jobs there: a, g; groups there: g, h"
    with pytest.raises(JobError, match=f"^{line}$"):
        meant(jobs, "x")
